"""What our accounts at providers held, and what they spent between two looks, against the books."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

import billing

KEPT_DAYS: Final = 400
APART_SECONDS: Final = 120
"""Longer than a worker goes without looking: of two looks on record the later one is the newer."""


class AccountChange(msgspec.Struct, frozen=True, kw_only=True):
    """One provider's account between its first and its last look since some moment."""

    backend: str
    first_at: datetime
    last_at: datetime
    first_nano: int
    last_nano: int
    paid_in_nano: int
    """All rises: what an operator has paid in, less what was spent between the same two looks."""
    booked_nano: int
    """What attempts that ended in that time cost, as the provider said."""
    possible_nano: int
    """What attempts cost of which nobody knows whether they were taken."""

    @property
    def spent_nano(self) -> int:
        """What the provider has taken."""
        return self.first_nano + self.paid_in_nano - self.last_nano

    @property
    def difference_nano(self) -> int:
        """Taken and not booked; below 0: booked and not taken (yet)."""
        return self.spent_nano - self.booked_nano


async def note_balances(conn: billing.Connection, balances: Mapping[str, int]) -> None:
    """Remember what the accounts hold at this moment; what is very old is forgotten.

    Soon after the look of another worker this one may be the older, and would look like a payment.
    """
    await conn.execute(
        """
        WITH old AS (
            DELETE FROM provider_balance WHERE at < now() - make_interval(days => $3)
        )
        INSERT INTO provider_balance (backend, balance_nano)
        SELECT * FROM unnest($1::text[], $2::bigint[]) AS seen (backend, balance_nano)
         WHERE NOT EXISTS (SELECT FROM provider_balance known
                            WHERE known.backend = seen.backend
                              AND known.at > now() - make_interval(secs => $4))
            ON CONFLICT DO NOTHING
        """,
        list(balances),
        list(balances.values()),
        KEPT_DAYS,
        APART_SECONDS,
    )


async def compare_balances(conn: billing.Connection, *, since: datetime) -> list[AccountChange]:
    """For each provider that was looked at twice since then."""
    rows = await conn.fetch(
        """
        WITH looks AS (
            SELECT backend, at, balance_nano,
                   balance_nano - lag(balance_nano) OVER (PARTITION BY backend ORDER BY at) AS change
              FROM provider_balance WHERE at >= $1
        ), accounts AS (
            SELECT backend, min(at) AS first_at, max(at) AS last_at,
                   (array_agg(balance_nano ORDER BY at))[1] AS first_nano,
                   (array_agg(balance_nano ORDER BY at DESC))[1] AS last_nano,
                   coalesce(sum(change) FILTER (WHERE change > 0), 0)::bigint AS paid_in_nano
              FROM looks GROUP BY backend HAVING count(*) > 1
        )
        SELECT accounts.*,
               coalesce(sum(a.provider_cost_nano) FILTER (WHERE NOT a.cost_is_possible), 0)::bigint
                   AS booked_nano,
               coalesce(sum(a.provider_cost_nano) FILTER (WHERE a.cost_is_possible), 0)::bigint
                   AS possible_nano
          FROM accounts
          LEFT JOIN attempt a ON a.backend = accounts.backend AND a.provider_cost_nano > 0
                             AND a.finished_at > accounts.first_at AND a.finished_at <= accounts.last_at
         GROUP BY accounts.backend, first_at, last_at, first_nano, last_nano, paid_in_nano
         ORDER BY accounts.backend
        """,
        since,
    )
    return [AccountChange(**row) for row in rows]
