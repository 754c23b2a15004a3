"""Admission: job row, hold and idempotency record are one commit, and only then the answer leaves.

A batch is one transaction: lock what is contended (accounts, meters, budgets, each in id order),
walk the submissions in the order of their arrival against the locked numbers, write what was
admitted. The walk is a pure function; the database only sees the result.
"""

import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

import asyncpg

import billing
from gateway.jobs.replay import Repeats, find_by_key, find_by_request
from gateway.jobs.walk import Admitted, Locked, Meter, Submission, Verdict, decide

DEADLINE: Final = timedelta(hours=24)
"""A job that is not finished by then ends as `timeout`, uncharged."""


async def admit(
    pool: "asyncpg.Pool[asyncpg.Record]", batch: Sequence[Submission], *, retry: bool
) -> list[Verdict]:
    """Write one batch in one transaction; one verdict per submission, in order."""
    async with pool.acquire() as conn, conn.transaction():
        locked = await _lock(conn, batch, retry=retry)
        verdicts = decide(batch, locked)
        fresh = [
            submission
            for submission, verdict in zip(batch, verdicts, strict=True)
            if isinstance(verdict, Admitted) and submission.job_id not in locked.present
        ]
        if fresh:
            await _write(conn, fresh, locked)
    return verdicts


async def _lock(conn: billing.Connection, batch: Sequence[Submission], *, retry: bool) -> Locked:
    accounts = await billing.lock_accounts(conn, {s.organization_id for s in batch})
    metered = {s.key_id for s in batch if s.is_metered}
    budgeted = {owner for s in batch if s.has_budget for owner in s.budget_subjects}
    budgets: dict[uuid.UUID, list[billing.Budget]] = {}
    if budgeted:
        for budget in await billing.lock_budgets(conn, subjects=budgeted):
            budgets.setdefault(budget.subject, []).append(budget)
    return Locked(
        accounts=accounts,
        meters=await _lock_meters(conn, metered) if metered else {},
        budgets=budgets,
        repeats=await _find_repeats(conn, batch),
        present=await _find_present(conn, batch) if retry else frozenset(),
        is_halted=await billing.read_halt(conn) is not None,
    )


async def _lock_meters(conn: billing.Connection, key_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Meter]:
    """The counters now. A minute later than ours has begun while we waited for the locks: it counts on."""
    rows = await conn.fetch(
        """
        SELECT key_id, open_jobs,
               CASE WHEN minute_start >= date_trunc('minute', now())
                    THEN minute_count ELSE 0 END AS minute_count,
               ceil(60 - extract(second FROM now()))::int AS seconds_left
          FROM key_meter WHERE key_id = ANY($1) ORDER BY key_id FOR UPDATE
        """,
        list(key_ids),
    )
    return {row["key_id"]: Meter(**dict(row)) for row in rows}


async def _find_repeats(conn: billing.Connection, batch: Sequence[Submission]) -> Repeats:
    """Earlier jobs of the same requests. Complete, because their accounts are locked by now."""
    return Repeats(
        by_key=await find_by_key(conn, {scope for s in batch if (scope := s.idempotency_scope)}),
        by_request=await find_by_request(
            conn,
            {s.identity for s in batch if s.is_retry and s.idempotency_key is None},
            now=batch[-1].created_at,
        ),
    )


async def _find_present(conn: billing.Connection, batch: Sequence[Submission]) -> frozenset[uuid.UUID]:
    rows = await conn.fetch("SELECT id FROM job WHERE id = ANY($1)", [s.job_id for s in batch])
    return frozenset(row["id"] for row in rows)


async def _write(conn: billing.Connection, fresh: Sequence[Submission], locked: Locked) -> None:
    await _take_turns(conn, fresh)
    await _insert_jobs(conn, fresh)
    paid = [s for s in fresh if not s.test]
    if paid:
        await billing.write_holds(
            conn,
            [_hold(s, locked) for s in paid],
            accounts=[locked.accounts[i] for i in {s.organization_id for s in paid}],
            budgets={b.id: b for s in paid for b in locked.budgets_of(s)}.values(),
        )
    if locked.meters:
        await _write_meters(conn, locked.meters.values())


def _hold(submission: Submission, locked: Locked) -> billing.Hold:
    return billing.Hold(
        reference=submission.job_id,
        account_id=submission.organization_id,
        price_version_id=submission.price.id,
        amount_nano=submission.hold_nano,
        deadline_at=submission.created_at + DEADLINE,
        budget_ids=tuple(budget.id for budget in locked.budgets_of(submission)),
    )


