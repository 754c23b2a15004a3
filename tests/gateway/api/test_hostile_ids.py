"""Somebody else's job is no different from one that never was: not in words, not in headers, not in work."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from gateway.ids import new_id, parse_id
from tests.gateway.api.installation import Customer, Installation

WAYS = [
    ("GET", "/v1/jobs/{id}"),
    ("GET", "/v1/jobs/{id}?include=attempts"),
    ("GET", "/v1/jobs/{id}/events"),
    ("DELETE", "/v1/jobs/{id}"),
    ("POST", "/v1/jobs/{id}/cancel"),
]


@pytest_asyncio.fixture(loop_scope="session")
async def strangers(customer: Customer, installation: Installation) -> dict[str, str]:
    """Ids that are not this customer's, of every kind."""
    other = await installation.customer()
    queued, done, running = [(await other.submitted())["id"] for _ in range(3)]
    await installation.finish(done)
    await installation.claim(running)
    project_key = await customer.key(project_id=await customer.project("theirs"))
    mine = (await customer.submitted(key=project_key))["id"]
    return {
        "queued": queued,
        "done": done,
        "running": running,
        "unknown": new_id().hex,
        "never": "0" * 32,
        "no id": "x" * 32,
        "not even long enough": "x",
        "spelled with dashes": str(new_id()),
        "of my project": mine,
    }


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the database is asked in the meantime."""
    asked: list[str] = []
    execute = asyncpg.connection.Connection._execute

    def note(conn: Any, query: str, *args: Any, **options: Any) -> Any:
        asked.append(query)
        return execute(conn, query, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.connection.Connection, "_execute", note)
        yield asked


def without_its_name(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    request_id = answer.headers["x-request-id"]
    headers = {name: value for name, value in answer.headers.items() if name not in {"x-request-id", "date"}}
    return answer.status_code, answer.text.replace(request_id, ""), headers


@pytest.mark.parametrize(("method", "path"), WAYS)
async def test_foreign_and_unknown_ids_get_the_same_answer(
    customer: Customer, installation: Installation, strangers: dict[str, str], method: str, path: str
) -> None:
    project_key = await customer.key(project_id=await customer.project("mine"))
    answers = {}
    for name, job_id in strangers.items():
        # What belongs to another project is foreign to a key of this one.
        key = project_key if name == "of my project" else customer.live_key
        answers[name] = await customer.http.request(
            method, path.format(id=job_id), headers=customer.headers(key)
        )
    shapes = {name: without_its_name(answer) for name, answer in answers.items()}
    assert {shape[0] for shape in shapes.values()} == {404}
    assert [name for name, shape in shapes.items() if shape != shapes["unknown"]] == []
    assert answers["done"].json()["error"]["code"] == "job_not_found"
    touched = await installation.live.pool.fetchval(
        "SELECT count(*) FROM job WHERE id = ANY($1) AND cancel_requested_at IS NOT NULL",
        [known for job_id in strangers.values() if (known := parse_id(job_id)) is not None],
    )
    assert touched == 0


@pytest.mark.parametrize(("method", "path"), WAYS)
async def test_foreign_and_unknown_ids_cost_the_same_work(
    customer: Customer,
    strangers: dict[str, str],
    method: str,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(job_id: str) -> list[str]:
        with statements(monkeypatch) as asked:
            answer = await customer.http.request(method, path.format(id=job_id), headers=customer.headers())
        assert answer.status_code == 404
        # Of this request alone: not the key's, nor those of what runs beside it.
        return [query for query in asked if re.search(r"organization_id = (\$1|wished)", query)]

    unknown = await work(strangers["unknown"])
    assert unknown
    for name in ("queued", "done", "running"):
        assert await work(strangers[name]) == unknown, name


async def test_a_foreign_cursor_is_a_place_in_time_and_nothing_else(
    customer: Customer, strangers: dict[str, str]
) -> None:
    mine = [(await customer.submitted())["id"] for _ in range(2)]
    foreign = {strangers[name] for name in ("queued", "done", "running")}
    for name in ("queued", "done", "unknown", "never"):
        page = (await customer.get("/v1/jobs", cursor=strangers[name])).json()
        assert foreign.isdisjoint(job["id"] for job in page["data"])
    page = (await customer.get("/v1/jobs", cursor=mine[1])).json()
    assert mine[0] in [job["id"] for job in page["data"]]


async def test_the_same_key_of_two_customers_makes_two_jobs(
    customer: Customer, installation: Installation
) -> None:
    other = await installation.customer()
    jobs = [await someone.submitted(idempotency_key="same") for someone in (customer, other)]
    assert jobs[0]["id"] != jobs[1]["id"]
    answer = await other.submit(idempotency_key="same")
    assert (answer.json()["id"], answer.headers["idempotent-replayed"]) == (jobs[1]["id"], "true")
