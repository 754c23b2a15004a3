"""What was charged under each budget, remembered between checks: adding up a month every minute would not do.

A budget is added up from its charges once, when it is first seen to change; from then on only new charges
are added. This lives in one process; another one adds up for itself.
"""

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import msgspec

from billing.connection import Connection
from billing.verify import ROLL_SLACK, SPENT, Violation

MAX_ADDED_UP: Final = 100
"""Periods of accounts whose charges are added up in one check; the others wait for the next."""
MAX_CHARGES: Final = 1_000_000
"""As many charges in all; a budget that has more in its period is left to `ledger verify`."""
MAX_REMEMBERED: Final = 100_000
MAX_BEHIND: Final = 1_000_000
"""Entries: a process that has not checked for longer than this begins anew."""


class _Budget(msgspec.Struct, frozen=True):
    id: uuid.UUID
    period_start: datetime
    spent_nano: int


class _Charged(msgspec.Struct, frozen=True):
    """Sums over charges of one budget."""

    sure_nano: int = 0
    """In its period."""
    late_nano: int = 0
    """Just before its period, and perhaps counted in it."""

    def plus(self, other: "_Charged") -> "_Charged":
        return _Charged(self.sure_nano + other.sure_nano, self.late_nano + other.late_nano)

    def minus(self, other: "_Charged") -> "_Charged":
        return _Charged(self.sure_nano - other.sure_nano, self.late_nano - other.late_nano)


class _New(msgspec.Struct, frozen=True):
    """Charges since the sums were made."""

    all: _Charged = _Charged()
    final: _Charged = _Charged()
    """Those that the sums will contain."""


class BudgetSums:
    """What each budget should say."""

    def __init__(self) -> None:
        self._upto: int | None = None
        """The sums contain the charges up to this entry."""
        self._sums: dict[uuid.UUID, tuple[datetime, _Charged]] = {}
        """By budget: the beginning of a period, and what was charged in it."""
        self._waiting: set[uuid.UUID] = set()
        """Changed, and not added up yet."""
        self._too_long: dict[uuid.UUID, datetime] = {}
        """Too much was charged in the period that began then."""

    async def check(self, conn: Connection, *, after: int, final: int, changed: str) -> list[Violation]:
        """Compare the budgets that have changed with their charges.

        All entries up to `after` were there at the last check, and all up to `final` are there for good;
        `changed` is a condition on rows.
        """
        if self._upto is None or after - self._upto > MAX_BEHIND or len(self._sums) > MAX_REMEMBERED:
            self._upto = after
            self._sums.clear()
            self._too_long.clear()
        final = max(final, self._upto)
        charged = await _read_new(conn, self._upto, final)
        rows = await conn.fetch(
            f"SELECT id, period_start, spent_nano FROM budget WHERE {changed} OR id = ANY($1)",  # noqa: S608
            [*self._waiting, *charged],
        )
        budgets = {row[0]: _Budget(*row) for row in rows}
        unknown = {
            b.id
            for b in budgets.values()
            if b.id not in self._sums and self._too_long.get(b.id) != b.period_start
        }
        chosen, too_long = await _choose(conn, unknown)
        added_up = await _add_up(conn, chosen)
        self._too_long |= {budget_id: budgets[budget_id].period_start for budget_id in too_long}
        self._waiting = unknown - added_up.keys() - too_long
        self._upto = final
        found = [self._compare(b, charged.get(b.id, _New()), added_up.get(b.id)) for b in budgets.values()]
        return [violation for violation in found if violation is not None]

    def _compare(self, budget: _Budget, new: _New, added_up: _Charged | None) -> Violation | None:
        if added_up is not None:
            before = added_up.minus(new.all)
        elif budget.id in self._sums:
            period_start, before = self._sums[budget.id]
            if period_start != budget.period_start:
                before = _Charged()  # it has rolled since, and what is new says what was charged since
        else:
            return None
        total = before.plus(new.all)
        self._sums[budget.id] = (budget.period_start, before.plus(new.final))
        if total.sure_nano <= budget.spent_nano <= total.sure_nano + total.late_nano:
            return None
        return Violation(
            invariant=SPENT,
            subject=str(budget.id),
            detail=f"spent {budget.spent_nano}, charged {total.sure_nano}"
            + (f" to {total.sure_nano + total.late_nano}" if total.late_nano else ""),
        )


