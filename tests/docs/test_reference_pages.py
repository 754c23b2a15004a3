"""Reference pages that must say exactly what the code says."""

import ast
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from litestar.routes import HTTPRoute

from gateway.app import create_app
from tests.docs.code_blocks import Block, blocks, run_shell
from tests.docs.stack import Payments, Stack, finished, submit
from tests.gateway.api.installation import running

ROOT = Path(__file__).resolve().parent.parent.parent
ROW = re.compile(r"^\| `([A-Z_0-9]+)` \|", re.MULTILINE)
GENERATORS = ("generate_errors.py", "generate_api.py", "generate_memory.py", "generate_index.py")
REFERENCE = "docs/api.md"
ROUTE = re.compile(r"`((?:GET|HEAD|POST|PUT|PATCH|DELETE) /[^`]*)`")
JSON_BLOCK = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK_SECONDS = 120


def variables_read() -> set[str]:
    """What the only reader of the environment passes to `environ.get(...)` and `environ[...]`."""
    tree = ast.parse((ROOT / "gateway" / "settings.py").read_text())
    calls = [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "environ.get"
    ]
    keys = [
        node.slice
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "environ"
    ]
    return {node.value for node in [*calls, *keys] if isinstance(node, ast.Constant)}


def sections() -> dict[str, str]:
    """The reference's second-level sections by their headings."""
    parts = re.split(r"^## (.+)\n", (ROOT / REFERENCE).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table_rows() -> Iterator[tuple[str, str]]:
    """Section and line of every row of the reference that explains a field."""
    for section, text in sections().items():
        for line in text.splitlines():
            if line.startswith("| `") and not ROUTE.search(line) and not re.match(r"\| `\d{3}`", line):
                yield section, line


def same_shape(example: Any, real: Any, where: str = "answer") -> Iterator[str]:
    """Where an answer has other fields, or other kinds of values, than the example of the page."""
    if example is None or real is None:
        return
    if isinstance(example, dict) and isinstance(real, dict):
        if where.endswith(".parameters"):  # by name, and each model has others
            example = {name: example[name] for name in example if name in real}
            real = {name: real[name] for name in example}
        if set(example) != set(real):
            yield f"{where}: {sorted(set(example) ^ set(real))}"
        for name in set(example) & set(real):
            yield from same_shape(example[name], real[name], f"{where}.{name}")
    elif isinstance(example, list) and isinstance(real, list):
        if example and real:
            yield from same_shape(example[0], real[0], f"{where}[0]")
    elif isinstance(example, float | int) is not isinstance(real, float | int):
        yield f"{where}: {example!r} or {real!r}"


@pytest.fixture(scope="module")
def song(stack: Stack) -> dict[str, Any]:
    """A finished job, of which a webhook endpoint is told."""
    webhook_endpoint(stack)
    with stack.client() as client:
        return finished(client, submit(client))


def test_the_configuration_page_lists_what_settings_read() -> None:
    listed = ROW.findall((ROOT / "docs" / "configuration.md").read_text())
    assert "ANTIPHON_HOME" in listed
    assert sorted(listed) == sorted(variables_read())


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_generated_page_is_what_its_generator_makes(generator: str) -> None:
    answer = subprocess.run(
        [sys.executable, ROOT / "docs" / generator, "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_makefile_makes_every_generated_page() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert sorted(path.name for path in (ROOT / "docs").glob("generate_*.py")) == sorted(GENERATORS)
    for generator in GENERATORS:
        assert f"docs/{generator}" in makefile


async def test_every_route_of_the_app_is_in_the_reference(database: str, scratch: Path) -> None:
    async with running(database, scratch) as installation:
        app = create_app(installation.live)
    there = {
        f"{method} {re.sub(r':[a-z]+}', '}', route.path)}"
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods - {"OPTIONS"}
    }
    assert "POST /v1/audio/generations" in there
    assert set(ROUTE.findall((ROOT / REFERENCE).read_text())) == there


def test_every_field_and_route_of_the_reference_is_explained() -> None:
    rows = list(table_rows())
    assert len(rows) > 100
    assert [row for row in rows if re.search(r"\|\s*\|$", row[1])] == []
    assert "|  |\n" not in sections()["Beside the API"]


def test_no_word_of_the_reference_is_left_of_a_field_that_is_gone(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    words = runpy.run_path(str(ROOT / "docs" / "api_words.py"))
    with stack.client() as client:
        document = client.get("/docs/openapi.json").raise_for_status().json()
    schemas = document["components"]["schemas"]
    gone = [
        f"{name}.{field}"
        for name, fields in words["FIELDS"].items()
        for field in fields
        if field not in schemas.get(name, {}).get("properties", {})
    ]
    assert gone == []
    routes = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    for table in ("QUERIES", "CHANGES", "HEADERS", "STREAMS"):
        assert set(words[table]) <= routes


def uploaded(stack: Stack, folder: Path) -> str:
    """Id of a new file, of a second of noise that also lies in `folder`."""
    path = folder / "song.flac"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.1, 0.1, (48_000, 2)), 48_000)
    with stack.client() as client, path.open("rb") as file:
        return str(client.post("/v1/files", files={"file": file}).raise_for_status().json()["id"])


def paid_top_up(stack: Stack, payments: Payments) -> str:
    """Its id; the card that it was paid with is saved."""
    with stack.client() as client:
        answer = client.post("/v1/topups", json={"amount_usd": "20", "save_card": True})
        assert answer.status_code == 201, answer.text
        top_up = answer.json()
        payments.pay(top_up["url"])
        assert client.get("/v1/payment_method").json()["card"] is not None
    return str(top_up["id"])


def webhook_endpoint(stack: Stack) -> str:
    """Id of a new one, which nobody can reach."""
    with stack.client() as client:
        answer = client.post(
            "/v1/webhooks", json={"url": "http://hooks.invalid/", "events": ["job.completed"]}
        )
        return str(answer.raise_for_status().json()["id"])


def delivery_of(stack: Stack, job: dict[str, Any]) -> str:
    """Id of the first one."""
    with stack.client() as client:
        answer = client.get("/v1/webhooks/deliveries", params={"job_id": job["id"]})
        return str(answer.raise_for_status().json()["data"][-1]["id"])


@pytest.mark.parametrize("block", blocks(REFERENCE), ids=lambda block: block.heading)
def test_an_example_of_the_reference_runs_and_gets_what_the_page_says(
    block: Block, stack: Stack, payments: Payments, song: dict[str, Any], scratch: Path
) -> None:
    section = sections()[block.heading]
    top_up = paid_top_up(stack, payments) if ", scope `billing`" in section else ""
    is_hook = ", scope `webhooks`" in section
    job = song
    if "$JOB" in block.code and ", scope `generate`" in section:  # to be cancelled: it must not have ended
        with stack.client() as client:
            client.headers["x-api-key"] = json.loads((stack.home / "keys.json").read_text())["test_key"]
            job = submit(client, prompt="slow:60")
    ids = {
        "JOB": job["id"],
        "TOPUP": top_up,
        "FILE": uploaded(stack, scratch),
        "ENDPOINT": webhook_endpoint(stack) if is_hook else "",
        "DELIVERY": delivery_of(stack, song) if is_hook else "",
    }
    answer = run_shell(
        block.code,
        environ=stack.environ | ids,
        folder=scratch,
        seconds=BLOCK_SECONDS,
    )
    assert answer.returncode == 0, answer.stderr
    example = JSON_BLOCK.search(section)
    if example is None:
        assert "event: completed\n" in answer.stdout
        assert "event: completed\n" in section
        return
    assert list(same_shape(json.loads(example[1]), json.loads(answer.stdout))) == []
