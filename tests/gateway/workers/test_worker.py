"""A worker makes, checks, stores and settles; whatever goes wrong on the way is free and leaves no trace."""

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from engine import Task
from gateway.auth.principal import Principal
from gateway.backends.base import Backend, RemoteTask, TaskState
from gateway.database import DATABASE_ERRORS
from gateway.ids import new_id
from gateway.jobs import queue
from gateway.jobs.job import FINAL, Job, JobErrorCode, JobStatus
from gateway.jobs.queue import MAX_ATTEMPTS, Claim
from gateway.storage import AudioStore
from gateway.workers.worker import Worker
from tests.factories import NANO_PER_SECOND, USD, new_order, until, violations
from tests.scripted_backend import ScriptedBackend
from tests.workbench import Workbench

RunWorker = Callable[[Backend], AbstractAsyncContextManager[Worker]]
SECONDS = 5
COST = SECONDS * NANO_PER_SECOND


async def submit(bench: Workbench, principal: Principal, prompt: str = "a song", **fields: Any) -> Job:
    return (await bench.jobs.submit(principal, new_order(seconds=SECONDS, prompt=prompt, **fields))).job


async def ended(bench: Workbench, principal: Principal, job: Job) -> Job:
    """The job, once it is final."""

    async def is_final() -> bool:
        return await bench.status(job.id) in FINAL

    await until(is_final, what="the end of the job")
    return await bench.jobs.read(principal, job.id)


async def processing(bench: Workbench, job: Job) -> None:
    async def is_accepted() -> bool:
        return (await bench.attempts(job.id))[-1:] == [(1, "accepted")]

    await until(is_accepted, what="the start of the job")


async def test_a_song_is_stored_and_charged_by_its_frames(
    bench: Workbench, run_worker: RunWorker, store: AudioStore, database: str
) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        done = await ended(bench, principal, await submit(bench, principal, "short"))
    assert done.status is JobStatus.COMPLETED
    assert done.result is not None
    (track,) = done.result.tracks
    assert (track.frames, done.billed_ms, done.charged_nano) == (4_850 * 48, 4_850, 4_850 * 250)
    assert await bench.balance(principal) == (USD - 4_850 * 250, 0)
    content = b"".join([chunk async for chunk in await store.open(track.key)])
    assert (hashlib.sha256(content).hexdigest(), len(content)) == (track.sha256, track.size_bytes)
    assert (await store.head(track.master_key)).size_bytes == track.size_bytes
    assert await bench.attempts(done.id) == [(1, "done")]
    assert done.backend == "scripted"
    assert await violations(database) == []


async def test_each_variation_is_stored_and_all_are_charged(
    bench: Workbench, run_worker: RunWorker, store: AudioStore, database: str
) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        done = await ended(bench, principal, await submit(bench, principal, n=3))
    assert done.result is not None
    tracks = done.result.tracks
    assert [(track.seed, track.frames) for track in tracks] == [(n, SECONDS * 48_000) for n in (1, 2, 3)]
    assert len({track.sha256 for track in tracks}) == len({track.file_name for track in tracks}) == 3
    for track in tracks:
        content = b"".join([chunk async for chunk in await store.open(track.key)])
        assert hashlib.sha256(content).hexdigest() == track.sha256
    assert await bench.balance(principal) == (USD - 3 * COST, 0)
    assert await violations(database) == []


@pytest.mark.parametrize(
    ("prompt", "code"),
    [("half", None), ("a song", None), ("double", JobErrorCode.QUALITY_FAILED)],
)
async def test_an_open_length_is_charged_as_it_came_and_never_beyond_the_hold(
    bench: Workbench, run_worker: RunWorker, database: str, prompt: str, code: JobErrorCode | None
) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        done = await ended(bench, principal, await submit(bench, principal, prompt, open_length=True, n=2))
    assert (done.error and done.error.code) == code
    cost = 0 if code else COST if prompt == "half" else 2 * COST
    assert await bench.balance(principal) == (USD - cost, 0)
    assert await violations(database) == []


@pytest.mark.parametrize("task", list(Task))
async def test_only_a_single_track_may_rest_for_most_of_a_song(
    bench: Workbench, run_worker: RunWorker, task: Task
) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        done = await ended(bench, principal, await submit(bench, principal, "sparse", task=task))
    assert done.status is (JobStatus.COMPLETED if task in {Task.EXTRACT, Task.LEGO} else JobStatus.FAILED)


async def test_many_songs_are_each_made_once(bench: Workbench, run_worker: RunWorker, database: str) -> None:
    principal = await bench.customer()
    backend = ScriptedBackend()
    jobs = [await submit(bench, principal) for _ in range(5)]
    async with run_worker(backend), run_worker(ScriptedBackend()) as other:
        assert other.id
        for job in jobs:
            assert (await ended(bench, principal, job)).status is JobStatus.COMPLETED
    assert await bench.balance(principal) == (USD - 5 * COST, 0)
    assert await violations(database) == []


