"""The end of a job: one commit for state, money, attempt and counters, and only the first end counts."""

import asyncio

import pytest

from gateway.auth.directory import KeyLimits
from gateway.jobs import settlement
from gateway.jobs.job import JobError, JobErrorCode, JobStatus
from gateway.jobs.settlement import Ended, Ending
from gateway.jobs.tally import read_backlogs, read_tallies
from tests.factories import NANO_PER_SECOND, USD, new_result, violations
from tests.workbench import Workbench

COST = 10 * NANO_PER_SECOND


async def test_a_delivery_is_charged_by_its_frames(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    ended = await bench.deliver(await bench.claim_one(), frames=9_123 * 48 + 1)
    assert ended == Ended(won=True, status=JobStatus.COMPLETED)
    done = await bench.jobs.read(principal, job.id)
    assert (done.billed_ms, done.charged_nano, done.progress) == (9_124, 9_124 * 250, 1.0)
    assert done.completed_at is not None
    assert done.expires_at is not None
    assert await bench.balance(principal) == (USD - 9_124 * 250, 0)
    assert await bench.attempts(job.id) == [(1, "done")]
    assert await violations(database) == []


async def test_more_than_was_asked_for_is_not_charged(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    await bench.submit(principal)
    await bench.deliver(await bench.claim_one(), frames=11 * 48_000)
    assert await bench.balance(principal) == (USD - COST, 0)
    assert await violations(database) == []


@pytest.mark.parametrize("code", list(JobErrorCode))
async def test_no_failure_is_charged(bench: Workbench, database: str, code: JobErrorCode) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    await bench.fail(await bench.claim_one(), JobError(code=code, message="no music"))
    ended = await bench.jobs.read(principal, job.id)
    expected = JobStatus.CANCELED if code is JobErrorCode.JOB_CANCELLED else JobStatus.FAILED
    assert (ended.status, ended.error and ended.error.code, ended.charged_nano) == (expected, code, None)
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_a_test_job_is_never_charged(bench: Workbench, database: str) -> None:
    principal = await bench.customer(test=True)
    job = await bench.submit(principal)
    await bench.deliver(await bench.claim_one())
    done = await bench.jobs.read(principal, job.id)
    assert (done.status, done.charged_nano, done.billed_ms) == (JobStatus.COMPLETED, None, 10_000)
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_a_settlement_that_comes_again_is_won_again_and_charged_once(
    bench: Workbench, database: str
) -> None:
    principal = await bench.customer()
    await bench.submit(principal)
    claim = await bench.claim_one()
    assert (await bench.deliver(claim)).won
    assert await bench.deliver(claim) == Ended(won=False)
    for _ in range(2):
        assert await bench.deliver(claim, retry=True) == Ended(won=True, status=JobStatus.COMPLETED)
    assert await bench.balance(principal) == (USD - COST, 0)
    assert await violations(database) == []


async def test_nothing_leaves_a_final_state(bench: Workbench) -> None:
    await bench.submit(await bench.customer())
    claim = await bench.claim_one()
    await bench.deliver(claim)
    before = await bench.row(claim.job_id)
    await bench.fail(claim)
    await bench.lapse()
    await bench.pass_the_deadline(claim.job_id)
    await bench.reap()
    assert await bench.row(claim.job_id) == before | {
        "deadline_at": (await bench.row(claim.job_id))["deadline_at"]
    }


async def test_a_batch_ends_all_kinds_of_jobs_together(bench: Workbench, database: str) -> None:
    live, test = await bench.customer(), await bench.customer(test=True)
    ids = [(await bench.submit(caller)).id for caller in (live, live, live, test, test)]
    claims = {claim.job_id: claim for claim in await bench.claim(9)}
    await bench.jobs.cancel(live, ids[2])
    endings = [
        Ending(
            job_id=job_id,
            fence=claims[job_id].fence,
            result=None if n in {1, 4} else new_result(48_000),
            error=JobError(code=JobErrorCode.TIMEOUT, message="late") if n in {1, 4} else None,
        )
        for n, job_id in enumerate(ids)
    ]
    ended = await settlement.finish(bench.pool, endings, retry=False)
    assert [end.status for end in ended] == ["completed", "failed", "canceled", "completed", "failed"]
    assert await bench.balance(live) == (USD - NANO_PER_SECOND, 0)
    assert await violations(database) == []
    async with bench.pool.acquire() as conn:
        tallies = {(t.backend, t.outcome): (t.jobs, t.audio_ms) for t in await read_tallies(conn)}
    assert tallies == {
        ("engine", "completed"): (1, 1_000),
        ("engine", "timeout"): (1, 0),
        ("engine", "job_cancelled"): (1, 0),
        ("test", "completed"): (1, 1_000),
        ("test", "timeout"): (1, 0),
    }


async def test_two_workers_cannot_both_end_a_job(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    for _ in range(20):
        await bench.submit(principal)
    claims = await bench.claim(20)
    ends = await asyncio.gather(*(step(claim) for claim in claims for step in (bench.deliver, bench.fail)))
    assert sum(end.won for end in ends) == 20
    charged = sum(end.won and end.status is JobStatus.COMPLETED for end in ends)
    assert await bench.balance(principal) == (USD - charged * COST, 0)
    assert await violations(database) == []


async def test_a_finished_job_makes_room_under_the_keys_limit(bench: Workbench) -> None:
    principal = await bench.customer(limits=KeyLimits(max_open_jobs=1))
    for end in (bench.deliver, bench.fail):
        await bench.submit(principal)
        await end(await bench.claim_one())
        assert await bench.pool.fetchval("SELECT open_jobs FROM key_meter") == 0


async def test_a_backlog_is_what_waits(bench: Workbench) -> None:
    principal = await bench.customer()
    for _ in range(3):
        await bench.submit(principal)
    await bench.claim_one()
    async with bench.pool.acquire() as conn:
        (backlog,) = await read_backlogs(conn)
    assert (backlog.queue, backlog.depth) == ("sandbox", 2)
    assert 0 <= backlog.oldest_seconds < 60
