"""The check of every minute costs the same in a long history as in a short one."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import asyncpg

import billing
from gateway.auth.directory import KeyLimits
from gateway.auth.principal import Principal
from gateway.embedded import EmbeddedPostgres
from gateway.jobs import settlement
from gateway.jobs.audit import check_recent
from gateway.jobs.settlement import Ending
from tests.factories import USD, new_result, violations
from tests.planting import plant
from tests.workbench import BROKEN, Workbench

JOBS = 2_000
BATCH = 500
MOST_ROWS = 250
"""Looked at by one query, of the JOBS and more in each of the large tables."""
LARGE = ("entry", "transfer", "hold", "job", "usage_record", "attempt")
IDS = (
    ("job", "id"),
    ("attempt", "job_id"),
    ("hold", "reference"),
    ("usage_record", "reference"),
    ("transfer", "reference"),
)
YESTERDAY = """
CREATE FUNCTION yesterday(id uuid) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$
    SELECT (lpad(to_hex(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint - 86400000), 12, '0')
            || substr(replace(id::text, '-', ''), 13))::uuid
$$
"""


async def end(bench: Workbench, principal: Principal, count: int) -> None:
    """Submit that many jobs; nine of ten are delivered, the others fail."""
    await asyncio.gather(*(bench.submit(principal) for _ in range(count)))
    claims = await bench.claim(limit=count)
    assert len(claims) == count
    for n in range(0, count, BATCH):
        endings = [
            Ending(
                job_id=claim.job_id,
                fence=claim.fence,
                result=new_result(claim.request.frames) if number % 10 else None,
                error=None if number % 10 else BROKEN,
            )
            for number, claim in enumerate(claims[n : n + BATCH])
        ]
        await settlement.finish(bench.pool, endings, retry=False)


async def grow_old(dsn: str, postgres: EmbeddedPostgres) -> None:
    """As if everything that has happened had happened a day earlier; ids begin with the time."""
    settled = "id IN (SELECT reference FROM transfer WHERE kind = 'settle')"
    statements = [
        YESTERDAY,
        f"UPDATE entry SET transfer_id = yesterday(transfer_id) WHERE transfer_{settled}",  # noqa: S608
        f"UPDATE transfer SET id = yesterday(id) WHERE {settled}",  # noqa: S608
        *(f"UPDATE {table} SET {name} = yesterday({name}) WHERE {name} IS NOT NULL" for table, name in IDS),  # noqa: S608
        *(f"UPDATE {table} SET created_at = created_at - interval '1 d'" for table in LARGE),  # noqa: S608
        "UPDATE job SET expires_at = expires_at - interval '1 d' WHERE expires_at IS NOT NULL",
        "UPDATE budget SET period_start = period_start - interval '1 d'",
        "UPDATE usage_hour SET hour = hour - interval '1 d'",
        *(f"ANALYZE {table}" for table in LARGE),
    ]
    await plant(dsn, postgres.superuser_dsn, statements)


async def queries_of_a_check(dsn: str, watch: billing.LedgerWatch) -> list[tuple[str, tuple[Any, ...]]]:
    """What is asked, in the order of the questions, with the snapshot's settings among it."""
    asked: list[tuple[str, tuple[Any, ...]]] = []

    def note(record: Any) -> None:
        if record.query.lstrip().startswith(("SELECT", "WITH")):
            asked.append((record.query, tuple(record.args)))

    conn = await asyncpg.connect(dsn)
    conn.add_query_logger(note)
    assert await check_recent(conn, watch, every=timedelta(0)) == []
    conn.remove_query_logger(note)
    await conn.close()
    return asked


def looked_at(plan: dict[str, Any]) -> float:
    """Rows of the large tables that the plan's scans have touched."""
    here = 0.0
    if plan.get("Relation Name") in LARGE or plan.get("Index Name", "").endswith(LARGE):
        here = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return here + sum(looked_at(part) for part in plan.get("Plans", ()))


async def rows_by_query(dsn: str, asked: list[tuple[str, tuple[Any, ...]]]) -> dict[str, float]:
    conn = await asyncpg.connect(dsn)
    rows = {}
    async with conn.transaction():
        for query, arguments in asked:
            if "set_config" in query:
                await conn.execute(query, *arguments)
            elif "typeinfo" not in query and "pg_try" not in query:
                text = await conn.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments)
                rows[query] = looked_at(json.loads(text)[0]["Plan"])
    await conn.close()
    return rows


async def test_a_check_of_a_long_history_looks_at_what_is_new(
    bench: Workbench, database: str, postgres: EmbeddedPostgres
) -> None:
    limits = KeyLimits(budget_nano=1_000 * USD, budget_period="total", max_open_jobs=2 * JOBS)
    principal = await bench.customer(credit_nano=1_000 * USD, limits=limits)
    await end(bench, principal, JOBS)
    await grow_old(database, postgres)
    assert await violations(database) == []
    watch = billing.LedgerWatch()
    for _ in range(2):  # the first one looks at everything, because it never did
        await queries_of_a_check(database, watch)
    await end(bench, principal, 10)
    asked = await queries_of_a_check(database, watch)
    rows = await rows_by_query(database, asked)
    assert len(rows) > 25
    assert {query: count for query, count in rows.items() if count > MOST_ROWS} == {}