@pytest.mark.parametrize(
    ("prompt", "code", "attempts"),
    [
        ("silent", JobErrorCode.QUALITY_FAILED, 1),
        ("half", JobErrorCode.QUALITY_FAILED, 1),
        ("fewer", JobErrorCode.QUALITY_FAILED, 1),
        ("break", JobErrorCode.CONTENT_POLICY_VIOLATION, 1),
        ("stumble", JobErrorCode.OUT_OF_MEMORY, MAX_ATTEMPTS),
    ],
)
async def test_what_fails_is_free(
    bench: Workbench, run_worker: RunWorker, database: str, prompt: str, code: JobErrorCode, attempts: int
) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        failed = await ended(bench, principal, await submit(bench, principal, prompt))
    assert (failed.status, failed.error and failed.error.code) == (JobStatus.FAILED, code)
    assert await bench.attempts(failed.id) == [(n + 1, "failed") for n in range(attempts)]
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_a_failed_attempt_is_made_good_by_the_next(
    bench: Workbench, run_worker: RunWorker, database: str
) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        done = await ended(bench, principal, await submit(bench, principal, "stumble once"))
    assert done.status is JobStatus.COMPLETED
    assert await bench.attempts(done.id) == [(1, "failed"), (2, "done")]
    assert await bench.balance(principal) == (USD - COST, 0)
    assert await violations(database) == []


@pytest.mark.parametrize("prompt", ["hang", "hang deaf"])
async def test_a_running_job_stops_when_it_is_cancelled(
    bench: Workbench, run_worker: RunWorker, database: str, prompt: str
) -> None:
    principal = await bench.customer()
    backend = ScriptedBackend()
    async with run_worker(backend):
        job = await submit(bench, principal, prompt)
        await processing(bench, job)
        assert (await bench.jobs.cancel(principal, job.id)).status is JobStatus.PROCESSING
        canceled = await ended(bench, principal, job)
    assert (canceled.status, canceled.result) == (JobStatus.CANCELED, None)
    assert backend.canceled == [f"{job.id.hex}-1"]
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_a_job_whose_sound_is_still_being_fetched_stops_when_it_is_cancelled(
    bench: Workbench, run_worker: RunWorker, database: str
) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        job = await submit(bench, principal, "fetch")

        async def is_claimed() -> bool:
            return await bench.status(job.id) is JobStatus.PROCESSING

        await until(is_claimed, what="the claim")
        await bench.jobs.cancel(principal, job.id)
        canceled = await ended(bench, principal, job)
    assert (canceled.status, canceled.result) == (JobStatus.CANCELED, None)
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_progress_is_shown_while_it_runs(bench: Workbench, run_worker: RunWorker) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        job = await submit(bench, principal, "hang")

        async def has_progress() -> bool:
            return (await bench.jobs.read(principal, job.id)).progress == 0.9

        await until(has_progress, what="progress")
        await bench.jobs.cancel(principal, job.id)
        await ended(bench, principal, job)


