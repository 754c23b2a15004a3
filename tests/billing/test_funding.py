"""Money from and to the payment provider: each of its objects once, and what cannot be taken is owed."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

import billing
from billing import ProviderCost
from tests.billing import till
from tests.factories import Conn

TAKING = ("payment_refund", "dispute")
GIVING = {"payment_refund": "payment_refund_failed", "dispute": "dispute_won"}


@pytest.fixture
async def others(database: str, conn: Conn) -> AsyncIterator[list[Conn]]:
    """More connections to the same books."""
    assert not conn.is_closed()
    connections = [await asyncpg.connect(database) for _ in range(4)]
    yield connections
    for connection in connections:
        await connection.close()


async def house(conn: Conn, *kinds: str) -> list[int]:
    return [await conn.fetchval("SELECT posted_nano FROM account WHERE kind = $1", kind) for kind in kinds]


async def state(conn: Conn, account_id: uuid.UUID) -> tuple[int, int, int]:
    """Posted, held, owed."""
    account = await billing.read_account(conn, account_id)
    return account.posted_nano, account.held_nano, account.owed_nano


async def book_costs(conn: Conn, *costs: ProviderCost) -> None:
    async with conn.transaction():
        await billing.book_provider_costs(conn, costs)


async def test_a_payment_becomes_paid_credit_that_does_not_expire(conn: Conn) -> None:
    account_id = await till.new_account(conn)
    assert await till.pay(conn, account_id, 50, "pi_1")
    assert await state(conn, account_id) == (50, 0, 0)
    assert await till.left(conn, account_id) == [("paid", 50)]
    assert (await billing.read_account(conn, account_id)).next_expiry_at is None
    assert await house(conn, "stripe_clearing", "receivable") == [-50, 0]
    assert await till.faults(conn) == []


async def test_a_payment_that_is_reported_again_changes_nothing(conn: Conn) -> None:
    account_id, elsewhere = await till.new_account(conn), await till.new_account(conn)
    assert await till.pay(conn, account_id, 50, "pi_1")
    async with till.unchanged(conn):
        assert not await till.pay(conn, account_id, 50, "pi_1")
        assert not await till.pay(conn, elsewhere, 50, "pi_1")


@pytest.mark.parametrize("nano", [0, -1])
async def test_a_payment_or_what_is_taken_or_given_is_a_positive_amount(conn: Conn, nano: int) -> None:
    account_id = await till.new_account(conn, paid=5)
    async with till.unchanged(conn):
        with pytest.raises(billing.LedgerConflict):
            await till.pay(conn, account_id, nano)
        for kind in TAKING:
            with pytest.raises(billing.LedgerConflict):
                await till.take(conn, account_id, nano, kind=kind)
            with pytest.raises(billing.LedgerConflict):
                await till.return_again(conn, account_id, nano, kind=GIVING[kind])


async def test_nothing_is_taken_or_given_under_a_name_that_means_something_else(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=5)
    async with till.unchanged(conn):
        for kind in ("top_up", "dispute_won", "payment_refund_failed", "settle"):
            with pytest.raises(billing.LedgerConflict):
                await till.take(conn, account_id, 1, kind=kind)
        for kind in ("top_up", "dispute", "payment_refund", "grant"):
            with pytest.raises(billing.LedgerConflict):
                await till.return_again(conn, account_id, 1, kind=kind)


async def test_an_account_that_was_never_opened_takes_part_in_nothing(conn: Conn) -> None:
    nobody = uuid.uuid4()
    async with till.unchanged(conn):
        for step in (till.pay, till.take, till.return_again):
            with pytest.raises(billing.AccountMissing):
                await step(conn, nobody, 1, "pi_1")


@pytest.mark.parametrize("kind", TAKING)
async def test_what_is_covered_is_taken_and_nothing_is_owed(conn: Conn, kind: str) -> None:
    account_id = await till.new_account(conn)
    await till.pay(conn, account_id, 50, "pi_1")
    assert await till.take(conn, account_id, 30, kind=kind)
    assert await state(conn, account_id) == (20, 0, 0)
    assert await house(conn, "stripe_clearing", "receivable") == [-20, 0]
    assert await till.told(conn, account_id, "account.") == []
    assert await till.told(conn, account_id, "dispute.") == (["dispute.opened"] if kind == "dispute" else [])
    assert await conn.fetchval("SELECT reason FROM transfer WHERE kind = $1", kind) == "pi_1"
    assert await till.faults(conn) == []


@pytest.mark.parametrize("kind", TAKING)
async def test_the_same_object_is_taken_once_and_given_again_once(conn: Conn, kind: str) -> None:
    account_id = await till.new_account(conn, paid=50)
    assert await till.take(conn, account_id, 30, kind=kind)
    async with till.unchanged(conn):
        assert not await till.take(conn, account_id, 30, kind=kind)
        assert not await till.take(conn, account_id, 7, kind=kind)
    assert await till.return_again(conn, account_id, 30, kind=GIVING[kind])
    async with till.unchanged(conn):
        assert not await till.return_again(conn, account_id, 30, kind=GIVING[kind])
        assert not await till.take(conn, account_id, 30, kind=kind)
    assert await state(conn, account_id) == (50, 0, 0)
    assert await house(conn, "stripe_clearing") == [-50]
    assert await till.faults(conn) == []


async def test_a_refund_and_a_dispute_are_two_objects_whatever_they_are_called(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=50)
    for kind in TAKING:
        assert await till.take(conn, account_id, 10, "x_1", kind=kind)
    assert await till.pay(conn, account_id, 10, "x_1")
    assert await state(conn, account_id) == (40, 0, 0)


async def test_first_goes_what_the_payment_gave_then_other_paid_credit_and_gifts_last(conn: Conn) -> None:
    account_id = await till.new_account(conn, gift=10)
    await till.give(conn, account_id, 10, days=1)
    await till.pay(conn, account_id, 10, "pi_1")
    song = await till.spend(conn, account_id, 25)
    await till.refund(conn, song)
    await till.pay(conn, account_id, 10, "pi_2")
    await till.pay(conn, account_id, 10, "pi_3")
    expiring, refunded = 10, 25
    assert [nano for _, nano in await till.left(conn, account_id)] == [0, 0, 5, refunded, 10, 10]
    await till.give(conn, account_id, expiring, days=1)
    steps = [
        (6, [0, 0, 5, 25, 10, 4, 10]),
        (6, [0, 0, 3, 25, 10, 0, 10]),
        (13, [0, 0, 0, 25, 0, 0, 10]),
        (20, [0, 0, 0, 5, 0, 0, 10]),
        (14, [0, 0, 0, 0, 0, 0, 1]),
    ]
    for n, (nano, rest) in enumerate(steps):
        await till.take(conn, account_id, nano, f"re_{n}", kind="payment_refund", payment="pi_3")
        assert [nano for _, nano in await till.left(conn, account_id)] == rest
        assert await till.faults(conn) == []


async def test_what_the_balance_does_not_cover_is_owed_and_stops_new_holds(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=50, gift=20)
    running = await till.must_hold(conn, account_id, 40)
    assert await till.take(conn, account_id, 100)
    assert await state(conn, account_id) == (40, 40, 70)
    assert await house(conn, "stripe_clearing", "receivable") == [50, -70]
    assert await till.told(conn, account_id, "account.") == ["account.frozen"]
    assert await till.available(conn, account_id) == 0
    assert await till.hold(conn, account_id, 1) is None
    assert await till.charge(conn, running, 25) == 25
    assert await state(conn, account_id) == (15, 0, 70)
    assert await till.available(conn, account_id) == 0
    assert await till.faults(conn) == []


async def test_what_is_all_held_is_all_owed(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=50)
    await till.must_hold(conn, account_id, 50)
    assert await till.take(conn, account_id, 50)
    assert await state(conn, account_id) == (50, 50, 50)
    assert await house(conn, "stripe_clearing", "receivable") == [0, -50]
    assert await till.faults(conn) == []


async def test_trust_is_not_what_a_dispute_takes(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=10, overdraft=100)
    await till.spend(conn, account_id, 30)
    assert await till.take(conn, account_id, 10)
    assert await state(conn, account_id) == (-20, 0, 10)
    assert await till.hold(conn, account_id, 1) is None
    await till.pay(conn, account_id, 15)
    assert await state(conn, account_id) == (-15, 0, 0)
    assert await till.left(conn, account_id) == [("paid", 0), ("paid", 0)]
    assert await till.faults(conn) == []


async def test_a_payment_pays_what_is_owed_first(conn: Conn) -> None:
    account_id = await till.new_account(conn)
    await till.take(conn, account_id, 60)
    await till.take(conn, account_id, 40, kind="payment_refund")
    assert await state(conn, account_id) == (0, 0, 100)
    await till.pay(conn, account_id, 99)
    assert await state(conn, account_id) == (0, 0, 1)
    assert await till.left(conn, account_id) == []
    assert await till.hold(conn, account_id, 1) is None
    await till.pay(conn, account_id, 6)
    assert await state(conn, account_id) == (5, 0, 0)
    assert await till.left(conn, account_id) == [("paid", 5)]
    assert await house(conn, "stripe_clearing", "receivable") == [-5, 0]
    assert await till.told(conn, account_id, "account.") == ["account.frozen", "account.unfrozen"]
    assert await till.hold(conn, account_id, 5) is not None
    assert await till.faults(conn) == []


async def test_what_is_given_again_pays_what_is_owed_first(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=10)
    await till.take(conn, account_id, 30)
    await till.return_again(conn, account_id, 30)
    assert await state(conn, account_id) == (10, 0, 0)
    assert await till.left(conn, account_id) == [("paid", 0), ("paid", 10)]
    assert await till.told(conn, account_id, "account.") == ["account.frozen", "account.unfrozen"]
    assert await till.faults(conn) == []


@pytest.mark.parametrize("kind", TAKING)
async def test_events_in_another_order_end_in_the_same_balance(conn: Conn, kind: str) -> None:
    account_id = await till.new_account(conn, gift=5)
    assert await till.return_again(conn, account_id, 30, kind=GIVING[kind])
    assert await till.take(conn, account_id, 30, kind=kind)
    assert await till.take(conn, account_id, 20, "dp_2", kind=kind)
    assert await state(conn, account_id) == (0, 0, 15)
    assert await till.pay(conn, account_id, 30, "pi_1")
    assert await state(conn, account_id) == (15, 0, 0)
    assert await house(conn, "stripe_clearing", "receivable") == [-10, 0]
    assert await till.faults(conn) == []


async def test_a_debt_is_collected_from_what_becomes_free(conn: Conn) -> None:
    account_id, bystander = await till.new_account(conn, gift=20), await till.new_account(conn, gift=20)
    running = await till.must_hold(conn, account_id, 20)
    await till.take(conn, account_id, 25)
    async with till.unchanged(conn):
        assert await till.collect(conn) == 0
    await till.charge(conn, running, 8)
    assert [await till.collect(conn) for _ in range(2)] == [1, 0]
    assert await state(conn, account_id) == (0, 0, 13)
    assert await till.told(conn, account_id, "account.") == ["account.frozen"]
    await till.give(conn, account_id, 6, days=1)
    await till.give(conn, account_id, 10)
    assert await till.collect(conn) == 1
    assert await state(conn, account_id) == (3, 0, 0)
    assert await till.left(conn, account_id) == [("promotional", nano) for nano in (0, 0, 3)]
    assert await till.told(conn, account_id, "account.") == ["account.frozen", "account.unfrozen"]
    assert await house(conn, "receivable") == [0]
    assert await conn.fetchval("SELECT count(*) FROM transfer WHERE kind = 'debt_payment'") == 2
    assert await till.posted(conn, bystander) == 20
    assert await till.faults(conn) == []


async def test_what_is_held_pays_no_debt(conn: Conn) -> None:
    account_id = await till.new_account(conn, gift=20)
    await till.must_hold(conn, account_id, 20)
    await till.take(conn, account_id, 25)
    await till.give(conn, account_id, 10)
    assert [await till.collect(conn) for _ in range(2)] == [1, 0]
    assert await state(conn, account_id) == (20, 20, 15)
    assert await till.faults(conn) == []


async def test_two_who_collect_at_the_same_moment_take_each_debt_once(conn: Conn, others: list[Conn]) -> None:
    accounts = [await till.new_account(conn) for _ in range(5)]
    for n, account_id in enumerate(accounts):
        await till.take(conn, account_id, 10, f"dp_{n}")
        await till.give(conn, account_id, 30)
    assert sum(await asyncio.gather(*(till.collect(one) for one in others))) == 5
    assert [await state(conn, account_id) for account_id in accounts] == [(20, 0, 0)] * 5
    assert await till.faults(conn) == []


async def test_more_credit_than_there_is_to_hold_it_is_refused_whole(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=2**62)
    async with till.unchanged(conn):
        with pytest.raises(billing.LedgerConflict, match="cannot hold"):
            await till.pay(conn, account_id, 2**62)
    assert await till.take(conn, account_id, 2**62)
    assert await till.take(conn, account_id, 2**62, "dp_2")
    assert await state(conn, account_id) == (0, 0, 2**62)
    async with till.unchanged(conn):
        with pytest.raises(billing.LedgerConflict, match="cannot hold"):
            await till.take(conn, account_id, 2**62, "dp_3")
    assert await till.faults(conn) == []


async def test_what_a_provider_charges_is_booked_once_for_each_attempt(conn: Conn) -> None:
    job = uuid.uuid4()
    await book_costs(conn, ProviderCost(job, 1, 30), ProviderCost(job, 2, 40), ProviderCost(job, 3, 0))
    async with till.unchanged(conn):
        await book_costs(conn, ProviderCost(job, 2, 40), ProviderCost(job, 3, 0))
        await book_costs(conn)
    await book_costs(conn, ProviderCost(job, 1, 30), ProviderCost(uuid.uuid4(), 1, 5))
    assert await house(conn, "cogs_expense", "cogs_payable") == [-75, 75]
    assert await till.faults(conn) == []


async def test_an_attempt_that_is_named_twice_at_once_is_booked_once(conn: Conn) -> None:
    cost = ProviderCost(uuid.uuid4(), 1, 30)
    await book_costs(conn, cost, cost)
    assert await house(conn, "cogs_expense", "cogs_payable") == [-30, 30]


async def test_processes_that_report_the_same_attempt_at_once_book_it_once(
    conn: Conn, others: list[Conn]
) -> None:
    job = uuid.uuid4()
    for attempt in range(10):
        await asyncio.gather(*(book_costs(one, ProviderCost(job, attempt, 3)) for one in others))
    assert await house(conn, "cogs_expense", "cogs_payable") == [-30, 30]
    assert await till.faults(conn) == []
