"""Real worker processes: one is killed, stalls or leaves, another finishes, each song is paid once."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from gateway.jobs.job import FINAL, Job, JobStatus
from gateway.storage import AudioStore
from gateway.workers.process import NICENESS
from tests.crash.stack import Service, Workers
from tests.factories import NANO_PER_SECOND, USD, new_key, new_order, until, violations
from tests.workbench import Workbench

START_SECONDS = 60
RESCUE_SECONDS = 45


@pytest.fixture
def workers(database: str, tmp_path: Path) -> Iterator[Workers]:
    started = Workers(database, tmp_path)
    yield started
    started.stop()


async def start_worker(bench: Workbench, workers: Workers, *, own_session: bool = False) -> Service:
    """One more, ready to claim."""
    before = await bench.pool.fetchval("SELECT count(*) FROM worker")
    service = workers.start(own_session=own_session)

    async def is_known() -> bool:
        return bool(await bench.pool.fetchval("SELECT count(*) FROM worker") > before)

    await until(is_known, START_SECONDS, what="the start of a worker")
    return service


async def until_claimed(bench: Workbench, *jobs: Job) -> None:
    async def are_claimed() -> bool:
        return {await bench.status(job.id) for job in jobs} == {JobStatus.PROCESSING}

    await until(are_claimed, what="the claim")


async def until_final(bench: Workbench, *jobs: Job) -> None:
    async def are_final() -> bool:
        return {await bench.status(job.id) for job in jobs} <= FINAL

    await until(are_final, RESCUE_SECONDS, what="the end of all jobs")


async def until_told(service: Service, event: str, job: Job) -> None:
    async def is_told() -> bool:
        lines = [json.loads(line) for line in service.stderr.read_text().splitlines() if line.startswith("{")]
        return any(line["event"] == event and line.get("job") == job.id.hex for line in lines)

    await until(is_told, what=event)


async def test_the_jobs_of_a_killed_worker_are_finished_by_another_and_charged_once(
    bench: Workbench, workers: Workers, database: str, tmp_path: Path
) -> None:
    live = await bench.customer()
    async with bench.pool.acquire() as conn:
        test = await new_key(conn, live.organization_id, test=True)
    workers.start()
    workers.start()
    slow = (await bench.jobs.submit(test, new_order(seconds=5, prompt="slow:3"))).job

    async def is_running() -> bool:
        return await bench.status(slow.id) is JobStatus.PROCESSING

    await until(is_running, START_SECONDS, what="the start of a worker")
    worker_id = await bench.pool.fetchval("SELECT worker_id FROM job WHERE id = $1", slow.id)
    songs = [(await bench.jobs.submit(live, new_order(seconds=20))).job for _ in range(3)]
    workers.service_of(worker_id).kill()
    await until_final(bench, slow, *songs)
    assert (await bench.row(slow.id))["attempts"] == 2
    assert await bench.attempts(slow.id) == [(1, "failed"), (2, "done")]
    store = AudioStore((tmp_path / "audio").as_uri())
    for song in songs:
        done = await bench.jobs.read(live, song.id)
        assert (done.status, done.billed_ms) == (JobStatus.COMPLETED, 20_000)
        assert done.result is not None
        track = done.result.tracks[0]
        assert (await store.head(track.key)).size_bytes == track.size_bytes
    assert await bench.balance(live) == (USD - 60 * NANO_PER_SECOND, 0)
    assert await violations(database) == []


async def test_a_worker_leaves_in_order_when_it_is_asked_to(
    bench: Workbench, workers: Workers, database: str
) -> None:
    worker = await start_worker(bench, workers)
    live = await bench.customer()
    song = (await bench.jobs.submit(live, new_order(seconds=5))).job

    async def is_running() -> bool:
        return await bench.status(song.id) is not JobStatus.QUEUED

    await until(is_running, what="the claim")
    assert await asyncio.to_thread(worker.stop) == 0
    assert await bench.status(song.id) is JobStatus.COMPLETED
    assert await bench.pool.fetchval("SELECT count(*) FROM worker") == 0
    assert await violations(database) == []
    last = worker.stderr.read_text().splitlines()[-1]
    assert "job.ended" in last or json.loads(last)


def session_niceness(pid: int) -> int | None:
    """Give the niceness of the session's share of the CPU; None where the session has no share of its own."""
    fields = Path(f"/proc/{pid}/autogroup").read_text().split()
    return int(fields[-1]) if fields else None


@pytest.mark.skipif(
    not Path("/proc/self/autogroup").exists(), reason="this kernel does not share the CPU among sessions"
)
@pytest.mark.parametrize("own_session", [True, False])
async def test_rendering_yields_to_others_also_when_it_has_a_session_of_its_own(
    bench: Workbench, workers: Workers, *, own_session: bool
) -> None:
    worker = await start_worker(bench, workers, own_session=own_session)
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
    assert session_niceness(worker.pid) == (NICENESS if own_session else session_niceness(os.getpid()))


@pytest.mark.slow
async def test_what_a_stalled_worker_brings_too_late_is_thrown_away(
    bench: Workbench, workers: Workers, database: str
) -> None:
    stalled = await start_worker(bench, workers)
    live = await bench.customer()
    songs = [(await bench.jobs.submit(live, new_order(seconds=60))).job for _ in range(2)]
    await until_claimed(bench, *songs)
    stalled.send(signal.SIGSTOP)
    await start_worker(bench, workers)
    await until_final(bench, *songs)
    ended = [await bench.row(song.id) for song in songs]
    assert [row["status"] for row in ended] == ["completed", "completed"]
    stalled.send(signal.SIGCONT)
    for song in songs:
        await until_told(stalled, "job.lease_lost", song)
    assert [await bench.row(song.id) for song in songs] == ended
    assert [await bench.attempts(song.id) for song in songs] == [[(1, "failed"), (2, "done")]] * 2
    assert await bench.balance(live) == (USD - 120 * NANO_PER_SECOND, 0)
    assert await violations(database) == []


@pytest.mark.slow
async def test_a_worker_that_stalls_while_it_settles_holds_nobody_up(
    bench: Workbench, workers: Workers, database: str
) -> None:
    stalled = await start_worker(bench, workers)
    live = await bench.customer()
    song = (await bench.jobs.submit(live, new_order(seconds=60))).job
    await until_claimed(bench, song)
    conn = await asyncpg.connect(database)
    async with conn.transaction():
        await conn.execute("SELECT FROM account WHERE id = $1 FOR UPDATE", live.organization_id)

        async def is_settling() -> bool:
            return bool(await conn.fetchval("SELECT true FROM pg_locks WHERE NOT granted LIMIT 1"))

        await until(is_settling, RESCUE_SECONDS, what="the settlement")
        await start_worker(bench, workers)
        stalled.send(signal.SIGSTOP)
    await conn.close()
    # The lock is the stalled worker's now, in a transaction that does not go on.
    async with asyncio.timeout(RESCUE_SECONDS):
        other = (await bench.jobs.submit(live, new_order(seconds=5))).job
    await until_final(bench, song, other)
    ended = await bench.row(song.id)
    stalled.send(signal.SIGCONT)
    await until_told(stalled, "job.ended", song)
    assert await bench.row(song.id) == ended
    assert await bench.attempts(song.id) == [(1, "failed"), (2, "done")]
    assert await bench.balance(live) == (USD - 65 * NANO_PER_SECOND, 0)
    assert await violations(database) == []
