"""Usage is counted in the commit of the charge: once, whoever settles, and again by the migration."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway import schema
from gateway.auth.principal import Principal
from gateway.jobs import settlement
from gateway.jobs.job import JobStatus
from gateway.jobs.queue import Claim
from gateway.jobs.settlement import Ending
from tests.factories import NANO_PER_SECOND, USD, new_key, new_project, new_result, violations
from tests.workbench import BROKEN, Workbench


def ending(claim: Claim, *, frames: int | None = None) -> Ending:
    result = new_result(frames or claim.request.frames)
    return Ending(job_id=claim.job_id, fence=claim.fence, result=result)


async def counted(bench: Workbench) -> list[tuple[Any, ...]]:
    rows = await bench.pool.fetch(
        """
        SELECT organization_id, key_id, project_id, model, backend, sum(jobs)::int, sum(billed_ms)::int,
               sum(cost_nano)::int FROM usage_hour GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2
        """
    )
    return [tuple(row) for row in rows]


async def several(bench: Workbench, count: int, *principals: Principal) -> list[Claim]:
    """So many claimed jobs of each."""
    for principal in principals:
        for _ in range(count):
            await bench.submit(principal)
    return await bench.claim(count * len(principals))


async def test_a_charge_is_counted_where_it_belongs(bench: Workbench, database: str) -> None:
    whole = await bench.customer()
    async with bench.pool.acquire() as conn:
        project = await new_project(conn, whole.organization_id, "p")
        member = await new_key(conn, whole.organization_id, project_id=project)
    claims = await several(bench, 2, whole, member)
    await settlement.finish(bench.pool, [ending(claim) for claim in claims], retry=False)
    both = [(whole.key_id, None), (member.key_id, project)]
    assert Counter(await counted(bench)) == Counter(
        (whole.organization_id, key, of, "sandbox", "engine", 2, 20_000, 20 * NANO_PER_SECOND)
        for key, of in both
    )
    assert await bench.pool.fetchval("SELECT hour FROM usage_hour LIMIT 1") == await bench.pool.fetchval(
        "SELECT date_trunc('hour', max(created_at), 'UTC') FROM usage_record"
    )
    assert await violations(database) == []


async def test_what_is_free_is_not_counted(bench: Workbench, database: str) -> None:
    customer, tester = await bench.customer(), await bench.customer(test=True)
    failed, late = await several(bench, 2, customer)
    (free,) = await several(bench, 1, tester)
    await bench.fail(failed, BROKEN)
    await bench.pool.execute("UPDATE job SET cancel_requested_at = now() WHERE id = $1", late.job_id)
    assert (await bench.deliver(late)).status is JobStatus.CANCELED
    assert (await bench.deliver(free)).status is JobStatus.COMPLETED
    assert await counted(bench) == []
    assert await violations(database) == []


async def test_a_settlement_that_comes_again_is_counted_once(bench: Workbench, database: str) -> None:
    (claim,) = await several(bench, 1, await bench.customer())
    for retry in (False, True, True, False):
        await bench.deliver(claim, retry=retry)
    assert [row[5:] for row in await counted(bench)] == [(1, 10_000, 10 * NANO_PER_SECOND)]
    assert await violations(database) == []


async def test_a_settlement_that_fails_counts_nothing(bench: Workbench, database: str) -> None:
    good, bad = await several(bench, 1, await bench.customer(), await bench.customer())
    await bench.pool.execute(
        "UPDATE hold SET state = 'released', closed_at = now() WHERE reference = $1", bad.job_id
    )
    with pytest.raises(Exception, match="a hold is closed already"):
        await settlement.finish(bench.pool, [ending(good), ending(bad)], retry=False)
    assert await counted(bench) == []
    await bench.pool.execute(
        "UPDATE hold SET state = 'open', closed_at = NULL WHERE reference = $1", bad.job_id
    )
    assert await violations(database) == []


async def test_batches_that_cross_wait_for_nobody_in_a_circle(bench: Workbench, database: str) -> None:
    customers = [await bench.customer(credit_nano=100 * USD) for _ in range(3)]
    claims = await several(bench, 8, *customers)
    by_owner = [
        [claim for claim in claims if claim.organization_id == one.organization_id] for one in customers
    ]
    rounds = zip(*by_owner, strict=True)
    batches = [list(batch)[:: 1 if n % 2 else -1] for n, batch in enumerate(rounds)]
    ended = await asyncio.gather(
        *(settlement.finish(bench.pool, [ending(claim) for claim in batch], retry=False) for batch in batches)
    )
    assert all(one.won for batch in ended for one in batch)
    assert [row[5] for row in await counted(bench)] == [8, 8, 8]
    assert await violations(database) == []


async def test_the_migration_counts_what_was_charged_before_it(bench: Workbench, database: str) -> None:
    customers = [await bench.customer() for _ in range(2)]
    claims = await several(bench, 3, *customers)
    await settlement.finish(bench.pool, [ending(claim, frames=48_001) for claim in claims], retry=False)
    wanted = await counted(bench), await rare(bench)
    assert len(wanted[0]) == len(customers)
    assert {kind for _, kind in wanted[1]} == {"grant", None}
    engine = create_async_engine(make_url(database).set(drivername="postgresql+asyncpg"), poolclass=NullPool)

    def down_and_up(connection: Connection) -> None:
        command.downgrade(schema.alembic_config(connection), "0004")
        command.upgrade(schema.alembic_config(connection), "head")

    async with engine.begin() as connection:
        await connection.run_sync(down_and_up)
    await engine.dispose()
    await bench.pool.expire_connections()
    assert (await counted(bench), await rare(bench)) == wanted
    assert await violations(database) == []
    (claim,) = await several(bench, 1, customers[0])
    assert (await bench.deliver(claim)).won
    assert await violations(database) == []


async def rare(bench: Workbench) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await bench.pool.fetch("SELECT id, kind FROM entry ORDER BY id")]
