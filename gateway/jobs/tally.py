"""Counters and gauges of jobs, for Prometheus: from Postgres, so equal everywhere and after restarts."""

import msgspec

import billing


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Finished jobs of one kind since the beginning."""

    model: str
    backend: str
    outcome: str
    jobs: int
    audio_ms: int


class AttemptTally(msgspec.Struct, frozen=True, kw_only=True):
    """Ended attempts of one kind since the beginning."""

    backend: str
    result: str
    attempts: int


class Margin(msgspec.Struct, frozen=True, kw_only=True):
    """What customers paid for a model's music from one backend, and what that cost us."""

    model: str
    backend: str
    jobs: int
    revenue_nano: int
    cost_nano: int
    possible_cost_nano: int


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one queue that wait."""

    queue: str
    depth: int
    oldest_seconds: float


async def read_tallies(conn: billing.Connection) -> list[Tally]:
    """All counters; their number is bounded by models x backends x outcomes."""
    return [Tally(**dict(row)) for row in await conn.fetch("SELECT * FROM job_tally")]


async def read_attempt_tallies(conn: billing.Connection) -> list[AttemptTally]:
    """All counters; their number is bounded by backends x reasons."""
    return [AttemptTally(**dict(row)) for row in await conn.fetch("SELECT * FROM attempt_tally")]


async def read_margins(conn: billing.Connection) -> list[Margin]:
    """All days together: models x backends lines, from as many rows a day."""
    rows = await conn.fetch(
        """
        SELECT model, backend, sum(jobs)::bigint AS jobs, sum(revenue_nano)::bigint AS revenue_nano,
               sum(cost_nano)::bigint AS cost_nano, sum(possible_cost_nano)::bigint AS possible_cost_nano
          FROM margin_day GROUP BY 1, 2 ORDER BY 1, 2
        """
    )
    return [Margin(**dict(row)) for row in rows]


async def read_backlogs(conn: billing.Connection) -> list[Backlog]:
    """Depth and age per queue, from the index of waiting jobs alone."""
    rows = await conn.fetch(
        """
        SELECT queue, count(*) AS depth,
               extract(epoch FROM now() - min(created_at))::float8 AS oldest_seconds
          FROM job WHERE status = 'queued' GROUP BY queue
        """
    )
    return [Backlog(**dict(row)) for row in rows]
