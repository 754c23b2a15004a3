"""The end of a job: final state, money, attempt, usage and counters in one commit, under the fence.

Whoever holds no valid fence changes nothing. A cancellation that was acknowledged before the end is
honoured at the end: such a job is never charged, even if its music was ready.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

import billing
from gateway.jobs.attempts import AttemptEnd, count_attempts
from gateway.jobs.job import JobError, JobErrorCode, JobResult, JobStatus
from gateway.jobs.queue import DEATHS, MAX_ATTEMPTS, MAY_COST
from gateway.jobs.retention import RETENTION
from gateway.jobs.usage import Use, count_usage
from gateway.webhooks import outbox

log = structlog.get_logger(__name__)

CANCELLED: Final = JobError(
    code=JobErrorCode.JOB_CANCELLED, message="the job was cancelled; nothing was charged"
)


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended: with a result, or with an error. Exactly one of them is given."""

    job_id: uuid.UUID
    fence: int
    result: JobResult | None = None
    error: JobError | None = None
    cost_nano: int | None = None
    """What the provider charges us; None: it did not say, and may charge all of it."""
    is_ambiguous: bool = False
    """Nobody knows whether the provider took the attempt."""
    warnings: tuple[str, ...] = ()
    """What the route that made it changes; told of once, also if that was known from the beginning."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an ending."""

    won: bool
    """False: another claim holds the job by now, or it is final already; nothing was changed."""
    status: JobStatus | None = None


class _Row(msgspec.Struct, frozen=True):
    id: uuid.UUID
    fence: int
    organization_id: uuid.UUID
    project_id: uuid.UUID | None
    key_id: uuid.UUID
    test: bool
    model: str
    backend: str | None
    attempts: int
    cancelled: bool


class _Final(msgspec.Struct, frozen=True, kw_only=True):
    """One job's last row."""

    row: _Row
    status: JobStatus
    result: JobResult | None = None
    error: JobError | None = None
    billed_ms: int | None = None
    charged_nano: int | None = None
    cost_nano: int | None = None
    is_ambiguous: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """The word for the counters."""
        return self.error.code.value if self.error else self.status.value


async def finish(
    pool: "asyncpg.Pool[asyncpg.Record]", endings: Sequence[Ending], *, retry: bool
) -> list[Ended]:
    """End a batch of jobs in one transaction; a repeated batch finds its own work done."""
    async with pool.acquire() as conn, conn.transaction():
        rows = await _lock_jobs(conn, [e.job_id for e in endings], state="processing")
        fences = {row.id: row for row in rows}
        won = [e for e in endings if (row := fences.get(e.job_id)) is not None and row.fence == e.fence]
        finals = await _settle(conn, {e.job_id: e for e in won}, fences)
        statuses = {final.row.id: final.status for final in finals}
        if retry:
            statuses |= await _already_final(conn, endings)
        await _write(conn, finals)
    return [Ended(won=e.job_id in statuses, status=statuses.get(e.job_id)) for e in endings]


async def cancel_queued(conn: billing.Connection, job_id: uuid.UUID) -> bool:
    """End a job that nobody has claimed; False if it is not queued. The caller holds the transaction."""
    rows = await _lock_jobs(conn, [job_id], state="queued")
    await _end_without_music(conn, {row.id: CANCELLED for row in rows}, rows)
    return bool(rows)


async def ask_for_due_cancellations(conn: billing.Connection) -> int:
    """Note that jobs are to end whose time, set at submit, is over; workers or `end_hopeless` end them."""
    rows = await conn.fetch(
        """
        WITH due AS (
            SELECT id FROM job
             WHERE cancel_at < now() AND cancel_requested_at IS NULL AND completed_at IS NULL
             ORDER BY cancel_at LIMIT 1000 FOR UPDATE SKIP LOCKED
        )
        UPDATE job SET cancel_requested_at = now() FROM due WHERE job.id = due.id RETURNING job.id
        """
    )
    return len(rows)


