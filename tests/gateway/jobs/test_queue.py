"""The queue: each job has one owner at a time, and whoever lost it changes nothing."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from gateway.ids import new_id
from gateway.jobs import queue
from gateway.jobs.job import JobErrorCode, JobStatus
from gateway.jobs.queue import MAX_ATTEMPTS, Claim
from tests.factories import NANO_PER_SECOND, USD, violations
from tests.workbench import Workbench

COST = 10 * NANO_PER_SECOND


async def test_each_job_is_claimed_once_by_many_workers(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    await asyncio.gather(*(bench.submit(principal) for _ in range(60)))
    claims = await asyncio.gather(*(bench.claim(3) for _ in range(40)))
    owned = [claim.job_id for some in claims for claim in some]
    assert len(owned) == len(set(owned)) == 60
    assert await violations(database) == []


async def test_a_claim_carries_the_request_and_writes_its_attempt_first(bench: Workbench) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    claim = await bench.claim_one()
    assert (claim.job_id, claim.organization_id) == (job.id, principal.organization_id)
    assert (claim.request, claim.model, claim.test) == (job.request, "sandbox", False)
    assert (claim.fence, claim.attempt) == (1, 1)
    assert await bench.attempts(job.id) == [(1, "intent")]
    assert await bench.status(job.id) is JobStatus.PROCESSING


async def test_a_worker_takes_only_what_it_can_serve_and_has_room_for(bench: Workbench) -> None:
    principal = await bench.customer()
    for _ in range(3):
        await bench.submit(principal)
    assert await bench.claim(9, queues=["other"]) == []
    assert await bench.claim(9, queues=[]) == []
    assert len(await bench.claim(2, queues=["other", "sandbox"])) == 2


async def test_a_job_is_not_run_before_its_time(bench: Workbench) -> None:
    job = await bench.submit(await bench.customer())
    await bench.pool.execute("UPDATE job SET run_at = now() + interval '1 hour' WHERE id = $1", job.id)
    assert await bench.claim() == []


async def test_a_beat_extends_the_lease_and_progress_never_falls(bench: Workbench) -> None:
    claim = await _claimed(bench)
    await bench.lapse(claim)
    assert await bench.beat(claim, progress=0.5) == {claim.job_id: False}
    assert await bench.beat(claim, progress=0.2) == {claim.job_id: False}
    assert await bench.reap() == (0, 0)
    assert (await bench.row(claim.job_id))["progress"] == 0.5


async def test_a_lapsed_lease_is_queued_again_for_another_worker(bench: Workbench) -> None:
    claim = await _claimed(bench)
    await bench.lapse(claim)
    assert await bench.reap() == (1, 0)
    again = await bench.claim_one()
    assert (again.job_id, again.fence, again.attempt) == (claim.job_id, claim.fence + 1, 2)
    assert await bench.attempts(claim.job_id) == [(1, "failed"), (2, "intent")]


LateStep = Callable[[Workbench, Claim], Awaitable[object]]
LATE_STEPS: dict[str, LateStep] = {
    "deliver": lambda bench, claim: bench.deliver(claim),
    "deliver again": lambda bench, claim: bench.deliver(claim, retry=True),
    "fail": lambda bench, claim: bench.fail(claim),
    "beat": lambda bench, claim: bench.beat(claim),
    "give back": lambda bench, claim: bench.give_back(claim),
    "queue again": lambda bench, claim: bench.queue_again(claim),
}


@pytest.mark.parametrize("step", LATE_STEPS.values(), ids=LATE_STEPS)
@pytest.mark.parametrize("since", ["queued", "claimed", "delivered", "canceled"])
async def test_a_worker_that_lost_its_claim_changes_nothing(
    bench: Workbench, database: str, step: LateStep, since: str
) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    stale = await bench.claim_one()
    await bench.lapse(stale)
    await bench.reap()
    if since in {"claimed", "delivered"}:
        fresh = await bench.claim_one()
        if since == "delivered":
            await bench.deliver(fresh)
    if since == "canceled":
        await bench.jobs.cancel(principal, job.id)
    before = (await bench.row(job.id), await bench.attempts(job.id), await bench.balance(principal))
    await step(bench, stale)
    assert (await bench.row(job.id), await bench.attempts(job.id), await bench.balance(principal)) == before
    assert await violations(database) == []


async def test_jobs_given_back_cost_no_attempt_and_keep_their_place(bench: Workbench) -> None:
    principal = await bench.customer()
    first, second = [await bench.submit(principal) for _ in range(2)]
    for _ in range(MAX_ATTEMPTS + 1):
        claim = await bench.claim_one()
        assert (claim.job_id, claim.attempt) == (first.id, 1)
        await bench.give_back(claim)
    assert await bench.attempts(first.id) == []
    assert [claim.job_id for claim in await bench.claim(2)] == [first.id, second.id]


async def test_a_cancelled_job_that_is_given_back_is_not_rendered_anew(
    bench: Workbench, database: str
) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    claim = await bench.claim_one()
    await bench.jobs.cancel(principal, job.id)
    await bench.give_back(claim)
    assert await bench.claim() == []
    await bench.lapse(claim)
    await bench.reap()
    assert await bench.status(job.id) is JobStatus.CANCELED
    assert await violations(database) == []


async def test_a_job_that_ends_its_workers_too_often_fails_uncharged(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    for n in range(1, MAX_ATTEMPTS + 1):
        claim = await bench.claim_one()
        await bench.lapse(claim)
        assert await bench.reap() == ((1, 0) if n < MAX_ATTEMPTS else (0, 1))
    ended = await bench.jobs.read(principal, job.id)
    assert ended.status is JobStatus.FAILED
    assert ended.error is not None
    assert ended.error.code is JobErrorCode.UPSTREAM_ERROR
    assert await bench.balance(principal) == (USD, 0)
    assert await bench.attempts(job.id) == [(n, "failed") for n in range(1, MAX_ATTEMPTS + 1)]
    assert await violations(database) == []


@pytest.mark.parametrize("state", ["queued", "lapsed"])
async def test_a_job_past_its_deadline_ends_as_timeout_uncharged(
    bench: Workbench, database: str, state: str
) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    if state == "lapsed":
        await bench.lapse(await bench.claim_one())
    await bench.pass_the_deadline(job.id)
    await bench.reap()
    await bench.reap()
    ended = await bench.jobs.read(principal, job.id)
    assert (ended.status, ended.error and ended.error.code) == (JobStatus.FAILED, JobErrorCode.TIMEOUT)
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_a_job_at_work_may_finish_after_its_deadline(bench: Workbench, database: str) -> None:
    claim = await _claimed(bench)
    await bench.pass_the_deadline(claim.job_id)
    assert await bench.reap() == (0, 0)
    assert (await bench.deliver(claim)).status is JobStatus.COMPLETED
    assert await violations(database) == []


async def test_a_failed_attempt_is_tried_again_until_the_last(bench: Workbench) -> None:
    claim = await _claimed(bench)
    for n in range(1, MAX_ATTEMPTS):
        assert await bench.queue_again(claim)
        assert (await bench.attempts(claim.job_id))[-1] == (n, "failed")
        claim = await bench.claim_one()
    assert not await bench.queue_again(claim)
    assert await bench.status(claim.job_id) is JobStatus.PROCESSING


async def test_many_reapers_take_a_job_back_once(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    for _ in range(10):
        await bench.submit(principal)
    await bench.lapse(*await bench.claim(10))
    reaped = await asyncio.gather(*(bench.reap() for _ in range(8)))
    assert sum(back for back, _ in reaped) == 10
    assert len(await bench.claim(20)) == 10
    assert await violations(database) == []


async def test_what_the_backend_accepted_is_kept_with_the_attempt(bench: Workbench) -> None:
    claim = await _claimed(bench)
    async with bench.pool.acquire() as conn:
        await queue.note_accepted(conn, claim, "ref-1", '{"ref": "ref-1"}')
        await queue.note_accepted(conn, claim, "ref-2", '{"ref": "ref-2"}')
    assert await bench.attempts(claim.job_id) == [(1, "accepted")]
    assert await bench.pool.fetchval("SELECT provider_ref FROM attempt") == "ref-1"


async def test_claiming_reads_the_front_of_a_long_queue_and_not_all_of_it(bench: Workbench) -> None:
    job = await bench.submit(await bench.customer())
    await bench.pool.execute(_MANY_LIKE, job.id, 5_000)
    await bench.pool.execute("ANALYZE job")
    nodes = await _plan(bench, limit=4)
    on_jobs = [node for node in nodes if node.get("Relation Name") == "job"]
    assert {node["Node Type"] for node in on_jobs} & {"Seq Scan", "Bitmap Heap Scan"} == set()
    assert "ix_job_queue" in {node.get("Index Name") for node in on_jobs}
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes) <= 8


_MANY_LIKE = """
INSERT INTO job (id, organization_id, key_id, test, model, task, request, request_hash, queue, turn,
                 length_ms, deadline_at, price_version_id, nano_per_second, held_nano)
SELECT gen_random_uuid(), organization_id, key_id, true, model, task, request, request_hash, queue,
       (random() * 1000000)::bigint, length_ms, deadline_at, price_version_id, nano_per_second, 0
  FROM job, generate_series(1, $2) WHERE id = $1
"""


async def _plan(bench: Workbench, *, limit: int) -> list[dict[str, Any]]:
    """The nodes of the plan that claiming really has, with what they really read."""
    logged: list[asyncpg.connection.LoggedQuery] = []
    async with bench.pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        with conn.query_logger(logged.append):
            await queue.claim(
                conn, worker_id=new_id(), queues=["sandbox", "other"], backend="engine", limit=limit
            )
        await transaction.rollback()
        (claiming,) = [entry for entry in logged if "SKIP LOCKED" in entry.query]
        async with conn.transaction():
            explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {claiming.query}"
            text = await conn.fetchval(explain, *claiming.args)
    return _nodes(json.loads(text)[0]["Plan"])


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", []) for node in _nodes(part))]


async def _claimed(bench: Workbench) -> Claim:
    await bench.submit(await bench.customer())
    return await bench.claim_one()
