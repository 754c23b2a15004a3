"""A hold ends once, in a charge or in a release; whatever else is asked of the books is refused."""

import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

import billing
from tests.factories import NANO_PER_SECOND, USD, Conn, new_customer

SECOND = 48_000


async def hold(conn: Conn, account_id: uuid.UUID, seconds: int = 10, *budget_ids: uuid.UUID) -> uuid.UUID:
    """Reserve `seconds` of the sandbox, as admission does."""
    price = (await billing.read_price_book(conn)).find("sandbox", account_id)
    assert price is not None
    amount = price.cost_nano(seconds * 1000)
    async with conn.transaction():
        account = (await billing.lock_accounts(conn, {account_id}))[account_id]
        budgets = await billing.lock_budgets(conn, ids=budget_ids)
        assert all(reserved.reserve(amount) for reserved in (account, *budgets))
        opened = billing.Hold(
            reference=uuid.uuid4(),
            account_id=account_id,
            price_version_id=price.id,
            amount_nano=amount,
            deadline_at=datetime.now(UTC) + timedelta(hours=1),
            budget_ids=budget_ids,
        )
        await billing.write_holds(conn, [opened], accounts=[account], budgets=budgets)
    return opened.reference


async def settle(conn: Conn, *references: uuid.UUID, frames: int = 10 * SECOND) -> dict[uuid.UUID, int]:
    async with conn.transaction():
        charges = await billing.settle(
            conn, [billing.Delivery(reference=r, frames=frames, sample_rate=SECOND) for r in references]
        )
    return {reference: charge.cost_nano for reference, charge in charges.items()}


async def release(conn: Conn, *references: uuid.UUID) -> None:
    async with conn.transaction():
        await billing.release(conn, references)


async def balance(conn: Conn, account_id: uuid.UUID) -> tuple[int, int]:
    account = await billing.read_account(conn, account_id)
    return account.posted_nano, account.held_nano


async def books(conn: Conn) -> list[object]:
    """Everything the ledger knows, to see that nothing of it has changed."""
    return [
        await conn.fetch(f"SELECT * FROM {table} ORDER BY 1")  # noqa: S608 - constants
        for table in ("account", "hold", "transfer", "entry", "usage_record", "budget")
    ]


