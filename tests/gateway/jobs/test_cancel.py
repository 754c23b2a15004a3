"""A cancellation that was acknowledged is kept: such a job is never charged."""

import asyncio

import pytest

from gateway.auth.directory import KeyLimits
from gateway.errors import JobAlreadyFinal, JobNotFound, ScopeDenied
from gateway.ids import new_id
from gateway.jobs.job import Job, JobErrorCode, JobStatus
from gateway.jobs.queue import Claim
from tests.factories import NANO_PER_SECOND, USD, new_key, new_project, violations
from tests.workbench import Workbench

COST = 10 * NANO_PER_SECOND
RACES = 200


async def test_a_queued_job_ends_at_once(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    canceled = await bench.jobs.cancel(principal, job.id)
    assert canceled.status is JobStatus.CANCELED
    assert canceled.error is not None
    assert canceled.error.code is JobErrorCode.JOB_CANCELLED
    assert await bench.balance(principal) == (USD, 0)
    assert await bench.claim() == []
    assert await violations(database) == []


async def test_the_worker_of_a_running_job_is_told_and_its_music_is_not_charged(
    bench: Workbench, database: str
) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    claim = await bench.claim_one()
    asked = await bench.jobs.cancel(principal, job.id)
    assert asked.status is JobStatus.PROCESSING
    assert asked.cancel_requested_at is not None
    assert await bench.beat(claim) == {job.id: True}
    assert (await bench.deliver(claim)).status is JobStatus.CANCELED
    ended = await bench.jobs.read(principal, job.id)
    assert (ended.status, ended.result, ended.charged_nano) == (JobStatus.CANCELED, None, None)
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_a_cancelled_job_is_not_tried_again(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    await bench.submit(principal)
    claim = await bench.claim_one()
    await bench.jobs.cancel(principal, claim.job_id)
    assert not await bench.queue_again(claim)
    assert (await bench.fail(claim)).status is JobStatus.CANCELED
    assert await violations(database) == []


async def test_a_cancelled_job_whose_worker_died_ends_as_canceled(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    await bench.submit(principal)
    claim = await bench.claim_one()
    await bench.jobs.cancel(principal, claim.job_id)
    await bench.lapse(claim)
    assert await bench.reap() == (0, 1)
    assert await bench.status(claim.job_id) is JobStatus.CANCELED
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_cancelling_again_says_the_same(bench: Workbench) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    assert await bench.jobs.cancel(principal, job.id) == await bench.jobs.cancel(principal, job.id)
    running = await bench.submit(principal)
    await bench.claim_one()
    assert await bench.jobs.cancel(principal, running.id) == await bench.jobs.cancel(principal, running.id)


async def test_cancelling_twice_at_the_same_moment_succeeds_twice(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    for _ in range(15):
        job = await bench.submit(principal)
        both = await asyncio.gather(*(bench.jobs.cancel(principal, job.id) for _ in range(3)))
        assert {canceled.status for canceled in both} == {JobStatus.CANCELED}
    assert await violations(database) == []


@pytest.mark.parametrize("well", [True, False])
async def test_a_job_that_ended_otherwise_cannot_be_cancelled(bench: Workbench, *, well: bool) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    claim = await bench.claim_one()
    await (bench.deliver(claim) if well else bench.fail(claim))
    before = await bench.row(job.id)
    with pytest.raises(JobAlreadyFinal):
        await bench.jobs.cancel(principal, job.id)
    assert await bench.row(job.id) == before


async def test_only_owners_with_the_right_can_cancel(bench: Workbench) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    async with bench.pool.acquire() as conn:
        project = await new_project(conn, principal.organization_id, "another")
        elsewhere = await new_key(conn, principal.organization_id, project_id=project)
        colleague = await new_key(conn, principal.organization_id, test=True)
    for stranger in (await bench.customer(), elsewhere):
        with pytest.raises(JobNotFound):
            await bench.jobs.cancel(stranger, job.id)
    with pytest.raises(JobNotFound):
        await bench.jobs.cancel(principal, new_id())
    assert await bench.status(job.id) is JobStatus.QUEUED
    assert (await bench.jobs.cancel(colleague, job.id)).status is JobStatus.CANCELED


async def test_reading_does_not_give_the_right_to_cancel(bench: Workbench) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    async with bench.pool.acquire() as conn:
        reader = await new_key(conn, principal.organization_id, limits=KeyLimits(scopes=["read"]))
    with pytest.raises(ScopeDenied):
        await bench.jobs.cancel(reader, job.id)


async def test_a_cancellation_racing_with_the_end_is_either_refused_or_free(
    bench: Workbench, database: str
) -> None:
    principal = await bench.customer()
    jobs = [await bench.submit(principal) for _ in range(RACES)]
    claims = {claim.job_id: claim for claim in await bench.claim(RACES)}

    async def race(job: Job, claim: Claim) -> tuple[bool, JobStatus | None]:
        canceling, ending = await asyncio.gather(
            bench.jobs.cancel(principal, job.id), bench.deliver(claim), return_exceptions=True
        )
        assert not isinstance(ending, BaseException)
        if isinstance(canceling, BaseException):
            assert isinstance(canceling, JobAlreadyFinal)
        return not isinstance(canceling, BaseException), ending.status

    outcomes = []
    for start in range(0, RACES, 8):
        some = jobs[start : start + 8]
        outcomes += await asyncio.gather(*(race(job, claims[job.id]) for job in some))
    assert set(outcomes) <= {(True, JobStatus.CANCELED), (False, JobStatus.COMPLETED)}
    charged = sum(status is JobStatus.COMPLETED for _, status in outcomes)
    assert await bench.balance(principal) == (USD - charged * COST, 0)
    assert await violations(database) == []
