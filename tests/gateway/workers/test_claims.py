"""A claim is one worker's and one attempt's: nothing of an earlier or lost one touches it."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import asyncpg
import pytest

from gateway.backends.base import Backend, Failed, RemoteTask, Running, TaskState
from gateway.jobs import queue
from gateway.jobs.job import JobErrorCode, JobStatus
from gateway.jobs.queue import Claim
from gateway.workers.performance import AttemptFailed
from gateway.workers.worker import Worker
from tests.factories import USD, Conn, new_order, until, violations
from tests.scripted_backend import ScriptedBackend
from tests.workbench import Workbench

RunWorker = Callable[[Backend], AbstractAsyncContextManager[Worker]]


class StumblesFirst(ScriptedBackend):
    """The first attempt fails when it may, the next goes on until it is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.may_fail = asyncio.Event()

    async def poll(self, task: RemoteTask) -> TaskState:
        """The first attempt's end, or the script's next state."""
        if not task.ref.endswith("-1"):
            return await super().poll(task)
        await asyncio.sleep(0.01)
        if not self.may_fail.is_set():
            return Running(0.1)
        return Failed(code=JobErrorCode.OUT_OF_MEMORY, message="too little memory", retryable=True)


async def test_a_job_that_comes_back_at_once_is_a_job_of_its_own(
    bench: Workbench, run_worker: RunWorker, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued again, it is claimed again before the first attempt's task has ended."""
    move_on, first_ended = Worker._move_on, asyncio.Event()

    async def slowly(worker: Worker, claim: Claim, failure: AttemptFailed) -> None:
        await move_on(worker, claim, failure)
        await first_ended.wait()

    monkeypatch.setattr(Worker, "_move_on", slowly)
    principal, backend = await bench.customer(), StumblesFirst()
    backend.may_fail.set()
    async with run_worker(backend) as worker:
        job = (await bench.jobs.submit(principal, new_order(seconds=5, prompt="hang"))).job
        await until(lambda: _is_accepted(bench, job.id, 2), what="the second attempt")
        first_ended.set()
        await asyncio.sleep(0.1)
        assert [active.claim.fence for active in worker._active.values()] == [2]
        await bench.jobs.cancel(principal, job.id)
        await until(lambda: _is(bench, job.id, JobStatus.CANCELED), what="the end", seconds=5)
    assert await violations(database) == []


async def test_a_late_answer_about_an_old_claim_is_not_about_the_new_one(
    bench: Workbench, run_worker: RunWorker, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt fails, and the job is claimed again, while a sign of its life is on the way."""
    beat, backend = queue.beat, StumblesFirst()

    async def late(conn: Conn, beats: Sequence[queue.Beat], **named: float) -> dict[uuid.UUID, bool]:
        if not backend.may_fail.is_set():
            backend.may_fail.set()
            await until(lambda: _is_accepted(bench, beats[0].job_id, 2), what="the second attempt")
        return await beat(conn, beats, **named)

    principal = await bench.customer()
    async with run_worker(backend) as worker:
        job = (await bench.jobs.submit(principal, new_order(seconds=5, prompt="hang"))).job
        await until(lambda: _is_accepted(bench, job.id, 1), what="the first attempt")
        monkeypatch.setattr(queue, "beat", late)
        await until(lambda: _is_accepted(bench, job.id, 2), what="the second attempt")
        await asyncio.sleep(0.5)
        assert [active.lost for active in worker._active.values()] == [False]
        await bench.jobs.cancel(principal, job.id)
        await until(lambda: _is(bench, job.id, JobStatus.CANCELED), what="the end", seconds=5)
    assert await bench.attempts(job.id) == [(1, "failed"), (2, "failed")]
    assert await violations(database) == []


async def test_a_request_that_cannot_be_read_does_not_stop_the_others(
    bench: Workbench, run_worker: RunWorker, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older worker beside a newer gateway may find it; in the end it fails, uncharged."""
    monkeypatch.setattr(queue, "LEASE_SECONDS", 0.5)
    principal = await bench.customer()
    strange = (await bench.jobs.submit(principal, new_order(seconds=5))).job
    await bench.pool.execute("UPDATE job SET request = '{}' WHERE id = $1", strange.id)
    async with run_worker(ScriptedBackend()):
        await until(lambda: _is(bench, strange.id, JobStatus.FAILED), what="the end of the strange job")
        plain = (await bench.jobs.submit(principal, new_order(seconds=5, prompt="break"))).job
        await until(lambda: _is(bench, plain.id, JobStatus.FAILED), what="the end of the plain job")
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_a_claim_outlasts_a_crash_of_the_database(
    bench: Workbench, run_worker: RunWorker, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgotten claim would give its fence, and the names of its files, to the next worker again."""
    conn = await asyncpg.connect(database)
    await conn.execute(
        """
        DO $$BEGIN
            EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on', current_database());
        END$$
        """
    )
    await conn.close()
    await bench.pool.expire_connections()
    claim, modes = queue.claim, []

    async def watched(conn: Any, **named: Any) -> list[Claim]:
        modes.append(await conn.fetchval("SHOW synchronous_commit"))
        return await claim(conn, **named)

    monkeypatch.setattr(queue, "claim", watched)
    async with run_worker(ScriptedBackend()):

        async def has_claimed() -> bool:
            return bool(modes)

        await until(has_claimed, what="a claim")
    assert set(modes) == {"on"}


async def _is(bench: Workbench, job_id: uuid.UUID, status: JobStatus) -> bool:
    return await bench.status(job_id) is status


async def _is_accepted(bench: Workbench, job_id: uuid.UUID, attempt: int) -> bool:
    return (await bench.attempts(job_id))[-1:] == [(attempt, "accepted")]
