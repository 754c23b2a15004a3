"""What must agree between jobs and the ledger, checked beside the books: everything, or what is recent.

As in `billing.verify`, what a check looks at stands in braces.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import msgspec
import structlog

import billing
from gateway.config_watch import bump_revision
from gateway.ids import first_id
from gateway.jobs.retention import RETENTION

log = structlog.get_logger(__name__)

_ONE_JOB_PER_KEY: Final = "an idempotency key has one job"
_USAGE: Final = "the usage of every hour is that of its usage records"

CHECKS: Final[dict[str, str]] = {
    "a job is final exactly when its hold is closed": """
        SELECT j.id::text, 'status ' || j.status || ', hold ' || coalesce(h.state, 'none')
          FROM {jobs} j LEFT JOIN hold h ON h.reference = j.id
         WHERE NOT j.test AND h.state IS DISTINCT FROM
               CASE j.status WHEN 'completed' THEN 'settled' WHEN 'failed' THEN 'released'
                             WHEN 'canceled' THEN 'released' ELSE 'open' END
    """,
    "a hold belongs to a job of the same organization and amount": """
        SELECT h.reference::text, 'hold ' || h.amount_nano || ', job ' || coalesce(j.held_nano::text, 'none')
          FROM {holds} h LEFT JOIN job j ON j.id = h.reference
         WHERE j.id IS NULL OR j.organization_id <> h.account_id OR j.held_nano <> h.amount_nano
            OR j.price_version_id <> h.price_version_id OR j.test
    """,
    "a completed job shows the charge of its usage record": """
        SELECT j.id::text, 'job ' || j.charged_nano || ', usage ' || coalesce(u.cost_nano::text, 'none')
          FROM {jobs} j LEFT JOIN usage_record u ON u.reference = j.id
         WHERE j.status = 'completed' AND NOT j.test
           AND (u.cost_nano, u.billed_ms) IS DISTINCT FROM (j.charged_nano, j.billed_ms)
    """,
    "a completed job has exactly one successful attempt, its last": """
        SELECT j.id::text, count(*) FILTER (WHERE a.state = 'done') || ' done'
          FROM {jobs} j LEFT JOIN attempt a ON a.job_id = j.id
         WHERE j.status = 'completed'
         GROUP BY j.id, j.attempts
        HAVING count(*) FILTER (WHERE a.state = 'done') <> 1
            OR max(a.n) FILTER (WHERE a.state = 'done') <> j.attempts
    """,
    "a key meter counts its unfinished jobs": """
        SELECT m.key_id::text, 'says ' || m.open_jobs || ', are ' || coalesce(j.total, 0)
          FROM key_meter m
          LEFT JOIN (SELECT key_id, count(*) AS total FROM job
                      WHERE status IN ('queued', 'processing') GROUP BY 1) j ON j.key_id = m.key_id
         WHERE m.open_jobs <> coalesce(j.total, 0)
    """,
    _ONE_JOB_PER_KEY: """
        SELECT 'uq_job_idempotency_key', 'the index is missing or not valid'
         WHERE NOT EXISTS (SELECT FROM pg_index
                            WHERE indexrelid = to_regclass('uq_job_idempotency_key')
                              AND indrelid = 'job'::regclass
                              AND indisunique AND indisvalid AND indisready AND indnullsnotdistinct)
    """,
    _USAGE: """
        SELECT coalesce(h.organization_id, u.organization_id)::text, coalesce(h.hour, u.hour) || ': '
               || coalesce(h.jobs, 0) || ' jobs for ' || coalesce(h.cost_nano, 0) || ', are '
               || coalesce(u.jobs, 0) || ' for ' || coalesce(u.cost_nano, 0)
          FROM usage_hour h
          FULL JOIN (SELECT j.organization_id, date_trunc('hour', u.created_at, 'UTC') AS hour, j.key_id,
                            j.project_id, j.model, coalesce(j.backend, 'none') AS backend, count(*) AS jobs,
                            sum(u.billed_ms) AS billed_ms, sum(u.cost_nano) AS cost_nano
                       FROM usage_record u JOIN job j ON j.id = u.reference
                      GROUP BY 1, 2, 3, 4, 5, 6) u
            ON u.organization_id = h.organization_id AND u.hour = h.hour AND u.key_id = h.key_id
           AND coalesce(u.project_id, u.key_id) = coalesce(h.project_id, h.key_id)
           AND u.model = h.model AND u.backend = h.backend
         WHERE (h.jobs, h.billed_ms, h.cost_nano) IS DISTINCT FROM (u.jobs, u.billed_ms, u.cost_nano)
    """,
}
_DUPLICATES: Final = """
    UNION ALL
    SELECT min(id::text), idempotency_key || ' has ' || count(*) || ' jobs' FROM job
     WHERE idempotency_key IS NOT NULL
     GROUP BY organization_id, project_id, test, idempotency_key HAVING count(*) > 1
