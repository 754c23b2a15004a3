"""Jobs that take another way: after a failed attempt, or because nobody opens the door they wait at."""

from typing import Final

import msgspec

import billing
from gateway.jobs.attempts import AttemptEnd, count_attempts
from gateway.jobs.queue import MAX_ATTEMPTS, MAY_COST, SENT, Claim

SERVED_SECONDS: Final = 60
"""For so long a worker that was seen is counted on: a restart sends nobody elsewhere."""
REROUTE_SECONDS: Final = 15
"""So long a job waits in front of a closed door before it takes another."""
UNWATCHED_SECONDS: Final = 3600
"""Longer than any provider works at a task: what nobody has looked at for so long is given up."""
MOST_MOVES: Final = 10
"""Attempts after which a job stays where it is."""
FRONT: Final = """coalesce((
    SELECT f.turn FROM job f WHERE f.started_at IS NOT NULL AND f.queue = {queue}
     ORDER BY f.started_at DESC, f.turn DESC LIMIT 1), 0)"""
"""The clock of a queue: the turn of the job that was started last."""


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be kept of an attempt that ended without music."""

    code: str
    message: str
    is_ambiguous: bool = False
    """Nobody knows whether the provider took it."""
    cost_nano: int | None = None
    """What the provider charges us all the same; None: it did not say, and may charge all of it."""


async def move_on(
    conn: billing.Connection,
    claim: Claim,
    close: Closing,
    *,
    queue: str,
    why: str,
    come_back: bool = False,
    delay_seconds: float = 0.0,
) -> bool:
    """Queue a job whose attempt failed for another one, here or elsewhere; False if it is not ours any more
    or must not be tried again. The caller holds the transaction.

    In another queue it comes next: it has waited already. `come_back`: the one it leaves may be tried again.
    """
    row = await conn.fetchrow(
        f"""
        WITH back AS (
            UPDATE job SET status = 'queued', worker_id = NULL, lease_until = NULL, progress = 0,
                           routes = CASE WHEN queue = $7::text THEN routes
                                         WHEN $11::bool THEN array_remove(routes, $7) || queue
                                         ELSE nullif(array_remove(routes, $7), '{{}}') END,
                           turn = CASE WHEN queue = $7 THEN turn ELSE {FRONT.format(queue="$7")} END,
                           queue = $7, route_reason = $8, run_at = now() + make_interval(secs => $9)
             WHERE id = $1 AND fence = $2 AND status = 'processing'
               AND attempts < CASE WHEN queue = $7 THEN $10::int ELSE $12::int END
               AND cancel_requested_at IS NULL
            RETURNING id, attempts, model, test
        )
        UPDATE attempt SET state = $3, finished_at = now(), error_code = $4, error_message = $5,
                           provider_cost_nano = nullif(coalesce($6::bigint, {MAY_COST}), 0),
                           cost_is_possible = $6::bigint IS NULL AND {MAY_COST} IS NOT NULL
          FROM back WHERE attempt.job_id = back.id AND attempt.n = back.attempts
        RETURNING attempt.job_id, attempt.n, back.model, attempt.backend, back.test,
                  coalesce(attempt.provider_cost_nano, 0) AS cost_nano, attempt.cost_is_possible
        """,  # noqa: S608 - names of columns
        claim.job_id,
        claim.fence,
        "ambiguous" if close.is_ambiguous else "failed",
        close.code,
        close.message,
        close.cost_nano,
        queue,
        why,
        delay_seconds,
        MAX_ATTEMPTS,
        come_back,
        MOST_MOVES,
    )
    if row is None:
        return False
    result = "ambiguous" if close.is_ambiguous else close.code
    await count_attempts(conn, [AttemptEnd(result=result, **row)])
    return True


async def reroute(conn: billing.Connection) -> int:
    """Let jobs that have waited in front of a closed door take another one; returns how many did.

    A door is closed that no worker tells of: its circuit is open, or nobody is there who could serve it.
    There they stand as far behind the clock as they did, so a long backlog passes nobody by. What was
    perhaps sent already stays where it is.
    """
    rows = await conn.fetch(
        f"""
        WITH RECURSIVE named AS (
            (SELECT queue FROM job WHERE status = 'queued' ORDER BY queue LIMIT 1)
            UNION ALL
            SELECT (SELECT queue FROM job WHERE status = 'queued' AND job.queue > named.queue
                     ORDER BY queue LIMIT 1)
              FROM named WHERE named.queue IS NOT NULL
        ), served AS (
            SELECT DISTINCT unnest(queues) AS queue FROM worker
             WHERE seen_at > now() - make_interval(secs => $1)
        ), closed AS (
            SELECT queue, {FRONT.format(queue="named.queue")} AS front
              FROM named WHERE queue IS NOT NULL AND queue NOT IN (SELECT queue FROM served)
        ), waiting AS (
            SELECT job.id, j.next, array_remove(job.routes, j.next) || job.queue AS others,
                   greatest(job.turn - closed.front, 0) AS behind
              FROM closed CROSS JOIN LATERAL (
                SELECT id, (SELECT r FROM unnest(routes) WITH ORDINALITY AS u (r, place)
                             WHERE r IN (SELECT queue FROM served) ORDER BY place LIMIT 1) AS next
                  FROM (
                    SELECT * FROM job
                     WHERE status = 'queued' AND queue = closed.queue AND routes IS NOT NULL
                     ORDER BY turn, id OFFSET 0  -- by the index, for as long as it takes
                  ) job
                 WHERE routes && ARRAY(SELECT queue FROM served)
                   AND run_at < now() - make_interval(secs => $2) AND NOT {SENT}
                 LIMIT 1000
              ) j JOIN job ON job.id = j.id AND job.status = 'queued'
             LIMIT 1000 FOR UPDATE OF job SKIP LOCKED
        )
        UPDATE job SET queue = waiting.next, routes = waiting.others, run_at = now(),
                       turn = {FRONT.format(queue="waiting.next")} + waiting.behind,
                       route_reason = 'nobody served ' || job.queue
          FROM waiting WHERE job.id = waiting.id
        RETURNING job.id
        """,  # noqa: S608 - names of columns
        SERVED_SECONDS,
        REROUTE_SECONDS,
    )
    return len(rows)


async def give_up_unwatched(conn: billing.Connection) -> int:
    """End attempts that were sent to a backend for which nobody has looked for an hour, so that their jobs
    can go elsewhere; what they may cost is ours. Returns how many. The caller holds the transaction.

    Jobs without another route wait for their backend to come back, or for their deadline.
    """
    rows = await conn.fetch(
        f"""
        WITH unwatched AS (
            SELECT job.id, job.attempts, job.model, job.test
              FROM job JOIN attempt a ON a.job_id = job.id AND a.n = job.attempts
             WHERE job.status = 'queued' AND job.routes IS NOT NULL AND a.finished_at IS NULL
               AND a.remote_task IS NOT NULL AND a.sent_at < now() - make_interval(secs => $2)
               AND NOT EXISTS (SELECT FROM worker WHERE job.queue = ANY (queues)
                                  AND seen_at > now() - make_interval(secs => $1))
             LIMIT 100 FOR UPDATE OF job SKIP LOCKED
        )
        UPDATE attempt
           SET state = 'ambiguous', finished_at = now(), error_code = 'upstream_error',
               error_message = 'nobody could ask the provider what became of it',
               provider_cost_nano = {MAY_COST}, cost_is_possible = {MAY_COST} IS NOT NULL
          FROM unwatched WHERE attempt.job_id = unwatched.id AND attempt.n = unwatched.attempts
        RETURNING attempt.job_id, attempt.n, unwatched.model, attempt.backend, unwatched.test,
                  coalesce(attempt.provider_cost_nano, 0) AS cost_nano, attempt.cost_is_possible
        """,  # noqa: S608 - names of columns
        SERVED_SECONDS,
        UNWATCHED_SECONDS,
    )
    await count_attempts(conn, [AttemptEnd(result="ambiguous", **row) for row in rows])
    return len(rows)
