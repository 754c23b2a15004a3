"""Every rule that `ledger verify` checks is found broken when it is broken."""

import uuid
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

import billing
from billing.verify import CHECKS, MAX_REPORTED
from gateway.embedded import EmbeddedPostgres
from tests.factories import Conn, new_customer
from tests.planting import plant


class Plant(msgspec.Struct, frozen=True):
    """SQL that breaks a rule; `without` are CHECKs that would not let it."""

    invariant: str
    statements: tuple[str, ...]
    without: tuple[str, ...] = ()


PLANTS = [
    Plant(
        "every transfer sums to zero",
        ("UPDATE entry SET amount_nano = amount_nano + 1 WHERE id = (SELECT min(id) FROM entry)",),
    ),
    Plant(
        "every transfer sums to zero",
        ("INSERT INTO transfer (id, kind) VALUES (gen_random_uuid(), 'grant')",),
    ),
    Plant(
        "all balances sum to zero",
        ("UPDATE account SET posted_nano = posted_nano + 1 WHERE kind = 'customer'",),
    ),
    Plant(
        "a balance is the sum of its entries",
        (
            "UPDATE account SET posted_nano = posted_nano + 1 WHERE kind = 'customer'",
            "UPDATE account SET posted_nano = posted_nano - 1 WHERE kind = 'revenue'",
        ),
    ),
    Plant(
        "entries carry the running balance",
        ("UPDATE entry SET balance_after_nano = 7 WHERE id = (SELECT max(id) FROM entry)",),
    ),
    Plant(
        "what is held is the sum of open holds",
        ("UPDATE account SET held_nano = held_nano + 1 WHERE kind = 'customer'",),
    ),
    Plant(
        "no customer is overdrawn",
        ("UPDATE account SET held_nano = posted_nano + 1 WHERE kind = 'customer'",),
        ("account.ck_account_covered",),
    ),
    Plant(
        "a settled hold has exactly one transfer and one usage record, any other has none",
        ("UPDATE hold SET state = 'settled', closed_at = now() WHERE state = 'open'",),
    ),
    Plant(
        "a settled hold has exactly one transfer and one usage record, any other has none",
        ("UPDATE hold SET state = 'released' WHERE state = 'settled'",),
    ),
    Plant(
        "a settled hold has exactly one transfer and one usage record, any other has none",
        ("DELETE FROM usage_record",),
    ),
    Plant(
        "a settlement belongs to a hold",
        (
            """
            INSERT INTO transfer (id, kind, reference)
            VALUES (gen_random_uuid(), 'settle', gen_random_uuid())
            """,
        ),
    ),
    Plant(
        "a charge is its price times its milliseconds, at most the hold",
        ("UPDATE usage_record SET cost_nano = cost_nano + 1",),
    ),
    Plant(
        "a charge is its price times its milliseconds, at most the hold",
        ("UPDATE price_version SET nano_per_second = 1, was_nano_per_second = NULL",),
    ),
    Plant(
        "a charge is its price times its milliseconds, at most the hold",
        ("UPDATE hold SET amount_nano = 1 WHERE state = 'settled'",),
    ),
    Plant(
        "a settlement moves what its usage record says",
        (
            """
            UPDATE entry SET amount_nano = 2 * amount_nano
             WHERE transfer_id = (SELECT id FROM transfer WHERE kind = 'settle')
            """,
        ),
    ),
    Plant(
        "a settlement moves what its usage record says",
        (
            """
            UPDATE entry SET account_id = (SELECT id FROM account WHERE kind = 'variance')
             WHERE transfer_id = (SELECT id FROM transfer WHERE kind = 'settle') AND amount_nano < 0
            """,
        ),
    ),
    Plant("a budget holds what its open holds say", ("UPDATE budget SET held_nano = held_nano + 1",)),
    Plant(
        "a budget holds what its open holds say",
        ("UPDATE hold SET budget_ids = '{}' WHERE state = 'open'",),
    ),
    Plant(
        "no hold outlives its deadline by an hour",
        ("UPDATE hold SET deadline_at = now() - interval '61 minutes' WHERE state = 'open'",),
    ),
]


@pytest.fixture
async def lived_in(conn: Conn) -> Conn:
    """Books with a settled, a released and an open hold, all of them under a budget."""
    principal = await new_customer(conn)
    budget_id = await billing.set_budget(
        conn,
        account_id=principal.organization_id,
        subject=principal.key_id,
        scope="key",
        period="total",
        limit_nano=10**12,
    )
    price = (await billing.read_price_book(conn)).find("sandbox", principal.organization_id)
    assert price is not None
    holds = [
        billing.Hold(
            reference=uuid.uuid4(),
            account_id=principal.organization_id,
            price_version_id=price.id,
            amount_nano=price.cost_nano(10_000),
            deadline_at=datetime.now(UTC) + timedelta(hours=1),
            budget_ids=(budget_id,),
        )
        for _ in range(3)
    ]
    async with conn.transaction():
        accounts = await billing.lock_accounts(conn, {principal.organization_id})
        budgets = await billing.lock_budgets(conn, ids=[budget_id])
        for hold in holds:
            assert accounts[hold.account_id].reserve(hold.amount_nano)
            assert budgets[0].reserve(hold.amount_nano)
        await billing.write_holds(conn, holds, accounts=accounts.values(), budgets=budgets)
        delivery = billing.Delivery(reference=holds[0].reference, frames=5 * 48_000, sample_rate=48_000)
        await billing.settle(conn, [delivery])
        await billing.release(conn, [holds[1].reference])
    return conn


def test_each_rule_has_its_breach() -> None:
    assert {breach.invariant for breach in PLANTS} == set(CHECKS)


async def test_honest_books_break_no_rule(lived_in: Conn) -> None:
    assert await billing.verify(lived_in) == []
    assert await billing.count_entries(lived_in) == 4


@pytest.mark.parametrize("breach", PLANTS, ids=lambda breach: breach.invariant.replace(" ", "-"))
async def test_a_broken_rule_is_found(
    lived_in: Conn, database: str, postgres: EmbeddedPostgres, breach: Plant
) -> None:
    await plant(database, postgres.superuser_dsn, breach.statements, without=breach.without)
    found = {violation.invariant for violation in await billing.verify(lived_in)}
    assert breach.invariant in found


async def test_a_violation_names_its_subject_and_what_is_wrong(
    lived_in: Conn, database: str, postgres: EmbeddedPostgres
) -> None:
    await plant(
        database,
        postgres.superuser_dsn,
        ["UPDATE account SET held_nano = held_nano + 1 WHERE kind = 'customer'"],
    )
    (violation,) = await billing.verify(lived_in)
    assert violation.subject == str(await lived_in.fetchval("SELECT id FROM account WHERE kind = 'customer'"))
    assert violation.detail == "held 2500001, holds 2500000"


async def test_a_report_is_bounded_however_much_is_broken(
    lived_in: Conn, database: str, postgres: EmbeddedPostgres
) -> None:
    unbalanced = (
        "INSERT INTO transfer (id, kind) SELECT gen_random_uuid(), 'grant' FROM generate_series(1, 50)"
    )
    await plant(database, postgres.superuser_dsn, [unbalanced])
    assert len(await billing.verify(lived_in)) == MAX_REPORTED
