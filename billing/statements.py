"""Reading the books: entries in pages, balances at a moment, sums by kind. Nothing here locks or writes.

An entry belongs to the period in which its transaction began, which is what `created_at` says. Ids are
given out later, under the account's lock, so around any moment a few entries of an account may stand in
another order than their times. Ids that are far enough from the moment are on one side of it for certain;
between them, times decide. So a period is found without an index on time, for which every settlement
would pay.
"""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import msgspec

from billing.connection import Connection
from billing.models import PER_JOB_KINDS, TRANSFER_KINDS
from billing.money import NANO_PER_USD

LATENESS: Final = timedelta(minutes=2)
"""Longer than from the beginning of a transaction to its entries: each of its waits ends after 30 s."""
ENTRY_KINDS: Final = tuple(kind for kind in TRANSFER_KINDS if kind != "provider_cost")
"""What may stand on a customer's account."""
NANO_PER_CENT: Final = NANO_PER_USD // 100
RARE_KINDS: Final = tuple(kind for kind in TRANSFER_KINDS if kind not in PER_JOB_KINDS)
LAST_ID: Final = 2**62
"""Above all ids."""
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
# As rows: an equal account would let the planner walk through all accounts by the id alone, and wait long
# for one that has been quiet. One bound for each side: of two, the index begins at the first.
_FROM_FIRST: Final = "(account_id, id) > ($1, 0)"
_TO_LAST: Final = f"(account_id, id) < ($1, {LAST_ID})"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line on an account; `model` and `billed_ms` are those of a charge."""

    id: int
    created_at: datetime
    kind: str
    amount_nano: int
    balance_after_nano: int
    reference: uuid.UUID | None
    external_ref: str | None
    reason: str | None
    model: str | None
    billed_ms: int | None


class Cut(msgspec.Struct, frozen=True):
    """A moment in the books: ids below `low` are before it, ids from `high` on are not."""

    moment: datetime
    low: int
    high: int


class EntryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries a page shows; None filters nothing."""

    start: Cut | None = None
    end: Cut | None = None
    kinds: tuple[str, ...] | None = None
    """One kind, or any that do not come with every job."""
    after: int = 0
    before: int = LAST_ID
    """Ids between these two, which are not among them."""
    newest_first: bool = False
    limit: int


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """All entries of one kind in a period."""

    kind: str
    entries: int
    amount_nano: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What happened on an account in a period: opening + movements - charged = closing."""

    start: datetime
    end: datetime
    opening_nano: int
    closing_nano: int
    movements: tuple[Movement, ...]
    """Of every kind but charges."""

    @property
    def charged_nano(self) -> int:
        """What jobs cost: all that the other kinds do not account for."""
        return self.opening_nano + sum(one.amount_nano for one in self.movements) - self.closing_nano

    @property
    def added_nano(self) -> int:
        """What came in."""
        return sum(one.amount_nano for one in self.movements if one.amount_nano > 0)

    @property
    def removed_nano(self) -> int:
        """What went out, other than for jobs."""
        return -sum(one.amount_nano for one in self.movements if one.amount_nano < 0)


async def read_entries(conn: Connection, account_id: uuid.UUID, wanted: EntryFilter) -> list[Entry]:
    """A page, in the order of ids."""
    sql, arguments = entries_query(account_id, wanted)
    return [Entry(**dict(row)) for row in await conn.fetch(sql, *arguments)]


def entries_query(account_id: uuid.UUID, wanted: EntryFilter) -> tuple[str, list[Any]]:
    """The page first, what explains its entries afterwards.

    The limit is in the text: a plan for any limit expects a tenth of the account, and reads all transfers.
    """
    start, end, kinds = wanted.start, wanted.end, wanted.kinds
    arguments: list[Any] = [
        account_id,
        max(wanted.after, start.low - 1 if start else 0),
        min(wanted.before, end.high if end else LAST_ID),
    ]
    conditions = []
    for cut, relation in ((start, ">="), (end, "<")):
        if cut is not None:
            arguments.append(cut.moment)
            conditions.append(f"AND created_at {relation} ${len(arguments)}")
    order = "DESC" if wanted.newest_first else "ASC"
    limit = f"LIMIT {wanted.limit:d}"
    if kinds is None or set(kinds) <= set(PER_JOB_KINDS):
        is_of_kind = "" if kinds is None else "AND kind IS NULL"
        page = f"""
            SELECT * FROM entry
             WHERE (account_id, id) > ($1, $2) AND (account_id, id) < ($1, $3)
                   {is_of_kind} {" ".join(conditions)}
             ORDER BY account_id {order}, id {order} {limit}
        """  # noqa: S608 - no input
    else:
        arguments.append(kinds)
        page = f"""
            SELECT found.* FROM unnest(${len(arguments)}::text[]) AS wanted CROSS JOIN LATERAL (
                SELECT * FROM entry
                 WHERE kind IS NOT NULL AND (account_id, kind, id) > ($1, wanted, $2)
                   AND (account_id, kind, id) < ($1, wanted, $3) {" ".join(conditions)}
                 ORDER BY account_id {order}, kind {order}, id {order} {limit}
            ) found ORDER BY id {order} {limit}
        """  # noqa: S608 - no input
    sql = f"""
        SELECT e.id, e.created_at, t.kind, e.amount_nano, e.balance_after_nano, t.reference, t.external_ref,
               t.reason, p.model, u.billed_ms
          FROM ({page}) e
          JOIN transfer t ON t.id = e.transfer_id
          LEFT JOIN usage_record u ON u.reference = t.reference AND t.kind = 'settle'
          LEFT JOIN price_version p ON p.id = u.price_version_id
         ORDER BY e.id {order}
    """  # noqa: S608 - no input
    return sql, arguments


async def last_entry(conn: Connection, account_id: uuid.UUID) -> tuple[int, int]:
    """Id and balance of the newest entry; zeros if there is none.

    An account's entries are committed in the order of their ids, so none will come in below it.
    """
    row = await conn.fetchrow(
        f"SELECT id, balance_after_nano FROM entry WHERE {_FROM_FIRST} AND {_TO_LAST} "  # noqa: S608 - constants
        "ORDER BY account_id DESC, id DESC LIMIT 1",
        account_id,
    )
    return (0, 0) if row is None else (row[0], row[1])


async def first_entry_at(conn: Connection, account_id: uuid.UUID) -> datetime | None:
    """When the account began to move."""
    found: datetime | None = await conn.fetchval(
        f"SELECT created_at FROM entry WHERE {_FROM_FIRST} AND {_TO_LAST} "  # noqa: S608 - constants
        "ORDER BY account_id, id LIMIT 1",
        account_id,
    )
    return found


async def find_cuts(conn: Connection, account_id: uuid.UUID, moments: Iterable[datetime]) -> list[Cut]:
    """Where moments are in the order of ids: by bisection over the account's entries."""
    wanted = [min(max(moment, _EARLIEST), _LATEST) for moment in moments]
    rows = await conn.fetch(
        f"""
        WITH RECURSIVE ends (first, last) AS (
            SELECT (SELECT id FROM entry WHERE {_FROM_FIRST} AND {_TO_LAST}
                     ORDER BY account_id, id LIMIT 1),
                   (SELECT id FROM entry WHERE {_FROM_FIRST} AND {_TO_LAST}
                     ORDER BY account_id DESC, id DESC LIMIT 1)
        ), probe (n, moment, low, high) AS (
            SELECT n, moment, coalesce(first, 1), coalesce(last, 0) + 1
              FROM unnest($2::timestamptz[]) WITH ORDINALITY AS t (moment, n), ends
            UNION ALL
            SELECT n, moment, CASE WHEN created_at < moment THEN id + 1 ELSE low END,
                   CASE WHEN created_at < moment THEN high ELSE (low + high) / 2 END
              FROM probe
             CROSS JOIN LATERAL (
                SELECT id, created_at FROM entry
                 WHERE (account_id, id) >= ($1, (low + high) / 2) AND {_TO_LAST}
                 ORDER BY account_id, id LIMIT 1
             ) middle
             WHERE low < high
        )
        SELECT low FROM probe WHERE low >= high ORDER BY n
        """,  # noqa: S608 - constants
        account_id,
        [moment + way * LATENESS for moment in wanted for way in (-1, 1)],
    )
    ids = [row["low"] for row in rows]
    return [Cut(*cut) for cut in zip(wanted, ids[::2], ids[1::2], strict=True)]


