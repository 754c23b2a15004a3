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

LEASE_SECONDS: Final = 10
HEARTBEAT_SECONDS: Final = 1
MAX_ATTEMPTS: Final = 3
"""A job that has cost this many workers their life is not tried again."""
CHANNEL: Final = "antiphon_jobs"

log = structlog.get_logger(__name__)

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
) -> list[Claim]:
    """Take up to `limit` jobs, fairest first, and write their attempts before anything is called.

    One index probe per queue: sorting the whole backlog by `queue = ANY(...)` would cost O(backlog).
    """
    rows = await conn.fetch(
        """
        WITH picked AS (
            SELECT j.id
              FROM unnest($2::text[]) AS q (name)
             CROSS JOIN LATERAL (
                SELECT id, turn FROM job
                 WHERE status = 'queued' AND queue = q.name AND run_at <= now()
                 ORDER BY turn, id LIMIT $4 FOR UPDATE SKIP LOCKED
             ) j
             ORDER BY j.turn, j.id LIMIT $4
        ), claimed AS (
            UPDATE job
               SET status = 'processing', worker_id = $1, fence = fence + 1, attempts = attempts + 1,
                   lease_until = now() + make_interval(secs => $5), backend = $3,
                   started_at = coalesce(started_at, now()), progress = 0
              FROM picked WHERE job.id = picked.id
            RETURNING job.*
        ), noted AS (
            INSERT INTO attempt (job_id, n, backend, worker_id) SELECT id, attempts, $3, $1 FROM claimed
        )
        SELECT id, organization_id, fence, attempts, model, test, request FROM claimed ORDER BY turn, id
        """,
        worker_id,
        queues,
        backend,
        limit,
        LEASE_SECONDS,
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
    )


async def beat(conn: billing.Connection, beats: Sequence[Beat]) -> dict[uuid.UUID, bool]:
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
        LEASE_SECONDS,
    )
    return {row["id"]: row["cancel"] for row in rows}


async def give_back(conn: billing.Connection, claims: Sequence[Claim]) -> None:
    """Return claimed jobs to the front of the queue, without counting the attempt: the worker is leaving.

    A cancelled one is left to `settlement.end_hopeless`: its music is not wanted any more.
    """
    await conn.execute(
        """
        WITH ours AS (
            SELECT job.id
              FROM job JOIN unnest($1::uuid[], $2::bigint[]) AS t (id, fence)
                ON job.id = t.id AND job.fence = t.fence
             WHERE job.status = 'processing' AND job.cancel_requested_at IS NULL
             ORDER BY job.id FOR UPDATE OF job
        ), back AS (
            UPDATE job SET status = 'queued', worker_id = NULL, lease_until = NULL, progress = 0,
                           attempts = attempts - 1
              FROM ours WHERE job.id = ours.id
            RETURNING job.id, job.attempts + 1 AS n
        )
        DELETE FROM attempt USING back WHERE attempt.job_id = back.id AND attempt.n = back.n
        """,
        [c.job_id for c in claims],
        [c.fence for c in claims],
    )


async def take_back_lapsed(conn: billing.Connection) -> int:
    """Queue again what dead workers held, unless it was cancelled or has been tried too often.

    Those are left to `settlement.end_hopeless`, which gives their money back.
    """
    rows = await conn.fetch(
        """
        WITH lapsed AS (
            SELECT id FROM job
             WHERE status = 'processing' AND lease_until < now()
               AND attempts < $1 AND cancel_requested_at IS NULL
             ORDER BY lease_until LIMIT 100 FOR UPDATE SKIP LOCKED
        ), back AS (
            UPDATE job SET status = 'queued', worker_id = NULL, lease_until = NULL, progress = 0
              FROM lapsed WHERE job.id = lapsed.id
            RETURNING job.id, job.attempts
        )
        UPDATE attempt SET state = 'failed', finished_at = now(), error_code = 'upstream_error',
                           error_message = 'the worker stopped responding'
          FROM back WHERE attempt.job_id = back.id AND attempt.n = back.attempts
        RETURNING attempt.job_id
        """,
        MAX_ATTEMPTS,
    )
    return len(rows)


async def note_accepted(conn: billing.Connection, claim: Claim, provider_ref: str, remote_task: str) -> None:
    """The backend has taken the attempt; `remote_task` is JSON with which it can be found again."""
    await conn.execute(
        """
        UPDATE attempt SET state = 'accepted', sent_at = now(), provider_ref = $3, remote_task = $4::jsonb
         WHERE job_id = $1 AND n = $2 AND state = 'intent'
        """,
        claim.job_id,
        claim.attempt,
        provider_ref,
        remote_task,
    )


async def queue_again(conn: billing.Connection, claim: Claim, *, code: str, message: str) -> bool:
    """Queue a job whose attempt failed for another try; False if it was its last or is not ours."""
    row = await conn.fetchrow(
        """
        WITH back AS (
            UPDATE job SET status = 'queued', worker_id = NULL, lease_until = NULL, progress = 0
             WHERE id = $1 AND fence = $2 AND status = 'processing'
               AND attempts < $5 AND cancel_requested_at IS NULL
            RETURNING id, attempts
        )
        UPDATE attempt SET state = 'failed', finished_at = now(), error_code = $3, error_message = $4
          FROM back WHERE attempt.job_id = back.id AND attempt.n = back.attempts
        RETURNING attempt.job_id
        """,
        claim.job_id,
        claim.fence,
        code,
        message,
        MAX_ATTEMPTS,
    )
    return row is not None