async def _read_new(conn: Connection, after: int, final: int) -> dict[uuid.UUID, _New]:
    rows = await conn.fetch(
        f"""
        SELECT b.id, coalesce(sum(u.cost_nano) FILTER (WHERE s.sure), 0)::bigint,
               coalesce(sum(u.cost_nano) FILTER (WHERE NOT s.sure), 0)::bigint,
               coalesce(sum(u.cost_nano) FILTER (WHERE s.sure AND e.id <= $1), 0)::bigint,
               coalesce(sum(u.cost_nano) FILTER (WHERE NOT s.sure AND e.id <= $1), 0)::bigint
          FROM entry e
          JOIN transfer t ON t.id = e.transfer_id AND t.kind = 'settle'
          JOIN usage_record u ON u.reference = t.reference AND u.account_id = e.account_id
          JOIN hold h ON h.reference = u.reference
         CROSS JOIN LATERAL unnest(h.budget_ids) AS x (id)
          JOIN budget b ON b.id = x.id AND u.created_at >= b.period_start - {ROLL_SLACK}
         CROSS JOIN LATERAL (SELECT u.created_at >= b.period_start AS sure) s
         WHERE e.id > {after} GROUP BY 1
        """,  # noqa: S608 - numbers, which the planner should see
        final,
    )
    return {row[0]: _New(_Charged(row[1], row[2]), _Charged(row[3], row[4])) for row in rows}


async def _choose(
    conn: Connection, budget_ids: Collection[uuid.UUID]
) -> tuple[list[uuid.UUID], set[uuid.UUID]]:
    """Which of them to add up now, and which have too many charges."""
    if not budget_ids:
        return [], set()
    rows = await conn.fetch(
        f"""
        SELECT ids, (SELECT count(*) FROM (SELECT FROM usage_record u WHERE u.account_id = b.account_id
                                              AND u.created_at >= b.period_start - {ROLL_SLACK} LIMIT $2) u)
          FROM (SELECT account_id, period_start, array_agg(id) AS ids FROM budget
                 WHERE id = ANY($1) GROUP BY 1, 2 ORDER BY 1, 2 LIMIT $3) b
        """,  # noqa: S608 - constants
        list(budget_ids),
        MAX_CHARGES,
        MAX_ADDED_UP,
    )
    too_long = {budget_id for ids, charges in rows if charges >= MAX_CHARGES for budget_id in ids}
    chosen: list[uuid.UUID] = []
    left = MAX_CHARGES
    for ids, charges in rows:
        if charges < left:
            chosen += ids
            left -= charges
    return chosen, too_long


async def _add_up(conn: Connection, budget_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, _Charged]:
    """From all charges of their periods, each account's once."""
    if not budget_ids:
        return {}
    rows = await conn.fetch(
        f"""
        SELECT b.id, coalesce(sum(u.cost_nano) FILTER (WHERE u.created_at >= b.period_start), 0)::bigint,
               coalesce(sum(u.cost_nano) FILTER (WHERE u.created_at < b.period_start), 0)::bigint
          FROM (SELECT account_id, min(period_start) AS first FROM budget
                 WHERE id = ANY($1) GROUP BY 1) a
          JOIN usage_record u ON u.account_id = a.account_id AND u.created_at >= a.first - {ROLL_SLACK}
          JOIN hold h ON h.reference = u.reference
         CROSS JOIN LATERAL unnest(h.budget_ids) AS x (id)
          JOIN budget b ON b.id = x.id AND u.created_at >= b.period_start - {ROLL_SLACK}
         WHERE b.id = ANY($1) GROUP BY 1
        """,  # noqa: S608 - constants
        list(budget_ids),
    )
    return {budget_id: _Charged() for budget_id in budget_ids} | {row[0]: _Charged(*row[1:]) for row in rows}