async def test_a_hold_reserves_without_moving_money(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    await hold(conn, account_id)
    assert await balance(conn, account_id) == (USD, 10 * NANO_PER_SECOND)
    assert await billing.verify(conn) == []


async def test_a_settlement_moves_the_cost_to_revenue(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    reference = await hold(conn, account_id)
    assert await settle(conn, reference) == {reference: 10 * NANO_PER_SECOND}
    assert await balance(conn, account_id) == (USD - 10 * NANO_PER_SECOND, 0)
    assert await balance(conn, billing.REVENUE) == (10 * NANO_PER_SECOND, 0)
    assert await billing.verify(conn) == []


@pytest.mark.parametrize(
    ("frames", "billed_ms"), [(1, 1), (48, 1), (49, 2), (5 * SECOND, 5_000), (10 * SECOND, 10_000)]
)
async def test_what_was_delivered_is_charged(conn: Conn, frames: int, billed_ms: int) -> None:
    reference = await hold(conn, (await new_customer(conn)).organization_id)
    assert await settle(conn, reference, frames=frames) == {reference: billed_ms * NANO_PER_SECOND // 1000}
    assert await conn.fetchval("SELECT billed_ms FROM usage_record") == billed_ms
    assert await billing.verify(conn) == []


async def test_never_more_than_the_hold_is_charged(conn: Conn) -> None:
    account_id = (await new_customer(conn, credit_nano=10 * NANO_PER_SECOND)).organization_id
    reference = await hold(conn, account_id)
    assert await settle(conn, reference, frames=11 * SECOND) == {reference: 10 * NANO_PER_SECOND}
    assert await balance(conn, account_id) == (0, 0)
    assert await billing.verify(conn) == []


async def test_a_release_gives_everything_back(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    await release(conn, await hold(conn, account_id))
    assert await balance(conn, account_id) == (USD, 0)
    assert await conn.fetchval("SELECT count(*) FROM transfer WHERE kind = 'settle'") == 0
    assert await billing.verify(conn) == []


Step = Callable[[Conn, uuid.UUID], Awaitable[object]]


@pytest.mark.parametrize("first", [settle, release])
@pytest.mark.parametrize("second", [settle, release])
async def test_a_closed_hold_is_refused_and_nothing_changes(conn: Conn, first: Step, second: Step) -> None:
    reference = await hold(conn, (await new_customer(conn)).organization_id)
    await first(conn, reference)
    before = await books(conn)
    with pytest.raises(billing.LedgerConflict):
        await second(conn, reference)
    assert await books(conn) == before


@pytest.mark.parametrize("step", [settle, release])
async def test_one_bad_reference_refuses_the_whole_batch(
    conn: Conn, step: Callable[..., Awaitable[object]]
) -> None:
    account_id = (await new_customer(conn)).organization_id
    good = await hold(conn, account_id)
    before = await books(conn)
    for bad in (uuid.uuid4(), good):
        with pytest.raises(billing.LedgerConflict):
            await step(conn, good, bad)
    assert await books(conn) == before


async def test_a_batch_settles_many_customers_at_once(conn: Conn) -> None:
    accounts = [(await new_customer(conn)).organization_id for _ in range(5)]
    references = [await hold(conn, account_id) for account_id in accounts for _ in range(3)]
    await settle(conn, *references)
    assert {await balance(conn, account_id) for account_id in accounts} == {(USD - 30 * NANO_PER_SECOND, 0)}
    assert await billing.verify(conn) == []


async def test_settling_at_the_price_of_the_hold_not_of_today(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    reference = await hold(conn, account_id)
    await billing.set_price(conn, model="sandbox", nano_per_second=1)
    assert await settle(conn, reference) == {reference: 10 * NANO_PER_SECOND}
    assert await billing.verify(conn) == []


async def test_two_transactions_cannot_both_settle(conn: Conn, database: str) -> None:
    reference = await hold(conn, (await new_customer(conn)).organization_id)
    other = await asyncpg.connect(database)
    try:
        async with conn.transaction():
            await billing.settle(conn, [billing.Delivery(reference=reference, frames=1, sample_rate=SECOND)])
            async with other.transaction():
                await other.execute("SET LOCAL lock_timeout = '50ms'")
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await billing.release(other, [reference])
        with pytest.raises(billing.LedgerConflict):
            await settle(other, reference)
    finally:
        await other.close()
    assert await billing.verify(conn) == []


async def test_a_grant_is_credit_that_nobody_paid_for(conn: Conn) -> None:
    account_id = (await new_customer(conn, credit_nano=0)).organization_id
    async with conn.transaction():
        account = await billing.grant(conn, account_id=account_id, amount_nano=5, reason="a gift")
    assert (account.posted_nano, account.available_nano) == (5, 5)
    assert await conn.fetchval("SELECT reason FROM transfer") == "a gift"
    assert await billing.verify(conn) == []


@pytest.mark.parametrize("amount_nano", [0, -1])
async def test_a_grant_is_a_positive_amount(conn: Conn, amount_nano: int) -> None:
    account_id = (await new_customer(conn)).organization_id
    with pytest.raises(billing.LedgerConflict):
        await billing.grant(conn, account_id=account_id, amount_nano=amount_nano, reason="a gift")


async def test_one_payment_is_credited_once(conn: Conn) -> None:
    account_id = (await new_customer(conn, credit_nano=0)).organization_id
    async with conn.transaction():
        await billing.grant(conn, account_id=account_id, amount_nano=5, reason="paid", external_ref="pi_1")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with conn.transaction():
            await billing.grant(
                conn, account_id=account_id, amount_nano=5, reason="paid", external_ref="pi_1"
            )
    assert await balance(conn, account_id) == (5, 0)
    assert await billing.verify(conn) == []


async def test_an_account_that_was_never_opened_is_missing(conn: Conn) -> None:
    with pytest.raises(billing.AccountMissing):
        await billing.read_account(conn, uuid.uuid4())
    with pytest.raises(billing.AccountMissing):
        await billing.grant(conn, account_id=uuid.uuid4(), amount_nano=1, reason="a gift")


async def test_opening_an_account_again_changes_nothing(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    await billing.open_account(conn, account_id)
    assert await balance(conn, account_id) == (USD, 0)


async def test_totals_are_what_the_books_say(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    await settle(conn, await hold(conn, account_id))
    await hold(conn, account_id, 4)
    totals = await billing.read_totals(conn)
    assert (totals.revenue_nano, totals.held_nano) == (10 * NANO_PER_SECOND, 4 * NANO_PER_SECOND)
    assert 0 <= totals.oldest_hold_seconds < 60
