"""Every benchmark runs and prints its lines; what they measure is for people to judge, never for a test."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import stack
from benchmarks.harness.load import LoadProcess, Plan
from benchmarks.harness.traffic import submit_requests

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_SECONDS = 400
WRITES = "pgbench, one-row transaction, 32 clients"
READS = "pgbench, select of one row, 32 clients"
COMPOSER = "composer alone, 1 thread"
STATEMENTS = "single statements, 64 clients"
LINES = {
    "admission": {
        "POST /v1/audio/generations, 1 account": WRITES,
        "POST /v1/audio/generations, 50 accounts": WRITES,
        "GET /v1/jobs/{id}": READS,
    },
    "ledger": {
        "ledger alone, 64 clients": STATEMENTS,
        "ledger alone, 512 clients": STATEMENTS,
        "with job rows, 64 clients": STATEMENTS,
        "with job rows, 512 clients": STATEMENTS,
    },
    "verify": {"ledger verify": None, "export --csv": None, "export --json": None},
    "big_table": {
        "POST, 1 account, 5,000 jobs": "POST, 1 account, 50 jobs",
        "POST, 50 accounts, 5,000 jobs": "POST, 50 accounts, 50 jobs",
        "GET /v1/jobs/{id}, 5,000 jobs": "GET /v1/jobs/{id}, 50 jobs",
    },
    "memory": {"POST, 50 accounts": None},
    "songs": {
        "flac, one at a time": COMPOSER,
        "mp3, one at a time": COMPOSER,
        "flac, 1 worker": COMPOSER,
        "mp3, 1 worker": COMPOSER,
        "flac, 2 workers": COMPOSER,
        "mp3, 2 workers": COMPOSER,
    },
    "live": {"with 50 streams and a worker": "polls alone"},
}
"""Each benchmark's measured lines and the baseline that each is divided by."""


def run(*arguments: str) -> str:
    answer = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    return answer.stdout


@pytest.fixture(scope="module", params=LINES)
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What one benchmark prints with --json."""
    name = request.param
    return {"name": name} | json.loads(run(f"benchmarks/{name}.py", "--quick", "--json"))


def test_every_line_is_measured_and_divided_by_its_baseline(document: dict[str, Any]) -> None:
    lines = {line["line"]: line for line in document["lines"]}
    for name, baseline in LINES[document["name"]].items():
        assert lines[name]["rate"] > 0
        assert lines[name]["failed"] == 0
        if baseline is not None:
            assert lines[name]["ratio"]["baseline"] == baseline
            assert min(lines[name]["ratio"]["values"]) > 0


def test_what_stands_beside_the_lines_is_there(document: dict[str, Any]) -> None:
    facts = document["facts"]
    match document["name"]:
        case "memory":
            assert facts["MiB after 2,000 submits, at rest"] > facts["MiB at the start"] > 10
        case "live":
            assert facts["errors"] == 0
            assert facts["streams answered"] >= 50
            assert facts["streams that saw their job's end"] > 0
            assert facts["events received"] > 50
        case "ledger":
            assert document["failures"] == []
            for books in ("single statements", "ledger alone", "with job rows"):
                assert int(facts[f"books checked, {books}"].split()[0].replace(",", "")) > 0
            assert facts["batches, ledger alone, 512 clients"].startswith("holds ")
        case "verify":
            assert document["failures"] == []
            assert "entries in" in facts["ledger verify"]
            assert facts["check at rest"].endswith("ms")
        case "big_table":
            assert "9,5" in facts["ledger verify"]  # some 9,500 entries: two for each completed job


def test_the_profile_sorts_both_kinds_of_requests_into_rooms() -> None:
    document = json.loads(run("benchmarks/profile_submit.py", "--seconds", "2", "--json"))
    for part in ("submits", "reads"):
        assert {"Litestar", "uvicorn, httptools", "lane, asyncpg"} <= document[part]["rooms"].keys()


def test_the_table_names_every_column_and_line() -> None:
    head, *lines = run("benchmarks/admission.py", "--quick", "--only", "reads").strip().splitlines()[1:]
    assert head.split()[:2] == ["per", "second"]
    assert head.split()[-1] == "ratio"
    assert lines[1].startswith("GET /v1/jobs/{id}")
    assert lines[1].endswith(f"of {READS}")


def test_an_answer_with_another_status_is_a_failure_and_no_figure() -> None:
    with stack.postgres() as server, LoadProcess() as load:
        stack.prepare_accounts(server.dsn, 1)
        with stack.http_process(server, server.dsn) as http:
            requests = submit_requests(["aph_live_of_nobody"])
            figures = load.run(Plan(port=http.port, requests=requests, expected=b"202", count=10, clients=2))
    assert figures.succeeded == 0
    assert figures.failed == 10
    assert "invalid_api_key" in figures.first_failure
