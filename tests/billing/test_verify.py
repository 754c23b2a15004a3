"""Every rule that `ledger verify` checks is found broken when it is broken."""

import pytest

import billing
from billing.models import TRANSFER_KINDS
from billing.shapes import GRANTED_BY, SHAPES
from billing.verify import CHECKS, MAX_REPORTED
from gateway.embedded import EmbeddedPostgres
from tests.billing.breaches import BREACHES, Breach, Life, delivered, hold, live
from tests.factories import Conn
from tests.planting import plant


@pytest.fixture
async def life(conn: Conn) -> Life:
    return await live(conn)


def test_each_rule_has_its_breach() -> None:
    assert {breach.invariant for breach in BREACHES} == set(CHECKS)


def test_each_kind_of_transfer_and_of_grant_has_its_shapes() -> None:
    assert set(SHAPES) == set(TRANSFER_KINDS)
    assert {source for sources in GRANTED_BY.values() for source in sources} == {
        kind for kind, shapes in SHAPES.items() if any("customer+" in shape for shape in shapes)
    }


@pytest.mark.usefixtures("life")
async def test_books_in_which_everything_has_happened_break_no_rule(conn: Conn) -> None:
    kinds = await conn.fetch("SELECT DISTINCT kind FROM transfer")
    assert {row["kind"] for row in kinds} == set(TRANSFER_KINDS)
    assert await conn.fetchval("SELECT owed_nano > 0 FROM account ORDER BY owed_nano DESC LIMIT 1")
    assert await conn.fetchval("SELECT posted_nano < 0 FROM account WHERE kind = 'variance'")
    assert await billing.verify(conn) == []
    assert await billing.count_entries(conn) == await conn.fetchval("SELECT count(*) FROM entry") > 30


@pytest.mark.usefixtures("life")
@pytest.mark.parametrize("breach", BREACHES, ids=str)
async def test_a_broken_rule_is_found(
    conn: Conn, database: str, postgres: EmbeddedPostgres, breach: Breach
) -> None:
    await plant(database, postgres.superuser_dsn, breach.statements, without=breach.without)
    found = {violation.invariant for violation in await billing.verify(conn)}
    assert breach.invariant in found


async def test_a_violation_names_its_subject_and_what_is_wrong(
    conn: Conn, life: Life, database: str, postgres: EmbeddedPostgres
) -> None:
    await plant(
        database, postgres.superuser_dsn, ["UPDATE account SET held_nano = held_nano + 1 WHERE held_nano > 0"]
    )
    (violation,) = await billing.verify(conn)
    assert violation.subject == str(life.customer.organization_id)
    assert violation.detail == "held 2500001, holds 2500000"


@pytest.mark.usefixtures("life")
async def test_a_report_is_bounded_however_much_is_broken(
    conn: Conn, database: str, postgres: EmbeddedPostgres
) -> None:
    unbalanced = (
        "INSERT INTO transfer (id, kind) SELECT gen_random_uuid(), 'grant' FROM generate_series(1, 50)"
    )
    await plant(database, postgres.superuser_dsn, [unbalanced])
    found = [violation.invariant for violation in await billing.verify(conn)]
    assert {invariant: found.count(invariant) for invariant in set(found)} == {
        "every transfer sums to zero": MAX_REPORTED,
        "a transfer moves what its kind may move": MAX_REPORTED,
    }


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [
        pytest.param(1, "on either day", id="a settlement that waited over midnight"),
        pytest.param(180, "on its own day", id="one of the evening before"),
    ],
)
async def test_a_settlement_that_meets_midnight_may_be_counted_on_either_day(
    conn: Conn, life: Life, database: str, postgres: EmbeddedPostgres, seconds: int, counts: str
) -> None:
    # It began before midnight and waited for a lock while another one rolled the budget.
    await plant(
        database,
        postgres.superuser_dsn,
        [f"UPDATE usage_record SET created_at = date_trunc('day', now(), 'UTC') - interval '{seconds} s'"],  # noqa: S608
    )
    spent = await conn.fetchval("SELECT spent_nano FROM budget WHERE period = 'day'")
    await conn.execute("UPDATE budget SET spent_nano = 0 WHERE period <> 'day'")
    for nano, may_be in ((spent, counts == "on either day"), (0, True), (spent + 1, False)):
        await conn.execute("UPDATE budget SET spent_nano = $1 WHERE period = 'day'", nano)
        found = [v for v in await billing.verify(conn) if v.subject == str(life.budget_ids[0])]
        assert (found == []) is may_be


async def test_lifted_changed_and_rolled_budgets_break_no_rule(
    conn: Conn, life: Life, database: str, postgres: EmbeddedPostgres
) -> None:
    day, _, total = life.budget_ids
    async with conn.transaction():
        (reference,) = await hold(conn, life, count=1)
    assert await billing.remove_budget(conn, subject=life.customer.key_id, period="month")
    await conn.execute("UPDATE budget SET limit_nano = 0 WHERE id = $1", total)
    await plant(
        database,
        postgres.superuser_dsn,
        [
            "UPDATE usage_record SET created_at = created_at - interval '1 day'",
            "UPDATE budget SET period_start = period_start - interval '1 day'",
        ],
    )
    assert await billing.verify(conn) == []
    async with conn.transaction():
        charges = await billing.settle(conn, [delivered(reference)])
    assert await billing.verify(conn) == []
    rolled = await conn.fetchrow("SELECT spent_nano, period_start FROM budget WHERE id = $1", day)
    assert rolled["spent_nano"] == charges[reference].cost_nano > 0
    assert rolled["period_start"] == await conn.fetchval("SELECT date_trunc('day', now(), 'UTC')")
