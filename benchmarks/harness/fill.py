"""A history of any length, written by SQL: jobs of many organizations whose money is all accounted for.

Of a million jobs 945,000 are completed and charged, 35,000 failed, 10,000 were cancelled and 10,000 are
queued. They are spread over 29 days and the first HISTORIES organizations; the first has a tenth of
them. Everything that the product would have written is there: holds, usage, transfers, entries with
their running balances, attempts, counters; `antiphon ledger verify` finds nothing.
"""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import asyncpg
import msgspec
import uvloop

import billing
from benchmarks.harness.stack import Server
from gateway.audio import AudioFormat
from gateway.generation import GenerationRequest
from gateway.jobs.job import JobError, JobErrorCode, JobResult, Track

HISTORIES: Final = 200
AT_ONCE: Final = 2
PIECES: Final = 8
TABLES: Final = ("job", "hold", "usage_record", "transfer", "entry", "attempt")

_PLAN: Final = """
CREATE UNLOGGED TABLE fill AS
WITH owner AS (
    SELECT row_number() OVER (ORDER BY o.id) - 1 AS n, o.id AS organization_id, k.id AS key_id
      FROM organization o JOIN api_key k ON k.organization_id = o.id ORDER BY o.id LIMIT $2
), counted AS (
    SELECT count(*) AS owners FROM owner
), drawn AS (
    SELECT i, md5(i::text) AS digest, hashint4(i)::bigint + 2147483648 AS dice,
           now() - interval '29 days' * (1 - i::float8 / $1) - interval '10 minutes' AS created_at
      FROM generate_series(1, $1) AS i
)
SELECT d.i, o.organization_id, o.key_id, d.digest, d.created_at,
       (lpad(to_hex((extract(epoch FROM d.created_at) * 1000)::bigint), 12, '0') || '7'
        || substr(d.digest, 1, 3) || '8' || substr(d.digest, 4, 15))::uuid AS id,
       l.length_ms,
       sum(l.length_ms) OVER (PARTITION BY o.organization_id ORDER BY d.i) - l.length_ms AS turn,
       CASE WHEN d.i > $1 - $1 / 100 THEN 'queued' WHEN d.dice % 1000 < 955 THEN 'completed'
            WHEN d.dice % 1000 < 990 THEN 'failed' ELSE 'canceled' END AS status
  FROM drawn d CROSS JOIN counted c
  JOIN owner o ON o.n = CASE WHEN d.i % 10 = 0 OR c.owners = 1 THEN 0 ELSE 1 + d.i % (c.owners - 1) END
 CROSS JOIN LATERAL (SELECT (10 + d.dice % 111) * 1000 AS length_ms) l
"""

_JOBS: Final = """
INSERT INTO job (id, organization_id, key_id, test, model, task, request, metadata, idempotency_key,
                 request_hash, status, queue, turn, length_ms, run_at, deadline_at, attempts, fence, progress,
                 cancel_requested_at, started_at, completed_at, expires_at, price_version_id,
                 nano_per_second, held_nano, charged_nano, billed_ms, backend, result, error, warnings,
                 created_at)
SELECT f.id, f.organization_id, f.key_id, false, 'sandbox', 'text2music',
       replace(replace($1, '@frames', (f.length_ms * 48)::text), '@n', f.i::text)::jsonb,
       CASE WHEN f.i % 4 = 0 THEN jsonb_build_object('order', f.i::text) END,
       CASE WHEN f.i % 3 = 0 THEN f.digest END,
       decode(f.digest || f.digest, 'hex'), f.status, 'sandbox',
       f.turn, f.length_ms, f.created_at, f.created_at + interval '24 hours', g.ran::int, g.ran::int,
       g.ended::int,
       CASE WHEN f.status = 'canceled' THEN g.ended_at END,
       CASE WHEN g.ran THEN f.created_at + interval '1 second' END,
       g.ended_at, g.ended_at + interval '30 days', p.id, p.nano_per_second, g.cost_nano,
       CASE WHEN f.status = 'completed' THEN g.cost_nano END,
       CASE WHEN f.status = 'completed' THEN f.length_ms END,
       CASE WHEN g.ran THEN 'engine' END,
       CASE WHEN f.status = 'completed' THEN replace(replace(replace(replace($2, '@frames',
            (f.length_ms * 48)::text), '@size', (f.length_ms * 40)::text), '@sha', f.digest || f.digest),
            '@folder', replace(f.organization_id || '/' || f.id, '-', ''))::jsonb END,
       CASE f.status WHEN 'failed' THEN $3::jsonb WHEN 'canceled' THEN $4::jsonb END, '[]', f.created_at
  FROM fill f
 CROSS JOIN (SELECT id, nano_per_second FROM price_version WHERE model = 'sandbox' LIMIT 1) p
 CROSS JOIN LATERAL (
    SELECT f.length_ms * p.nano_per_second / 1000 AS cost_nano, f.status IN ('completed', 'failed') AS ran,
           f.status <> 'queued' AS ended,
           CASE WHEN f.status <> 'queued' THEN f.created_at + interval '8 seconds' END AS ended_at
 ) g
 WHERE f.i > $5 AND f.i <= $6 ORDER BY f.i
"""

