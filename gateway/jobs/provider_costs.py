"""What attempts at providers cost, against what is booked of it."""

from datetime import datetime
from typing import Final

import msgspec

import billing

MOST_REPORTED: Final = 1000


class BackendCost(msgspec.Struct, frozen=True, kw_only=True):
    """All attempts at one backend that cost something, and what the books say of them."""

    backend: str
    attempts: int
    attempts_nano: int
    booked_nano: int


class CostDifference(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt (`job:n`) whose cost is not booked as it was; None: there is no such attempt or posting.

    An expense that is booked to variance, or the other way round, is not booked as it was.
    """

    ref: str
    attempt_nano: int | None
    booked_nano: int | None


_TOTALS: Final = """
    SELECT a.backend, count(*) AS attempts, sum(a.provider_cost_nano)::bigint AS attempts_nano,
           coalesce(sum(e.amount_nano), 0)::bigint AS booked_nano
      FROM attempt a
      LEFT JOIN transfer t ON t.kind = 'provider_cost'
                          AND t.external_ref = replace(a.job_id::text, '-', '') || ':' || a.n
      LEFT JOIN entry e ON e.transfer_id = t.id AND e.account_id = $2
     WHERE a.created_at >= $1 AND a.provider_cost_nano > 0
     GROUP BY 1 ORDER BY 1
"""
_DIFFERENCES: Final = """
    SELECT replace(a.job_id::text, '-', '') || ':' || a.n AS ref, a.provider_cost_nano AS attempt_nano,
           -e.amount_nano AS booked_nano
      FROM attempt a
      LEFT JOIN transfer t ON t.kind = 'provider_cost'
                          AND t.external_ref = replace(a.job_id::text, '-', '') || ':' || a.n
      LEFT JOIN entry e ON e.transfer_id = t.id
                       AND e.account_id = CASE WHEN a.cost_is_possible THEN $5::uuid ELSE $4::uuid END
     WHERE a.created_at >= $1 AND a.provider_cost_nano > 0
       AND a.provider_cost_nano IS DISTINCT FROM -e.amount_nano
    UNION ALL
    SELECT t.external_ref, a.provider_cost_nano, e.amount_nano
      FROM transfer t
      JOIN entry e ON e.transfer_id = t.id AND e.account_id = $2
      LEFT JOIN attempt a ON a.n::text = split_part(t.external_ref, ':', 2)
           AND a.job_id = CASE WHEN t.external_ref ~ '^[0-9a-f]{32}:[0-9]+$'
                               THEN split_part(t.external_ref, ':', 1)::uuid END
     WHERE t.kind = 'provider_cost' AND t.created_at >= $1
       AND coalesce(a.provider_cost_nano, 0) <= 0
     ORDER BY 1 LIMIT $3
"""


async def compare_provider_costs(
    conn: billing.Connection, *, since: datetime
) -> tuple[list[BackendCost], list[CostDifference]]:
    """Attempts begun since, by backend, and every one (at most MOST_REPORTED) whose booking differs."""
    totals = await conn.fetch(_TOTALS, since, billing.COGS_PAYABLE)
    differing = await conn.fetch(
        _DIFFERENCES,
        since,
        billing.COGS_PAYABLE,
        MOST_REPORTED,
        billing.COGS_EXPENSE,
        billing.VARIANCE,
    )
    return [BackendCost(**row) for row in totals], [CostDifference(**row) for row in differing]
