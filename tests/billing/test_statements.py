"""Reading the books: the same in a long ledger as in a short one, and exact when times and ids disagree."""

import json
import math
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import billing
from billing.statements import LATENESS, entries_query
from gateway.embedded import EmbeddedPostgres
from tests.factories import Conn
from tests.planting import plant

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
ENTRIES = 4_000
MOST_ROWS = 50
"""Looked at for a page of 20, out of ENTRIES."""


async def open_account(conn: Conn) -> uuid.UUID:
    account_id = uuid.uuid4()
    await billing.open_account(conn, account_id)
    return account_id


async def written(conn: Conn, account_id: uuid.UUID, seconds: Sequence[float]) -> None:
    """Grants of one nano-USD, at these seconds after BEGIN, in this order of ids."""
    moments = [BEGIN + timedelta(seconds=at) for at in seconds]
    await conn.execute(
        """
        WITH fresh AS (
            SELECT gen_random_uuid() AS id, n, at FROM unnest($2::timestamptz[]) WITH ORDINALITY AS t (at, n)
        ), made AS (
            INSERT INTO transfer (id, kind, created_at) SELECT id, 'grant', at FROM fresh
        )
        INSERT INTO entry (transfer_id, account_id, amount_nano, balance_after_nano, created_at, kind)
        SELECT id, $1, 1, n, at, 'grant' FROM fresh ORDER BY n
        """,
        account_id,
        moments,
    )


async def balances(conn: Conn, account_id: uuid.UUID, *seconds: float) -> list[int]:
    cuts = await billing.find_cuts(conn, account_id, [BEGIN + timedelta(seconds=at) for at in seconds])
    return await billing.read_balances(conn, account_id, cuts)


async def test_an_account_without_entries_has_nothing_at_any_time(conn: Conn) -> None:
    account_id = await open_account(conn)
    assert await balances(conn, account_id, -1e9, 0, 1e9) == [0, 0, 0]
    assert await billing.last_entry(conn, account_id) == (0, 0)
    assert await billing.first_entry_at(conn, account_id) is None
    assert await billing.read_entries(conn, account_id, billing.EntryFilter(limit=9)) == []
    (statement,) = await billing.read_statements(conn, account_id, [BEGIN, BEGIN + timedelta(days=1)])
    assert (statement.opening_nano, statement.closing_nano, statement.movements) == (0, 0, ())
    assert statement.charged_nano == 0


async def test_a_balance_is_that_of_all_entries_before_a_moment(
    conn: Conn,
) -> None:
    account_id = await open_account(conn)
    hours = [0.0, 3600, 3600, 7200, 86_400, 90_000, 90_000.5, 1e6]
    await written(conn, account_id, hours)
    for moment in (-1, 0, 1, 3599, 3600, 3601, 86_400, 86_401, 90_000.25, 999_999, 1e6, 1e6 + 1, 1e9):
        assert await balances(conn, account_id, moment) == [sum(at < moment for at in hours)], moment
    everything = [0.0, 3600, 7200, 1e7]
    assert await balances(conn, account_id, *everything) == [0, 1, 3, 8]


async def test_entries_that_were_late_count_for_their_own_time(conn: Conn) -> None:
    # As if transactions had waited for the account, and were written in another order than they began.
    account_id = await open_account(conn)
    late = LATENESS.total_seconds() - 1
    times = [0.0, 500, 499, 1000, 1000 - late, 1000.5, 1001 - late / 2, 2000, 2000 - late, 2001, 9000]
    await written(conn, account_id, times)
    for moment in (
        0.5,
        499,
        500,
        501,
        *range(800, 1100, 7),
        1000.25,
        1000.75,
        *range(1850, 2010, 9),
        9e3,
        9e4,
    ):
        assert await balances(conn, account_id, moment) == [sum(at < moment for at in times)], moment


async def test_other_accounts_are_not_looked_at(conn: Conn) -> None:
    # Their entries stand in between, at times of their own.
    one, other = await open_account(conn), await open_account(conn)
    for step in range(6):
        await written(conn, one, [step * 3600.0])
        await written(conn, other, [-step * 7200.0])
    cuts = await billing.find_cuts(conn, one, [BEGIN + timedelta(seconds=3600 * n + 1) for n in range(6)])
    found = [
        len(await billing.read_entries(conn, one, billing.EntryFilter(end=cut, limit=99))) for cut in cuts
    ]
    assert found == [1, 2, 3, 4, 5, 6]


@pytest.fixture
async def long_ledger(conn: Conn, database: str, postgres: EmbeddedPostgres) -> uuid.UUID:
    """An entry for each minute, all for jobs but one of a payment in the middle.

    It is an account among others, which are busy before it began and since it has been quiet.
    """
    account_id = await open_account(conn)
    for busy in (await open_account(conn), await open_account(conn)):
        await written(conn, busy, [0.0] * ENTRIES)
        if not await billing.first_entry_at(conn, account_id):
            await written(conn, account_id, [60.0 * n for n in range(ENTRIES)])
    await plant(
        database,
        postgres.superuser_dsn,
        [
            "UPDATE entry SET kind = NULL",
            """
            UPDATE entry SET kind = 'top_up'
             WHERE id = (SELECT id FROM entry ORDER BY id OFFSET (SELECT count(*) / 2 FROM entry) LIMIT 1)
            """,
            """
            UPDATE transfer SET kind = coalesce(e.kind, 'settle'), reference = transfer.id
              FROM entry e WHERE e.transfer_id = transfer.id
            """,
        ],
    )
    await conn.execute("ANALYZE entry, transfer")
    return account_id


