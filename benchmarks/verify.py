"""What it costs to prove the books: `ledger verify`, the check of every minute, and an export.

    python benchmarks/verify.py [--entries 1000000] [--busy 10000] [--rounds 3] [--quick] [--json]

The history is written by SQL; grants, payments, refunds, disputes, expiry, overruns and provider costs come
on top through the ledger itself, and half of the organizations have budgets. Everything runs here, Postgres
included. The check of every minute is measured as the first one of a process, which has to add up the
budgets, then at rest, and after the jobs of a busy minute.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import uvloop

import billing
from benchmarks.harness import stack
from benchmarks.harness.fill import HISTORIES, fill_history
from benchmarks.harness.lives import JobLives, Lives, open_lives
from benchmarks.harness.report import Report, Sample, parse_options
from benchmarks.harness.stack import SECRET, Server
from gateway.jobs.audit import check_recent, verify_ledger

ACCOUNTS: Final = 1_000
ENTRIES_PER_JOB: Final = 1.89
"""Two for each completed job of the history."""
CLIENTS: Final = 256
LIMIT_SECONDS: Final = 60.0
AT_ONCE: Final = timedelta(0)
CENT: Final = 10_000_000
EXPORTS: Final = ("--csv", "--json")

_BUDGETS: Final = """
INSERT INTO budget (id, account_id, subject, scope, period, limit_nano, period_start)
SELECT gen_random_uuid(), o.id, CASE s.scope WHEN 'key' THEN k.id ELSE o.id END, s.scope, s.period, 1e15,
       CASE s.period WHEN 'total' THEN now() - interval '40 days'
                     ELSE date_trunc(s.period, now(), 'UTC') END
  FROM (SELECT id FROM organization ORDER BY id LIMIT $1) o
  JOIN api_key k ON k.organization_id = o.id
 CROSS JOIN (VALUES ('organization', 'total'), ('organization', 'month'), ('key', 'day')) s (scope, period)
"""


_LATER: Final = """
SET session_replication_role = replica;
UPDATE entry SET created_at = created_at - interval '9 minutes'
 WHERE created_at > now() - interval '3 minutes'
"""
"""What is old enough is final, and not looked at again."""


class ShortLives(JobLives):
    """Jobs for which too little was held."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", **facts: Any) -> None:
        super().__init__(pool, **facts)
        self._amount_nano //= 2


