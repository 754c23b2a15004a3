"""A budget caps what its subject spends in a period, whatever the balance says."""

import uuid
from datetime import UTC, datetime

import asyncpg
import pytest

import billing
from billing.budgets import write_budgets
from tests.factories import Conn, new_customer

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def new_budget(conn: Conn, period: str, limit_nano: int = 100) -> uuid.UUID:
    principal = await new_customer(conn)
    return await billing.set_budget(
        conn,
        account_id=principal.organization_id,
        subject=principal.key_id,
        scope="key",
        period=period,
        limit_nano=limit_nano,
    )


async def lock(conn: Conn, budget_id: uuid.UUID) -> billing.Budget:
    (budget,) = await billing.lock_budgets(conn, ids=[budget_id])
    return budget


async def spend(conn: Conn, budget_id: uuid.UUID, *, spent_nano: int, held_nano: int) -> None:
    budget = await lock(conn, budget_id)
    budget.spent_nano, budget.held_nano = spent_nano, held_nano
    await write_budgets(conn, [budget])


async def test_what_is_spent_and_held_is_no_longer_available(conn: Conn) -> None:
    budget_id = await new_budget(conn, "total")
    await spend(conn, budget_id, spent_nano=30, held_nano=20)
    budget = await lock(conn, budget_id)
    assert budget.available_nano == 50
    assert not budget.reserve(51)
    assert budget.held_nano == 20
    assert budget.reserve(50)
    assert budget.available_nano == 0


@pytest.mark.parametrize(("period", "spent_nano"), [("day", 0), ("month", 0), ("total", 30)])
async def test_a_new_period_starts_with_nothing_spent_and_with_what_is_held(
    conn: Conn, period: str, spent_nano: int
) -> None:
    budget_id = await new_budget(conn, period)
    await spend(conn, budget_id, spent_nano=30, held_nano=20)
    await conn.execute("UPDATE budget SET period_start = $1", LONG_AGO)
    for _ in range(2):
        budget = await lock(conn, budget_id)
        assert (budget.spent_nano, budget.held_nano) == (spent_nano, 20)


@pytest.mark.parametrize("period", ["day", "month"])
async def test_a_period_begins_at_midnight_in_utc(conn: Conn, period: str) -> None:
    await conn.execute("SET timezone = 'Pacific/Kiritimati'")
    budget_id = await new_budget(conn, period)
    await conn.execute("UPDATE budget SET period_start = $1", LONG_AGO)
    await lock(conn, budget_id)
    start, now = await conn.fetchrow("SELECT period_start, now() FROM budget")
    day = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert start == (day if period == "day" else day.replace(day=1))


async def test_the_current_period_keeps_what_was_spent(conn: Conn) -> None:
    budget_id = await new_budget(conn, "day")
    await spend(conn, budget_id, spent_nano=30, held_nano=0)
    assert (await lock(conn, budget_id)).spent_nano == 30


async def test_a_subject_has_one_budget_of_each_period(conn: Conn) -> None:
    principal = await new_customer(conn)
    for period in ("day", "month", "total"):
        await billing.set_budget(
            conn,
            account_id=principal.organization_id,
            subject=principal.key_id,
            scope="key",
            period=period,
            limit_nano=1,
        )
    assert len(await billing.lock_budgets(conn, subjects=[principal.key_id])) == 3


async def test_setting_a_budget_again_changes_its_limit_and_keeps_what_was_spent(conn: Conn) -> None:
    budget_id = await new_budget(conn, "month")
    await conn.execute("UPDATE budget SET spent_nano = 60 WHERE id = $1", budget_id)
    (before,) = await billing.lock_budgets(conn, ids=[budget_id])
    again = await billing.set_budget(
        conn,
        account_id=before.account_id,
        subject=before.subject,
        scope="key",
        period="month",
        limit_nano=70,
    )
    (after,) = await billing.lock_budgets(conn, ids=[budget_id])
    assert again == budget_id
    assert (after.spent_nano, after.limit_nano, after.available_nano) == (60, 70, 10)


@pytest.mark.parametrize(
    "change", ["limit_nano = -1", "spent_nano = -1", "held_nano = -1", "period = 'year'"]
)
async def test_a_budget_cannot_be_nonsense(conn: Conn, change: str) -> None:
    await new_budget(conn, "total")
    with pytest.raises(asyncpg.CheckViolationError):
        await conn.execute(f"UPDATE budget SET {change}")  # noqa: S608 - constants
