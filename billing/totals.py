"""A few sums for gauges and counters; each is one index probe or one row."""

import msgspec

from billing.connection import Connection
from billing.models import COGS_EXPENSE, COGS_PAYABLE, REVENUE, VARIANCE


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts in nano-USD over all customers; revenue is what they were charged, so without overruns."""

    revenue_nano: int
    held_nano: int
    oldest_hold_seconds: float
    provider_cost_nano: int
    low_accounts: int
    critical_accounts: int
    violations: int
    """Broken rules of the books that were found in use and not settled yet."""


async def read_totals(conn: Connection) -> Totals:
    """What was earned, what is held, and for how long at most."""
    row = await conn.fetchrow(
        """
        SELECT (SELECT sum(posted_nano)::bigint FROM account WHERE id IN ($1, $2, $3, $4)),
               (SELECT coalesce(sum(held_nano), 0)::bigint FROM account),
               coalesce((SELECT extract(epoch FROM now() - created_at)::float8
                           FROM hold WHERE state = 'open' ORDER BY created_at LIMIT 1), 0),
               (SELECT posted_nano FROM account WHERE id = $3),
               (SELECT count(*) FROM account WHERE level = 1),
               (SELECT count(*) FROM account WHERE level = 2),
               coalesce((SELECT jsonb_array_length(violations) FROM ledger_watch), 0)
        """,
        REVENUE,
        VARIANCE,
        COGS_PAYABLE,
        # Payable less expense is what stands in variance although no customer was meant to pay it.
        COGS_EXPENSE,
    )
    if row is None:
        raise LookupError("a query without FROM returns a row")
    return Totals(
        revenue_nano=row[0],
        held_nano=row[1],
        oldest_hold_seconds=row[2],
        provider_cost_nano=row[3],
        low_accounts=row[4],
        critical_accounts=row[5],
        violations=row[6],
    )