async def end_hopeless(pool: "asyncpg.Pool[asyncpg.Record]") -> int:
    """End what nobody will finish: jobs that killed their workers too often, that were cancelled while
    they waited or were held by a dead worker, or that are past their deadline.

    If one of them cannot be ended, because its books are wrong, the others still are.
    """
    async with pool.acquire() as conn:
        ids = await _find_hopeless(conn)
    try:
        return await _end_these(pool, ids)
    except (billing.BillingError, asyncpg.IntegrityConstraintViolationError) as error:
        log.warning("settlement.hopeless_batch_failed", jobs=len(ids), error=type(error).__name__)
    ended = 0
    for job_id in ids:
        try:
            ended += await _end_these(pool, [job_id])
        except (billing.BillingError, asyncpg.IntegrityConstraintViolationError):
            log.exception("settlement.hopeless_job_failed", job=job_id.hex)
    return ended


async def _find_hopeless(conn: billing.Connection) -> list[uuid.UUID]:
    """Up to 100 of each kind, each kind by its own index."""
    rows = await conn.fetch(
        f"""
        (SELECT id FROM job WHERE status = 'queued' AND deadline_at < now() LIMIT 100)
        UNION
        (SELECT id FROM job WHERE status = 'queued' AND cancel_requested_at IS NOT NULL LIMIT 100)
        UNION
        (SELECT id FROM job
          WHERE status = 'processing' AND lease_until < now()
            AND ({DEATHS} + 1 >= $1 OR cancel_requested_at IS NOT NULL OR deadline_at < now())
          LIMIT 100)
        """,  # noqa: S608 - names of columns
        MAX_ATTEMPTS,
    )
    return [row["id"] for row in rows]


async def _end_these(pool: "asyncpg.Pool[asyncpg.Record]", ids: Sequence[uuid.UUID]) -> int:
    if not ids:
        return 0
    async with pool.acquire() as conn, conn.transaction():
        # Asked again under the lock: a heartbeat or a claim may have been faster.
        found = await conn.fetch(
            f"""
            SELECT id, status, deadline_at < now() AS late
              FROM job
             WHERE id = ANY($1)
               AND (status = 'queued' AND (deadline_at < now() OR cancel_requested_at IS NOT NULL)
                    OR status = 'processing' AND lease_until < now()
                       AND ({DEATHS} + 1 >= $2 OR cancel_requested_at IS NOT NULL OR deadline_at < now()))
             ORDER BY id FOR UPDATE SKIP LOCKED
            """,  # noqa: S608 - names of columns
            ids,
            MAX_ATTEMPTS,
        )
        rows = [
            row
            for state in ("queued", "processing")
            for row in await _lock_jobs(conn, [f["id"] for f in found if f["status"] == state], state=state)
        ]
        late = {f["id"] for f in found if f["late"]}
        await _end_without_music(conn, {row.id: _hopeless_error(row, late) for row in rows}, rows)
    return len(rows)


def _hopeless_error(row: _Row, late: set[uuid.UUID]) -> JobError:
    if row.cancelled:
        return CANCELLED
    if row.id in late:
        return JobError(code=JobErrorCode.TIMEOUT, message="the job was not finished before its deadline")
    return JobError(
        code=JobErrorCode.UPSTREAM_ERROR, message=f"rendering stopped unexpectedly {MAX_ATTEMPTS} times"
    )


async def _lock_jobs(conn: billing.Connection, ids: Sequence[uuid.UUID], *, state: str) -> list[_Row]:
    rows = await conn.fetch(
        """
        SELECT id, fence, organization_id, project_id, key_id, test, model, backend, attempts,
               cancel_requested_at IS NOT NULL OR cancel_at < now(), status
          FROM job WHERE id = ANY($1) ORDER BY id FOR UPDATE
        """,
        ids,
    )
    # Compared here: by an index on the status the planner would read through all that left it lately.
    return [_Row(*row[:-1]) for row in rows if row["status"] == state]


