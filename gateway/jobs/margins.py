"""What customers paid against what providers took: per job, model, backend and day."""

import uuid
from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Final

import msgspec

import billing

MOST_JOBS: Final = 1000


class MarginGroup(StrEnum):
    """What a report can be divided by."""

    DAY = "day"
    MODEL = "model"
    BACKEND = "backend"


class Margin(msgspec.Struct, frozen=True, kw_only=True):
    """What came in and what went out."""

    revenue_nano: int
    attempts: int
    cost_nano: int
    possible_cost_nano: int
    """Of attempts of which nobody knows whether the provider took them."""

    @property
    def margin_nano(self) -> int:
        """What is left if every possible cost is a real one."""
        return self.revenue_nano - self.cost_nano - self.possible_cost_nano


class MarginRow(Margin, frozen=True, kw_only=True):
    """Jobs and attempts of one day, model or backend together."""

    name: str
    jobs: int
    """Charged ones."""


class JobMargin(Margin, frozen=True, kw_only=True):
    """One ended job that was charged or cost something."""

    job_id: uuid.UUID
    completed_at: datetime
    model: str
    backend: str | None
    status: str


async def read_margins(
    conn: billing.Connection, *, since: date, by: Sequence[MarginGroup]
) -> list[MarginRow]:
    """Sums since that day (UTC), by one or several of the groups."""
    keys = " || ' ' || ".join(f"{group.value}::text" for group in by)
    rows = await conn.fetch(
        f"""
        SELECT {keys} AS name, sum(jobs)::bigint AS jobs, sum(revenue_nano)::bigint AS revenue_nano,
               sum(attempts)::bigint AS attempts, sum(cost_nano)::bigint AS cost_nano,
               sum(possible_cost_nano)::bigint AS possible_cost_nano
          FROM margin_day WHERE day >= $1 GROUP BY 1 ORDER BY 1
        """,  # noqa: S608 - names of columns
        since,
    )
    return [MarginRow(**row) for row in rows]


async def read_job_margins(
    conn: billing.Connection, *, since: datetime, job_id: uuid.UUID | None = None
) -> list[JobMargin]:
    """At most MOST_JOBS, the least profitable first; or one job."""
    rows = await conn.fetch(
        """
        WITH told AS (
            SELECT j.id AS job_id, j.completed_at, j.model, j.backend, j.status,
                   coalesce(j.charged_nano, 0) AS revenue_nano, count(a.n) AS attempts,
                   coalesce(sum(a.provider_cost_nano) FILTER (WHERE NOT a.cost_is_possible), 0)::bigint
                       AS cost_nano,
                   coalesce(sum(a.provider_cost_nano) FILTER (WHERE a.cost_is_possible), 0)::bigint
                       AS possible_cost_nano
              FROM job j LEFT JOIN attempt a ON a.job_id = j.id
             WHERE j.completed_at >= $1 AND NOT j.test AND ($2::uuid IS NULL OR j.id = $2)
             GROUP BY j.id
        )
        SELECT * FROM told WHERE revenue_nano > 0 OR cost_nano > 0 OR possible_cost_nano > 0
         ORDER BY revenue_nano - cost_nano - possible_cost_nano, job_id LIMIT $3
        """,
        since,
        job_id,
        MOST_JOBS,
    )
    return [JobMargin(**row) for row in rows]
