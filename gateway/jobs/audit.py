"""What must agree between jobs and the ledger: `antiphon ledger verify` checks it beside the books."""

from typing import Final

import asyncpg

import billing

CHECKS: Final[dict[str, str]] = {
    "a job is final exactly when its hold is closed": """
        SELECT j.id::text, 'status ' || j.status || ', hold ' || coalesce(h.state, 'none')
          FROM job j LEFT JOIN hold h ON h.reference = j.id
         WHERE NOT j.test AND h.state IS DISTINCT FROM
               CASE j.status WHEN 'completed' THEN 'settled' WHEN 'failed' THEN 'released'
                             WHEN 'canceled' THEN 'released' ELSE 'open' END
    """,
    "a hold belongs to a job of the same organization and amount": """
        SELECT h.reference::text, 'hold ' || h.amount_nano || ', job ' || coalesce(j.held_nano::text, 'none')
          FROM hold h LEFT JOIN job j ON j.id = h.reference
         WHERE j.id IS NULL OR j.organization_id <> h.account_id OR j.held_nano <> h.amount_nano
            OR j.price_version_id <> h.price_version_id OR j.test
    """,
    "a completed job shows the charge of its usage record": """
        SELECT j.id::text, 'job ' || j.charged_nano || ', usage ' || coalesce(u.cost_nano::text, 'none')
          FROM job j LEFT JOIN usage_record u ON u.reference = j.id
         WHERE j.status = 'completed' AND NOT j.test
           AND (u.cost_nano, u.billed_ms) IS DISTINCT FROM (j.charged_nano, j.billed_ms)
    """,
    "a completed job has exactly one successful attempt, its last": """
        SELECT j.id::text, count(*) FILTER (WHERE a.state = 'done') || ' done'
          FROM job j LEFT JOIN attempt a ON a.job_id = j.id
         WHERE j.status = 'completed'
         GROUP BY j.id, j.attempts
        HAVING count(*) FILTER (WHERE a.state = 'done') <> 1
            OR max(a.n) FILTER (WHERE a.state = 'done') <> j.attempts
    """,
    "a key meter counts its unfinished jobs": """
        SELECT m.key_id::text, 'says ' || m.open_jobs || ', are ' || count(j.id)
          FROM key_meter m LEFT JOIN job j ON j.key_id = m.key_id AND j.completed_at IS NULL
         GROUP BY m.key_id, m.open_jobs HAVING m.open_jobs <> count(j.id)
    """,
}


async def verify_ledger(conn: "asyncpg.Connection[asyncpg.Record]") -> tuple[list[billing.Violation], int]:
    """Every violation of the books and of their agreement with the jobs, and the number of entries.

    One read-only snapshot, so that work going on beside it is no violation.
    """
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        violations = await billing.verify(conn) + await billing.run_checks(conn, CHECKS)
        return violations, await billing.count_entries(conn)