async def _settle(
    conn: billing.Connection, endings: Mapping[uuid.UUID, Ending], rows: Mapping[uuid.UUID, _Row]
) -> list[_Final]:
    """Move the money: charge what was delivered, give back the rest."""
    delivered = {
        job_id: ending.result
        for job_id, ending in endings.items()
        if ending.result is not None and not rows[job_id].cancelled
    }
    charges = await billing.settle(
        conn,
        [_delivery(job_id, result) for job_id, result in delivered.items() if not rows[job_id].test],
        undelivered=[job_id for job_id in endings if job_id not in delivered and not rows[job_id].test],
    )
    return [
        _completed(rows[job_id], ending, delivered[job_id], charges.get(job_id))
        if job_id in delivered
        else _not_completed(rows[job_id], ending)
        for job_id, ending in endings.items()
    ]


def _delivery(job_id: uuid.UUID, result: JobResult) -> billing.Delivery:
    return billing.Delivery(
        reference=job_id,
        frames=sum(track.frames for track in result.tracks),
        sample_rate=result.tracks[0].master_sample_rate,
    )


def _completed(row: _Row, ending: Ending, result: JobResult, charge: billing.Charge | None) -> _Final:
    delivery = _delivery(row.id, result)
    return _Final(
        row=row,
        status=JobStatus.COMPLETED,
        result=result,
        billed_ms=billing.billed_ms(frames=delivery.frames, sample_rate=delivery.sample_rate),
        charged_nano=charge.cost_nano if charge else None,
        cost_nano=ending.cost_nano,
        warnings=ending.warnings,
    )


def _not_completed(row: _Row, ending: Ending) -> _Final:
    error = CANCELLED if row.cancelled or ending.error is None else ending.error
    is_cancelled = error.code is JobErrorCode.JOB_CANCELLED
    return _Final(
        row=row,
        status=JobStatus.CANCELED if is_cancelled else JobStatus.FAILED,
        error=error,
        cost_nano=ending.cost_nano,
        is_ambiguous=ending.is_ambiguous,
    )


async def _end_without_music(
    conn: billing.Connection, errors: Mapping[uuid.UUID, JobError], rows: Sequence[_Row]
) -> None:
    await billing.release(conn, [row.id for row in rows if not row.test])
    await _write(
        conn,
        [
            _Final(
                row=row,
                status=JobStatus.CANCELED if errors[row.id] is CANCELLED else JobStatus.FAILED,
                error=errors[row.id],
            )
            for row in rows
        ],
    )


async def _already_final(conn: billing.Connection, endings: Sequence[Ending]) -> dict[uuid.UUID, JobStatus]:
    """Endings whose commit succeeded although its answer was lost: same fence, final state."""
    rows = await conn.fetch(
        """
        SELECT job.id, job.status
          FROM job JOIN unnest($1::uuid[], $2::bigint[]) AS t (id, fence)
            ON job.id = t.id AND job.fence = t.fence
         WHERE job.completed_at IS NOT NULL
        """,
        [e.job_id for e in endings],
        [e.fence for e in endings],
    )
    return {row["id"]: JobStatus(row["status"]) for row in rows}


async def _write(conn: billing.Connection, finals: Sequence[_Final]) -> None:
    if not finals:
        return
    await _write_jobs(conn, finals)
    ends = await _close_attempts(conn, [final for final in finals if final.row.attempts > 0])
    await conn.execute(
        """
        WITH locked AS (
            SELECT key_id FROM key_meter WHERE key_id = ANY($1) ORDER BY key_id FOR UPDATE
        )
        UPDATE key_meter SET open_jobs = open_jobs - t.n
          FROM locked JOIN (SELECT k, count(*) AS n FROM unnest($1::uuid[]) AS k GROUP BY k) t
            ON locked.key_id = t.k
         WHERE key_meter.key_id = locked.key_id
        """,
        [final.row.key_id for final in finals],
    )
    await _count(conn, finals)
    charged = [final for final in finals if final.charged_nano is not None]
    await count_usage(conn, (_use(final) for final in charged))
    await outbox.note_ended(conn, [final.row.id for final in finals])
    await count_attempts(conn, ends)


