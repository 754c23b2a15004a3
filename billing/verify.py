"""`antiphon ledger verify`: the books recomputed from their own lines, in one snapshot.

Each check is one query that returns the offenders; an empty answer is the proof.
"""

from typing import Final

import msgspec

from billing.connection import Connection

MAX_REPORTED: Final = 20
"""Offenders named per check; their number is unbounded, the report is not."""


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One broken rule and who breaks it."""

    invariant: str
    subject: str
    detail: str


CHECKS: Final[dict[str, str]] = {
    "every transfer sums to zero": """
        SELECT t.id::text, 'sum ' || coalesce(sum(e.amount_nano), 0) || ' over ' || count(e.id) || ' entries'
          FROM transfer t LEFT JOIN entry e ON e.transfer_id = t.id
         GROUP BY t.id HAVING coalesce(sum(e.amount_nano), 0) <> 0 OR count(e.id) < 2
    """,
    "all balances sum to zero": """
        SELECT 'all accounts', 'sum ' || sum(posted_nano) FROM account HAVING sum(posted_nano) <> 0
    """,
    "a balance is the sum of its entries": """
        SELECT a.id::text, 'posted ' || a.posted_nano || ', entries ' || coalesce(e.total, 0)
          FROM account a LEFT JOIN (SELECT account_id, sum(amount_nano) AS total FROM entry GROUP BY 1) e
            ON e.account_id = a.id
         WHERE a.posted_nano <> coalesce(e.total, 0)
    """,
    "entries carry the running balance": """
        SELECT id::text, 'says ' || balance_after_nano || ', is ' || running
          FROM (SELECT id, balance_after_nano,
                       sum(amount_nano) OVER (PARTITION BY account_id ORDER BY id) AS running FROM entry) e
         WHERE balance_after_nano <> running
    """,
    "what is held is the sum of open holds": """
        SELECT a.id::text, 'held ' || a.held_nano || ', holds ' || coalesce(h.total, 0)
          FROM account a LEFT JOIN (SELECT account_id, sum(amount_nano) AS total
                                      FROM hold WHERE state = 'open' GROUP BY 1) h ON h.account_id = a.id
         WHERE a.held_nano <> coalesce(h.total, 0)
    """,
    "no customer is overdrawn": """
        SELECT id::text, 'available ' || posted_nano - held_nano + overdraft_nano
          FROM account WHERE kind = 'customer' AND posted_nano - held_nano + overdraft_nano < 0
    """,
    "a settled hold has exactly one transfer and one usage record, any other has none": """
        SELECT h.reference::text, h.state || ', transfer ' || (t.id IS NOT NULL) || ', usage '
               || (u.reference IS NOT NULL)
          FROM hold h
          LEFT JOIN transfer t ON t.kind = 'settle' AND t.reference = h.reference
          LEFT JOIN usage_record u ON u.reference = h.reference
         WHERE (h.state = 'settled') <> (t.id IS NOT NULL)
            OR (h.state = 'settled') <> (u.reference IS NOT NULL)
    """,
    "a settlement belongs to a hold": """
        SELECT t.id::text, 'reference ' || t.reference
          FROM transfer t LEFT JOIN hold h ON h.reference = t.reference
         WHERE t.kind = 'settle' AND h.reference IS NULL
    """,
    "a charge is its price times its milliseconds, at most the hold": """
        SELECT u.reference::text, 'cost ' || u.cost_nano || ', due ' || due.nano
          FROM usage_record u
          JOIN hold h ON h.reference = u.reference
          JOIN price_version p ON p.id = u.price_version_id
         CROSS JOIN LATERAL (SELECT least(h.amount_nano::numeric,
               ceil(u.billed_ms::numeric * p.nano_per_second * (1000000 - p.discount_ppm) / 1000000000))
               AS nano) due
         WHERE u.cost_nano <> due.nano OR u.price_version_id <> h.price_version_id
            OR u.account_id <> h.account_id
    """,
    "a settlement moves what its usage record says": """
        SELECT u.reference::text, 'cost ' || u.cost_nano || ', moved ' || coalesce(-e.amount_nano, 0)
          FROM usage_record u
          JOIN transfer t ON t.kind = 'settle' AND t.reference = u.reference
          LEFT JOIN entry e ON e.transfer_id = t.id AND e.account_id = u.account_id
         WHERE e.amount_nano IS DISTINCT FROM -u.cost_nano
    """,
    "a budget holds what its open holds say": """
        SELECT b.id::text, 'held ' || b.held_nano || ', holds ' || coalesce(h.total, 0)
          FROM budget b LEFT JOIN (SELECT x AS id, sum(amount_nano) AS total
                                     FROM hold, unnest(budget_ids) AS x WHERE state = 'open' GROUP BY 1) h
            ON h.id = b.id
         WHERE b.held_nano <> coalesce(h.total, 0)
    """,
    "no hold outlives its deadline by an hour": """
        SELECT reference::text, 'deadline ' || deadline_at
          FROM hold WHERE state = 'open' AND deadline_at < now() - interval '1 hour'
    """,
}


async def verify(conn: Connection) -> list[Violation]:
    """Every broken rule of the books; call it inside a REPEATABLE READ transaction."""
    return await run_checks(conn, CHECKS)


async def run_checks(conn: Connection, checks: dict[str, str]) -> list[Violation]:
    """Run queries that return (subject, detail) of offenders; at most MAX_REPORTED of each."""
    violations: list[Violation] = []
    for invariant, query in checks.items():
        rows = await conn.fetch(f"SELECT * FROM ({query}) v LIMIT {MAX_REPORTED}")  # noqa: S608 - constants
        violations += [Violation(invariant=invariant, subject=row[0], detail=row[1]) for row in rows]
    return violations


async def count_entries(conn: Connection) -> int:
    """How many entries the books have."""
    return int(await conn.fetchval("SELECT count(*) FROM entry"))