async def _take_turns(conn: billing.Connection, fresh: Sequence[Submission]) -> None:
    """Fair order (start-time fair queueing over milliseconds of audio).

    A job starts its turn where its organization's last job ends, finished or not, but not before the
    turn that was started last: an organization with one job comes next, however long the backlog of
    another is, and customers who send one job after another cannot keep that backlog waiting for ever.
    """
    pairs = sorted({(s.organization_id, s.queue) for s in fresh})
    rows = await conn.fetch(
        """
        SELECT p.organization_id, p.queue,
               (SELECT turn FROM job WHERE started_at IS NOT NULL AND queue = p.queue
                 ORDER BY started_at DESC, turn DESC LIMIT 1) AS front,
               (SELECT turn + length_ms FROM job
                 WHERE (status = 'queued' OR started_at IS NOT NULL)
                   AND organization_id = p.organization_id AND queue = p.queue
                 ORDER BY turn + length_ms DESC LIMIT 1) AS tail
          FROM unnest($1::uuid[], $2::text[]) AS p (organization_id, queue)
        """,
        [pair[0] for pair in pairs],
        [pair[1] for pair in pairs],
    )
    ends = {(row[0], row[1]): max(row["front"] or 0, row["tail"] or 0) for row in rows}
    for submission in fresh:
        pair = (submission.organization_id, submission.queue)
        submission.turn = ends[pair]
        ends[pair] += submission.length_ms


async def _insert_jobs(conn: billing.Connection, fresh: Sequence[Submission]) -> None:
    await conn.execute(
        """
        INSERT INTO job (id, organization_id, project_id, key_id, test, model, task, queue, turn, length_ms,
                         request, metadata, warnings, request_hash, idempotency_key, price_version_id,
                         nano_per_second, held_nano, created_at, run_at, deadline_at, cancel_at, retry_slot,
                         routes, route_reason)
        SELECT id, o, p, k, test, model, task, queue, turn, length_ms, request::jsonb, metadata::jsonb,
               warnings::jsonb, hash, ikey, price, nano, held, created, now(), deadline, cancel, slot,
               string_to_array(routes, chr(10)), reason
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bool[], $6::text[], $7::text[],
                      $8::text[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[],
                      $14::bytea[], $15::text[], $16::uuid[], $17::bigint[], $18::bigint[],
                      $19::timestamptz[], $20::timestamptz[], $21::timestamptz[], $22::bigint[], $23::text[],
                      $24::text[])
               AS t (id, o, p, k, test, model, task, queue, turn, length_ms, request, metadata, warnings,
                     hash, ikey, price, nano, held, created, deadline, cancel, slot, routes, reason)
        """,
        [s.job_id for s in fresh],
        [s.organization_id for s in fresh],
        [s.project_id for s in fresh],
        [s.key_id for s in fresh],
        [s.test for s in fresh],
        [s.model for s in fresh],
        [s.task for s in fresh],
        [s.queue for s in fresh],
        [s.turn for s in fresh],
        [s.length_ms for s in fresh],
        [s.request_json for s in fresh],
        [s.metadata_json for s in fresh],
        [s.warnings_json for s in fresh],
        [s.request_hash for s in fresh],
        [s.idempotency_key for s in fresh],
        [s.price.id for s in fresh],
        [s.price.net_nano_per_second for s in fresh],
        [s.hold_nano for s in fresh],
        [s.created_at for s in fresh],
        [s.created_at + DEADLINE for s in fresh],
        [s.cancel_at for s in fresh],
        [s.retry_slot for s in fresh],
        ["\n".join(s.routes) or None for s in fresh],
        [s.route_reason for s in fresh],
    )


async def _write_meters(conn: billing.Connection, meters: Iterable[Meter]) -> None:
    changed = list(meters)
    await conn.execute(
        """
        UPDATE key_meter
           SET minute_start = greatest(minute_start, date_trunc('minute', now())),
               minute_count = t.count, open_jobs = t.open
          FROM unnest($1::uuid[], $2::int[], $3::int[]) AS t (key_id, count, open)
         WHERE key_meter.key_id = t.key_id
        """,
        [m.key_id for m in changed],
        [m.minute_count for m in changed],
        [m.open_jobs for m in changed],
    )
