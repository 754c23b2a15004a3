"""Which workers are there: for readiness and forecasts, not for leases, which stand on the jobs."""

import uuid
from collections.abc import Sequence
from typing import Final

import billing

GONE_SECONDS: Final = 60
"""A restart of the only worker must not make the gateway look broken: its jobs wait safely."""
ALIVE_SECONDS: Final = 10
"""Whoever was not seen for so long is not counted on: its leases have lapsed too."""


async def note_alive(
    conn: billing.Connection, worker_id: uuid.UUID, queues: Sequence[str], *, capacity: int
) -> None:
    """This worker is there and takes up to `capacity` jobs at once; rows of workers that left are removed."""
    await conn.execute(
        """
        WITH gone AS (DELETE FROM worker WHERE seen_at < now() - make_interval(secs => $4))
        INSERT INTO worker (id, queues, capacity) VALUES ($1, $2, $3)
        ON CONFLICT (id) DO UPDATE SET seen_at = now()
        """,
        worker_id,
        queues,
        capacity,
        GONE_SECONDS,
    )


async def note_left(conn: billing.Connection, worker_id: uuid.UUID) -> None:
    """This worker has ended in order."""
    await conn.execute("DELETE FROM worker WHERE id = $1", worker_id)


async def served_queues(conn: billing.Connection) -> frozenset[str]:
    """Queues that some worker served within the last minute."""
    rows = await conn.fetch(
        """
        SELECT DISTINCT unnest(queues) AS queue
          FROM worker WHERE seen_at > now() - make_interval(secs => $1)
        """,
        GONE_SECONDS,
    )
    return frozenset(row["queue"] for row in rows)
