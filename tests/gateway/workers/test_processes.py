"""Real worker processes with the real engine: one is killed, the other finishes, each song is paid once."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.jobs.job import FINAL, JobStatus
from gateway.storage import AudioStore
from tests.factories import NANO_PER_SECOND, SECRET_KEY, USD, new_key, new_order, until, violations
from tests.workbench import Workbench

RESCUE_SECONDS = 30


class Workers:
    """`antiphon work`, as often as asked for; each writes a log of its own."""

    def __init__(self, database: str, folder: Path) -> None:
        self._folder = folder
        self._environ = {
            "PATH": os.environ["PATH"],
            "ANTIPHON_DATABASE_URL": database,
            "ANTIPHON_HOME": str(folder / "home"),
            "ANTIPHON_STORAGE_URL": (folder / "audio").as_uri(),
            "ANTIPHON_SECRET_KEY": SECRET_KEY,
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start one more."""
        with (self._folder / f"worker-{len(self.processes)}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "gateway.cli", "work"],
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def process_of(self, worker_id: uuid.UUID) -> subprocess.Popen[bytes]:
        """Whose log names the worker."""
        for number, process in enumerate(self.processes):
            if worker_id.hex in (self._folder / f"worker-{number}.log").read_text():
                return process
        raise LookupError(f"no log names worker {worker_id.hex}")

    def stop(self) -> None:
        """End all of them, in order."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def workers(database: str, tmp_path: Path) -> Iterator[Workers]:
    started = Workers(database, tmp_path)
    yield started
    started.stop()


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

    await until(is_running, 60, what="the start of a worker")
    worker_id = await bench.pool.fetchval("SELECT worker_id FROM job WHERE id = $1", slow.id)
    songs = [(await bench.jobs.submit(live, new_order(seconds=20))).job for _ in range(3)]
    workers.process_of(worker_id).kill()

    async def are_final() -> bool:
        return {await bench.status(job.id) for job in (slow, *songs)} <= FINAL

    await until(are_final, RESCUE_SECONDS, what="the end of all jobs")
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
    bench: Workbench, workers: Workers, database: str, tmp_path: Path
) -> None:
    workers.start()

    async def is_known() -> bool:
        return await bench.pool.fetchval("SELECT count(*) FROM worker") == 1

    await until(is_known, 60, what="the start of the worker")
    live = await bench.customer()
    song = (await bench.jobs.submit(live, new_order(seconds=5))).job

    async def is_running() -> bool:
        return await bench.status(song.id) is not JobStatus.QUEUED

    await until(is_running, what="the claim")
    workers.stop()
    assert workers.processes[0].returncode == 0
    assert await bench.status(song.id) is JobStatus.COMPLETED
    assert await bench.pool.fetchval("SELECT count(*) FROM worker") == 0
    assert await violations(database) == []
    last = (tmp_path / "worker-0.log").read_text().splitlines()[-1]
    assert "job.ended" in last or json.loads(last)
