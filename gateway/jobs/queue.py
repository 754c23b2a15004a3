"""The job row is the queue: claimed with SKIP LOCKED, held by a fenced lease, taken back when it lapses.

`fence` grows with every claim. Whatever a worker writes about a job names the fence it was given,
so a worker that slept through its lease changes nothing when it wakes up.

Several jobs are locked in the order of their ids or not waited for at all, here as in `settlement`: an
UPDATE alone would lock them in the order in which its plan happens to find them.
"""

import uuid
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

import billing
from gateway.generation import GenerationRequest
from gateway.jobs.attempts import AttemptEnd, count_attempts

LEASE_SECONDS: Final = 10
HEARTBEAT_SECONDS: Final = 1
MAX_ATTEMPTS: Final = 3
"""A job that has cost this many workers their life, or failed so often in one place, is not tried again."""
CHANNEL: Final = "antiphon_jobs"

log = structlog.get_logger(__name__)

SENT: Final = """coalesce((
    SELECT true FROM attempt a WHERE a.job_id = job.id AND a.n = job.attempts
       AND a.finished_at IS NULL AND a.remote_task IS NOT NULL), false)"""
"""Whether a job's last attempt is, perhaps, under way at a provider; asked by its key. An EXISTS would
become a join, and where few jobs are expected that reads all attempts that there ever were."""
DEATHS: Final = "(SELECT coalesce(sum(a.lost), 0) FROM attempt a WHERE a.job_id = job.id)"
"""Workers that a job has cost, without the one whose lease has just lapsed."""
MAY_COST: Final = """nullif(CASE WHEN attempt.state IN ('sent', 'accepted')
    THEN (attempt.remote_task ->> 'most_nano')::bigint END, 0)"""
"""What an attempt may cost us if its provider never tells; null: nothing was sent."""
_OURS: Final = """
    SELECT job.id, job.attempts
      FROM job JOIN unnest($1::uuid[], $2::bigint[]) AS t (id, fence)
        ON job.id = t.id AND job.fence = t.fence
     WHERE job.status = 'processing' AND job.cancel_requested_at IS NULL
     ORDER BY job.id FOR UPDATE OF job"""

_request_decoder: Final = msgspec.json.Decoder(GenerationRequest)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is ours until its lease lapses, and the number of this attempt."""

    job_id: uuid.UUID
    organization_id: uuid.UUID
    fence: int
    attempt: int
    model: str
    test: bool
    request: GenerationRequest
    queue: str
    routes: tuple[str, ...] = ()
    """Queues to fall back to, in order."""
    stored: str | None = None
    """JSON of the task that another worker has sent, perhaps: this attempt goes on with it."""
    accepted: bool = False
    """That worker was told that it was taken."""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A sign of life for one claimed job."""

    job_id: uuid.UUID
    fence: int
    progress: float


async def claim(
    conn: billing.Connection,
    *,
    worker_id: uuid.UUID,
    queues: Sequence[str],
    backend: str,
    limit: int,
    lease_seconds: float = LEASE_SECONDS,
) -> list[Claim]:
    """Take up to `limit` jobs, fairest first, and write their attempts before anything is called.

    One index probe per queue: sorting the whole backlog by `queue = ANY(...)` would cost O(backlog).
    An attempt that outlived its worker goes on; it is no new one.
    """
    rows = await conn.fetch(
        """
        WITH picked AS (
            SELECT j.id, j.attempts
              FROM unnest($2::text[]) AS q (name)
             CROSS JOIN LATERAL (
                SELECT id, turn, attempts FROM job
                 WHERE status = 'queued' AND queue = q.name AND run_at <= now()
                 ORDER BY turn, id LIMIT $4 FOR UPDATE SKIP LOCKED
             ) j
             ORDER BY j.turn, j.id LIMIT $4
        ), open AS (
            SELECT a.job_id, a.remote_task::text AS stored, a.state
              FROM picked JOIN attempt a ON a.job_id = picked.id AND a.n = picked.attempts
             WHERE a.finished_at IS NULL AND a.remote_task IS NOT NULL AND a.backend = $3
        ), claimed AS (
            UPDATE job
               SET status = 'processing', worker_id = $1, fence = fence + 1,
                   attempts = job.attempts + (open.job_id IS NULL)::int,
                   lease_until = now() + make_interval(secs => $5), backend = $3,
                   started_at = coalesce(started_at, now()), progress = 0
              FROM picked LEFT JOIN open ON open.job_id = picked.id WHERE job.id = picked.id
            RETURNING job.*, open.stored, open.state
        ), noted AS (
            INSERT INTO attempt (job_id, n, backend, worker_id, reason)
            SELECT id, attempts, $3, $1, route_reason FROM claimed WHERE stored IS NULL
        ), resumed AS (
            UPDATE attempt SET worker_id = $1 FROM claimed
             WHERE claimed.stored IS NOT NULL
               AND attempt.job_id = claimed.id AND attempt.n = claimed.attempts
        )
        SELECT id, organization_id, fence, attempts, model, test, request, queue, routes, stored,
               state = 'accepted' AS accepted
          FROM claimed ORDER BY turn, id
        """,
        worker_id,
        queues,
        backend,
        limit,
        lease_seconds,
    )
    return [claim for row in rows if (claim := _read_claim(row)) is not None]