async def read_balances(
    conn: Connection, account_id: uuid.UUID, cuts: Sequence[Cut], *, last_id: int = LAST_ID
) -> list[int]:
    """The balance at each moment, of the entries up to `last_id`."""
    rows = await conn.fetch(
        f"""
        SELECT coalesce((SELECT balance_after_nano FROM entry
                          WHERE {_FROM_FIRST} AND (account_id, id) < ($1, least(low, $5::bigint + 1))
                          ORDER BY account_id DESC, id DESC LIMIT 1), 0)
               + coalesce((SELECT sum(amount_nano) FROM entry
                            WHERE (account_id, id) >= ($1, low) AND (account_id, id) < ($1, high)
                              AND id <= $5 AND created_at < moment), 0)::bigint AS nano
          FROM unnest($2::timestamptz[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
               AS t (moment, low, high, n)
         ORDER BY n
        """,  # noqa: S608 - constants
        account_id,
        [cut.moment for cut in cuts],
        [cut.low for cut in cuts],
        [cut.high for cut in cuts],
        last_id,
    )
    return [row["nano"] for row in rows]


async def read_statements(
    conn: Connection, account_id: uuid.UUID, moments: Sequence[datetime]
) -> list[Statement]:
    """One for each period between neighbouring moments; call it inside a REPEATABLE READ transaction."""
    cuts = await find_cuts(conn, account_id, moments)
    balances = await read_balances(conn, account_id, cuts)
    movements = await _read_movements(conn, account_id, list(pairwise(cuts)))
    return [
        Statement(
            start=cuts[n].moment,
            end=cuts[n + 1].moment,
            opening_nano=balances[n],
            closing_nano=balances[n + 1],
            movements=tuple(movements.get(n, ())),
        )
        for n in range(len(cuts) - 1)
    ]