async def _write_jobs(conn: billing.Connection, finals: Sequence[_Final]) -> None:
    await conn.execute(
        """
        UPDATE job SET status = t.status, result = t.result::jsonb, error = t.error::jsonb,
                       billed_ms = t.billed_ms, charged_nano = t.charged_nano, completed_at = now(),
                       expires_at = now() + coalesce(make_interval(secs => (request ->> 'ttl')::int), $7),
                       progress = 1, worker_id = NULL, lease_until = NULL,
                       warnings = CASE WHEN t.warnings IS NULL THEN job.warnings ELSE job.warnings || (
                           SELECT coalesce(jsonb_agg(w), '[]') FROM jsonb_array_elements(t.warnings::jsonb) w
                            WHERE NOT job.warnings @> jsonb_build_array(w)) END
          FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $8::text[])
               AS t (id, status, result, error, billed_ms, charged_nano, warnings)
         WHERE job.id = t.id
        """,
        [final.row.id for final in finals],
        [final.status.value for final in finals],
        [_json(final.result) for final in finals],
        [_json(final.error) for final in finals],
        [final.billed_ms for final in finals],
        [final.charged_nano for final in finals],
        RETENTION,
        [msgspec.json.encode(final.warnings).decode() if final.warnings else None for final in finals],
    )


async def _close_attempts(conn: billing.Connection, finals: Sequence[_Final]) -> list[AttemptEnd]:
    """Returns those that were open. What was sent and is not told of may cost us all that it could."""
    rows = await conn.fetch(
        f"""
        UPDATE attempt
           SET state = CASE WHEN t.code IS NULL THEN 'done'
                            WHEN t.ambiguous THEN 'ambiguous' ELSE 'failed' END,
               finished_at = now(), error_code = t.code, error_message = t.message,
               provider_cost_nano = nullif(coalesce(t.cost, {MAY_COST}), 0),
               cost_is_possible = t.code IS NOT NULL AND t.cost IS NULL AND {MAY_COST} IS NOT NULL
          FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::bigint[], $6::bool[])
               AS t (job_id, n, code, message, cost, ambiguous)
         WHERE attempt.job_id = t.job_id AND attempt.n = t.n AND attempt.finished_at IS NULL
        RETURNING attempt.job_id, attempt.n, attempt.backend, attempt.state, attempt.error_code,
                  attempt.provider_cost_nano, attempt.cost_is_possible
        """,  # noqa: S608 - names of columns
        [final.row.id for final in finals],
        [final.row.attempts for final in finals],
        [final.error.code.value if final.error else None for final in finals],
        [final.error.message if final.error else None for final in finals],
        [final.cost_nano for final in finals],
        [final.is_ambiguous for final in finals],
    )
    ended = {final.row.id: final for final in finals}
    return [
        AttemptEnd(
            job_id=row["job_id"],
            n=row["n"],
            model=ended[row["job_id"]].row.model,
            backend=row["backend"],
            test=ended[row["job_id"]].row.test,
            result=row["error_code"] if row["state"] == "failed" else row["state"],
            cost_nano=row["provider_cost_nano"] or 0,
            cost_is_possible=row["cost_is_possible"],
            revenue_nano=ended[row["job_id"]].charged_nano,
        )
        for row in rows
    ]


async def _count(conn: billing.Connection, finals: Sequence[_Final]) -> None:
    """Move the counters that Prometheus reads; test jobs are counted as the backend `test`."""
    await conn.execute(
        """
        INSERT INTO job_tally (model, backend, outcome, jobs, audio_ms)
        SELECT model, backend, outcome, count(*), sum(ms)
          FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS t (model, backend, outcome, ms)
         GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT (model, backend, outcome) DO UPDATE
           SET jobs = job_tally.jobs + excluded.jobs, audio_ms = job_tally.audio_ms + excluded.audio_ms
        """,
        [final.row.model for final in finals],
        ["test" if final.row.test else final.row.backend or "none" for final in finals],
        [final.outcome for final in finals],
        [final.billed_ms or 0 for final in finals],
    )


def _use(final: _Final) -> Use:
    row = final.row
    return Use(
        organization_id=row.organization_id,
        project_id=row.project_id,
        key_id=row.key_id,
        model=row.model,
        backend=row.backend or "none",
        billed_ms=final.billed_ms or 0,
        cost_nano=final.charged_nano or 0,
    )


def _json(value: msgspec.Struct | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