def _read_claim(row: asyncpg.Record) -> Claim | None:
    """None for a request that another version wrote and this one cannot read.

    Its lease lapses, as if it had killed its worker: one that can read it may be next, and in the end
    it fails and its money is given back. Raising here would put it back in front of every worker.
    """
    try:
        request = _request_decoder.decode(row["request"])
    except msgspec.MsgspecError:
        log.error("queue.unreadable_request", job=row["id"].hex, attempt=row["attempts"])  # noqa: TRY400
        return None
    return Claim(
        job_id=row["id"],
        organization_id=row["organization_id"],
        fence=row["fence"],
        attempt=row["attempts"],
        model=row["model"],
        test=row["test"],
        request=request,
        queue=row["queue"],
        routes=tuple(row["routes"] or ()),
        stored=row["stored"],
        accepted=bool(row["accepted"]),
    )


async def beat(
    conn: billing.Connection, beats: Sequence[Beat], *, lease_seconds: float = LEASE_SECONDS
) -> dict[uuid.UUID, bool]:
    """Extend the leases; returns which jobs are still ours, and whether their end was asked for."""
    rows = await conn.fetch(
        """
        WITH ours AS (
            SELECT job.id, t.progress
              FROM job JOIN unnest($1::uuid[], $2::bigint[], $3::float8[]) AS t (id, fence, progress)
                ON job.id = t.id AND job.fence = t.fence
             WHERE job.status = 'processing' ORDER BY job.id FOR UPDATE OF job
        )
        UPDATE job
           SET lease_until = now() + make_interval(secs => $4),
               progress = greatest(job.progress, ours.progress)
          FROM ours WHERE job.id = ours.id
        RETURNING job.id, job.cancel_requested_at IS NOT NULL AS cancel
        """,
        [b.job_id for b in beats],
        [b.fence for b in beats],
        [b.progress for b in beats],
        lease_seconds,
    )
    return {row["id"]: row["cancel"] for row in rows}


async def find_cancelled(conn: billing.Connection, worker_id: uuid.UUID) -> list[uuid.UUID]:
    """Of one worker's jobs those whose end was asked for, without touching the others."""
    rows = await conn.fetch(
        """
        SELECT id FROM job
         WHERE worker_id = $1 AND status = 'processing' AND cancel_requested_at IS NOT NULL
        """,
        worker_id,
    )
    return [row["id"] for row in rows]


async def give_back(conn: billing.Connection, claims: Sequence[Claim], *, delay_seconds: float = 0.0) -> None:
    """Return claimed jobs to the front of the queue, without counting the attempt: nothing was started.

    A cancelled one is left to `settlement.end_hopeless`: its music is not wanted any more.
    """
    await conn.execute(
        f"""
        WITH ours AS ({_OURS}), back AS (
            UPDATE job SET status = 'queued', worker_id = NULL, lease_until = NULL, progress = 0,
                           attempts = job.attempts - 1, run_at = now() + make_interval(secs => $3)
              FROM ours WHERE job.id = ours.id
            RETURNING job.id, job.attempts + 1 AS n
        )
        DELETE FROM attempt USING back WHERE attempt.job_id = back.id AND attempt.n = back.n
        """,  # noqa: S608 - names of columns
        [c.job_id for c in claims],
        [c.fence for c in claims],
        delay_seconds,
    )


