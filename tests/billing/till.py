"""Money by hand: every step a transaction of its own, at a price of one nano-USD for a millisecond."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

import billing
from tests.factories import Conn

MODEL = "one-nano-for-a-millisecond"
SECOND_NANO = 1000
LONGER_THAN_A_MONTH = 40


async def new_account(conn: Conn, *, paid: int = 0, gift: int = 0, overdraft: int = 0) -> uuid.UUID:
    """A customer with so much paid and given credit, neither of which expires, and so much trust."""
    account_id = uuid.uuid4()
    await billing.open_account(conn, account_id)
    if gift:
        await give(conn, account_id, gift)
    if paid:
        await pay(conn, account_id, paid)
    if overdraft:
        await conn.execute("UPDATE account SET overdraft_nano = $2 WHERE id = $1", account_id, overdraft)
    return account_id


async def give(conn: Conn, account_id: uuid.UUID, nano: int, *, days: int | None = None) -> billing.Account:
    """A promotional grant, perhaps for so many days; 0 or less: it is over already."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    async with conn.transaction():
        return await billing.grant(
            conn, account_id=account_id, amount_nano=nano, reason="a gift", expires_at=expires_at
        )


async def pay(conn: Conn, account_id: uuid.UUID, nano: int, ref: str | None = None) -> bool:
    async with conn.transaction():
        return await billing.top_up(
            conn, account_id=account_id, amount_nano=nano, external_ref=ref or f"pi_{uuid.uuid4().hex}"
        )


async def take(
    conn: Conn,
    account_id: uuid.UUID,
    nano: int,
    ref: str = "dp_1",
    *,
    kind: str = "dispute",
    payment: str = "pi_1",
) -> bool:
    """A dispute, or a refund at the payment provider."""
    async with conn.transaction():
        return await billing.take_back(
            conn, account_id=account_id, kind=kind, external_ref=ref, amount_nano=nano, top_up_ref=payment
        )


async def return_again(
    conn: Conn, account_id: uuid.UUID, nano: int, ref: str = "dp_1", *, kind: str = "dispute_won"
) -> bool:
    async with conn.transaction():
        return await billing.give_again(
            conn, account_id=account_id, kind=kind, external_ref=ref, amount_nano=nano
        )


async def hold(
    conn: Conn, account_id: uuid.UUID, nano: int, *, subjects: Sequence[uuid.UUID] = ()
) -> uuid.UUID | None:
    """Reserve as admission does; None if it is not covered, or does not fit a budget of these subjects."""
    price = await _price(conn, account_id)
    async with conn.transaction():
        account = (await billing.lock_accounts(conn, {account_id}))[account_id]
        budgets = await billing.lock_budgets(conn, subjects=subjects)
        if any(nano > place.available_nano for place in (account, *budgets)):
            return None
        for place in (account, *budgets):
            assert place.reserve(nano)
        opened = billing.Hold(
            reference=uuid.uuid4(),
            account_id=account_id,
            price_version_id=price.id,
            amount_nano=nano,
            deadline_at=datetime.now(UTC) + timedelta(hours=1),
            budget_ids=tuple(budget.id for budget in budgets),
        )
        await billing.write_holds(conn, [opened], accounts=[account], budgets=budgets)
    return opened.reference


async def must_hold(
    conn: Conn, account_id: uuid.UUID, nano: int, *, subjects: Sequence[uuid.UUID] = ()
) -> uuid.UUID:
    reference = await hold(conn, account_id, nano, subjects=subjects)
    assert reference is not None
    return reference


async def charge(conn: Conn, reference: uuid.UUID, nano: int) -> int:
    """Settle with music worth so much; returns what it cost the customer."""
    delivery = billing.Delivery(reference=reference, frames=nano, sample_rate=1000)
    async with conn.transaction():
        return (await billing.settle(conn, [delivery]))[reference].cost_nano


async def release(conn: Conn, reference: uuid.UUID) -> None:
    async with conn.transaction():
        await billing.release(conn, [reference])


async def spend(conn: Conn, account_id: uuid.UUID, nano: int) -> uuid.UUID:
    """Hold and charge it."""
    reference = await must_hold(conn, account_id, nano)
    assert await charge(conn, reference, nano) == nano
    return reference


async def refund(conn: Conn, reference: uuid.UUID) -> billing.Account:
    async with conn.transaction():
        return await billing.refund_usage(conn, reference=reference, reason="a bad song")


