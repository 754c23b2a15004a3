"""What time ends, it ends for everybody, also where one job is broken."""

import asyncio

import pytest

from gateway.embedded import EmbeddedPostgres
from gateway.errors import InternalError
from gateway.jobs.job import JobStatus
from gateway.jobs.reading import JobFilter
from tests.planting import plant
from tests.workbench import Workbench

UNKNOWN_TASK = (
    """UPDATE job SET request = '{"prompt": "a", "frames": 1, "seed": 1, "task": "unheard"}' WHERE id = $1"""
)


async def test_wrong_books_of_one_job_do_not_keep_the_others(
    bench: Workbench, database: str, postgres: EmbeddedPostgres
) -> None:
    owner = await bench.customer()
    broken, plain = await bench.submit(owner), await bench.submit(owner)
    running = await bench.submit(owner)
    await bench.pool.execute("UPDATE job SET turn = 0 WHERE id = $1", running.id)
    await bench.pool.execute("UPDATE job SET turn = 9 WHERE id <> $1", running.id)
    claim = await bench.claim_one()
    assert claim.job_id == running.id
    await bench.lapse(claim)
    statement = f"UPDATE hold SET state = 'released', closed_at = now() WHERE reference = '{broken.id}'"  # noqa: S608
    await plant(database, postgres.superuser_dsn, [statement])
    await bench.pool.execute("UPDATE job SET cancel_at = now() - interval '1 s' WHERE status = 'queued'")
    for _ in range(2):
        await bench.reap()
        assert await bench.status(plain.id) is JobStatus.CANCELED
        assert await bench.status(running.id) is JobStatus.QUEUED
        assert await bench.status(broken.id) is JobStatus.QUEUED


async def test_a_job_of_another_version_is_lost_to_its_own_readers_only(bench: Workbench) -> None:
    owner = await bench.customer()
    strange, plain = await bench.submit(owner), await bench.submit(owner)
    await bench.pool.execute(UNKNOWN_TASK, strange.id)
    reads = await asyncio.gather(
        *(bench.jobs.read(owner, job.id) for job in (strange, plain)), return_exceptions=True
    )
    assert isinstance(reads[0], InternalError)
    assert not isinstance(reads[1], BaseException)
    page, cursor = await bench.jobs.list(owner, JobFilter())
    assert ([job.id for job in page], cursor) == ([plain.id], None)


async def test_a_job_of_another_version_can_be_cancelled(bench: Workbench) -> None:
    owner = await bench.customer()
    strange = await bench.submit(owner)
    await bench.pool.execute(UNKNOWN_TASK, strange.id)
    with pytest.raises(InternalError):
        await bench.jobs.cancel(owner, strange.id)
    assert await bench.status(strange.id) is JobStatus.CANCELED
