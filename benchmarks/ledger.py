"""The life of a job in the ledger (hold, settlement, entries) on one hot account, against single statements.

    python benchmarks/ledger.py [--seconds 4] [--rounds 3] [--quick] [--only alone,jobs] [--json]

`ledger alone` is holds, usage, transfers and entries; `with job rows` adds admission, claim and end of the
job around them. The lanes and the clients run in this process. The baseline is the usual best simple way:
pgbench with one statement for the hold and one for the settlement, each its own transaction, on tables of
the same shape. Every commit waits for the disk, and at the end the books of all three are checked.
"""

import asyncio
import statistics
import time
from argparse import Namespace
from typing import Final

import uvloop

from benchmarks.harness import baseline, ledger_baseline, stack
from benchmarks.harness.cpu import measured
from benchmarks.harness.lives import JobLives, LedgerLives, Lives, open_lives
from benchmarks.harness.report import Report, Sample, parse_options
from benchmarks.harness.stack import Server

KINDS: Final[dict[str, tuple[str, type[Lives]]]] = {
    "alone": ("ledger alone", LedgerLives),
    "jobs": ("with job rows", JobLives),
}
CLIENTS: Final = (64, 512)
WARM_UP_SECONDS: Final = 0.5
BASELINE: Final = f"single statements, {CLIENTS[0]} clients"
GOAL: Final = "4,000 jobs/s on two cores"


def main() -> None:
    options = parse_options(__doc__, parts=tuple(KINDS), seconds=4, rounds=3)
    report = Report("Ledger: hold, settlement and entries on one hot account", unit="jobs/s")
    with stack.postgres() as server:
        dsns = {kind: server.create_database(kind) for kind in options.only}
        for dsn in (server.dsn, *dsns.values()):
            stack.prepare_accounts(dsn, 1)
        ledger_baseline.prepare(server.dsn)
        for _ in range(options.rounds):
            run_baseline(report, server, options.seconds)
            for kind, dsn in dsns.items():
                uvloop.run(compare(report, server, kind, dsn, options))
        uvloop.run(check(report, server, dsns))
    report.fact("goal", GOAL)
    report.show(as_json=options.as_json)


def run_baseline(report: Report, server: Server, seconds: float) -> None:
    """One sample; a transaction of pgbench is one job."""
    figures = baseline.run(server, ledger_baseline.LIFE, seconds, clients=CLIENTS[0])
    sample = Sample(
        rate=figures.rate,
        p50_ms=figures.p50_ms,
        p99_ms=figures.p99_ms,
        cpu_us=figures.cpu.microseconds_each(figures.transactions),
        others=figures.cpu.others,
    )
    report.add(BASELINE, sample)


async def compare(report: Report, server: Server, kind: str, dsn: str, options: Namespace) -> None:
    """Few clients, then many."""
    name, make = KINDS[kind]
    for clients in CLIENTS:
        async with open_lives(make, dsn, server.home) as lives:
            await live(lives, clients, WARM_UP_SECONDS)
            lives.batches.clear()
            started = time.process_time()
            with measured({"Postgres": server.pid}) as cpu:
                latencies = await live(lives, clients, options.seconds)
            cpu.seconds["lanes"] = time.process_time() - started
        line = f"{name}, {clients} clients"
        sample = Sample(
            rate=len(latencies) / cpu.wall,
            p50_ms=latencies[len(latencies) // 2] * 1000,
            p99_ms=latencies[len(latencies) * 99 // 100] * 1000,
            cpu_us=cpu.microseconds_each(len(latencies)),
            others=cpu.others,
        )
        report.add(line, sample, baseline=BASELINE)
        report.fact(f"batches, {line}", describe(lives))


async def live(lives: Lives, clients: int, seconds: float) -> list[float]:
    """Let each client live job after job; how long each job took in seconds, sorted."""
    deadline = time.perf_counter() + seconds
    latencies: list[float] = []

    async def client() -> None:
        while (started := time.perf_counter()) < deadline:
            await lives.one()
            latencies.append(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return sorted(latencies)


def describe(lives: Lives) -> str:
    """Median batches, for example `holds 61 in 4.2 ms`."""
    return ", ".join(
        f"{name} {statistics.median(size for size, _ in batches):.0f}"
        f" in {statistics.median(seconds for _, seconds in batches) * 1000:.1f} ms"
        for name, batches in lives.batches.items()
    )


async def check(report: Report, server: Server, dsns: dict[str, str]) -> None:
    """A fast ledger that is wrong is none: recompute all books from their own lines."""
    jobs, problems = await ledger_baseline.check(server.dsn)
    report.fact("books checked, single statements", f"{jobs:,} jobs")
    for kind, dsn in dsns.items():
        name, make = KINDS[kind]
        async with open_lives(make, dsn, server.home) as lives:
            violations, entries = await lives.verify()
        report.fact(f"books checked, {name}", f"{entries:,} entries")
        problems += [f"{name}: {v.invariant}: {v.subject}, {v.detail}" for v in violations]
    for problem in problems:
        report.failure(problem)


if __name__ == "__main__":
    main()