async def let_days_pass(conn: Conn, account_id: uuid.UUID, days: int) -> None:
    """As far as the expiry of its credit is concerned."""
    async with conn.transaction():
        for change in (
            "UPDATE credit_grant SET expires_at = expires_at - $2::interval WHERE account_id = $1",
            "UPDATE account SET next_expiry_at = next_expiry_at - $2::interval WHERE id = $1",
        ):
            await conn.execute(change, account_id, timedelta(days=days))


async def let_a_month_pass(clock: Conn, account_id: uuid.UUID) -> None:
    """For its budgets too, and for what was charged under them."""
    async with clock.transaction():
        await let_days_pass(clock, account_id, LONGER_THAN_A_MONTH)
        for change in (
            "UPDATE budget SET period_start = period_start - $2::interval WHERE account_id = $1",
            "UPDATE usage_record SET created_at = created_at - $2::interval WHERE account_id = $1",
        ):
            await clock.execute(change, account_id, timedelta(days=LONGER_THAN_A_MONTH))


async def open_clock(dsn: str, superuser_dsn: str) -> Conn:
    """A connection that may move the past: no trigger of the database sees it."""
    conn = await asyncpg.connect(superuser_dsn, database=dsn.rpartition("/")[2])
    await conn.execute("SET session_replication_role = replica")
    return conn


async def sweep(conn: Conn) -> int:
    async with conn.transaction():
        return await billing.expire_due(conn)


async def collect(conn: Conn) -> int:
    async with conn.transaction():
        return await billing.collect_debts(conn)


async def posted(conn: Conn, account_id: uuid.UUID) -> int:
    return (await billing.read_account(conn, account_id)).posted_nano


async def available(conn: Conn, account_id: uuid.UUID) -> int:
    return (await billing.read_account(conn, account_id)).available_nano


async def left(conn: Conn, account_id: uuid.UUID) -> list[tuple[str, int]]:
    """Kind and rest of every grant that the account was ever given, oldest first."""
    rows = await conn.fetch(
        """
        SELECT g.kind, g.remaining_nano FROM credit_grant g JOIN entry e USING (transfer_id, account_id)
         WHERE g.account_id = $1 ORDER BY e.id
        """,
        account_id,
    )
    return [(row[0], row[1]) for row in rows]


async def told(conn: Conn, account_id: uuid.UUID, kinds: str = "") -> list[str]:
    """What was noted about the account, of the kinds that begin so."""
    rows = await conn.fetch(
        "SELECT kind FROM notice WHERE account_id = $1 AND starts_with(kind, $2) ORDER BY id",
        account_id,
        kinds,
    )
    return [row[0] for row in rows]


async def booked(conn: Conn) -> list[object]:
    """Everything that the books know, to see that nothing of it has changed."""
    tables = ("account", "hold", "transfer", "entry", "usage_record", "budget", "credit_grant", "notice")
    return [await conn.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in tables]  # noqa: S608 - constants


async def faults(conn: Conn) -> list[object]:
    """What `verify` finds, and what must agree between grants, debts and the house besides."""
    rows = await conn.fetch(
        """
        SELECT 'rest of grants', id, posted_nano FROM account
         WHERE kind = 'customer' AND greatest(posted_nano, 0) <>
               (SELECT coalesce(sum(remaining_nano), 0) FROM credit_grant WHERE account_id = account.id)
        UNION ALL
        SELECT 'next expiry', id, posted_nano FROM account
         WHERE next_expiry_at IS DISTINCT FROM
               (SELECT min(expires_at) FROM credit_grant WHERE account_id = account.id AND remaining_nano > 0)
        UNION ALL
        SELECT 'debts', id, posted_nano FROM account
         WHERE kind = 'receivable' AND posted_nano <> (SELECT -sum(owed_nano) FROM account)
        UNION ALL
        SELECT 'money at the provider', id, posted_nano FROM account
         WHERE kind = 'stripe_clearing' AND posted_nano <>
               (SELECT coalesce(-sum(amount_nano), 0) FROM entry JOIN transfer t ON t.id = transfer_id
                 WHERE account_id <> account.id
                   AND (t.kind = 'top_up' OR t.kind ~ '^(payment|dispute)'))
        """
    )
    return [*(await billing.verify(conn)), *(tuple(row) for row in rows)]


@contextlib.asynccontextmanager
async def unchanged(conn: Conn) -> AsyncIterator[None]:
    """Whatever happens inside leaves the books as they were."""
    before = await booked(conn)
    yield
    assert await booked(conn) == before


async def _price(conn: Conn, account_id: uuid.UUID) -> billing.Price:
    price = (await billing.read_price_book(conn)).find(MODEL, account_id)
    if price is None:
        price = await billing.set_price(conn, model=MODEL, nano_per_second=SECOND_NANO)
    return price