def main() -> None:
    options = parse_options(__doc__, rounds=3, entries=1_000_000, busy=10_000)
    accounts = ACCOUNTS
    if options.quick:
        options.entries, options.busy, accounts = min(options.entries, 10_000), 500, 50
    report = Report(f"Proof of {options.entries:,} entries", unit="entries/s")
    with stack.postgres() as server:
        stack.prepare_accounts(server.dsn, accounts)
        uvloop.run(_execute(server.superuser(server.dsn), _BUDGETS, HISTORIES // 2))
        fill_history(server, server.dsn, jobs=round(options.entries / ENTRIES_PER_JOB))
        uvloop.run(measure(report, server, options.rounds, options.busy))
        for _ in range(options.rounds):
            for form in EXPORTS:
                export(report, server, form)
    report.show(as_json=options.as_json)


async def measure(report: Report, server: Server, rounds: int, busy: int) -> None:
    """Verify the whole and what is recent, with money of every kind."""
    conn = await asyncpg.connect(server.dsn)
    watch = billing.LedgerWatch()
    try:
        await move_money(conn)
        await live(server, ShortLives, busy // 10)
        await check(report, conn, watch, "first check of a process")
        await _execute(server.superuser(server.dsn), _LATER)
        await check_recent(conn, watch, every=AT_ONCE)
        await check(report, conn, watch, "check at rest")
        await live(server, JobLives, busy)
        await check(report, conn, watch, f"check after {busy:,} jobs")
        for _ in range(rounds):
            started = time.perf_counter()
            violations, entries = await verify_ledger(conn)
            seconds = time.perf_counter() - started
            report.add("ledger verify", Sample(rate=entries / seconds))
            report.fact("ledger verify", f"{entries:,} entries in {seconds:.1f} s")
            expect(report, violations)
            if seconds > LIMIT_SECONDS:
                report.failure(f"ledger verify took {seconds:.0f} s, more than {LIMIT_SECONDS:g}")
    finally:
        await conn.close()


async def check(report: Report, conn: billing.Connection, watch: billing.LedgerWatch, name: str) -> None:
    """Three times: the first one may have to add up budgets, and its pages may not be in memory."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        violations = await check_recent(conn, watch, every=AT_ONCE)
        times.append((time.perf_counter() - started) * 1000)
        if violations is None:
            raise RuntimeError("nobody else checks here")
        expect(report, violations)
    report.fact(name, f"{times[0]:.0f} ms, then {statistics.median(times[1:]):.0f} ms")


async def move_money(conn: billing.Connection) -> None:
    """Some of everything for the first organizations."""
    owners = [
        row["id"] for row in await conn.fetch("SELECT id FROM organization ORDER BY id LIMIT $1", HISTORIES)
    ]
    for n, owner in enumerate(owners):
        async with conn.transaction():
            for m in range(5):
                await billing.top_up(
                    conn, account_id=owner, amount_nano=500 * CENT, external_ref=f"pi_{n}_{m}"
                )
            kind = "dispute" if n % 10 == 0 else "payment_refund"
            await billing.take_back(
                conn,
                account_id=owner,
                kind=kind,
                external_ref=f"re_{n}",
                amount_nano=200 * CENT,
                top_up_ref=f"pi_{n}_0",
            )
            if n % 20 == 0:
                await billing.give_again(
                    conn, account_id=owner, kind="dispute_won", external_ref=f"dp_{n}", amount_nano=200 * CENT
                )
            await billing.grant(
                conn,
                account_id=owner,
                amount_nano=CENT,
                reason="a gift",
                expires_at=datetime.now(UTC) - timedelta(seconds=1) if n % 2 else None,
            )
    await refund(conn)
    async with conn.transaction():
        while await billing.expire_due(conn):
            pass


async def refund(conn: billing.Connection) -> None:
    """Usage that was complained about, and what providers charged."""
    rows = await conn.fetch("SELECT reference FROM usage_record ORDER BY reference LIMIT 2000")
    references: list[uuid.UUID] = [row["reference"] for row in rows]
    async with conn.transaction():
        for reference in references[::10]:
            await billing.refund_usage(conn, reference=reference, reason="it was out of tune")
        costs = [billing.ProviderCost(reference, 1, 40_000) for reference in references]
        await billing.book_provider_costs(conn, costs)


async def live(server: Server, kind: type[Lives], jobs: int) -> None:
    """That many jobs from submit to charge, as fast as they go."""
    async with open_lives(kind, server.dsn, server.home) as lives:

        async def client() -> None:
            for _ in range(max(jobs // CLIENTS, 1)):
                await lives.one()

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())


def export(report: Report, server: Server, form: str) -> None:
    """All entries, thrown away; the process' memory is the highest that it had."""
    command = [sys.executable, "-m", "gateway.cli", "ledger", "export", form]
    environ = os.environ | {
        "ANTIPHON_DATABASE_URL": server.dsn,
        "ANTIPHON_HOME": str(server.home),
        "ANTIPHON_SECRET_KEY": SECRET,
    }
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    size = sum(map(len, iter(lambda: process.stdout.read(1 << 20), b"")))
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        report.failure(f"export {form} ended with status {status}")
    entries = uvloop.run(_count(server.dsn))
    report.add(f"export {form}", Sample(rate=entries / seconds))
    report.fact(f"export {form}", f"{size / 1e6:.0f} MB in {seconds:.1f} s, {usage.ru_maxrss / 1024:.0f} MiB")


def expect(report: Report, violations: list[billing.Violation]) -> None:
    """The books are right."""
    for violation in violations:
        report.failure(f"{violation.invariant}: {violation.subject}, {violation.detail}")


async def _count(dsn: str) -> int:
    conn = await asyncpg.connect(dsn)
    try:
        return await billing.count_entries(conn)
    finally:
        await conn.close()


async def _execute(dsn: str, statement: str, *arguments: Any) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute(statement, *arguments)
    finally:
        await conn.close()


if __name__ == "__main__":
    main()
