"""The books checked while they are in use: every minute, only what was written since the last look.

What a check of the whole ledger recomputes from all rows follows here by induction: each new entry carries
on its account's balance, so a balance is right if it is that of its last entry. Rows that are changed in
place (accounts, open grants, budgets, open holds) are few, and are looked at however old they are.

A violation stops new holds until a check of everything finds nothing: `read_halt`, `lift_halt`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from billing.budget_sums import BudgetSums
from billing.connection import Connection
from billing.errors import LedgerConflict
from billing.verify import POSTED, SPENT, Violation, checks_of, run_checks

CHECK_EVERY: Final = timedelta(seconds=50)
"""Every process asks once a minute; whoever comes first does it for all."""
OVERLAP: Final = timedelta(minutes=2)
"""What was written by transactions that began this long ago is final: none lives half as long."""
MAX_ENTRIES: Final = 200_000
"""Looked at in one snapshot, if older ones were left over."""
MAX_KEPT: Final = 100
"""Violations that are remembered until the halt is lifted."""
_LOCK: Final = 0x77617463  # "watc"

_PLAIN_PLANS: Final = """
    SELECT set_config('random_page_cost', '1.1', true), set_config('enable_mergejoin', 'off', true),
           set_config('max_parallel_workers_per_gather', '0', true)
"""
"""Index by index: what is recent is in memory, and reading a whole table for it is never worth while."""

_NEW: Final = "FROM entry WHERE id > {after} AND id <= {upto}"
_TRANSFERS: Final = f"SELECT * FROM transfer WHERE id IN (SELECT transfer_id {_NEW})"  # noqa: S608 - constants
_SETTLED: Final = f"SELECT t.reference FROM ({_TRANSFERS}) t WHERE t.kind = 'settle'"  # noqa: S608 - constants
_RECENT: Final = {
    "entries": f"SELECT * {_NEW}",
    "legs": f"SELECT * FROM entry WHERE transfer_id IN (SELECT transfer_id {_NEW})",  # noqa: S608 - constants
    "transfers": _TRANSFERS,
    "usage": f"SELECT * FROM usage_record WHERE reference IN ({_SETTLED})",  # noqa: S608 - constants
    "holds": f"SELECT * FROM hold WHERE reference IN ({_SETTLED} UNION {{ended}})",  # noqa: S608 - constants
    "grants": "SELECT * FROM credit_grant WHERE closed_at IS NULL AND {changed}",
}
"""New entries and what they lead to; `legs` are all entries of a transfer, also those of the next window."""

_BALANCE_OF_LAST_ENTRY: Final = """
    SELECT a.id::text, 'posted ' || a.posted_nano || ', last entry ' || coalesce(e.balance_after_nano, 0)
      FROM account a
      LEFT JOIN LATERAL (SELECT balance_after_nano FROM entry
                          WHERE account_id = a.id ORDER BY id DESC LIMIT 1) e ON true
     WHERE (a.kind <> 'customer' OR {changed}) AND a.posted_nano <> coalesce(e.balance_after_nano, 0)
"""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What one check looks at."""

    after: int
    """Entries up to this one were looked at before."""
    upto: int
    final: int
    """Entries up to this one need not be looked at again."""
    now: datetime
    since: datetime
    """What ended before was seen by an earlier check."""
    horizon: str | None
    """Transaction id: what older ones wrote was seen by an earlier check. None: look at everything."""
    is_behind: bool
    """There are more: check again at once."""

    def changed(self, table: str) -> str:
        """A condition: the row may have been written since the last check."""
        return "true" if self.horizon is None else f"age({table}.xmin) <= age('{self.horizon}'::xid)"


class Halt(msgspec.Struct, frozen=True):
    """Since when nothing new is held, if so, and what was found, as it is stored."""

    since: datetime | None
    found: str


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    invariant: str
    subject: str
    detail: str
    found_at: datetime
    """When it was seen last: a halt is not lifted if this has moved meanwhile."""


