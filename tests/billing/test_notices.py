"""What somebody should know is noted once, in the commit that made it true, and told once."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

import billing
from tests.billing import till
from tests.factories import PATIENCE_SECONDS, Conn

LOW, CRITICAL = 100, 20


@pytest.fixture
async def other(database: str, conn: Conn) -> AsyncIterator[Conn]:
    """A second connection to the same books."""
    assert not conn.is_closed()
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def account_id(conn: Conn) -> uuid.UUID:
    """A customer with 500, warned below 100 and 20; nobody was told anything yet."""
    account_id = uuid.uuid4()
    await billing.open_account(conn, account_id)
    await billing.set_thresholds(conn, account_id, low_nano=LOW, critical_nano=CRITICAL)
    await till.pay(conn, account_id, 500)
    return account_id


async def level(conn: Conn, account_id: uuid.UUID) -> str:
    return billing.LEVELS[(await billing.read_account(conn, account_id)).level]


async def take_all(conn: Conn, *, limit: int = 100) -> list[billing.Notice]:
    async with conn.transaction():
        return await billing.take_untold(conn, limit=limit)


async def new_budget(
    conn: Conn, account_id: uuid.UUID, *, alert_nano: int | None, limit_nano: int = 1000, scope: str = "key"
) -> uuid.UUID:
    """For the subject that is returned."""
    subject = uuid.uuid4()
    await set_budget(conn, account_id, subject, alert_nano=alert_nano, limit_nano=limit_nano, scope=scope)
    return subject


async def set_budget(
    conn: Conn,
    account_id: uuid.UUID,
    subject: uuid.UUID,
    *,
    alert_nano: int | None,
    limit_nano: int = 1000,
    scope: str = "key",
) -> None:
    await billing.set_budget(
        conn,
        account_id=account_id,
        subject=subject,
        scope=scope,
        period="day",
        limit_nano=limit_nano,
        alert_nano=alert_nano,
    )


async def spend(conn: Conn, account_id: uuid.UUID, nano: int, *subjects: uuid.UUID) -> None:
    reference = await till.must_hold(conn, account_id, nano, subjects=subjects)
    await till.charge(conn, reference, nano)


async def test_each_threshold_is_told_once_when_the_balance_falls_below_it(
    conn: Conn, account_id: uuid.UUID
) -> None:
    seen = []
    for nano in (400, 1, 1, 78, 1, 1, 18):  # 100, 99, 98, 20, 19, 18, 0
        await till.spend(conn, account_id, nano)
        seen.append((await till.posted(conn, account_id), await level(conn, account_id)))
    assert seen == [
        (100, "fine"), (99, "low"), (98, "low"), (20, "low"),
        (19, "critical"), (18, "critical"), (0, "critical"),
    ]  # fmt: skip
    assert await till.told(conn, account_id) == ["balance.low", "balance.critical"]


async def test_a_fall_below_both_thresholds_at_once_tells_of_both(conn: Conn, account_id: uuid.UUID) -> None:
    await till.spend(conn, account_id, 490)
    assert await till.told(conn, account_id) == ["balance.low", "balance.critical"]


async def test_a_top_up_makes_it_news_again(conn: Conn, account_id: uuid.UUID) -> None:
    await till.spend(conn, account_id, 490)
    await till.pay(conn, account_id, 40)
    assert await level(conn, account_id) == "low"
    assert len(await till.told(conn, account_id)) == 2
    await till.spend(conn, account_id, 40)
    await till.pay(conn, account_id, 490)
    assert await level(conn, account_id) == "fine"
    await till.spend(conn, account_id, 450)
    expected = ["balance.low", "balance.critical", "balance.critical", "balance.low"]
    assert await till.told(conn, account_id) == expected


async def test_what_is_held_and_released_tells_nobody(conn: Conn, account_id: uuid.UUID) -> None:
    for _ in range(3):
        await till.release(conn, await till.must_hold(conn, account_id, 500))
    assert await till.told(conn, account_id) == []


async def test_every_way_to_lose_credit_tells(conn: Conn) -> None:
    async def fallen(*, paid: int = 0, gift_days: int | None = None) -> uuid.UUID:
        account_id = await till.new_account(conn)
        await billing.set_thresholds(conn, account_id, low_nano=LOW, critical_nano=0)
        if paid:
            await till.pay(conn, account_id, paid)
        if gift_days is not None:
            await till.give(conn, account_id, 100, days=gift_days)
        return account_id

    disputed, expired = await fallen(paid=100), await fallen(gift_days=0)
    await till.take(conn, disputed, 1)
    await till.sweep(conn)
    owing = await fallen(paid=100)
    held = await till.must_hold(conn, owing, 100)
    await till.take(conn, owing, 5, "dp_2")
    await till.release(conn, held)
    await till.collect(conn)
    for account_id in (disputed, expired, owing):
        assert await till.told(conn, account_id, "balance.") == ["balance.low"]


async def test_a_notice_says_what_is_left_and_what_was_passed(conn: Conn, account_id: uuid.UUID) -> None:
    await till.spend(conn, account_id, 490)
    await till.take(conn, account_id, 15, "dp_7")
    data = [(notice.account_id, notice.kind, notice.data) for notice in await take_all(conn)]
    assert data == [
        (account_id, "balance.low", {"balance_usd": "0.000000010", "threshold_usd": "0.000000100"}),
        (account_id, "balance.critical", {"balance_usd": "0.000000010", "threshold_usd": "0.000000020"}),
        (account_id, "dispute.opened", {"amount_usd": "0.000000015", "id": "dp_7"}),
        (account_id, "account.frozen", {"owed_usd": "0.000000005"}),
    ]


async def test_a_higher_threshold_is_told_of_when_the_balance_changes_next(
    conn: Conn, account_id: uuid.UUID
) -> None:
    await billing.set_thresholds(conn, account_id, low_nano=1000, critical_nano=600)
    assert await till.told(conn, account_id) == []
    await till.spend(conn, account_id, 1)
    assert await till.told(conn, account_id) == ["balance.low", "balance.critical"]


async def test_a_lower_threshold_has_not_been_told_of(conn: Conn, account_id: uuid.UUID) -> None:
    await till.spend(conn, account_id, 450)
    await billing.set_thresholds(conn, account_id, low_nano=40, critical_nano=5)
    assert await level(conn, account_id) == "fine"
    await till.spend(conn, account_id, 20)
    assert await till.told(conn, account_id) == ["balance.low", "balance.low"]


async def test_thresholds_in_the_wrong_order_or_of_nobody_are_refused(
    conn: Conn, account_id: uuid.UUID
) -> None:
    async with till.unchanged(conn):
        for low, critical in ((1, 2), (1, -1)):
            with pytest.raises(asyncpg.CheckViolationError):
                await billing.set_thresholds(conn, account_id, low_nano=low, critical_nano=critical)
        with pytest.raises(billing.AccountMissing):
            await billing.set_thresholds(conn, uuid.uuid4(), low_nano=2, critical_nano=1)


@pytest.mark.parametrize("scope", billing.BUDGET_SCOPES)
async def test_a_budget_tells_once_in_a_period_that_its_share_is_spent(
    conn: Conn, account_id: uuid.UUID, scope: str
) -> None:
    subject = await new_budget(conn, account_id, alert_nano=10, limit_nano=50, scope=scope)
    await spend(conn, account_id, 9, subject)
    held = await till.must_hold(conn, account_id, 30, subjects=[subject])
    assert await till.told(conn, account_id, "budget.") == []
    for _ in range(3):
        await spend(conn, account_id, 1, subject)
    await till.charge(conn, held, 30)
    (notice,) = [one for one in await take_all(conn) if one.kind == "budget.alert"]
    assert notice.data == {
        "scope": scope,
        "subject": subject.hex,
        "period": "day",
        "spent_usd": "0.000000010",
        "limit_usd": "0.000000050",
    }


async def test_the_next_period_tells_again(conn: Conn, account_id: uuid.UUID) -> None:
    subject = await new_budget(conn, account_id, alert_nano=10)
    for _ in range(2):
        await spend(conn, account_id, 10, subject)
    await conn.execute("UPDATE budget SET period_start = period_start - interval '40 days'")
    await spend(conn, account_id, 9, subject)
    assert len(await till.told(conn, account_id, "budget.")) == 1
    await spend(conn, account_id, 1, subject)
    assert len(await till.told(conn, account_id, "budget.")) == 2


async def test_a_budget_that_is_set_anew_tells_anew(conn: Conn, account_id: uuid.UUID) -> None:
    subject = await new_budget(conn, account_id, alert_nano=10)
    await spend(conn, account_id, 10, subject)
    await set_budget(conn, account_id, subject, alert_nano=12)
    await spend(conn, account_id, 1, subject)
    assert len(await till.told(conn, account_id, "budget.")) == 1
    await spend(conn, account_id, 1, subject)
    assert len(await till.told(conn, account_id, "budget.")) == 2
    await set_budget(conn, account_id, subject, alert_nano=None)
    await spend(conn, account_id, 50, subject)
    assert len(await till.told(conn, account_id, "budget.")) == 2


async def test_budgets_of_all_levels_are_told_of_apart(conn: Conn, account_id: uuid.UUID) -> None:
    subjects = [
        await new_budget(conn, account_id, alert_nano=alert, scope=scope)
        for alert, scope in zip((10, 20, None), billing.BUDGET_SCOPES, strict=True)
    ]
    for _ in range(3):
        await spend(conn, account_id, 10, *subjects)
    scopes = [one.data["scope"] for one in await take_all(conn) if one.kind == "budget.alert"]
    assert scopes == ["key", "project"]


async def test_notices_are_taken_once_and_in_their_order(conn: Conn, account_id: uuid.UUID) -> None:
    for n in range(7):
        await billing.note(conn, account_id, "payment.failed", {"n": n})
    assert [one.data["n"] for one in await take_all(conn, limit=3)] == [0, 1, 2]
    assert [one.data["n"] for one in await take_all(conn)] == [3, 4, 5, 6]
    assert await take_all(conn) == []


async def test_who_takes_notices_and_does_not_commit_has_told_nobody(
    conn: Conn, other: Conn, account_id: uuid.UUID
) -> None:
    for n in range(3):
        await billing.note(conn, account_id, "payment.failed", {"n": n})
    transaction = conn.transaction()
    await transaction.start()
    assert [one.data["n"] for one in await billing.take_untold(conn, limit=2)] == [0, 1]
    async with asyncio.timeout(PATIENCE_SECONDS):  # they do not wait for each other
        assert [one.data["n"] for one in await take_all(other)] == [2]
    await transaction.rollback()
    assert [one.data["n"] for one in await take_all(other)] == [0, 1]


async def test_what_was_rolled_back_is_noted_nowhere(conn: Conn, account_id: uuid.UUID) -> None:
    async with till.unchanged(conn):
        transaction = conn.transaction()
        await transaction.start()
        await billing.take_back(
            conn, account_id=account_id, kind="dispute", external_ref="d", amount_nano=600, top_up_ref="p"
        )
        await transaction.rollback()
    assert await take_all(conn) == []


async def test_a_crossing_is_told_once_however_many_charges_come_at_the_same_moment(
    conn: Conn, other: Conn, account_id: uuid.UUID
) -> None:
    songs = [await till.must_hold(conn, account_id, 10) for _ in range(50)]
    for pair in zip(songs[::2], songs[1::2], strict=True):
        await asyncio.gather(
            *(till.charge(one, song, 10) for one, song in zip((conn, other), pair, strict=True))
        )
    assert await till.told(conn, account_id) == ["balance.low", "balance.critical"]
    assert await till.faults(conn) == []