async def hand_over(conn: billing.Connection, claims: Sequence[Claim]) -> None:
    """The same for a worker that leaves: what it has sent to a provider goes on under the next one."""
    await conn.execute(
        f"""
        WITH ours AS ({_OURS}), sent AS (
            SELECT a.job_id FROM attempt a JOIN ours ON a.job_id = ours.id AND a.n = ours.attempts
             WHERE a.remote_task IS NOT NULL
        ), back AS (
            UPDATE job SET status = 'queued', worker_id = NULL, lease_until = NULL, progress = 0,
                           attempts = job.attempts - (sent.job_id IS NULL)::int
              FROM ours LEFT JOIN sent ON sent.job_id = ours.id WHERE job.id = ours.id
            RETURNING job.id, ours.attempts AS n, sent.job_id IS NULL AS unsent
        )
        DELETE FROM attempt USING back
         WHERE back.unsent AND attempt.job_id = back.id AND attempt.n = back.n
        """,  # noqa: S608 - names of columns
        [c.job_id for c in claims],
        [c.fence for c in claims],
    )


async def take_back_lapsed(conn: billing.Connection) -> int:
    """Queue again what dead workers held, unless it was cancelled or has cost too many of them their life.

    Those are left to `settlement.end_hopeless`, which gives their money back. What was sent to a provider
    goes on as the same attempt. The caller holds the transaction.
    """
    rows = await conn.fetch(
        f"""
        WITH lapsed AS (
            SELECT id, attempts, model, test, {SENT} AS goes_on FROM job
             WHERE status = 'processing' AND lease_until < now()
               AND {DEATHS} + 1 < $1 AND cancel_requested_at IS NULL
             ORDER BY lease_until LIMIT 100 FOR UPDATE SKIP LOCKED
        ), back AS (
            UPDATE job SET status = 'queued', worker_id = NULL, lease_until = NULL, progress = 0
              FROM lapsed WHERE job.id = lapsed.id
        ), kept AS (
            UPDATE attempt SET lost = lost + 1
              FROM lapsed
             WHERE goes_on AND attempt.job_id = lapsed.id AND attempt.n = lapsed.attempts
        ), closed AS (
            UPDATE attempt
               SET state = 'failed', finished_at = now(), error_code = 'upstream_error',
                   error_message = 'the worker stopped responding', lost = lost + 1,
                   provider_cost_nano = {MAY_COST}, cost_is_possible = {MAY_COST} IS NOT NULL
              FROM lapsed
             WHERE NOT goes_on AND attempt.job_id = lapsed.id AND attempt.n = lapsed.attempts
            RETURNING attempt.*
        )
        SELECT lapsed.id AS job_id, closed.n, lapsed.model, closed.backend, lapsed.test,
               closed.error_code AS result, coalesce(closed.provider_cost_nano, 0) AS cost_nano,
               coalesce(closed.cost_is_possible, false) AS cost_is_possible
          FROM lapsed LEFT JOIN closed ON closed.job_id = lapsed.id
        """,  # noqa: S608 - names of columns
        MAX_ATTEMPTS,
    )
    await count_attempts(conn, [AttemptEnd(**row) for row in rows if row["n"] is not None])
    return len(rows)


async def note_sent(conn: billing.Connection, claim: Claim, provider_ref: str, remote_task: str) -> bool:
    """Before anything is sent: with `remote_task` (JSON) the next worker finds it. False: it is not ours."""
    row = await conn.fetchrow(
        """
        UPDATE attempt SET state = 'sent', sent_at = now(), provider_ref = $4, remote_task = $5::text::jsonb
          FROM job
         WHERE job.id = $1 AND job.fence = $2 AND job.status = 'processing'
           AND attempt.job_id = $1 AND attempt.n = $3 AND attempt.state = 'intent'
        RETURNING attempt.job_id
        """,
        claim.job_id,
        claim.fence,
        claim.attempt,
        provider_ref,
        remote_task,
    )
    return row is not None


async def note_accepted(
    conn: billing.Connection, claim: Claim, provider_ref: str, remote_task: str | None
) -> None:
    """The backend has taken the attempt; `remote_task`: JSON with which any worker can find it again.

    Raises asyncpg.UniqueViolationError if another attempt has that reference: it is another's music.
    """
    await conn.execute(
        """
        UPDATE attempt SET state = 'accepted', sent_at = coalesce(sent_at, now()), accepted_at = now(),
                           provider_ref = $3, remote_task = $4::text::jsonb
         WHERE job_id = $1 AND n = $2 AND state IN ('intent', 'sent')
        """,
        claim.job_id,
        claim.attempt,
        provider_ref,
        remote_task,
    )
