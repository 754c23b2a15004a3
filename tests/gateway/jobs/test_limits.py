"""The limits of a key are exact, however many lanes ask at the same moment."""

import asyncio
from collections import Counter
from datetime import datetime

import pytest

import billing
from gateway.auth.directory import KeyLimits
from gateway.auth.principal import Principal
from gateway.errors import BudgetExceeded, ConcurrencyLimitExceeded, RateLimitExceeded
from gateway.ids import new_id
from gateway.jobs import queue, settlement
from gateway.jobs.job import JobError, JobErrorCode
from gateway.jobs.reading import JobFilter
from gateway.jobs.service import Jobs, Submitted
from tests.factories import (
    NANO_PER_SECOND,
    Pool,
    new_customer,
    new_order,
    new_result,
    open_lanes,
    violations,
)

COST = 10 * NANO_PER_SECOND


async def customer(pool: Pool, limits: KeyLimits, *, test: bool = False) -> Principal:
    async with pool.acquire() as conn:
        return await new_customer(conn, limits=limits, test=test)


async def rush(lanes: list[Jobs], principal: Principal, count: int = 30) -> dict[type, int]:
    answers = await asyncio.gather(
        *(lanes[n % len(lanes)].submit(principal, new_order()) for n in range(count)), return_exceptions=True
    )
    return dict(Counter(map(type, answers)))


async def minute(pool: Pool) -> datetime:
    return await pool.fetchval("SELECT date_trunc('minute', now())")


async def end_one(pool: Pool, *, well: bool) -> None:
    """Claim the next job and end it."""
    async with pool.acquire() as conn:
        (claim,) = await queue.claim(conn, worker_id=new_id(), queues=["sandbox"], backend="engine", limit=1)
    error = JobError(code=JobErrorCode.UPSTREAM_ERROR, message="no music")
    ending = settlement.Ending(
        job_id=claim.job_id,
        fence=claim.fence,
        result=new_result(claim.request.frames) if well else None,
        error=None if well else error,
    )
    assert [ended.won for ended in await settlement.finish(pool, [ending], retry=False)] == [True]


@pytest.mark.parametrize("test", [False, True])
async def test_requests_per_minute_are_exact_over_two_lanes(pool: Pool, database: str, *, test: bool) -> None:
    async with open_lanes(database, 2) as lanes:
        started = ended = None
        while started is None or started != ended:  # at most once more: when a minute ended meanwhile
            principal = await customer(pool, KeyLimits(requests_per_minute=7), test=test)
            started = await minute(pool)
            kinds = await rush(lanes, principal)
            ended = await minute(pool)
    assert kinds == {Submitted: 7, RateLimitExceeded: 23}
    assert await violations(database) == []


async def test_the_next_minute_starts_from_zero(jobs: Jobs, pool: Pool) -> None:
    principal = await customer(pool, KeyLimits(requests_per_minute=1))
    await jobs.submit(principal, new_order())
    await pool.execute("UPDATE key_meter SET minute_start = minute_start - interval '1 minute'")
    await jobs.submit(principal, new_order())


async def test_a_minute_that_began_behind_our_back_is_not_counted_anew(jobs: Jobs, pool: Pool) -> None:
    # A transaction that waited for its locks over the end of a minute still reads the old one.
    principal = await customer(pool, KeyLimits(requests_per_minute=3))
    await pool.execute(
        """
        UPDATE key_meter
           SET minute_start = date_trunc('minute', now()) + interval '1 minute', minute_count = 2
        """
    )
    await jobs.submit(principal, new_order())
    with pytest.raises(RateLimitExceeded):
        await jobs.submit(principal, new_order())


async def test_whoever_is_limited_hears_when_to_come_back(jobs: Jobs, pool: Pool) -> None:
    principal = await customer(pool, KeyLimits(requests_per_minute=1))
    # Of three at once, at least one is refused even when a minute ends in between.
    answers = await asyncio.gather(
        *(jobs.submit(principal, new_order()) for _ in range(3)), return_exceptions=True
    )
    refusals = [answer for answer in answers if isinstance(answer, RateLimitExceeded)]
    assert refusals
    assert all(1 <= (refusal.retry_after_seconds or 0) <= 60 for refusal in refusals)


async def test_unfinished_jobs_are_exact_over_two_lanes(pool: Pool, database: str) -> None:
    principal = await customer(pool, KeyLimits(max_open_jobs=5))
    async with open_lanes(database, 2) as lanes:
        assert await rush(lanes, principal) == {Submitted: 5, ConcurrencyLimitExceeded: 25}
        for well in (True, False):
            await end_one(pool, well=well)
        assert await rush(lanes, principal) == {Submitted: 2, ConcurrencyLimitExceeded: 28}
        page, _ = await lanes[0].list(principal, JobFilter())
        await lanes[0].cancel(principal, page[0].id)
        assert await rush(lanes, principal) == {Submitted: 1, ConcurrencyLimitExceeded: 29}
    assert await violations(database) == []


@pytest.mark.parametrize("period", ["day", "month", "total"])
async def test_a_budget_is_exact_over_two_lanes(pool: Pool, database: str, period: str) -> None:
    limits = KeyLimits(budget_nano=6 * COST + COST - 1, budget_period=period)
    principal = await customer(pool, limits)
    async with open_lanes(database, 2) as lanes:
        assert await rush(lanes, principal) == {Submitted: 6, BudgetExceeded: 24}
        await end_one(pool, well=True)
        assert await rush(lanes, principal) == {BudgetExceeded: 30}
        await end_one(pool, well=False)
        assert await rush(lanes, principal) == {Submitted: 1, BudgetExceeded: 29}
    (budget,) = await _budgets(pool, principal)
    assert (budget.spent_nano, budget.held_nano) == (COST, 5 * COST)
    assert await violations(database) == []


async def test_the_budget_of_one_key_is_not_the_budget_of_another(pool: Pool, database: str) -> None:
    poor = await customer(pool, KeyLimits(budget_nano=COST))
    rich = await customer(pool, KeyLimits())
    async with open_lanes(database, 1) as lanes:
        kinds = await asyncio.gather(rush(lanes, poor, 3), rush(lanes, rich, 3))
    assert kinds == [{Submitted: 1, BudgetExceeded: 2}, {Submitted: 3}]


async def _budgets(pool: Pool, principal: Principal) -> list[billing.Budget]:
    async with pool.acquire() as conn, conn.transaction():
        return await billing.lock_budgets(conn, subjects=[principal.key_id])