async def test_rendering_that_never_ends_is_ended_as_timeout(
    bench: Workbench, run_worker: RunWorker, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.workers.performance.TIMEOUT_SECONDS", 0.3)
    principal = await bench.customer()
    backend = ScriptedBackend()
    async with run_worker(backend):
        failed = await ended(bench, principal, await submit(bench, principal, "hang"))
    assert (failed.status, failed.error and failed.error.code) == (JobStatus.FAILED, JobErrorCode.TIMEOUT)
    assert backend.canceled == [f"{failed.id.hex}-1"]
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_audio_that_cannot_be_stored_is_free(
    bench: Workbench, run_worker: RunWorker, store: AudioStore, database: str, tmp_path: Path
) -> None:
    assert store
    shutil.rmtree(tmp_path / "audio")
    (tmp_path / "audio").write_text("in the way")
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        failed = await ended(bench, principal, await submit(bench, principal))
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == (
        JobErrorCode.UPSTREAM_ERROR,
        "the audio could not be read or stored",
    )
    assert await bench.balance(principal) == (USD, 0)
    assert await violations(database) == []


async def test_a_leaving_worker_hands_its_jobs_back_uncounted(
    bench: Workbench, run_worker: RunWorker, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.workers.worker.DRAIN_SECONDS", 0.2)
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        job = await submit(bench, principal, "hang")
        await processing(bench, job)
    row = await bench.row(job.id)
    assert (row["status"], row["attempts"], row["lease_until"]) == ("queued", 0, None)
    assert await bench.attempts(job.id) == []
    assert (await bench.claim_one()).attempt == 1
    assert await violations(database) == []


async def test_a_leaving_worker_finishes_what_ends_soon(
    bench: Workbench, run_worker: RunWorker, database: str
) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        job = await submit(bench, principal)
        await processing(bench, job)
    assert await bench.status(job.id) is JobStatus.COMPLETED
    assert await violations(database) == []


async def test_the_result_of_a_lost_lease_is_thrown_away(
    bench: Workbench, run_worker: RunWorker, database: str
) -> None:
    principal = await bench.customer()
    backend = ScriptedBackend()
    async with run_worker(backend):
        job = await submit(bench, principal, "hang deaf")
        await processing(bench, job)
        claim = await _steal(bench, job)

        async def has_noticed() -> bool:
            return backend.canceled == [f"{job.id.hex}-1"]

        await until(has_noticed, what="the loss")
        assert (await bench.deliver(claim)).won
    assert await bench.attempts(job.id) == [(1, "failed"), (2, "done")]
    assert await bench.balance(principal) == (USD - COST, 0)
    assert await violations(database) == []


async def _steal(bench: Workbench, job: Job) -> Claim:
    """The lease lapses and another worker claims the job, before ours can beat again."""
    async with bench.pool.acquire() as conn, conn.transaction():
        await conn.execute("UPDATE job SET lease_until = now() - interval '1 second' WHERE id = $1", job.id)
        await queue.take_back_lapsed(conn)
        (claim,) = await queue.claim(conn, worker_id=new_id(), queues=["sandbox"], backend="engine", limit=1)
    return claim


async def test_a_worker_takes_no_more_than_it_can_do_at_once(bench: Workbench, run_worker: RunWorker) -> None:
    principal = await bench.customer()
    jobs = [await submit(bench, principal, "hang") for _ in range(4)]
    backend = ScriptedBackend()
    async with run_worker(backend):
        await processing(bench, jobs[0])
        await processing(bench, jobs[1])
        statuses = [await bench.status(job.id) for job in jobs]
        assert statuses.count(JobStatus.PROCESSING) == len(backend.submitted) == 2
        for job in jobs:
            await bench.jobs.cancel(principal, job.id)
        for job in jobs:
            await ended(bench, principal, job)


async def test_a_backend_that_takes_nothing_is_asked_again_but_not_at_once(
    bench: Workbench, run_worker: RunWorker, database: str
) -> None:
    principal = await bench.customer()
    backend = ScriptedBackend()
    async with run_worker(backend):
        job = await submit(bench, principal, "away")
        started = time.monotonic()

        async def was_asked_three_times() -> bool:
            return len(backend.submitted) >= 3

        await until(was_asked_three_times, what="the third try")
        assert time.monotonic() - started > 1
        await bench.jobs.cancel(principal, job.id)
        await bench.lapse()
    assert await bench.balance(principal) in [(USD, 0), (USD, COST)]
    assert len(await bench.attempts(job.id)) <= 1
    assert await violations(database) == []


async def test_a_worker_outlasts_the_loss_of_its_connections(
    bench: Workbench, run_worker: RunWorker, database: str
) -> None:
    principal = await bench.customer()
    async with run_worker(ScriptedBackend()):
        first = await submit(bench, principal)
        await ended(bench, principal, first)
        await bench.pool.fetch(
            """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
            """
        )
        second = await _submit_stubbornly(bench, principal)
        assert (await ended(bench, principal, second)).status is JobStatus.COMPLETED
    assert await violations(database) == []


async def _submit_stubbornly(bench: Workbench, principal: Principal) -> Job:
    """As a client that hears 503; the connections of the gateway were cut, too."""
    made: list[Job] = []

    async def was_taken() -> bool:
        with contextlib.suppress(*DATABASE_ERRORS):
            made.append(await submit(bench, principal))
        return bool(made)

    await until(was_taken, what="the submission")
    return made[0]


async def test_a_worker_is_known_while_it_works(bench: Workbench, run_worker: RunWorker) -> None:
    async with run_worker(ScriptedBackend()) as worker:

        async def is_known() -> bool:
            return await bench.pool.fetchval("SELECT queues FROM worker WHERE id = $1", worker.id) == [
                "sandbox"
            ]

        await until(is_known, what="the worker's row")
    assert await bench.pool.fetchval("SELECT count(*) FROM worker") == 0


class DefectiveBackend(ScriptedBackend):
    """Fails in a way that nobody foresaw."""

    async def poll(self, task: RemoteTask) -> TaskState:
        raise LookupError(task.ref)


async def test_a_defect_is_told_at_once_and_the_worker_goes_on(
    bench: Workbench, run_worker: RunWorker
) -> None:
    job = await submit(bench, await bench.customer())
    with capture_logs() as lines:
        async with run_worker(DefectiveBackend()) as worker:

            async def is_told() -> bool:
                return any(line["event"] == "job.crashed" for line in lines)

            await until(is_told, what="the crash in the log")
            assert not worker._active
    assert [line["job"] for line in lines if line["event"] == "job.crashed"] == [job.id.hex]
    assert await bench.status(job.id) is JobStatus.PROCESSING  # until its lease lapses
