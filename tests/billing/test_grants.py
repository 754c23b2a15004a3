"""Where a balance comes from, in which order it goes, and when it is lost."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

import billing
from billing import grants
from tests.billing import till
from tests.factories import Conn

HOUSE = billing.HOUSE_ACCOUNTS


@pytest.fixture
async def other(database: str, conn: Conn) -> Conn:  # type: ignore[misc]
    """A second connection to the same books."""
    assert not conn.is_closed()
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def house(conn: Conn) -> dict[str, int]:
    """What stands on our own accounts, without those that are empty."""
    rows = await conn.fetch(
        "SELECT kind, posted_nano FROM account WHERE kind <> 'customer' AND posted_nano <> 0"
    )
    return {row["kind"]: row["posted_nano"] for row in rows}


async def expiry(conn: Conn, account_id: uuid.UUID) -> int | None:
    """In how many days credit of the account expires next, as the account itself says."""
    at = (await billing.read_account(conn, account_id)).next_expiry_at
    return None if at is None else round((at - datetime.now(UTC)) / timedelta(days=1))


async def test_what_expires_first_is_spent_first_and_what_was_paid_for_last(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=10)
    song = await till.spend(conn, account_id, 10)
    await till.pay(conn, account_id, 10)
    await till.refund(conn, song)
    await till.give(conn, account_id, 10)
    await till.give(conn, account_id, 10)
    await till.give(conn, account_id, 10, days=20)
    await till.give(conn, account_id, 10, days=3)
    await till.give(conn, account_id, 10, days=20)
    paid, refund, old, new, twenty, three, twenty_too = range(1, 8)
    order = [three, twenty, twenty_too, old, new, refund, paid]
    spent = 0
    while spent < 70:
        reference = await till.must_hold(conn, account_id, 7)
        await till.charge(conn, reference, 7)
        spent += 7
        rest = [nano for _, nano in await till.left(conn, account_id)]
        assert [10 - rest[place] for place in order] == [min(max(spent - 10 * n, 0), 10) for n in range(7)]
        assert await till.faults(conn) == []
    assert [kind for kind, _ in await till.left(conn, account_id)] == [
        "paid", "paid", "refund", *["promotional"] * 5,
    ]  # fmt: skip


async def test_of_grants_that_came_in_one_commit_the_first_is_spent_first(conn: Conn) -> None:
    account_id = await till.new_account(conn)
    async with conn.transaction():
        for _ in range(8):
            await till.give(conn, account_id, 10)
    await till.spend(conn, account_id, 45)
    assert [nano for _, nano in await till.left(conn, account_id)] == [0, 0, 0, 0, 5, 10, 10, 10]


async def test_one_charge_may_empty_several_grants(conn: Conn) -> None:
    account_id = await till.new_account(conn, gift=3, paid=4)
    await till.spend(conn, account_id, 5)
    assert await till.left(conn, account_id) == [("promotional", 0), ("paid", 2)]
    closed = await conn.fetch("SELECT kind FROM credit_grant WHERE closed_at IS NOT NULL")
    assert [row["kind"] for row in closed] == ["promotional"]


async def test_charges_of_one_batch_share_the_grants_of_their_customer(conn: Conn) -> None:
    rich, poor = [await till.new_account(conn, gift=10, paid=10) for _ in range(2)]
    songs = [await till.must_hold(conn, owner, 6) for owner in (rich, poor, rich, rich)]
    async with conn.transaction():
        await billing.settle(
            conn,
            [billing.Delivery(reference=one, frames=6, sample_rate=1000) for one in songs[:3]],
            undelivered=[songs[3]],
        )
    assert await till.left(conn, rich) == [("promotional", 0), ("paid", 8)]
    assert await till.left(conn, poor) == [("promotional", 4), ("paid", 10)]
    assert await till.faults(conn) == []


async def test_what_is_left_when_credit_expires_is_breakage(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=5)
    await till.give(conn, account_id, 10, days=1)
    await till.give(conn, account_id, 20, days=1)
    await till.give(conn, account_id, 40, days=3)
    await till.spend(conn, account_id, 4)
    await till.let_days_pass(conn, account_id, 1)
    assert (await till.sweep(conn), await till.sweep(conn)) == (1, 0)
    assert [nano for _, nano in await till.left(conn, account_id)] == [5, 0, 0, 40]
    assert await house(conn) == {
        "breakage": 26, "promo_expense": -70, "revenue": 4, "stripe_clearing": -5,
    }  # fmt: skip
    assert await conn.fetchval("SELECT count(*) FROM transfer WHERE kind = 'expiry'") == 1
    assert await till.faults(conn) == []


async def test_credit_without_an_end_and_credit_that_is_not_over_stay(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=5, gift=5)
    await till.give(conn, account_id, 5, days=2)
    await till.let_days_pass(conn, account_id, 1)
    async with till.unchanged(conn):
        assert await till.sweep(conn) == 0


@pytest.mark.parametrize("swept", [False, True])
async def test_what_is_held_is_not_swept_and_the_rest_goes_when_the_job_has_ended(
    conn: Conn, *, swept: bool
) -> None:
    account_id = await till.new_account(conn)
    await till.give(conn, account_id, 100, days=1)
    song, other_song = [await till.must_hold(conn, account_id, nano) for nano in (50, 30)]
    await till.let_days_pass(conn, account_id, 1)
    if swept:
        assert await till.sweep(conn) == 1
        assert await till.posted(conn, account_id) == 80
        assert await till.sweep(conn) == 0
    assert await till.available(conn, account_id) == 0
    assert await till.charge(conn, song, 45) == 45
    await till.release(conn, other_song)
    assert await till.available(conn, account_id) == 0
    assert await till.sweep(conn) == 1
    assert await till.posted(conn, account_id) == 0
    assert (await house(conn))["breakage"] == 55
    assert await till.faults(conn) == []


async def test_credit_that_is_over_is_not_for_new_jobs_also_before_it_is_swept(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=7)
    await till.give(conn, account_id, 100, days=1)
    await till.let_days_pass(conn, account_id, 1)
    assert await till.available(conn, account_id) == 7
    assert await till.hold(conn, account_id, 8) is None
    await till.must_hold(conn, account_id, 7)
    assert await till.hold(conn, account_id, 1) is None
    assert await till.faults(conn) == []


async def test_a_gift_that_was_over_when_it_was_given_is_nothing_to_spend(conn: Conn) -> None:
    account_id = await till.new_account(conn)
    await till.give(conn, account_id, 100, days=-1)
    assert (await till.posted(conn, account_id), await till.available(conn, account_id)) == (100, 0)
    assert await till.sweep(conn) == 1
    assert await till.posted(conn, account_id) == 0


@pytest.mark.parametrize("sweep_before", ["the hold", "the charge", "nothing"])
@pytest.mark.parametrize("held_in_time", [True, False])
async def test_it_makes_no_difference_when_the_sweep_comes(
    conn: Conn, sweep_before: str, *, held_in_time: bool
) -> None:
    account_id = await till.new_account(conn, paid=60)
    await till.give(conn, account_id, 50, days=1)
    song = await till.must_hold(conn, account_id, 55) if held_in_time else None
    await till.let_days_pass(conn, account_id, 1)
    if sweep_before == "the hold":
        await till.sweep(conn)
    song = song or await till.must_hold(conn, account_id, 55)
    if sweep_before == "the charge":
        await till.sweep(conn)
    await till.charge(conn, song, 40)
    await till.sweep(conn)
    assert await till.posted(conn, account_id) == 20
    assert (await house(conn))["breakage"] == 50
    assert await till.faults(conn) == []


async def test_credit_on_trust_does_not_bring_back_what_has_expired(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=50, overdraft=100)
    await till.give(conn, account_id, 50, days=1)
    await till.let_days_pass(conn, account_id, 1)
    assert await till.available(conn, account_id) == 150
    await till.must_hold(conn, account_id, 150)
    assert await till.available(conn, account_id) == 0


async def test_a_grant_first_fills_what_was_overdrawn(conn: Conn) -> None:
    account_id = await till.new_account(conn, gift=10, overdraft=100)
    await till.spend(conn, account_id, 70)
    assert await till.posted(conn, account_id) == -60
    await till.give(conn, account_id, 20, days=5)
    assert await till.left(conn, account_id) == [("promotional", 0), ("promotional", 0)]
    assert await expiry(conn, account_id) is None
    assert await till.faults(conn) == []
    await till.give(conn, account_id, 50, days=9)
    assert (await till.left(conn, account_id))[-1] == ("promotional", 10)
    assert (await till.posted(conn, account_id), await expiry(conn, account_id)) == (10, 9)
    assert await till.faults(conn) == []


async def test_the_account_knows_after_every_step_what_expires_next(conn: Conn) -> None:
    account_id = await till.new_account(conn, paid=1, overdraft=30)
    assert await expiry(conn, account_id) is None
    for days, expected in ((9, 9), (5, 5), (7, 5), (2, 2)):
        await till.give(conn, account_id, 10, days=days)
        assert await expiry(conn, account_id) == expected
    await till.spend(conn, account_id, 9)
    assert await expiry(conn, account_id) == 2
    song = await till.spend(conn, account_id, 2)
    assert await expiry(conn, account_id) == 5
    await till.take(conn, account_id, 11)
    assert await expiry(conn, account_id) == 7
    await till.let_days_pass(conn, account_id, 7)
    await till.sweep(conn)
    assert await expiry(conn, account_id) == 2
    reference = await till.must_hold(conn, account_id, 10)
    await till.take(conn, account_id, 10, "dp_2")
    await till.release(conn, reference)
    await till.collect(conn)
    assert (await till.posted(conn, account_id), await expiry(conn, account_id)) == (0, None)
    await till.refund(conn, song)
    assert await expiry(conn, account_id) is None
    assert await till.faults(conn) == []


async def test_two_who_sweep_at_the_same_moment_book_each_loss_once(conn: Conn, other: Conn) -> None:
    accounts = [await till.new_account(conn) for _ in range(5)]
    for account_id in accounts:
        await till.give(conn, account_id, 10, days=-1)
    swept = await asyncio.gather(till.sweep(conn), till.sweep(other))
    assert sorted(swept) == [0, 5]
    assert (await house(conn))["breakage"] == 50
    assert await till.faults(conn) == []


async def test_a_sweep_takes_a_bounded_number_of_accounts_and_goes_on_when_called_again(
    conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "SWEEP", 2)
    for _ in range(5):
        await till.give(conn, await till.new_account(conn), 10, days=-1)
    assert [await till.sweep(conn) for _ in range(4)] == [2, 2, 1, 0]
    assert (await house(conn))["breakage"] == 50


async def test_what_a_job_was_charged_is_given_back_once_as_credit_without_an_end(conn: Conn) -> None:
    account_id = await till.new_account(conn)
    await till.give(conn, account_id, 30, days=1)
    song = await till.spend(conn, account_id, 25)
    account = await till.refund(conn, song)
    assert (account.id, account.posted_nano) == (account_id, 30)
    assert await till.left(conn, account_id) == [("promotional", 5), ("refund", 25)]
    assert await house(conn) == {"promo_expense": -30}
    async with till.unchanged(conn):
        with pytest.raises(billing.LedgerConflict, match="already"):
            await till.refund(conn, song)
    assert await till.faults(conn) == []


async def test_only_what_the_customer_paid_is_given_back(conn: Conn) -> None:
    account_id = await till.new_account(conn, gift=20)
    reference = await till.must_hold(conn, account_id, 20)
    assert await till.charge(conn, reference, 29) == 20
    assert await house(conn) == {"promo_expense": -20, "revenue": 29, "variance": -9}
    await till.refund(conn, reference)
    assert await till.posted(conn, account_id) == 20
    assert await house(conn) == {"promo_expense": -20, "revenue": 9, "variance": -9}
    assert await till.faults(conn) == []


async def test_what_cost_nothing_cannot_be_given_back(conn: Conn) -> None:
    account_id = await till.new_account(conn, gift=20)
    released = await till.must_hold(conn, account_id, 5)
    await till.release(conn, released)
    free = await till.must_hold(conn, account_id, 0)
    await till.charge(conn, free, 5)
    running = await till.must_hold(conn, account_id, 5)
    async with till.unchanged(conn):
        for reference in (released, free, running, uuid.uuid4()):
            with pytest.raises(billing.LedgerConflict, match="nothing was charged"):
                await till.refund(conn, reference)


async def test_a_refund_fills_what_was_overdrawn(conn: Conn) -> None:
    account_id = await till.new_account(conn, overdraft=10)
    song = await till.spend(conn, account_id, 10)
    other_song = await till.must_hold(conn, account_id, 0)
    await till.charge(conn, other_song, 1)
    await till.refund(conn, song)
    assert await till.left(conn, account_id) == [("refund", 0)]
    assert await till.faults(conn) == []


async def test_a_gift_with_a_name_is_booked_once(conn: Conn) -> None:
    account_id, elsewhere = await till.new_account(conn), await till.new_account(conn)

    async def give(to: uuid.UUID) -> None:
        async with conn.transaction():
            await billing.grant(conn, account_id=to, amount_nano=5, reason="welcome", external_ref="w-1")

    await give(account_id)
    async with till.unchanged(conn):
        for to in (account_id, elsewhere):
            with pytest.raises(asyncpg.UniqueViolationError):
                await give(to)


async def test_the_largest_amounts_are_exact_or_refused(conn: Conn) -> None:
    largest = 2**62
    first, second, third = [await till.new_account(conn) for _ in range(3)]
    await till.give(conn, first, largest)
    await till.give(conn, second, largest)
    async with till.unchanged(conn):
        for account_id, nano in ((first, largest), (third, 1), (third, 2**63), (third, 2**70)):
            with pytest.raises(billing.LedgerConflict, match="cannot hold"):
                await till.give(conn, account_id, nano)
    song = await till.must_hold(conn, first, largest)
    assert await till.charge(conn, song, largest // 1000) == largest // 1000
    assert await till.posted(conn, first) == largest - largest // 1000
    assert await till.faults(conn) == []
