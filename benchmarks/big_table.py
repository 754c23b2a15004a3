"""Admission and reads with a million jobs in the table, against the same on an almost empty one.

    python benchmarks/big_table.py [--jobs 1000000] [--seconds 4] [--rounds 3] [--quick] [--only ...] [--json]

Two databases of one server, each with an HTTP process of its own, take turns; the smaller one has a
hundredth of the jobs, so that there are finished ones to read. The history is written by SQL with
everything that belongs to it, and `ledger verify` checks it.
"""

import time
from argparse import Namespace
from typing import Final

import asyncpg
import msgspec
import uvloop

import billing
from benchmarks.harness import stack
from benchmarks.harness.fill import fill_history
from benchmarks.harness.load import LoadProcess, Plan
from benchmarks.harness.measure import Bench
from benchmarks.harness.report import Report, parse_options
from benchmarks.harness.stack import HttpProcess, Server
from benchmarks.harness.traffic import read_requests, submit_requests
from gateway.jobs.audit import verify_ledger

PARTS: Final = ("submits", "reads")
WARM_UP_SECONDS: Final = 1.0
SMALLER: Final = 100


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two installations that are compared."""

    name: str
    http: HttpProcess
    keys: list[str]
    reads: list[bytes]


def main() -> None:
    options = parse_options(
        __doc__, parts=PARTS, seconds=4, rounds=3, clients=64, accounts=1000, jobs=1_000_000
    )
    if options.quick:
        options.jobs, options.accounts = min(options.jobs, 5000), 50
    report = Report(f"{options.jobs:,} jobs in the table")
    with stack.postgres() as server, LoadProcess() as load:
        bench = Bench(server, load, report)
        small, full = server.dsn, server.create_database("filled")
        keys = {dsn: stack.prepare_accounts(dsn, options.accounts) for dsn in (small, full)}
        fill_history(server, small, jobs=options.jobs // SMALLER)
        fill(report, server, full, options.jobs)
        with stack.http_process(server, small) as first, stack.http_process(server, full) as second:
            sides = [
                open_side(bench, f"{options.jobs // SMALLER:,} jobs", first, small, keys[small]),
                open_side(bench, f"{options.jobs:,} jobs", second, full, keys[full]),
            ]
            for _ in range(options.rounds):
                compare(bench, sides, options)
    report.show(as_json=options.as_json)


def fill(report: Report, server: Server, dsn: str, jobs: int) -> None:
    """Write the history and prove that its money is accounted for."""
    started = time.perf_counter()
    fill_history(server, dsn, jobs=jobs)
    report.fact("history written in", f"{time.perf_counter() - started:.0f} s")
    started = time.perf_counter()
    violations, entries = uvloop.run(_verify(dsn))
    report.fact("ledger verify", f"{entries:,} entries in {time.perf_counter() - started:.1f} s")
    for violation in violations:
        report.failure(f"{violation.invariant}: {violation.subject}, {violation.detail}")


def open_side(bench: Bench, name: str, http: HttpProcess, dsn: str, keys: list[str]) -> Side:
    """Warm up both kinds of request."""
    for some in (keys, keys[:1]):
        requests = submit_requests(some)
        bench.warm_up(Plan(port=http.port, requests=requests, expected=b"202", seconds=WARM_UP_SECONDS))
    return Side(name=name, http=http, keys=keys, reads=read_requests(dsn, keys[0], status="completed"))


def compare(bench: Bench, sides: list[Side], options: Namespace) -> None:
    """Each load on one side, then on the other."""
    many = f"POST, {options.accounts:,} accounts"
    for line in ("POST, 1 account", many, "GET /v1/jobs/{id}"):
        is_read = line.startswith("GET")
        if ("reads" if is_read else "submits") not in options.only:
            continue
        for side in sides:
            writes = submit_requests(side.keys if line == many else side.keys[:1])
            plan = Plan(
                port=side.http.port,
                requests=side.reads if is_read else writes,
                expected=b"200" if is_read else b"202",
                clients=options.clients,
                seconds=options.seconds,
            )
            against = None if side is sides[0] else f"{line}, {sides[0].name}"
            bench.run_http(f"{line}, {side.name}", side.http, plan, against=against)


async def _verify(dsn: str) -> tuple[list[billing.Violation], int]:
    conn = await asyncpg.connect(dsn)
    try:
        return await verify_ledger(conn)
    finally:
        await conn.close()


if __name__ == "__main__":
    main()