@pytest.mark.parametrize("kinds", [None, ("settle",), ("top_up",), ("dispute",), ("grant", "top_up")])
async def test_a_page_looks_at_few_entries(
    conn: Conn, long_ledger: uuid.UUID, kinds: tuple[str, ...] | None
) -> None:
    ranges = ((0, ENTRIES), (100, ENTRIES), (0, 100), (1000, 2000), (ENTRIES - 10, ENTRIES + 99))
    for (first, last), newest_first in product(ranges, (True, False)):
        bounds = [BEGIN + timedelta(minutes=minute) for minute in (first, last)]
        start, end = await billing.find_cuts(conn, long_ledger, bounds)
        wanted = billing.EntryFilter(start=start, end=end, kinds=kinds, newest_first=newest_first, limit=20)
        assert await entries_looked_at(conn, *entries_query(long_ledger, wanted)) < MOST_ROWS
        minutes = [n for n in range(first, min(last, ENTRIES)) if is_one_of(n, kinds)]
        found = [entry.created_at for entry in await billing.read_entries(conn, long_ledger, wanted)]
        page = minutes[::-1][:20] if newest_first else minutes[:20]
        assert found == [BEGIN + timedelta(minutes=n) for n in page]


def is_one_of(minute: int, kinds: tuple[str, ...] | None) -> bool:
    """Whether the long ledger's entry of that minute is of these kinds."""
    return kinds is None or ("top_up" if minute == ENTRIES // 2 else "settle") in kinds


async def test_the_ends_of_a_quiet_account_are_found_at_once(conn: Conn, long_ledger: uuid.UUID) -> None:
    plans: list[dict[str, Any]] = []

    class Explaining:
        """Runs each query twice, the first time to see what it looks at."""

        async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
            plans.append(await explained(conn, sql, arguments))
            return list(await conn.fetch(sql, *arguments))

        async def fetchrow(self, sql: str, *arguments: Any) -> Any:
            return (await self.fetch(sql, *arguments))[0]

        async def fetchval(self, sql: str, *arguments: Any) -> Any:
            return (await self.fetchrow(sql, *arguments))[0]

    seen: Any = Explaining()
    assert (await billing.last_entry(seen, long_ledger))[1] == ENTRIES
    assert await billing.first_entry_at(seen, long_ledger) == BEGIN
    bounds = [BEGIN, BEGIN + timedelta(minutes=ENTRIES - 1), BEGIN + timedelta(days=999)]
    (statement, _) = await billing.read_statements(seen, long_ledger, bounds)
    assert (statement.opening_nano, statement.closing_nano) == (0, ENTRIES - 1)
    assert len(plans) == 5
    probes = 2 * len(bounds) * math.log2(2 * ENTRIES)
    assert max(map(entries_of, plans)) < probes + MOST_ROWS
    assert max(plan["Shared Hit Blocks"] for plan in plans) < 4 * probes + MOST_ROWS


async def entries_looked_at(conn: Conn, sql: str, arguments: Sequence[Any]) -> float:
    return entries_of(await explained(conn, sql, arguments))


async def explained(conn: Conn, sql: str, arguments: Sequence[Any]) -> dict[str, Any]:
    text = await conn.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *arguments)
    return dict(json.loads(text)[0]["Plan"])


def entries_of(plan: dict[str, Any]) -> float:
    here = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    below = sum(entries_of(part) for part in plan.get("Plans", ()))
    return below + (float(here) if plan.get("Relation Name") == "entry" else 0)


async def test_a_statement_tells_movements_by_kind(conn: Conn, long_ledger: uuid.UUID) -> None:
    middle = BEGIN + timedelta(minutes=ENTRIES // 2)
    bounds = [BEGIN, middle, middle + timedelta(minutes=1), BEGIN + timedelta(days=9)]
    before, during, after = await billing.read_statements(conn, long_ledger, bounds)
    assert (before.opening_nano, before.closing_nano, before.movements) == (0, ENTRIES // 2, ())
    assert before.charged_nano == -ENTRIES // 2
    assert during.movements == (billing.Movement(kind="top_up", entries=1, amount_nano=1),)
    assert (during.charged_nano, during.added_nano, during.removed_nano) == (0, 1, 0)
    assert (after.opening_nano, after.closing_nano) == (ENTRIES // 2 + 1, ENTRIES)


@pytest.mark.parametrize(
    ("nano", "cents"),
    [
        (0, "0.00"),
        (4_999_999, "0.00"),
        (5_000_000, "0.01"),
        (14_999_999, "0.01"),
        (15_000_000, "0.02"),
        (999_995_000_000, "1000.00"),
        (-4_999_999, "0.00"),
        (-5_000_000, "-0.01"),
        (-12_345_000_000, "-12.35"),
    ],
)
def test_cents_are_rounded_half_up(nano: int, cents: str) -> None:
    assert billing.round_to_cents(nano) == cents


@given(st.integers(-(2**62), 2**62))
def test_cents_are_at_most_half_a_cent_away(nano: int) -> None:
    whole, _, rest = billing.round_to_cents(nano).removeprefix("-").partition(".")
    cents = (int(whole) * 100 + int(rest)) * (-1 if nano < 0 else 1)
    assert len(rest) == 2
    assert abs(cents * 10_000_000 - nano) * 2 <= 10_000_000
