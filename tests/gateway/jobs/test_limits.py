"""The limits of keys, projects and organizations are exact, however many lanes ask at the same moment."""

import asyncio
import uuid
from collections import Counter
from datetime import datetime

import msgspec
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
    new_key,
    new_order,
    new_project,
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


class Company(msgspec.Struct):
    """An organization with a project; two keys belong to the project, two do not."""

    organization_id: uuid.UUID
    project_id: uuid.UUID
    inside: list[Principal]
    outside: list[Principal]

    def subject(self, scope: str) -> uuid.UUID:
        """Who is capped: of the keys, the first one inside."""
        match scope:
            case "key":
                return self.inside[0].key_id
            case "project":
                return self.project_id
            case _:
                return self.organization_id

    def capped(self, scope: str) -> tuple[list[Principal], list[Principal]]:
        """The keys that such a cap counts for, and the others."""
        match scope:
            case "key":
                return self.inside[:1], [*self.inside[1:], *self.outside]
            case "project":
                return self.inside, self.outside
            case _:
                return [*self.inside, *self.outside], []


@pytest.fixture
async def company(pool: Pool) -> Company:
    async with pool.acquire() as conn:
        owner = (await new_customer(conn)).organization_id
        project_id = await new_project(conn, owner, "one")
        keys = [
            await new_key(conn, owner, project_id=project) for project in (project_id, project_id, None, None)
        ]
    # As the directory finds them once something is capped.
    keys = [msgspec.structs.replace(key, has_budget=True) for key in keys]
    return Company(owner, project_id, keys[:2], keys[2:])


async def cap(
    pool: Pool,
    company: Company,
    scope: str,
    jobs: int,
    *,
    period: str = "total",
    alert_nano: int | None = None,
) -> None:
    """At so many jobs, and not quite one more."""
    async with pool.acquire() as conn:
        await billing.set_budget(
            conn,
            account_id=company.organization_id,
            subject=company.subject(scope),
            scope=scope,
            period=period,
            limit_nano=jobs * COST + COST - 1,
            alert_nano=alert_nano,
        )


async def rush_of(lanes: list[Jobs], principals: list[Principal], count: int = 30) -> dict[type, int]:
    """Dealt to the lanes and keys in turn."""
    answers = await asyncio.gather(
        *(
            lanes[n % len(lanes)].submit(principals[n // 2 % len(principals)], new_order())
            for n in range(count)
        ),
        return_exceptions=True,
    )
    return dict(Counter(map(type, answers)))


@pytest.mark.parametrize("period", billing.BUDGET_PERIODS)
@pytest.mark.parametrize("scope", billing.BUDGET_SCOPES)
async def test_a_budget_of_each_level_counts_for_all_its_keys_and_for_no_other(
    pool: Pool, database: str, company: Company, scope: str, period: str
) -> None:
    await cap(pool, company, scope, 6, period=period)
    capped, free = company.capped(scope)
    async with open_lanes(database, 2) as lanes:
        assert await rush_of(lanes, capped) == {Submitted: 6, BudgetExceeded: 24}
        if free:
            assert await rush_of(lanes, free) == {Submitted: 30}
            later = "UPDATE job SET run_at = 'infinity' WHERE key_id = ANY($1)"
            await pool.execute(later, [key.key_id for key in free])
        await end_one(pool, well=True)
        await end_one(pool, well=False)
        assert await rush_of(lanes, capped) == {Submitted: 1, BudgetExceeded: 29}
    async with pool.acquire() as conn:
        (found,) = await billing.read_budgets(conn, company.organization_id)
    assert (found.spent_nano, found.held_nano) == (COST, 5 * COST)
    assert await violations(database) == []


@pytest.mark.parametrize(("period", "admitted"), [("day", 2), ("month", 2), ("total", 0)])
async def test_what_was_spent_in_a_day_or_month_that_is_over_does_not_count(
    pool: Pool, database: str, company: Company, period: str, admitted: int
) -> None:
    await cap(pool, company, "project", 4, period=period)
    async with open_lanes(database, 2) as lanes:
        assert await rush_of(lanes, company.inside) == {Submitted: 4, BudgetExceeded: 26}
        for _ in range(2):
            await end_one(pool, well=True)
        await pool.execute("UPDATE budget SET period_start = period_start - interval '40 days'")
        answers = await rush_of(lanes, company.inside)
    assert (answers.get(Submitted, 0), answers[BudgetExceeded]) == (admitted, 30 - admitted)


async def test_of_several_budgets_the_tightest_decides_and_is_named(
    pool: Pool, jobs: Jobs, company: Company
) -> None:
    caller = company.inside[0]
    for scope, limit in (("key", 3), ("project", 2), ("organization", 1)):
        await cap(pool, company, scope, limit)
    for scope in ("organization", "project", "key"):
        await jobs.submit(caller, new_order())
        with pytest.raises(BudgetExceeded, match=f"total budget of this {scope}") as refused:
            await jobs.submit(caller, new_order())
        assert refused.value.details == {
            "required_usd": billing.format_usd(COST),
            "available_usd": billing.format_usd(COST - 1),
        }
        async with pool.acquire() as conn:
            removed = await billing.remove_budget(conn, subject=company.subject(scope), period="total")
        assert removed
    await jobs.submit(caller, new_order())


async def test_what_a_job_costs_is_spent_on_every_level(
    pool: Pool, jobs: Jobs, company: Company, database: str
) -> None:
    for scope in billing.BUDGET_SCOPES:
        for period in billing.BUDGET_PERIODS:
            await cap(pool, company, scope, 10, period=period, alert_nano=COST)
    for _ in range(3):
        await jobs.submit(company.inside[0], new_order())
    await jobs.submit(company.inside[1], new_order())
    await jobs.submit(company.outside[0], new_order())
    for well in (True, False, True, True):
        await end_one(pool, well=well)
    async with pool.acquire() as conn:
        found = await billing.read_budgets(conn, company.organization_id)
        notices = await billing.take_untold(conn)
    sums = {(b.scope, b.spent_nano + b.held_nano, b.period) for b in found}
    assert sums == {
        (scope, jobs_left * COST, period)
        for scope, jobs_left in (("key", 2), ("project", 3), ("organization", 4))
        for period in billing.BUDGET_PERIODS
    }
    assert Counter(n.data["scope"] for n in notices if n.kind == "budget.alert") == dict.fromkeys(
        billing.BUDGET_SCOPES, 3
    )
    assert await violations(database) == []


async def test_test_keys_count_against_no_budget(pool: Pool, jobs: Jobs, company: Company) -> None:
    async with pool.acquire() as conn:
        test_key = await new_key(conn, company.organization_id, test=True, project_id=company.project_id)
    await cap(pool, company, "organization", 0)
    await jobs.submit(msgspec.structs.replace(test_key, has_budget=True), new_order())
    with pytest.raises(BudgetExceeded):
        await jobs.submit(company.outside[0], new_order())


async def _budgets(pool: Pool, principal: Principal) -> list[billing.Budget]:
    async with pool.acquire() as conn, conn.transaction():
        return await billing.lock_budgets(conn, subjects=[principal.key_id])
