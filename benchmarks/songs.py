"""Songs of ten seconds from submit to completed, by real worker processes, against the composer alone.

    python benchmarks/songs.py [--jobs 16] [--workers 2] [--rounds 2] [--quick] [--only ...] [--json]

The composer alone renders the same prompts on one thread: no queue, no encoding, no store, no money. A line's
rate is songs per second; ten times that is the real-time factor. `one at a time` is the latency of a
single job on an idle system, seen by a client that polls.
"""

import asyncio
import itertools
import multiprocessing
import os
import statistics
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Final

import asyncpg
import httpx
import msgspec
import uvloop

from benchmarks.harness import stack
from benchmarks.harness.cpu import measured
from benchmarks.harness.load import LoadProcess, Plan, post
from benchmarks.harness.report import Report, Sample, parse_options
from benchmarks.harness.stack import HttpProcess, Server
from benchmarks.harness.traffic import SUBMIT
from engine import EngineRequest, Finished
from engine.composer.runner import MODEL, ComposerRunner

PARTS: Final = ("latency", "throughput", "workers")
PROMPTS: Final = ("pop song", "techno", "ambient", "orchestral cinematic")
FORMATS: Final = ("flac", "mp3")
SONG_SECONDS: Final = 10
POLL_SECONDS: Final = 0.01
WATCH_SECONDS: Final = 0.05
KEYS: Final = 100
NICENESS: Final = 10
"""The workers' own, so that the composer alone has no advantage on a busy machine."""
SINGLE_JOBS: Final = 4
LIMIT_SECONDS: Final = 300.0
ALONE: Final = "composer alone, 1 thread"


def main() -> None:
    options = parse_options(__doc__, parts=PARTS, rounds=2, jobs=16, workers=2)
    if options.quick:
        options.jobs = min(options.jobs, 4)
    report = Report("Songs of 10 s from submit to completed", unit="songs/s")
    composer = ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=os.nice, initargs=(NICENESS,)
    )
    with composer, stack.postgres() as server, LoadProcess() as load:
        keys = itertools.cycle(stack.prepare_accounts(server.dsn, KEYS))
        with stack.http_process(server, server.dsn) as http, ExitStack() as workers:
            studio = Studio(server, http, load, report)
            composer.submit(compose, len(PROMPTS)).result()
            studio.hire(workers, next(keys))
            for _ in range(options.rounds):
                report.add(ALONE, _sample(composer.submit(compose, options.jobs).result()))
                run_round(studio, keys, options)
    for line in report.lines:
        if "worker" in line:
            report.fact(f"times real time, {line}", round(report.rate(line) * SONG_SECONDS, 1))
    report.show(as_json=options.as_json)


def run_round(studio: "Studio", keys: Iterator[str], options: Namespace) -> None:
    """Each format on its own; then again with more workers, who leave afterwards."""
    if "latency" in options.only:
        singles = 1 if options.quick else SINGLE_JOBS
        for audio_format in FORMATS:
            studio.wait_for_each(f"{audio_format}, one at a time", next(keys), audio_format, singles)
    if "throughput" in options.only:
        for audio_format in FORMATS:
            studio.produce(f"{audio_format}, 1 worker", next(keys), audio_format, options.jobs)
    if "workers" in options.only:
        with ExitStack() as more:
            for _ in range(1, options.workers):
                studio.hire(more, next(keys))
            for audio_format in FORMATS:
                line = f"{audio_format}, {options.workers} workers"
                studio.produce(line, next(keys), audio_format, options.jobs)


