"""The check of every minute looks at little, and finds what was broken lately, or in place at any time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

import billing
from billing import budget_sums
from gateway.embedded import EmbeddedPostgres
from tests.billing.breaches import (
    BREACHES,
    BUDGET_SPENT,
    DEADLINE,
    SUMS,
    Breach,
    Life,
    delivered,
    hold,
    live,
)
from tests.factories import USD, Conn, new_customer
from tests.planting import plant

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
IN_PLACE = [
    breach
    for breach in BREACHES
    if breach.at_once
    and all(
        statement.split()[1] in {"account", "budget", "credit_grant"} or "state = 'open'" in statement
        for statement in breach.statements
    )
]
VIOLATION = billing.Violation(invariant="a rule", subject="somebody", detail="something")


@pytest.fixture
async def life(conn: Conn) -> Life:
    return await live(conn)


@pytest.fixture
def watch() -> billing.LedgerWatch:
    """That of a process which has run for long."""
    return billing.LedgerWatch(since=LONG_AGO)


async def look(conn: Conn, watch: billing.LedgerWatch) -> tuple[billing.Window, list[billing.Violation]]:
    """One check, as every process does it."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        window = await watch.open_window(conn, every=timedelta(0))
        assert window is not None
        found = await watch.check(conn, window)
    async with conn.transaction():
        await billing.note_check(conn, window, found)
    return window, found


async def check(conn: Conn, watch: billing.LedgerWatch) -> set[str]:
    """The rules that are found broken."""
    _, found = await look(conn, watch)
    return {violation.invariant for violation in found}


async def grow_old(dsn: str, postgres: EmbeddedPostgres) -> None:
    """Everything that was written was written yesterday. Once in a test: a month may have begun today."""
    tables = ("entry", "transfer", "usage_record", "hold", "credit_grant", "account")
    ages = [f"UPDATE {table} SET created_at = created_at - interval '1 day'" for table in tables]  # noqa: S608
    back = """
        UPDATE budget SET period_start = CASE period
               WHEN 'month' THEN date_trunc('month', now() - interval '1 day', 'UTC')
               ELSE period_start - interval '1 day' END
    """
    await plant(dsn, postgres.superuser_dsn, [*ages, back])


@pytest.mark.usefixtures("life")
async def test_honest_books_break_no_rule(conn: Conn, watch: billing.LedgerWatch) -> None:
    assert await check(conn, watch) == set()
    assert await check(conn, watch) == set()
    assert await check(conn, billing.LedgerWatch()) == set()
    assert await billing.read_halt(conn) is None


@pytest.mark.usefixtures("life")
@pytest.mark.parametrize("breach", [b for b in BREACHES if b.at_once], ids=str)
async def test_a_rule_that_was_broken_lately_is_found(
    conn: Conn, watch: billing.LedgerWatch, database: str, postgres: EmbeddedPostgres, breach: Breach
) -> None:
    assert await check(conn, watch) == set()
    await plant(database, postgres.superuser_dsn, breach.statements, without=breach.without)
    assert breach.invariant in await check(conn, watch)
    assert breach.invariant in await check(conn, billing.LedgerWatch(since=LONG_AGO))


def test_every_rule_can_be_found_broken_within_a_minute() -> None:
    assert {b.invariant for b in BREACHES if b.at_once} == {b.invariant for b in BREACHES}