_MONEY: Final = (
    """
    INSERT INTO hold (reference, account_id, price_version_id, amount_nano, state, budget_ids, deadline_at,
                      created_at, closed_at)
    SELECT j.id, j.organization_id, j.price_version_id, j.held_nano,
           CASE j.status WHEN 'queued' THEN 'open' WHEN 'completed' THEN 'settled' ELSE 'released' END,
           coalesce(b.ids, '{}'), j.deadline_at, j.created_at, j.completed_at
      FROM job j LEFT JOIN (SELECT account_id, array_agg(id) AS ids FROM budget GROUP BY 1) b
        ON b.account_id = j.organization_id
     ORDER BY j.id
    """,
    """
    INSERT INTO usage_record (reference, account_id, price_version_id, frames, sample_rate, billed_ms,
                              cost_nano, created_at)
    SELECT id, organization_id, price_version_id, billed_ms * 48, 48000, billed_ms, charged_nano,
           completed_at FROM job WHERE status = 'completed' ORDER BY id
    """,
    """
    INSERT INTO transfer (id, kind, reference, created_at)
    SELECT id, 'settle', id, completed_at FROM job WHERE status = 'completed' ORDER BY id
    """,
    """
    INSERT INTO entry (transfer_id, account_id, amount_nano, balance_after_nano, created_at)
    SELECT j.id, leg.account_id, leg.amount_nano,
           a.posted_nano + sum(leg.amount_nano) OVER (PARTITION BY leg.account_id ORDER BY j.id),
           j.completed_at
      FROM job j
     CROSS JOIN LATERAL (VALUES (1, j.organization_id, -j.charged_nano),
                                (2, '00000000-0000-0000-0000-000000000001'::uuid, j.charged_nano))
                        AS leg (n, account_id, amount_nano)
      JOIN account a ON a.id = leg.account_id
     WHERE j.status = 'completed' ORDER BY j.id, leg.n
    """,
    """
    INSERT INTO attempt (job_id, n, backend, state, worker_id, error_code, error_message, created_at, sent_at,
                         finished_at)
    SELECT id, 1, 'engine', CASE status WHEN 'completed' THEN 'done' ELSE 'failed' END,
           '00000000-0000-7000-8000-000000000000', error->>'code', error->>'message', started_at, started_at,
           completed_at FROM job WHERE attempts = 1 ORDER BY id
    """,
    """
    INSERT INTO job_tally (model, backend, outcome, jobs, audio_ms)
    SELECT model, coalesce(backend, 'none'), coalesce(error->>'code', status), count(*),
           coalesce(sum(billed_ms), 0) FROM job WHERE completed_at IS NOT NULL GROUP BY 1, 2, 3
    """,
)
_BALANCES: Final = (
    """
    UPDATE account SET posted_nano = last.balance_after_nano
      FROM account a CROSS JOIN LATERAL (
        SELECT balance_after_nano FROM entry WHERE account_id = a.id ORDER BY id DESC LIMIT 1
      ) last
     WHERE account.id = a.id
    """,
    """
    UPDATE account SET held_nano = held.nano
      FROM (SELECT account_id, sum(amount_nano) AS nano FROM hold WHERE state = 'open' GROUP BY 1) held
     WHERE account.id = held.account_id
    """,
    """
    UPDATE credit_grant SET remaining_nano = account.posted_nano
      FROM account WHERE account.id = credit_grant.account_id
    """,
    """
    UPDATE budget SET held_nano = sums.held, spent_nano = sums.spent
      FROM (SELECT b.id, coalesce(sum(h.amount_nano) FILTER (WHERE h.state = 'open'), 0) AS held,
                   coalesce(sum(u.cost_nano) FILTER (WHERE u.created_at >= b.period_start), 0) AS spent
              FROM hold h CROSS JOIN LATERAL unnest(h.budget_ids) AS x (id) JOIN budget b ON b.id = x.id
              LEFT JOIN usage_record u ON u.reference = h.reference GROUP BY 1) sums
     WHERE budget.id = sums.id
    """,
    """
    INSERT INTO usage_hour (organization_id, hour, key_id, project_id, model, backend, jobs, billed_ms,
                            cost_nano)
    SELECT organization_id, date_trunc('hour', completed_at, 'UTC'), key_id, project_id, model, backend,
           count(*), sum(billed_ms), sum(charged_nano)
      FROM job WHERE status = 'completed' GROUP BY 1, 2, 3, 4, 5, 6
    """,
    "UPDATE ledger_watch SET checked_entry_id = (SELECT max(id) FROM entry), checked_at = now()",
)