class Studio:
    """The installation with its workers."""

    def __init__(self, server: Server, http: HttpProcess, load: LoadProcess, report: Report) -> None:
        self._server = server
        self._http = http
        self._load = load
        self._report = report
        self._workers: list[int] = []

    def hire(self, workers: ExitStack, key: str) -> None:
        """Start one more worker process; its first songs, which are slower, are not counted."""
        pid = workers.enter_context(stack.worker_process(self._server, self._server.dsn))
        self._workers.append(pid)
        workers.callback(self._workers.remove, pid)
        for audio_format in FORMATS:
            self._produce(key, audio_format, len(PROMPTS) * len(self._workers))

    def produce(self, line: str, key: str, audio_format: str, jobs: int) -> None:
        """One sample of a line: all jobs are submitted at once."""
        pids = {"HTTP": self._http.pid, "Postgres": self._server.pid}
        names = {f"worker {pid}": pid for pid in self._workers}
        with measured(pids | names) as cpu:
            seconds, failed = self._produce(key, audio_format, jobs)
        cpu.seconds["worker"] = sum(cpu.seconds.pop(name) for name in names)
        sample = Sample(
            rate=jobs / seconds,
            failed=failed,
            cpu_us=cpu.microseconds_each(jobs),
            others=cpu.others,
        )
        self._report.add(line, sample, baseline=ALONE)

    def _produce(self, key: str, audio_format: str, jobs: int) -> tuple[float, int]:
        """Seconds from the first submit to the last end, as the database wrote them, and failures."""
        requests = [_request(key, audio_format, prompt) for prompt in PROMPTS]
        plan = Plan(port=self._http.port, requests=requests, expected=b"202", count=jobs, clients=4)
        since = datetime.now(UTC)
        self._report.failure(self._load.run(plan).first_failure)
        outcome = uvloop.run(_await_jobs(self._server.dsn, since, jobs))
        self._report.failure(outcome.first_failure)
        return outcome.seconds, outcome.failed

    def wait_for_each(self, line: str, key: str, audio_format: str, jobs: int) -> None:
        """One job after the other, each polled until it is completed."""
        times = []
        with httpx.Client(base_url=self._http.url, trust_env=False) as client:
            headers = {"authorization": f"Bearer {key}"}
            for prompt in itertools.islice(itertools.cycle(PROMPTS), jobs):
                started = time.perf_counter()
                job = client.post(SUBMIT, headers=headers, json=_body(audio_format, prompt)).json()
                while job["status"] not in {"completed", "failed"}:
                    time.sleep(POLL_SECONDS)
                    job = client.get(f"/v1/jobs/{job['id']}", headers=headers).json()
                times.append(time.perf_counter() - started)
                if job["status"] != "completed":
                    self._report.failure(str(job["error"]))
        self._report.add(line, _sample(times), baseline=ALONE)


def compose(songs: int) -> list[float]:
    """Seconds for each song, in a process that does nothing else."""
    runner = ComposerRunner(threads=1)
    return [_compose_one(runner, n, PROMPTS[n % len(PROMPTS)]) for n in range(songs)]


def _compose_one(runner: ComposerRunner, number: int, prompt: str) -> float:
    request = EngineRequest(
        id=f"song {number}", model=MODEL, prompt=prompt, lyrics="", frames=SONG_SECONDS * 48_000, seed=number
    )
    started = time.perf_counter()
    *_, last = runner.run([request], lambda _: True)
    assert isinstance(last, Finished)
    return time.perf_counter() - started


class Outcome(msgspec.Struct, frozen=True):
    """What became of the jobs."""

    seconds: float
    failed: int
    first_failure: str


async def _await_jobs(dsn: str, since: datetime, jobs: int) -> Outcome:
    """Raises TimeoutError when not all of them have ended in time."""
    query = """
        SELECT count(completed_at), extract(epoch FROM max(completed_at) - min(created_at))::float8,
               count(*) FILTER (WHERE status <> 'completed'), coalesce(min(error::text), '')
          FROM job WHERE created_at >= $1
    """
    conn = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                ended, *outcome = await conn.fetchrow(query, since) or (0,)
                if ended == jobs:
                    return Outcome(*outcome)
                await asyncio.sleep(WATCH_SECONDS)
    finally:
        await conn.close()


def _sample(times: Sequence[float]) -> Sample:
    return Sample(
        rate=len(times) / sum(times), p50_ms=statistics.median(times) * 1e3, p99_ms=max(times) * 1e3
    )


def _request(key: str, audio_format: str, prompt: str) -> bytes:
    return post(SUBMIT, key, msgspec.json.encode(_body(audio_format, prompt)))


def _body(audio_format: str, prompt: str) -> dict[str, object]:
    return {"model": MODEL, "prompt": prompt, "audio_duration": SONG_SECONDS, "format": audio_format}


if __name__ == "__main__":
    main()