@pytest.mark.usefixtures("life")
@pytest.mark.parametrize("another_process", [False, True])
@pytest.mark.parametrize("breach", IN_PLACE, ids=str)
async def test_what_is_changed_in_place_is_found_however_old_it_is(
    conn: Conn,
    watch: billing.LedgerWatch,
    database: str,
    postgres: EmbeddedPostgres,
    breach: Breach,
    another_process: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    await grow_old(database, postgres)
    await look(conn, watch)
    window, found = await look(conn, watch)
    assert (window.after, found) == (await conn.fetchval("SELECT max(id) FROM entry"), [])
    await plant(database, postgres.superuser_dsn, breach.statements, without=breach.without)
    checker = billing.LedgerWatch(since=LONG_AGO) if another_process else watch
    assert breach.invariant in await check(conn, checker)


@pytest.mark.usefixtures("life")
async def test_what_was_looked_at_and_is_final_is_not_looked_at_again(
    conn: Conn, watch: billing.LedgerWatch, database: str, postgres: EmbeddedPostgres
) -> None:
    first, _ = await look(conn, watch)
    second, _ = await look(conn, watch)
    assert (first.after, second.after, first.upto, second.upto) == (0, 0, second.upto, first.upto)
    await grow_old(database, postgres)
    await look(conn, watch)
    await plant(
        database,
        postgres.superuser_dsn,
        ["UPDATE entry SET amount_nano = amount_nano + 1 WHERE kind = 'expiry' AND amount_nano > 0"],
    )
    third, found = await look(conn, watch)
    assert (third.after, third.upto, found) == (first.upto, first.upto, [])
    assert SUMS in {violation.invariant for violation in await billing.verify(conn)}


async def test_what_was_written_by_a_transaction_that_was_open_at_the_last_check_is_looked_at(
    conn: Conn, life: Life, watch: billing.LedgerWatch, database: str
) -> None:
    slow = await asyncpg.connect(database)
    transaction = slow.transaction()
    await transaction.start()
    transfer_id = await slow.fetchval(
        "INSERT INTO transfer (id, kind) VALUES (gen_random_uuid(), 'expiry') RETURNING id"
    )
    await slow.execute(
        """
        INSERT INTO entry (transfer_id, account_id, amount_nano, balance_after_nano, kind)
        VALUES ($1, $2, 1, 1, 'expiry')
        """,
        transfer_id,
        billing.COGS_PAYABLE,
    )
    async with conn.transaction():
        await billing.grant(
            conn, account_id=life.customer.organization_id, amount_nano=USD, reason="meanwhile"
        )
    assert await check(conn, watch) == set()
    await transaction.commit()
    await slow.close()
    assert SUMS in await check(conn, watch)


@pytest.mark.usefixtures("life")
async def test_one_process_checks_and_the_others_wait_a_minute(conn: Conn, database: str) -> None:
    other = await asyncpg.connect(database)
    first, second = billing.LedgerWatch(), billing.LedgerWatch()
    await conn.execute("UPDATE ledger_watch SET checked_at = now() - interval '1 minute'")
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        window = await first.open_window(conn)
        assert window is not None
        async with other.transaction(isolation="repeatable_read", readonly=True):
            assert await second.open_window(other) is None
    async with conn.transaction():
        await billing.note_check(conn, window, [])
    async with other.transaction(isolation="repeatable_read", readonly=True):
        assert await second.open_window(other) is None
    await conn.execute("UPDATE ledger_watch SET checked_at = now() - interval '1 minute'")
    async with other.transaction(isolation="repeatable_read", readonly=True):
        assert await second.open_window(other) is not None
    await other.close()


@pytest.mark.usefixtures("life")
async def test_a_long_backlog_is_looked_at_piece_by_piece(
    conn: Conn, database: str, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    await plant(
        database,
        postgres.superuser_dsn,
        ["UPDATE entry SET amount_nano = amount_nano + 1 WHERE id = (SELECT min(id) FROM entry)"],
    )
    await grow_old(database, postgres)
    monkeypatch.setattr("billing.watch.MAX_ENTRIES", 4)
    watch, windows, found = billing.LedgerWatch(since=LONG_AGO), [], []
    while not windows or windows[-1].is_behind:
        window, some = await look(conn, watch)
        windows.append(window)
        found.append(SUMS in {violation.invariant for violation in some})
    last = await conn.fetchval("SELECT max(id) FROM entry")
    assert len(windows) == -(-last // 4)
    assert [window.upto - window.after for window in windows[:-1]] == [4] * (len(windows) - 1)
    assert (windows[0].after, windows[-1].upto) == (0, last)
    assert found == [True] + [False] * (len(windows) - 1)
    checked_at = await conn.fetchval("SELECT checked_at FROM ledger_watch")
    assert checked_at == windows[-1].now


async def test_what_was_charged_under_a_budget_is_added_up_once(
    conn: Conn, life: Life, watch: billing.LedgerWatch, database: str, postgres: EmbeddedPostgres
) -> None:
    added_up: list[str] = []

    def note(record: Any) -> None:
        if "min(period_start)" in record.query:
            added_up.append(record.query)

    async def deliver() -> None:
        async with conn.transaction():
            (reference,) = await hold(conn, life, count=1)
            await billing.settle(conn, [delivered(reference)])

    conn.add_query_logger(note)
    assert await check(conn, watch) == set()
    await deliver()
    assert await check(conn, watch) == set()
    await grow_old(database, postgres)
    await deliver()  # which rolls the budget of the day
    assert await check(conn, watch) == set()
    await deliver()
    assert await check(conn, watch) == set()
    assert len(added_up) == 1
    for budget_id in life.budget_ids:
        await conn.execute("UPDATE budget SET spent_nano = spent_nano + 1 WHERE id = $1", budget_id)
        _, found = await look(conn, watch)
        assert [(v.invariant, v.subject) for v in found] == [(BUDGET_SPENT, str(budget_id))]
        await conn.execute("UPDATE budget SET spent_nano = spent_nano - 1 WHERE id = $1", budget_id)
    assert len(added_up) == 1


async def test_budgets_that_wait_to_be_added_up_are_not_forgotten(
    conn: Conn,
    life: Life,
    watch: billing.LedgerWatch,
    database: str,
    postgres: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget_sums, "MAX_ADDED_UP", 1)
    await grow_old(database, postgres)
    await look(conn, billing.LedgerWatch())
    await conn.execute("UPDATE budget SET spent_nano = spent_nano + 1")
    found = [{violation.subject for violation in (await look(conn, watch))[1]} for _ in life.budget_ids]
    assert list(map(len, found)) == [1, 2, 3]
    assert found[-1] == set(map(str, life.budget_ids))


async def test_a_budget_with_very_many_charges_is_left_to_the_check_of_everything(
    conn: Conn, life: Life, watch: billing.LedgerWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_sums, "MAX_CHARGES", 2)  # as many as there are
    await conn.execute("UPDATE budget SET spent_nano = spent_nano + 1")
    assert await check(conn, watch) == set()
    monkeypatch.setattr(budget_sums, "MAX_CHARGES", 3)
    assert await check(conn, watch) == set()  # it is not asked again
    _, found = await look(conn, billing.LedgerWatch())
    assert {violation.subject for violation in found} <= set(map(str, life.budget_ids))
    assert {violation.invariant for violation in found} == {BUDGET_SPENT}
    day = life.budget_ids[0]
    await conn.execute("UPDATE budget SET period_start = period_start - interval '1 day' WHERE id = $1", day)
    _, found = await look(conn, watch)  # but in another period it is
    assert [violation.subject for violation in found] == [str(day)]


async def test_a_process_that_others_were_faster_than_has_the_same_sums(
    conn: Conn, life: Life, watch: billing.LedgerWatch, database: str, postgres: EmbeddedPostgres
) -> None:
    faster = billing.LedgerWatch(since=LONG_AGO)
    assert await check(conn, watch) == set()
    for _ in range(3):
        async with conn.transaction():
            (reference,) = await hold(conn, life, count=1)
            await billing.settle(conn, [delivered(reference)])
        assert await check(conn, faster) == set()
    await grow_old(database, postgres)
    assert await check(conn, faster) == set()
    async with conn.transaction():
        (reference,) = await hold(conn, life, count=1)
        await billing.settle(conn, [delivered(reference)])
    assert await check(conn, faster) == set()
    assert await check(conn, watch) == set()
    await conn.execute("UPDATE budget SET spent_nano = spent_nano + 1 WHERE period = 'total'")
    assert await check(conn, watch) == {BUDGET_SPENT}


async def test_a_settlement_that_waited_over_midnight_is_no_violation(
    conn: Conn, life: Life, watch: billing.LedgerWatch, database: str, postgres: EmbeddedPostgres
) -> None:
    assert await check(conn, watch) == set()
    async with conn.transaction():
        (reference,) = await hold(conn, life, count=1)
        await billing.settle(conn, [delivered(reference)])
    late = "UPDATE usage_record SET created_at = date_trunc('day', now(), 'UTC') - interval '1 s'"
    await plant(database, postgres.superuser_dsn, [f"{late} WHERE reference = '{reference}'"])
    day = str(life.budget_ids[0])
    for change, may_be in ((0, True), (1, False), (-1, True)):
        await conn.execute(
            "UPDATE budget SET spent_nano = spent_nano + $1 WHERE id = $2", change, life.budget_ids[0]
        )
        _, found = await look(conn, watch)
        assert (day not in {violation.subject for violation in found}) is may_be


@pytest.mark.usefixtures("life")
async def test_who_was_away_first_gets_an_hour_to_end_what_is_late(
    conn: Conn, watch: billing.LedgerWatch
) -> None:
    await conn.execute("UPDATE hold SET deadline_at = now() - interval '2 days' WHERE state = 'open'")
    assert await check(conn, billing.LedgerWatch()) == set()
    assert await check(conn, watch) == {DEADLINE}


async def test_a_violation_stops_new_holds_until_a_check_of_everything_finds_nothing(conn: Conn) -> None:
    assert await billing.read_halt(conn) is None
    assert await billing.note_violations(conn, [VIOLATION]) == [VIOLATION]
    halted_at = await billing.read_halt(conn)
    assert halted_at is not None
    assert (await billing.read_totals(conn)).violations == 1
    assert await billing.note_violations(conn, [VIOLATION]) == []
    assert await billing.note_violations(conn, []) == []
    assert await billing.read_halt(conn) == halted_at
    assert await billing.lift_halt(conn, await billing.read_findings(conn))
    assert await billing.read_halt(conn) is None
    assert (await billing.read_totals(conn)).violations == 0


async def test_a_halt_is_not_lifted_for_what_was_found_meanwhile(conn: Conn) -> None:
    await billing.note_violations(conn, [VIOLATION])
    seen = await billing.read_findings(conn)
    assert await billing.note_violations(conn, [VIOLATION]) == []  # the same again
    assert not await billing.lift_halt(conn, seen)
    assert await billing.read_halt(conn) is not None


async def test_what_is_remembered_is_bounded(conn: Conn) -> None:
    many = [
        billing.Violation(invariant="a rule", subject=str(number), detail="wrong") for number in range(1_000)
    ]
    assert await billing.note_violations(conn, many) == many
    assert 0 < (await billing.read_totals(conn)).violations <= 200


async def test_without_its_row_the_watch_does_not_pretend_that_all_is_well(
    conn: Conn, watch: billing.LedgerWatch
) -> None:
    await new_customer(conn)
    await conn.execute("DELETE FROM ledger_watch")
    with pytest.raises(billing.LedgerConflict, match="ledger_watch"):
        await look(conn, watch)
    with pytest.raises(billing.LedgerConflict, match="ledger_watch"):
        await billing.note_violations(conn, [VIOLATION])