async def _read_movements(
    conn: Connection, account_id: uuid.UUID, periods: Sequence[tuple[Cut, Cut]]
) -> dict[int, list[Movement]]:
    """Of each period by its number; settlements are not looked at."""
    rows = await conn.fetch(
        """
        SELECT n - 1, name, entries, nano
          FROM unnest($3::timestamptz[], $4::bigint[], $5::timestamptz[], $6::bigint[]) WITH ORDINALITY
               AS t (start_at, first_id, end_at, end_id, n)
         CROSS JOIN unnest($2::text[]) AS k (name)
         CROSS JOIN LATERAL (
            SELECT count(*) AS entries, sum(amount_nano)::bigint AS nano FROM entry
             WHERE kind IS NOT NULL AND (account_id, kind, id) >= ($1, name, first_id)
               AND (account_id, kind, id) < ($1, name, end_id)
               AND created_at >= start_at AND created_at < end_at
         ) sums
         WHERE entries > 0 ORDER BY n, array_position($2::text[], name)
        """,
        account_id,
        RARE_KINDS,
        [start.moment for start, _ in periods],
        [start.low for start, _ in periods],
        [end.moment for _, end in periods],
        [end.high for _, end in periods],
    )
    found: dict[int, list[Movement]] = {}
    for n, kind, entries, nano in rows:
        found.setdefault(n, []).append(Movement(kind=kind, entries=entries, amount_nano=nano))
    return found


def round_to_cents(nano: int) -> str:
    """2_345_000_000 -> '2.35': half a cent is rounded up, away from zero; once, at the end of a sum."""
    cents = (abs(nano) + NANO_PER_CENT // 2) // NANO_PER_CENT
    whole, rest = divmod(cents, 100)
    return f"{'-' if nano < 0 and cents else ''}{whole}.{rest:02d}"