class LedgerWatch:
    """The check of every minute, as one process does it."""

    def __init__(self, *, since: datetime | None = None) -> None:
        """`since` when the deadlines of holds are watched; whoever was away first needs time to end them."""
        self._since = since or datetime.now(UTC)
        self._budgets = BudgetSums()

    async def open_window(self, conn: Connection, *, every: timedelta = CHECK_EVERY) -> Window | None:
        """What is to be checked now, in the snapshot of the caller's REPEATABLE READ transaction.

        None if another process does it, or has just done it.
        """
        if not await conn.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
            return None
        await conn.execute(_PLAIN_PLANS)
        row = await conn.fetchrow(
            """
            SELECT w.checked_entry_id AS after, w.checked_at, now() AS now,
                   coalesce((SELECT max(id) FROM entry), 0) AS last,
                   (SELECT max(id) FROM entry
                     WHERE id > w.checked_entry_id AND id <= w.checked_entry_id + $1
                       AND created_at < now() - $2::interval) AS final,
                   known.xmin::text AS horizon, age(known.xmin) >= 0 AS is_recent
              FROM ledger_watch w
              LEFT JOIN LATERAL (SELECT xmin FROM entry
                                  WHERE id <= w.checked_entry_id ORDER BY id DESC LIMIT 1) known ON true
            """,
            MAX_ENTRIES,
            OVERLAP,
        )
        if row is None:
            raise LedgerConflict("ledger_watch has lost its row")
        if row["checked_at"] > row["now"] - every:
            return None
        after, last = row["after"], row["last"]
        final = row["final"] or after
        is_behind = last > after + MAX_ENTRIES and final - after > MAX_ENTRIES // 2
        return Window(
            after=after,
            upto=final if is_behind else last,
            final=final,
            now=row["now"],
            since=row["checked_at"] - OVERLAP,
            # Entry `after` was final at the last check: what was written since has a younger transaction.
            horizon=row["horizon"] if row["is_recent"] else None,
            is_behind=is_behind,
        )

    async def check(self, conn: Connection, window: Window, *, ended: str | None = None) -> list[Violation]:
        """Every broken rule in the window; `ended` is a query for references that were closed in it."""
        checks = checks_of(self.scope(window, ended))
        del checks[SPENT]
        checks[POSTED] = _BALANCE_OF_LAST_ENTRY.format(changed=window.changed("a"))
        violations = await run_checks(conn, checks)
        return violations + await self._budgets.check(
            conn, after=window.after, final=window.final, changed=window.changed("budget")
        )

    def scope(self, window: Window, ended: str | None = None) -> dict[str, str]:
        """What the braces of the checks stand for in the window."""
        values = {
            "after": window.after,
            "upto": window.upto,
            "changed": window.changed("credit_grant"),
            "ended": ended or "SELECT NULL::uuid",
        }
        return {
            **{name: f"({query.format(**values)})" for name, query in _RECENT.items()},
            "watched_since": f"'{self._since.isoformat()}'::timestamptz",
        }


async def note_check(conn: Connection, window: Window, violations: Sequence[Violation]) -> list[Violation]:
    """Remember how far the books were checked and what was found; returns what was not known before."""
    await conn.execute(
        """
        UPDATE ledger_watch SET checked_entry_id = greatest(checked_entry_id, $1),
                                checked_at = CASE WHEN $3 THEN checked_at ELSE greatest(checked_at, $2) END
        """,
        window.final,
        window.now,
        window.is_behind,
    )
    return await note_violations(conn, violations)


async def note_violations(conn: Connection, violations: Sequence[Violation]) -> list[Violation]:
    """Remember violations and stop new holds; returns those that were not known before."""
    if not violations:
        return []
    row = await conn.fetchrow("SELECT violations::text, clock_timestamp() FROM ledger_watch FOR UPDATE")
    if row is None:
        raise LedgerConflict("ledger_watch has lost its row")
    stored, now = msgspec.json.decode(row[0], type=list[_Found]), row[1]
    known = {(one.invariant, one.subject): one for one in stored}
    news = [one for one in violations if (one.invariant, one.subject) not in known]
    for one in violations:
        known[one.invariant, one.subject] = _Found(
            invariant=one.invariant, subject=one.subject, detail=one.detail, found_at=now
        )
    await conn.execute(
        "UPDATE ledger_watch SET violations = $1::jsonb, halted_at = coalesce(halted_at, $2)",
        msgspec.json.encode(list(known.values())[:MAX_KEPT]).decode(),
        now,
    )
    return news


async def read_halt(conn: Connection) -> datetime | None:
    """Since when nothing new may be held, because the books were found wrong; None: it may."""
    halted_at: datetime | None = await conn.fetchval("SELECT halted_at FROM ledger_watch")
    return halted_at


async def read_findings(conn: Connection) -> Halt:
    """The halt as it stands now, for `lift_halt`."""
    row = await conn.fetchrow("SELECT halted_at, violations::text FROM ledger_watch")
    return Halt(None, "[]") if row is None else Halt(*row)


async def lift_halt(conn: Connection, seen: Halt) -> bool:
    """Hold again, because everything was checked and is right; False if something was found since `seen`."""
    status = await conn.execute(
        """
        UPDATE ledger_watch SET halted_at = NULL, violations = '[]'
         WHERE halted_at IS NOT DISTINCT FROM $1 AND violations = $2::jsonb
        """,
        seen.since,
        seen.found,
    )
    return status != "UPDATE 0"
