"""Books in which everything has happened once, and every way in which a rule of theirs can be broken."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

import billing
from gateway.auth.principal import Principal
from tests.factories import USD, Conn, new_customer

DAY: Final = timedelta(days=1)
HELD_MS: Final = 10_000


class Breach(msgspec.Struct, frozen=True):
    """SQL that breaks a rule; `without` are CHECKs that would not let it."""

    invariant: str
    statements: tuple[str, ...]
    without: tuple[str, ...] = ()
    at_once: bool = True
    """The check of every minute finds it; otherwise only that of everything."""

    def __str__(self) -> str:
        return self.invariant.replace(" ", "-")


SUMS = "every transfer sums to zero"
SHAPE = "a transfer moves what its kind may move"
ALL = "all balances sum to zero"
POSTED = "a balance is the sum of its entries"
AFTER = "an entry carries the balance after it"
HELD = "what is held is the sum of open holds"
OVERDRAWN = "no customer is overdrawn"
LEFT = "what is left of a customer's grants is the balance"
EXPIRES = "an account knows when its credit expires"
GRANTED = "a grant is what its transfer added"
OWED = "what is owed is the receivable"
ONCE = "a settled hold has exactly one transfer and one usage record, any other has none"
BELONGS = "a settlement belongs to a hold"
PRICE = "a charge is its price times its milliseconds, at most the hold"
MOVES = "a settlement moves what its usage record says"
BACK = "a charge is given back once, and no more than it was"
BUDGET_HELD = "a budget holds what its open holds say"
BUDGET_SPENT = "a budget has spent what was charged under it in this period"
DEADLINE = "no hold outlives its deadline by an hour"
GUARDS = "what guards the books is in force"


BREACHES: Final = [
    Breach(SUMS, ("UPDATE entry SET amount_nano = amount_nano + 1 WHERE id = (SELECT min(id) FROM entry)",)),
    Breach(SUMS, ("DELETE FROM entry WHERE id = (SELECT max(id) FROM entry)",)),
    Breach(SUMS, ("INSERT INTO transfer (id, kind) VALUES (gen_random_uuid(), 'grant')",), at_once=False),
    Breach(SHAPE, ("UPDATE transfer SET kind = 'expiry' WHERE kind = 'debt_payment'",)),
    Breach(SHAPE, ("UPDATE entry SET amount_nano = -amount_nano WHERE kind = 'top_up'",)),
    Breach(
        SHAPE,
        (
            """
            UPDATE entry SET account_id = (SELECT id FROM account WHERE kind = 'breakage')
             WHERE account_id = (SELECT id FROM account WHERE kind = 'promo_expense')
            """,
        ),
    ),
    Breach(SHAPE, ("UPDATE transfer SET external_ref = NULL WHERE kind = 'dispute'",)),
    Breach(SHAPE, ("UPDATE transfer SET reference = NULL WHERE kind = 'usage_refund'",)),
    Breach(SHAPE, ("UPDATE entry SET kind = 'top_up' WHERE kind = 'grant'",)),
    Breach(SHAPE, ("UPDATE entry SET kind = 'settle' WHERE kind IS NULL",)),
    Breach(ALL, ("UPDATE account SET posted_nano = posted_nano + 1 WHERE kind = 'customer'",)),
    Breach(
        POSTED,
        (
            "UPDATE account SET posted_nano = posted_nano + 1 WHERE kind = 'breakage'",
            "UPDATE account SET posted_nano = posted_nano - 1 WHERE kind = 'revenue'",
        ),
    ),
    Breach(
        POSTED,
        (
            "UPDATE account SET posted_nano = posted_nano + 1 WHERE next_expiry_at IS NOT NULL",
            "UPDATE account SET posted_nano = posted_nano - 1 WHERE kind = 'revenue'",
            """
            UPDATE credit_grant SET remaining_nano = remaining_nano + 1
             WHERE expires_at = (SELECT max(next_expiry_at) FROM account)
            """,
        ),
    ),
    Breach(AFTER, ("UPDATE entry SET balance_after_nano = 7 WHERE id = (SELECT max(id) FROM entry)",)),
    Breach(HELD, ("UPDATE account SET held_nano = held_nano + 1 WHERE held_nano > 0",)),
    Breach(HELD, ("UPDATE hold SET amount_nano = amount_nano + 1 WHERE state = 'open'",)),
    Breach(
        OVERDRAWN,
        ("UPDATE account SET held_nano = posted_nano + 1 WHERE kind = 'customer'",),
        without=("account.ck_account_covered",),
    ),
    Breach(LEFT, ("UPDATE credit_grant SET remaining_nano = 1 WHERE remaining_nano > 1",)),
    Breach(
        LEFT,
        ("UPDATE credit_grant SET remaining_nano = 1, closed_at = NULL WHERE closed_at IS NOT NULL",),
    ),
    Breach(
        EXPIRES, ("UPDATE account SET next_expiry_at = now() + interval '1 year' WHERE kind = 'customer'",)
    ),
    Breach(EXPIRES, ("UPDATE account SET next_expiry_at = NULL WHERE next_expiry_at IS NOT NULL",)),
    Breach(GRANTED, ("UPDATE credit_grant SET amount_nano = amount_nano + 1 WHERE closed_at IS NULL",)),
    Breach(GRANTED, ("UPDATE credit_grant SET kind = 'paid' WHERE kind = 'promotional'",)),
    Breach(GRANTED, ("DELETE FROM credit_grant WHERE kind = 'refund'",)),
    Breach(OWED, ("UPDATE account SET owed_nano = owed_nano + 1 WHERE owed_nano > 0",)),
    Breach(
        ONCE,
        ("UPDATE hold SET state = 'settled', closed_at = now() WHERE state = 'open'",),
        at_once=False,  # by this name: it is what is held that is wrong then
    ),
    Breach(ONCE, ("UPDATE hold SET state = 'released' WHERE state = 'settled'",)),
    Breach(ONCE, ("DELETE FROM usage_record",)),
    Breach(BELONGS, ("UPDATE transfer SET reference = gen_random_uuid() WHERE kind = 'settle'",)),
    Breach(
        BELONGS,
        (
            """
            INSERT INTO transfer (id, kind, reference)
            VALUES (gen_random_uuid(), 'settle', gen_random_uuid())
            """,
        ),
        at_once=False,
    ),
    Breach(PRICE, ("UPDATE usage_record SET cost_nano = cost_nano + 1",)),
    Breach(PRICE, ("UPDATE price_version SET nano_per_second = 1, was_nano_per_second = NULL",)),
    Breach(PRICE, ("UPDATE hold SET amount_nano = 1 WHERE state = 'settled'",)),
    Breach(PRICE, ("UPDATE usage_record SET account_id = gen_random_uuid()",)),
    Breach(
        MOVES,
        (
            """
            UPDATE entry SET amount_nano = 2 * amount_nano
             WHERE transfer_id IN (SELECT id FROM transfer WHERE kind = 'settle')
            """,
        ),
    ),
    Breach(
        MOVES,
        (
            """
            UPDATE entry SET amount_nano = amount_nano + CASE a.kind WHEN 'revenue' THEN 1 ELSE -1 END
              FROM account a, transfer t
             WHERE a.id = account_id AND t.id = transfer_id AND t.kind = 'settle' AND a.kind <> 'customer'
            """,
        ),
    ),
    Breach(BACK, ("UPDATE transfer SET reference = gen_random_uuid() WHERE kind = 'usage_refund'",)),
    Breach(BACK, ("UPDATE entry SET amount_nano = 3 * amount_nano WHERE kind = 'usage_refund'",)),
    Breach(
        BACK,
        (
            """
            WITH again AS (
                INSERT INTO transfer (id, kind, reference)
                SELECT gen_random_uuid(), kind, reference
                  FROM transfer WHERE kind = 'usage_refund' RETURNING id
            )
            INSERT INTO entry (transfer_id, account_id, amount_nano, balance_after_nano, kind)
            SELECT again.id, account_id, amount_nano, 0, kind FROM entry, again WHERE kind = 'usage_refund'
            """,
        ),
        without=("transfer.uq_transfer_kind_reference",),
    ),
    Breach(BUDGET_HELD, ("UPDATE budget SET held_nano = held_nano + 1",)),
    Breach(BUDGET_HELD, ("UPDATE hold SET budget_ids = '{}' WHERE state = 'open'",)),
    Breach(BUDGET_SPENT, ("UPDATE budget SET spent_nano = spent_nano + 1 WHERE period = 'total'",)),
    Breach(BUDGET_SPENT, ("UPDATE budget SET spent_nano = 0 WHERE period = 'month'",)),
    Breach(DEADLINE, ("UPDATE hold SET deadline_at = now() - interval '61 minutes' WHERE state = 'open'",)),
    Breach(GUARDS, ("ALTER TABLE entry DISABLE TRIGGER append_only",)),
    Breach(GUARDS, ("DROP TRIGGER append_only ON price_version",)),
    Breach(GUARDS, ("ALTER TABLE transfer DROP CONSTRAINT uq_transfer_kind_external_ref",)),
]


class Life(msgspec.Struct, frozen=True):
    """Who lived in the books."""

    customer: Principal
    owing: Principal
    budget_ids: tuple[uuid.UUID, ...]


async def live(conn: Conn) -> Life:
    """Every kind of transfer; a settled, an overrun, a released and an open hold under three budgets."""
    customer, owing = await new_customer(conn), await new_customer(conn)
    budget_ids = [
        await billing.set_budget(
            conn,
            account_id=customer.organization_id,
            subject=customer.key_id,
            scope="key",
            period=period,
            limit_nano=10**12,
        )
        for period in billing.BUDGET_PERIODS
    ]
    life = Life(customer, owing, tuple(budget_ids))
    async with conn.transaction():
        await _give_credit(conn, customer.organization_id)
        settled, over, released, _ = await hold(conn, life, count=4)
        await billing.settle(conn, [delivered(settled, ms=HELD_MS // 2), delivered(over, ms=HELD_MS * 2)])
        await billing.release(conn, [released])
        await billing.refund_usage(conn, reference=settled, reason="out of tune")
        await billing.book_provider_costs(conn, [billing.ProviderCost(settled, 1, 40_000)])
        await _owe(conn, owing.organization_id)
    return life


async def hold(conn: Conn, life: Life, *, count: int) -> list[uuid.UUID]:
    """New holds of the customer, by reference."""
    owner = life.customer.organization_id
    price = (await billing.read_price_book(conn)).find("sandbox", owner)
    assert price is not None
    holds = [
        billing.Hold(
            reference=uuid.uuid4(),
            account_id=owner,
            price_version_id=price.id,
            amount_nano=price.cost_nano(HELD_MS),
            deadline_at=datetime.now(UTC) + timedelta(hours=1),
            budget_ids=life.budget_ids,
        )
        for _ in range(count)
    ]
    accounts = await billing.lock_accounts(conn, {owner})
    budgets = await billing.lock_budgets(conn, ids=life.budget_ids)
    for one in holds:
        assert accounts[owner].reserve(one.amount_nano)
        assert all(budget.reserve(one.amount_nano) for budget in budgets)
    await billing.write_holds(conn, holds, accounts=accounts.values(), budgets=budgets)
    return [one.reference for one in holds]


def delivered(reference: uuid.UUID, *, ms: int = HELD_MS // 2) -> billing.Delivery:
    """Music of that length."""
    return billing.Delivery(reference=reference, frames=48 * ms, sample_rate=48_000)


async def _give_credit(conn: Conn, account_id: uuid.UUID) -> None:
    """A gift that will expire, one that has, and a payment of which some was refunded."""
    for when in (DAY, -DAY):
        await billing.grant(
            conn,
            account_id=account_id,
            amount_nano=USD,
            reason="a gift",
            expires_at=datetime.now(UTC) + when,
        )
    assert await billing.expire_due(conn) == 1
    await billing.top_up(conn, account_id=account_id, amount_nano=5 * USD, external_ref="pi_1")
    for kind in ("payment_refund", "payment_refund_failed"):
        move = billing.take_back if kind == "payment_refund" else billing.give_again
        more = {"top_up_ref": "pi_1"} if kind == "payment_refund" else {}
        assert await move(
            conn, account_id=account_id, kind=kind, external_ref="re_1", amount_nano=2 * USD, **more
        )


async def _owe(conn: Conn, account_id: uuid.UUID) -> None:
    """Two disputes of money that is spent: one was won, and of the other some is still owed."""
    for number in (1, 2):
        await billing.top_up(conn, account_id=account_id, amount_nano=USD, external_ref=f"pi_2{number}")
    for number in (1, 2):
        await billing.take_back(
            conn,
            account_id=account_id,
            kind="dispute",
            external_ref=f"dp_{number}",
            amount_nano=5 * USD,
            top_up_ref=f"pi_2{number}",
        )
    await billing.give_again(
        conn, account_id=account_id, kind="dispute_won", external_ref="dp_1", amount_nano=5 * USD
    )
    await billing.grant(conn, account_id=account_id, amount_nano=USD, reason="goodwill")
    assert await billing.collect_debts(conn) == 1
