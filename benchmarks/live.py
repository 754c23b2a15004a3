"""Five hundred open event streams and a thousand polls a second at once, while a worker runs jobs.

    python benchmarks/live.py [--seconds 20] [--streams 500] [--polls 1000] [--quick] [--json]

The baseline is the same polls without streams and without a worker. A stream whose job has ended is
followed by a stream of the next job, so their number stays. Any answer but 200, a stream that breaks off
and a poll without an answer is an error, and there must be none.
"""

from typing import Final

import asyncpg
import uvloop

from benchmarks.harness import stack
from benchmarks.harness.cpu import measured, resident_mib
from benchmarks.harness.live_load import LiveLoad, LivePlan, run_live
from benchmarks.harness.load import LoadProcess, Plan
from benchmarks.harness.report import Report, Sample, parse_options
from benchmarks.harness.stack import HttpProcess, Server
from benchmarks.harness.traffic import submit_requests

SPARE_JOBS: Final = 300
ALONE: Final = "polls alone"
_PROCESSES: Final = ("HTTP", "Postgres", "worker", "load")


def main() -> None:
    options = parse_options(__doc__, seconds=20, streams=500, polls=1000)
    if options.quick:
        options.streams, options.polls, options.seconds = 50, 100, 3.0
    report = Report("Live", unit="polls/s")
    with stack.postgres() as server, LoadProcess() as load:
        (key,) = stack.prepare_accounts(server.dsn, 1)
        with stack.http_process(server, server.dsn) as http:
            live = Live(server, http, load, report, key)
            report.fact("MiB of the HTTP process before", round(resident_mib(http.pid), 1))
            for _ in range(options.rounds):
                live.submit(options.streams + SPARE_JOBS)
                live.run(ALONE, streams=0, polls=options.polls, seconds=options.seconds / 4)
                with stack.worker_process(server, server.dsn) as worker:
                    line = f"with {options.streams} streams and a worker"
                    live.run(
                        line, worker, streams=options.streams, polls=options.polls, seconds=options.seconds
                    )
                live.cancel_rest()
    report.show(as_json=options.as_json)


class Live:
    """One installation and its clients."""

    def __init__(
        self, server: Server, http: HttpProcess, load: LoadProcess, report: Report, key: str
    ) -> None:
        self._server = server
        self._http = http
        self._load = load
        self._report = report
        self._key = key

    def submit(self, jobs: int) -> None:
        """Queue the jobs that will be followed."""
        plan = Plan(
            port=self._http.port,
            requests=submit_requests([self._key]),
            expected=b"202",
            count=jobs,
            clients=16,
        )
        self._report.failure(self._load.run(plan).first_failure)

    def run(self, line: str, worker: int | None = None, *, streams: int, polls: int, seconds: float) -> None:
        """One line of the table; with streams, what they brought as well."""
        plan = LivePlan(
            port=self._http.port,
            key=self._key,
            jobs=uvloop.run(_waiting_jobs(self._server.dsn)),
            streams=streams,
            polls_per_second=polls,
            seconds=seconds,
        )
        pids = {"HTTP": self._http.pid, "Postgres": self._server.pid}
        with measured(pids if worker is None else pids | {"worker": worker}) as cpu:
            live = self._load.call(run_live, plan)
        cpu.seconds["load"] = live.cpu_seconds
        self._report.failure(live.first_failure)
        sample = Sample(
            rate=live.polls / live.seconds,
            p50_ms=live.p50_ms,
            p99_ms=live.p99_ms,
            failed=live.failed,
            cpu_us=cpu.microseconds_each(live.polls),
            others=cpu.others,
        )
        self._report.add(line, sample, baseline=None if worker is None else ALONE)
        if streams:
            self._report_streams(live, {name: used / cpu.wall for name, used in cpu.seconds.items()})

    def cancel_rest(self) -> None:
        """What nobody has worked off is no backlog for the next round."""
        uvloop.run(_postpone(self._server.dsn))

    def _report_streams(self, live: LiveLoad, shares: dict[str, float]) -> None:
        self._report.fact("errors", live.failed)
        self._report.fact("streams answered", live.streams)
        self._report.fact("streams that saw their job's end", live.completed)
        self._report.fact("events received", live.events)
        self._report.fact("MiB of the HTTP process after", round(resident_mib(self._http.pid), 1))
        for name in _PROCESSES:
            self._report.fact(f"cores used by {name}", round(shares[name], 2))
        if not live.completed:
            self._report.failure("no stream saw its job's end")


async def _waiting_jobs(dsn: str) -> list[str]:
    conn = await asyncpg.connect(dsn)
    try:
        rows = await conn.fetch(
            "SELECT id FROM job WHERE status = 'queued' AND run_at <= now() ORDER BY turn, id"
        )
    finally:
        await conn.close()
    return [row[0].hex for row in rows]


async def _postpone(dsn: str) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute("UPDATE job SET run_at = now() + interval '1 day' WHERE status = 'queued'")
    finally:
        await conn.close()


if __name__ == "__main__":
    main()
