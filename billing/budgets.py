"""Budgets: a cap on what one subject (a key, a project, an organization) may spend in a period."""

import uuid
from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from billing.connection import Connection

BUDGET_PERIODS: Final = ("day", "month", "total")


class Budget(msgspec.Struct, kw_only=True):
    """One budget's row while the caller holds its lock; amounts in nano-USD."""

    id: uuid.UUID
    subject: uuid.UUID
    period: str
    limit_nano: int
    spent_nano: int
    held_nano: int

    @property
    def available_nano(self) -> int:
        """What can still be reserved in this period."""
        return self.limit_nano - self.spent_nano - self.held_nano

    def reserve(self, amount_nano: int) -> bool:
        """Hold the amount if it fits; False changes nothing."""
        if amount_nano > self.available_nano:
            return False
        self.held_nano += amount_nano
        return True


async def create_budget(
    conn: Connection, *, account_id: uuid.UUID, subject: uuid.UUID, period: str, limit_nano: int
) -> uuid.UUID:
    """Cap what `subject` spends per `period` ('day' and 'month' in UTC, or 'total')."""
    budget_id = uuid.uuid4()
    await conn.execute(
        """
        INSERT INTO budget (id, account_id, subject, period, limit_nano, period_start)
        VALUES ($1, $2, $3, $4, $5, CASE $4 WHEN 'total' THEN now() ELSE date_trunc($4, now(), 'UTC') END)
        """,
        budget_id,
        account_id,
        subject,
        period,
        limit_nano,
    )
    return budget_id


async def lock_budgets(
    conn: Connection, *, subjects: Iterable[uuid.UUID] = (), ids: Iterable[uuid.UUID] = ()
) -> list[Budget]:
    """Lock, in id order, the budgets of these subjects or with these ids.

    A period that is over is rolled first: what was spent starts at zero, what is held stays held,
    because it will be spent in the period in which it settles.
    """
    rows = await conn.fetch(
        """
        WITH locked AS (
            SELECT *, CASE period WHEN 'total' THEN period_start
                                  ELSE date_trunc(period, now(), 'UTC') END AS current_start
              FROM budget WHERE subject = ANY($1) OR id = ANY($2) ORDER BY id FOR UPDATE
        ), rolled AS (
            UPDATE budget SET spent_nano = 0, period_start = locked.current_start
              FROM locked
             WHERE budget.id = locked.id AND locked.period_start < locked.current_start
        )
        SELECT id, subject, period, limit_nano, held_nano,
               CASE WHEN period_start < current_start THEN 0 ELSE spent_nano END AS spent_nano
          FROM locked
        """,
        list(subjects),
        list(ids),
    )
    return [Budget(**dict(row)) for row in rows]


async def write_budgets(conn: Connection, budgets: Collection[Budget]) -> None:
    """Write back budgets that were changed under lock."""
    if not budgets:
        return
    await conn.execute(
        """
        UPDATE budget SET spent_nano = t.spent, held_nano = t.held
          FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS t (id, spent, held)
         WHERE budget.id = t.id
        """,
        [b.id for b in budgets],
        [b.spent_nano for b in budgets],
        [b.held_nano for b in budgets],
    )
