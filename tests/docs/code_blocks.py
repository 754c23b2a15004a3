"""Runnable code of a page, and a shell that runs it as a reader's terminal does."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
RUNNABLE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
ANY_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One runnable block, the line on which its page has it, and the heading above it."""

    page: str
    line: int
    language: str
    code: str
    heading: str


def blocks(page: str, *headings: str) -> list[Block]:
    """All of a page, or those directly below some headings, in the page's order."""
    text = (ROOT / page).read_text()
    # A comment in a block looks like a heading.
    plain = ANY_BLOCK.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found = [
        Block(page, text[: match.start()].count("\n") + 1, match[1], match[2], _heading(plain, match.start()))
        for match in RUNNABLE.finditer(text)
    ]
    assert set(headings) <= {block.heading for block in found}
    return [block for block in found if not headings or block.heading in headings]


def _heading(plain: str, position: int) -> str:
    above = HEADING.findall(plain[:position])
    return above[-1] if above else ""


def as_one_script(parts: Sequence[Block]) -> str:
    """Shell blocks share one shell, as in a reader's terminal; a Python block is a program of its own."""
    lines = ["set -eu -o pipefail"]
    for block in parts:
        lines.append(f"echo '### {block.page}:{block.line}' | tee /dev/stderr")
        if block.language == "sh":
            lines.append(block.code)
        else:
            lines.append(f"python - <<'END OF BLOCK'\n{block.code}END OF BLOCK")
    return "\n".join(lines)


def run_shell(
    script: str, *, environ: dict[str, str], folder: Path, seconds: float
) -> "subprocess.CompletedProcess[str]":
    """Run it to its end; whatever it started and left behind ends with it."""
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with subprocess.Popen(
        ["bash", "-c", script],
        env=environ,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, errors = shell.communicate(timeout=seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(script, shell.returncode, output, errors)
