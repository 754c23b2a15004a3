"""Whoever locks several rows locks them in one order: waiting may take long, but never goes in a circle."""

import asyncio
import functools
import uuid
from collections.abc import Awaitable, Sequence
from typing import Any

import billing
from gateway.auth.directory import KeyLimits
from gateway.auth.principal import Principal
from gateway.jobs import queue, settlement
from gateway.jobs.admission import admit
from gateway.jobs.queue import Beat, Claim
from gateway.jobs.settlement import Ending
from gateway.jobs.walk import Admitted
from tests.factories import SANDBOX, new_key, new_result, new_submission, until, violations
from tests.workbench import BROKEN, Workbench


async def in_this_order(
    bench: Workbench, table: str, row_id: uuid.UUID | str, *steps: Awaitable[Any]
) -> Sequence[Any]:
    """Start the steps one after another while the row is locked, so that each waits where it can.

    Then the row is let go. Raises DeadlockDetectedError if they wait for each other.
    """
    async with bench.pool.acquire() as gate, gate.transaction():
        column = {"key_meter": "key_id", "margin_day": "model"}.get(table, "id")
        await gate.execute(f"SELECT 1 FROM {table} WHERE {column} = $1 FOR UPDATE", row_id)  # noqa: S608
        tasks = []
        for waiting, step in enumerate(steps, start=1):
            tasks.append(asyncio.ensure_future(step))
            await until(functools.partial(_waits, bench, waiting), what="the wait for a lock")
    return await asyncio.gather(*tasks)


async def _waits(bench: Workbench, count: int) -> bool:
    waiting: int = await bench.pool.fetchval(
        """
        SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'
        """
    )
    return waiting >= count


async def move_to_the_end(bench: Workbench, table: str, column: str, row_id: uuid.UUID) -> None:
    """A scan now meets this row last, and a planner that knows the table's size may well scan it."""
    await bench.pool.execute(f"UPDATE {table} SET {column} = {column} WHERE {column} = $1", row_id)  # noqa: S608
    await bench.pool.execute(f"ANALYZE {table}")


async def claims_of(bench: Workbench, *owners: Principal) -> list[Claim]:
    """A claimed job of each owner, in their order."""
    jobs = [await bench.submit(owner) for owner in owners]
    claims = {claim.job_id: claim for claim in await bench.claim(len(owners))}
    return [claims[job.id] for job in jobs]


async def test_a_batch_of_ends_locks_accounts_like_an_admission(bench: Workbench, database: str) -> None:
    low, high = sorted(
        [await bench.customer(), await bench.customer()], key=lambda principal: principal.organization_id
    )
    failed, made = await claims_of(bench, low, high)
    price = await bench.jobs.price(SANDBOX, low.organization_id)
    assert isinstance(price, billing.Price)
    endings = [
        Ending(job_id=failed.job_id, fence=failed.fence, error=BROKEN),
        Ending(job_id=made.job_id, fence=made.fence, result=new_result(made.request.frames)),
    ]
    batch = [new_submission(low, price), new_submission(high, price)]
    ended, admitted = await in_this_order(
        bench,
        "account",
        high.organization_id,
        settlement.finish(bench.pool, endings, retry=False),
        admit(bench.pool, batch, retry=False),
    )
    assert [end.won for end in ended] == [True, True]
    assert [(type(verdict), verdict.job_id) for verdict in admitted] == [(Admitted, s.job_id) for s in batch]
    assert await violations(database) == []


async def test_a_batch_of_ends_locks_meters_like_an_admission(bench: Workbench, database: str) -> None:
    limits = KeyLimits(max_open_jobs=5)
    one = await bench.customer(test=True, limits=limits)
    async with bench.pool.acquire() as conn:
        other = await new_key(conn, one.organization_id, test=True, limits=limits)
    low, high = sorted([one, other], key=lambda principal: principal.key_id)
    claims = await claims_of(bench, low, high)
    await move_to_the_end(bench, "key_meter", "key_id", low.key_id)
    price = await bench.jobs.price(SANDBOX, one.organization_id)
    assert isinstance(price, billing.Price)
    endings = [Ending(job_id=claim.job_id, fence=claim.fence, error=BROKEN) for claim in claims]
    batch = [new_submission(principal, price) for principal in (low, high)]
    admitted, ended = await in_this_order(
        bench,
        "key_meter",
        low.key_id,
        admit(bench.pool, batch, retry=False),
        settlement.finish(bench.pool, endings, retry=False),
    )
    assert [end.won for end in ended] == [True, True]
    assert [(type(verdict), verdict.job_id) for verdict in admitted] == [(Admitted, s.job_id) for s in batch]
    assert await violations(database) == []


async def test_signs_of_life_lock_jobs_like_their_ends(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    low, high = sorted(await claims_of(bench, principal, principal), key=lambda claim: claim.job_id)
    endings = [Ending(job_id=claim.job_id, fence=claim.fence, error=BROKEN) for claim in (low, high)]
    await move_to_the_end(bench, "job", "id", low.job_id)

    async def beat() -> None:
        beats = [Beat(job_id=claim.job_id, fence=claim.fence, progress=0.5) for claim in (high, low)]
        async with bench.pool.acquire() as conn:
            await queue.beat(conn, beats)

    ended, _ = await in_this_order(
        bench, "job", low.job_id, settlement.finish(bench.pool, endings, retry=False), beat()
    )
    assert [end.won for end in ended] == [True, True]
    assert await violations(database) == []


async def test_returned_jobs_are_locked_like_their_ends(bench: Workbench, database: str) -> None:
    principal = await bench.customer()
    low, high = sorted(await claims_of(bench, principal, principal), key=lambda claim: claim.job_id)
    endings = [Ending(job_id=claim.job_id, fence=claim.fence, error=BROKEN) for claim in (low, high)]
    await move_to_the_end(bench, "job", "id", low.job_id)
    ended, _ = await in_this_order(
        bench,
        "job",
        low.job_id,
        settlement.finish(bench.pool, endings, retry=False),
        bench.give_back(high, low),
    )
    assert [end.won for end in ended] == [True, True]
    assert await violations(database) == []


async def test_margins_and_counters_of_attempts_are_locked_in_one_order(
    bench: Workbench, database: str
) -> None:
    principal = await bench.customer()
    before, made, failed, moved = await claims_of(bench, *[principal] * 4)
    await bench.fail(before, cost_nano=0)  # the rows are there
    endings = [
        Ending(job_id=made.job_id, fence=made.fence, result=new_result(made.request.frames), cost_nano=0),
        Ending(job_id=failed.job_id, fence=failed.fence, error=BROKEN, cost_nano=0),
    ]
    ended, is_moved = await in_this_order(
        bench,
        "margin_day",
        SANDBOX.id,
        settlement.finish(bench.pool, endings, retry=False),
        bench.queue_again(moved),
    )
    assert ([end.won for end in ended], is_moved) == ([True, True], True)
    assert await violations(database) == []
