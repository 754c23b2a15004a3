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


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs of one queue that wait."""

    queue: str
    depth: int
    oldest_seconds: float


async def read_tallies(conn: billing.Connection) -> list[Tally]:
    """All counters; their number is bounded by models x backends x outcomes."""
    return [Tally(**dict(row)) for row in await conn.fetch("SELECT * FROM job_tally")]


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
