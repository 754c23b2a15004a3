"""Code blocks of the README and the quickstart, run in order against a real gateway, as a reader does."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ("README.md", "docs/quickstart.md")
RUNNABLE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE_SECONDS = 120
STOP_SECONDS = 60


class Block(NamedTuple):
    """One runnable block and the line on which its page has it."""

    page: str
    line: int
    language: str
    code: str


@pytest.fixture(scope="module")
def reader(memory_folder: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody who followed the first steps; a gateway runs in a home of its own."""
    home = memory_folder / "docs-home"
    own = {
        "ANTIPHON_HOME": str(home),
        "ANTIPHON_BIND": f"127.0.0.1:{free_port()}",
        "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "NO_PROXY": "127.0.0.1",
    }
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")} | own
    command = [sys.executable, "-m", "gateway.cli", "up", "--json"]
    errors = memory_folder / "docs-up.log"
    options = {"env": environ, "cwd": memory_folder, "text": True}
    with (
        errors.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, **options) as up,
    ):
        try:
            assert up.stdout is not None
            line = up.stdout.readline()
            assert line, errors.read_text()
            ready = json.loads(line)
            yield environ | {"ANTIPHON_BASE_URL": ready["base_url"], "ANTIPHON_API_KEY": ready["live_key"]}
        finally:
            up.terminate()
            up.wait(timeout=STOP_SECONDS)
    shutil.rmtree(home)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(page, text[: match.start()].count("\n") + 1, match[1], match[2])
        for match in RUNNABLE.finditer(text)
    ]


def as_one_script(page: str) -> str:
    """Shell blocks share one shell, as in a reader's terminal; a Python block is a program of its own."""
    lines = ["set -eu -o pipefail"]
    for block in blocks(page):
        lines.append(f"echo '### {block.page}:{block.line}' | tee /dev/stderr")
        if block.language == "sh":
            lines.append(block.code)
        else:
            lines.append(f"python - <<'END OF BLOCK'\n{block.code}END OF BLOCK")
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_as_it_stands(page: str, reader: dict[str, str], scratch: Path) -> None:
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    answer = subprocess.run(
        ["bash", "-c", as_one_script(page)],
        env=reader,
        cwd=scratch,
        capture_output=True,
        text=True,
        timeout=PAGE_SECONDS,
        check=False,
    )
    assert answer.returncode == 0, f"{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
    assert '{"error"' not in answer.stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_blocks_of_both_languages(page: str) -> None:
    # A changed fence would otherwise turn the test above into one of nothing.
    assert {block.language for block in blocks(page)} == {"sh", "python"}
