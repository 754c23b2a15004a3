"""A few sums for gauges and counters; each is one index probe or one row."""

import msgspec

from billing.connection import Connection
from billing.models import REVENUE, VARIANCE


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts in nano-USD over all customers; revenue is what they were charged, so without overruns."""

    revenue_nano: int
    held_nano: int
    oldest_hold_seconds: float


async def read_totals(conn: Connection) -> Totals:
    """What was earned, what is held, and for how long at most."""
    row = await conn.fetchrow(
        """
        SELECT (SELECT sum(posted_nano)::bigint FROM account WHERE id IN ($1, $2)),
               (SELECT coalesce(sum(held_nano), 0)::bigint FROM account),
               coalesce((SELECT extract(epoch FROM now() - created_at)::float8
                           FROM hold WHERE state = 'open' ORDER BY created_at LIMIT 1), 0)
        """,
        REVENUE,
        VARIANCE,
    )
    if row is None:
        raise LookupError("a query without FROM returns a row")
    return Totals(revenue_nano=row[0], held_nano=row[1], oldest_hold_seconds=row[2])
