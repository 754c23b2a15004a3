"""Budgets: a cap on what one subject (a key, a project, an organization) may spend in a period.

`day` and `month` are those of UTC. What is held counts as if it were spent. Credit that is given back
for a job later does not make room again: a budget limits what goes out.
"""

import uuid
from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from billing import notices
from billing.connection import Connection
from billing.money import format_usd

BUDGET_PERIODS: Final = ("day", "month", "total")
BUDGET_SCOPES: Final = ("key", "project", "organization")


class Budget(msgspec.Struct, kw_only=True):
    """One budget's row while the caller holds its lock; amounts in nano-USD."""

    id: uuid.UUID
    account_id: uuid.UUID
    subject: uuid.UUID
    scope: str
    period: str
    limit_nano: int
    spent_nano: int
    held_nano: int
    alert_nano: int | None = None
    is_alerted: bool = False
    """It was said already, in this period, that `alert_nano` is spent."""

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


_CURRENT: Final = """
    SELECT *, CASE period WHEN 'total' THEN period_start
                          ELSE date_trunc(period, now(), 'UTC') END AS current_start FROM budget
"""
_COLUMNS: Final = """
    id, account_id, subject, scope, period, limit_nano, held_nano, alert_nano,
    CASE WHEN period_start < current_start THEN 0 ELSE spent_nano END AS spent_nano,
    alerted_at IS NOT NULL AND period_start >= current_start AS is_alerted
"""


async def set_budget(
    conn: Connection,
    *,
    account_id: uuid.UUID,
    subject: uuid.UUID,
    scope: str,
    period: str,
    limit_nano: int,
    alert_nano: int | None = None,
) -> uuid.UUID:
    """Cap what `subject` spends per `period`, or change the cap it has; what it spent stays counted.

    A new cap counts from now on. `alert_nano`: note when this much is spent in a period.
    """
    row = await conn.fetchrow(
        """
        INSERT INTO budget (id, account_id, subject, scope, period, limit_nano, alert_nano, period_start)
        VALUES ($1, $2, $3, $4, $5, $6, $7,
                CASE $5 WHEN 'total' THEN now() ELSE date_trunc($5, now(), 'UTC') END)
        ON CONFLICT (subject, period) DO UPDATE
           SET limit_nano = excluded.limit_nano, alert_nano = excluded.alert_nano, alerted_at = NULL
        RETURNING id
        """,
        uuid.uuid4(),
        account_id,
        subject,
        scope,
        period,
        limit_nano,
        alert_nano,
    )
    if row is None:
        raise LookupError("an upsert returns its row")
    return uuid.UUID(bytes=row["id"].bytes)


async def remove_budget(conn: Connection, *, subject: uuid.UUID, period: str) -> bool:
    """Lift a cap; False if there is none. Holds that were counted under it go on without it."""
    return (
        await conn.execute("DELETE FROM budget WHERE subject = $1 AND period = $2", subject, period)
        != "DELETE 0"
    )


async def read_budgets(conn: Connection, account_id: uuid.UUID) -> list[Budget]:
    """All budgets of an account as they count now, without a lock."""
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM ({_CURRENT} WHERE account_id = $1) b ORDER BY scope, subject, period",  # noqa: S608
        account_id,
    )
    return [Budget(**dict(row)) for row in rows]


async def lock_budgets(
    conn: Connection, *, subjects: Iterable[uuid.UUID] = (), ids: Iterable[uuid.UUID] = ()
) -> list[Budget]:
    """Lock, in id order, the budgets of these subjects or with these ids.

    A period that is over is rolled first: what was spent starts at zero, what is held stays held,
    because it will be spent in the period in which it settles.
    """
    rows = await conn.fetch(
        f"""
        WITH locked AS ({_CURRENT} WHERE subject = ANY($1) OR id = ANY($2) ORDER BY id FOR UPDATE),
        rolled AS (
            UPDATE budget SET spent_nano = 0, alerted_at = NULL, period_start = locked.current_start
              FROM locked
             WHERE budget.id = locked.id AND locked.period_start < locked.current_start
        )
        SELECT {_COLUMNS} FROM locked
        """,  # noqa: S608 - constants
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
    if alerts := [
        b for b in budgets if b.alert_nano is not None and b.spent_nano >= b.alert_nano and not b.is_alerted
    ]:
        await _tell(conn, alerts)


async def _tell(conn: Connection, budgets: Collection[Budget]) -> None:
    """Once in a period."""
    await conn.execute("UPDATE budget SET alerted_at = now() WHERE id = ANY($1)", [b.id for b in budgets])
    for budget in budgets:
        budget.is_alerted = True
        await notices.note(
            conn,
            budget.account_id,
            "budget.alert",
            {
                "scope": budget.scope,
                "subject": budget.subject.hex,
                "period": budget.period,
                "spent_usd": format_usd(budget.spent_nano),
                "limit_usd": format_usd(budget.limit_nano),
            },
        )
