"""Attempts that have ended: counted, and what they cost us booked, in the commit that ends them."""

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

import billing

TEST: Final = "test"
"""Counted as the backend of jobs of test keys."""


class AttemptEnd(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt and how it ended."""

    job_id: uuid.UUID
    n: int
    model: str
    backend: str
    test: bool
    result: str
    """`done`, `ambiguous`, or the code of its error."""
    cost_nano: int = 0
    cost_is_possible: bool = False
    """Nobody knows whether the provider will charge it: booked to variance."""
    revenue_nano: int | None = None
    """What the customer paid for its music; None: nothing was sold."""


async def count_attempts(conn: billing.Connection, ends: Sequence[AttemptEnd]) -> None:
    """Move the counters and book the costs, once for each attempt.

    The last that a transaction does: whoever ends attempts locks these rows after all others, and in one
    order, each table in one statement.
    """
    if not ends:
        return
    await conn.execute(
        """
        INSERT INTO attempt_tally (backend, result, attempts)
        SELECT backend, result, count(*) FROM unnest($1::text[], $2::text[]) AS t (backend, result)
         GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (backend, result) DO UPDATE SET attempts = attempt_tally.attempts + excluded.attempts
        """,
        [TEST if end.test else end.backend for end in ends],
        [end.result for end in ends],
    )
    paid = [end for end in ends if not end.test]
    if not paid:
        return
    await conn.execute(
        """
        INSERT INTO margin_day (day, model, backend, attempts, cost_nano, possible_cost_nano,
                                jobs, revenue_nano)
        SELECT (now() AT TIME ZONE 'UTC')::date, model, backend, count(*), sum(cost), sum(possible),
               count(revenue), coalesce(sum(revenue), 0)
          FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
               AS t (model, backend, cost, possible, revenue)
         GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT (day, model, backend) DO UPDATE
           SET attempts = margin_day.attempts + excluded.attempts,
               cost_nano = margin_day.cost_nano + excluded.cost_nano,
               possible_cost_nano = margin_day.possible_cost_nano + excluded.possible_cost_nano,
               jobs = margin_day.jobs + excluded.jobs,
               revenue_nano = margin_day.revenue_nano + excluded.revenue_nano
        """,
        [end.model for end in paid],
        [end.backend for end in paid],
        [0 if end.cost_is_possible else end.cost_nano for end in paid],
        [end.cost_nano if end.cost_is_possible else 0 for end in paid],
        [end.revenue_nano for end in paid],
    )
    await billing.book_provider_costs(
        conn,
        [
            billing.ProviderCost(
                reference=end.job_id,
                attempt=end.n,
                amount_nano=end.cost_nano,
                is_possible=end.cost_is_possible,
            )
            for end in paid
        ],
    )