def fill_history(server: Server, dsn: str, *, jobs: int) -> None:
    """Write the history into a migrated database that has organizations with keys, but no jobs.

    Each has the credit of one grant. What it has of budgets counts all of its jobs.
    """
    uvloop.run(_fill(server.superuser(dsn), jobs))


async def _fill(dsn: str, jobs: int) -> None:
    async with asyncpg.create_pool(dsn, min_size=AT_ONCE, max_size=AT_ONCE, setup=_hurry) as pool:
        async with pool.acquire() as conn:
            indexes = await _drop_indexes(conn)
            await conn.execute(_PLAN.replace("$1", str(jobs)).replace("$2", str(HISTORIES)))
            await conn.execute("ANALYZE fill")
        documents = list(map(_json, (_request(), _result(), _FAILED, _CANCELED)))
        bounds = [jobs * n // PIECES for n in range(PIECES + 1)]
        await _side_by_side(pool, [(_JOBS, *documents, *bound) for bound in pairwise(bounds)])
        await _side_by_side(pool, [("DROP TABLE fill",), ("ANALYZE job",)])
        await _side_by_side(pool, [(statement,) for statement in _MONEY])
        await _side_by_side(pool, [(statement,) for statement in indexes])
        for statement in _BALANCES:
            await pool.execute(statement)
        await _side_by_side(pool, [(f"VACUUM ANALYZE {table}",) for table in (*TABLES, "account")])
        await pool.execute("CHECKPOINT")


async def _hurry(conn: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
    """Foreign keys are not asked row by row: the rows come from the tables that they refer to."""
    await conn.execute("SET session_replication_role = replica; SET synchronous_commit = off")
    await conn.execute("SET work_mem = '256MB'; SET maintenance_work_mem = '512MB'")
    await conn.execute("SET max_parallel_maintenance_workers = 0; SET max_parallel_workers_per_gather = 0")


async def _side_by_side(pool: "asyncpg.Pool[asyncpg.Record]", statements: Sequence[tuple[Any, ...]]) -> None:
    """Run statements with their arguments, as many at once as the pool has connections."""
    await asyncio.gather(*(pool.execute(*statement) for statement in statements))


async def _drop_indexes(conn: billing.Connection) -> list[str]:
    """Made again at the end, which takes a third of the time that keeping them takes.

    All but those that foreign keys refer to; returns the statements that make them.
    """
    constraints = await conn.fetch(
        """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint c
         WHERE conrelid = ANY($1::regclass[]) AND contype IN ('p', 'u')
           AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = c.conindid)
        """,
        TABLES,
    )
    for table, name, _ in constraints:
        await conn.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    indexes = await conn.fetch(
        """
        SELECT i.indexname, i.indexdef FROM pg_indexes i
         WHERE i.schemaname = 'public' AND i.tablename = ANY($1)
           AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conname = i.indexname)
        """,
        TABLES,
    )
    for name, _ in indexes:
        await conn.execute(f"DROP INDEX {name}")
    added = [f"ALTER TABLE {table} ADD CONSTRAINT {name} {text}" for table, name, text in constraints]
    return [*added, *(text for _, text in indexes)]


_FAILED: Final = JobError(code=JobErrorCode.QUALITY_FAILED, message="quality control: the song is silent")
_CANCELED: Final = JobError(
    code=JobErrorCode.JOB_CANCELLED, message="the job was cancelled; nothing was charged"
)


def _request() -> GenerationRequest:
    prompt = "lo-fi house with soft piano, vinyl crackle and a walking bass, number @n"
    return GenerationRequest(prompt=prompt, frames=1, seed=1, format=AudioFormat.MP3)


def _result() -> JobResult:
    track = Track(
        key="@folder/1/0.mp3",
        master_key="@folder/1/0.master.flac",
        format="mp3",
        content_type="audio/mpeg",
        frames=1,
        master_sample_rate=48_000,
        sample_rate=48_000,
        channels=2,
        size_bytes=2,
        sha256="@sha",
        seed=1,
        file_name="lo-fi-house-with-soft-piano.mp3",
    )
    return JobResult(tracks=(track,), deterministic=True)


def _json(value: msgspec.Struct) -> str:
    """The product's own encoding; the numbers that differ from job to job become marks for SQL."""
    text = msgspec.json.encode(value).decode()
    return text.replace('"frames":1', '"frames":@frames').replace('"size_bytes":2', '"size_bytes":@size')