"""
"""In case that the index is there, but was made by another version of the system's sorting rules."""
LEFT_TO_VERIFY: Final = frozenset({_USAGE})
"""A report and no money, and an hour has too many jobs to be added up every minute."""


_ENDED: Final = "SELECT id FROM job WHERE audio_deleted_at IS NULL AND expires_at > '{expires_after}'"
"""Every end notes when the audio expires, and that is what the index of ends is about."""
_RECENT: Final = {
    "ended": _ENDED,
    "jobs": f"""
        (SELECT * FROM job WHERE status IN ('queued', 'processing') UNION ALL
         SELECT * FROM job WHERE completed_at IS NOT NULL AND id IN ({_ENDED}))
    """,  # noqa: S608 - constants
    "holds": f"""
        (SELECT * FROM hold WHERE state = 'open' UNION ALL
         SELECT * FROM hold WHERE state <> 'open' AND reference IN (
                {_ENDED} UNION SELECT reference FROM hold WHERE reference >= '{{first_id}}'))
    """,  # noqa: S608 - constants
}
"""Jobs that have ended lately and all that have not; holds that are open, new, or of such jobs.

Ids begin with the time of their creation.
"""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of everything found, and what followed."""

    violations: list[billing.Violation]
    entries: int
    lifted: bool = False
    """New holds were stopped, and are not any more."""
    halted: bool = False
    """New holds are stopped."""


async def prove(conn: billing.Connection) -> Proof:
    """Check everything; what is found stops new holds, and nothing found lets them go on.

    A halt is not lifted if something was found after this check began: it has not seen that.
    """
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        seen = await billing.read_findings(conn)
        violations, entries = await _verify(conn)
    async with conn.transaction():
        if violations:
            await billing.note_violations(conn, violations)
        lifted = not violations and seen.since is not None and await billing.lift_halt(conn, seen)
        halted = await billing.read_halt(conn) is not None
        if halted or lifted:
            await bump_revision(conn)
    return Proof(violations=violations, entries=entries, lifted=lifted, halted=halted)


async def verify_ledger(conn: billing.Connection) -> tuple[list[billing.Violation], int]:
    """Every violation of the books and of their agreement with the jobs, and the number of entries.

    One read-only snapshot, so that work going on beside it is no violation.
    """
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        return await _verify(conn)


async def check_recent(
    conn: billing.Connection, watch: billing.LedgerWatch, *, every: timedelta = billing.CHECK_EVERY
) -> list[billing.Violation] | None:
    """Check what was written since the last such check, by whichever process; a violation stops new holds.

    None: it is not due yet, or another process does it now.
    """
    found: list[billing.Violation] = []
    while True:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            window = await watch.open_window(conn, every=every)
            if window is None:
                return None
            scope = _recent(window)
            violations = await watch.check(conn, window, ended=scope["ended"])
            checks = {name: query for name, query in _checks_of(scope).items() if name not in LEFT_TO_VERIFY}
            violations += await billing.run_checks(conn, checks)
        await _note(conn, window, violations)
        found += violations
        if not window.is_behind:
            return found


async def _verify(conn: billing.Connection) -> tuple[list[billing.Violation], int]:
    checks = _checks_of({"jobs": "job", "holds": "hold"})
    checks[_ONE_JOB_PER_KEY] += _DUPLICATES
    violations = await billing.verify(conn) + await billing.run_checks(conn, checks)
    return violations, await billing.count_entries(conn)


async def _note(
    conn: billing.Connection, window: billing.Window, violations: Sequence[billing.Violation]
) -> None:
    async with conn.transaction():
        news = await billing.note_check(conn, window, violations)
        if news:
            await bump_revision(conn)
    for violation in news:
        log.error(
            "ledger.violation",
            invariant=violation.invariant,
            subject=violation.subject,
            detail=violation.detail,
        )


def _checks_of(scope: Mapping[str, str]) -> dict[str, str]:
    return {name: query.format(**scope) for name, query in CHECKS.items()}


def _recent(window: billing.Window) -> dict[str, str]:
    """What the braces of CHECKS stand for in the window."""
    expires_after, since = (window.since + RETENTION).isoformat(), first_id(window.since)
    return {
        name: query.format(expires_after=expires_after, first_id=since) for name, query in _RECENT.items()
    }
