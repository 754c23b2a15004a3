"""`antiphon ledger verify`: the books recomputed from their own lines, in one snapshot.

Each check is one query that returns the offenders; an empty answer is the proof. What it looks at stands
in braces: all rows here, and in `billing.watch` those that were written since the last look.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from billing import shapes
from billing.connection import Connection
from billing.models import APPEND_ONLY, RECEIVABLE, REVENUE, VARIANCE

MAX_REPORTED: Final = 20
"""Offenders named per check; their number is unbounded, the report is not."""
WORK_MEMORY: Final = "64MB"
"""For sorting and hashing; one check runs at a time."""
GUARDS: Final = (
    "ck_account_covered",
    "ck_account_not_negative",
    "ck_credit_grant_remaining",
    "pk_hold",
    "pk_usage_record",
    "uq_credit_grant_transfer_id",
    "uq_entry_transfer_id_account_id",
    "uq_transfer_kind_external_ref",
    "uq_transfer_kind_reference",
)
"""Constraints without which the same thing could be done twice, or more than there is."""
ROLL_SLACK: Final = "interval '2 minutes'"
"""Of two settlements that meet at midnight the earlier one may be counted in the period of the later."""
SPENT: Final = "a budget has spent what was charged under it in this period"
POSTED: Final = "a balance is the sum of its entries"


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One broken rule and who breaks it."""

    invariant: str
    subject: str
    detail: str


CONSTANTS: Final[Mapping[str, str]] = {
    **shapes.SQL,
    "revenue": f"'{REVENUE}'::uuid",
    "variance": f"'{VARIANCE}'::uuid",
    "receivable": f"'{RECEIVABLE}'::uuid",
    "due": "ceil(u.billed_ms::numeric * p.nano_per_second * (1000000 - p.discount_ppm) / 1000000000)",
    "guards": shapes.words(GUARDS),
    "append_only": shapes.words(APPEND_ONLY),
    "roll_slack": ROLL_SLACK,
}
EVERYTHING: Final[Mapping[str, str]] = {
    "entries": "entry",
    "legs": "entry",
    "transfers": "transfer",
    "usage": "usage_record",
    "holds": "hold",
    "grants": "credit_grant",
    "watched_since": "'-infinity'::timestamptz",
}
"""What the other braces stand for when everything is looked at."""

CHECKS: Final[dict[str, str]] = {
    "every transfer sums to zero": """
        SELECT t.id::text, 'sum ' || coalesce(e.total, 0) || ' over ' || coalesce(e.legs, 0) || ' entries'
          FROM {transfers} t
          LEFT JOIN (SELECT transfer_id, sum(amount_nano) AS total, count(*) AS legs
                       FROM {legs} e GROUP BY 1) e ON e.transfer_id = t.id
         WHERE coalesce(e.total, 0) <> 0 OR coalesce(e.legs, 0) < 2
    """,
    "a transfer moves what its kind may move": """
        SELECT t.id::text, t.kind || ': ' || coalesce(
                 (SELECT string_agg(a.kind || ' ' || e.amount_nano, ', ' ORDER BY a.kind)
                    FROM entry e JOIN account a ON a.id = e.account_id WHERE e.transfer_id = t.id), 'nothing')
          FROM {transfers} t
          LEFT JOIN (SELECT e.transfer_id, count(*) AS legs, count(e.kind) AS named,
                            min(e.kind) AS first, max(e.kind) AS last,
                            bit_or(1 << (k.base + 1 + (e.amount_nano > 0)::int - (e.amount_nano < 0)::int))
                              AS mask
                       FROM {legs} e
                       JOIN (SELECT a.id, k.base FROM account a
                               JOIN (VALUES {account_bits}) k (kind, base) ON k.kind = a.kind) k
                         ON k.id = e.account_id
                      GROUP BY 1) e ON e.transfer_id = t.id
          LEFT JOIN (VALUES {shape_rows}) s (kind, mask, legs)
            ON s.kind = t.kind AND s.mask = e.mask AND s.legs = e.legs
         WHERE s.kind IS NULL
            OR t.kind IN ({names_a_job}) AND t.reference IS NULL
            OR t.kind IN ({names_an_object}) AND t.external_ref IS NULL
            OR e.named <> CASE WHEN t.kind IN ({per_job}) THEN 0 ELSE e.legs END
            OR e.first <> t.kind OR e.last <> t.kind
    """,
    "all balances sum to zero": """
        SELECT 'all accounts', 'sum ' || sum(posted_nano) FROM account HAVING sum(posted_nano) <> 0
    """,
    POSTED: """
        SELECT a.id::text, 'posted ' || a.posted_nano || ', entries ' || coalesce(e.total, 0)
          FROM account a LEFT JOIN (SELECT account_id, sum(amount_nano) AS total FROM entry GROUP BY 1) e
            ON e.account_id = a.id
         WHERE a.posted_nano <> coalesce(e.total, 0)
    """,
    "an entry carries the balance after it": """
        SELECT id::text, 'says ' || balance_after_nano || ', is ' || amount_nano + before
          FROM (SELECT e.id, e.amount_nano, e.balance_after_nano, coalesce(e.earlier,
                       (SELECT p.balance_after_nano FROM entry p
                         WHERE p.account_id = e.account_id AND p.id < e.id ORDER BY p.id DESC LIMIT 1), 0)
                       AS before
                  FROM (SELECT *, lag(balance_after_nano) OVER (PARTITION BY account_id ORDER BY id)
                               AS earlier FROM {entries} e) e) e
         WHERE balance_after_nano <> amount_nano + before
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
    "what is left of a customer's grants is the balance": """
        SELECT a.id::text, 'posted ' || a.posted_nano || ', left ' || coalesce(g.total, 0)
          FROM account a LEFT JOIN (SELECT account_id, sum(remaining_nano) AS total
                                      FROM credit_grant WHERE closed_at IS NULL GROUP BY 1) g
            ON g.account_id = a.id
         WHERE coalesce(g.total, 0) <> CASE a.kind WHEN 'customer' THEN greatest(a.posted_nano, 0) ELSE 0 END
    """,
    "an account knows when its credit expires": """
        SELECT a.id::text, 'says ' || coalesce(a.next_expiry_at::text, 'never') || ', is '
               || coalesce(g.next::text, 'never')
          FROM account a LEFT JOIN (SELECT account_id, min(expires_at) AS next
                                      FROM credit_grant WHERE closed_at IS NULL GROUP BY 1) g
            ON g.account_id = a.id
         WHERE a.next_expiry_at IS DISTINCT FROM g.next
    """,
    "a grant is what its transfer added": """
        SELECT e.transfer_id::text, 'added ' || e.amount_nano || ', grant ' || coalesce(g.amount_nano, 0)
          FROM {entries} e
          JOIN account a ON a.id = e.account_id AND a.kind = 'customer'
          LEFT JOIN credit_grant g ON g.transfer_id = e.transfer_id AND g.account_id = e.account_id
         WHERE e.amount_nano > 0 AND g.amount_nano IS DISTINCT FROM e.amount_nano
        UNION ALL
        SELECT g.transfer_id::text, g.kind || ' grant ' || g.amount_nano || ', '
               || coalesce(t.kind, 'no transfer') || ' added ' || coalesce(e.amount_nano, 0)
          FROM {grants} g
          LEFT JOIN entry e ON e.transfer_id = g.transfer_id AND e.account_id = g.account_id
          LEFT JOIN transfer t ON t.id = g.transfer_id
         WHERE e.amount_nano IS DISTINCT FROM g.amount_nano
            OR g.remaining_nano NOT BETWEEN 0 AND g.amount_nano
            OR NOT EXISTS (SELECT FROM (VALUES {grant_rows}) s (kind, source)
                            WHERE s.kind = g.kind AND s.source = t.kind)
    """,
    "what is owed is the receivable": """
        SELECT 'all accounts', 'owed ' || sum(owed_nano) || ', receivable '
               || coalesce(-sum(posted_nano) FILTER (WHERE id = {receivable}), 0)
          FROM account
        HAVING sum(owed_nano) <> coalesce(-sum(posted_nano) FILTER (WHERE id = {receivable}), 0)
    """,
    "a settled hold has exactly one transfer and one usage record, any other has none": """
        SELECT h.reference::text, h.state || ', transfer ' || (t.id IS NOT NULL) || ', usage '
               || (u.reference IS NOT NULL)
          FROM {holds} h
          LEFT JOIN transfer t ON t.kind = 'settle' AND t.reference = h.reference
          LEFT JOIN usage_record u ON u.reference = h.reference
         WHERE (h.state = 'settled') <> (t.id IS NOT NULL)
            OR (h.state = 'settled') <> (u.reference IS NOT NULL)
    """,
    "a settlement belongs to a hold": """
        SELECT t.id::text, 'reference ' || t.reference
          FROM {transfers} t LEFT JOIN hold h ON h.reference = t.reference
         WHERE t.kind = 'settle' AND h.reference IS NULL
    """,
    "a charge is its price times its milliseconds, at most the hold": """
        SELECT u.reference::text, 'cost ' || u.cost_nano || ', due ' || due.nano
          FROM {usage} u
          JOIN hold h ON h.reference = u.reference
          JOIN price_version p ON p.id = u.price_version_id
         CROSS JOIN LATERAL (SELECT least(h.amount_nano::numeric, {due}) AS nano) due
         WHERE u.cost_nano <> due.nano OR u.price_version_id <> h.price_version_id
            OR u.account_id <> h.account_id
    """,
    "a settlement moves what its usage record says": """
        SELECT u.reference::text, 'cost ' || u.cost_nano || ', moved ' || coalesce(-c.amount_nano, 0)
               || ', due ' || due.nano || ', earned ' || coalesce(r.amount_nano, 0)
               || ', over ' || coalesce(-v.amount_nano, 0)
          FROM {usage} u
          JOIN price_version p ON p.id = u.price_version_id
          JOIN transfer t ON t.kind = 'settle' AND t.reference = u.reference
          LEFT JOIN entry c ON c.transfer_id = t.id AND c.account_id = u.account_id
          LEFT JOIN entry r ON r.transfer_id = t.id AND r.account_id = {revenue}
          LEFT JOIN entry v ON v.transfer_id = t.id AND v.account_id = {variance}
         CROSS JOIN LATERAL (SELECT {due} AS nano) due
         WHERE c.amount_nano IS DISTINCT FROM -u.cost_nano OR r.amount_nano IS DISTINCT FROM due.nano
            OR coalesce(-v.amount_nano, 0) <> due.nano - u.cost_nano
    """,
    "a charge is given back once, and no more than it was": """
        SELECT r.reference::text, 'charged ' || coalesce(u.cost_nano, 0) || ', given back '
               || coalesce(sum(e.amount_nano), 0) || ' in ' || count(*)
          FROM (SELECT DISTINCT t.reference FROM {transfers} t WHERE t.kind = 'usage_refund') r
          JOIN transfer t ON t.kind = 'usage_refund' AND t.reference = r.reference
          LEFT JOIN usage_record u ON u.reference = t.reference
          LEFT JOIN entry e ON e.transfer_id = t.id AND e.account_id = u.account_id
         GROUP BY r.reference, u.cost_nano
        HAVING count(*) <> 1 OR coalesce(sum(e.amount_nano) NOT BETWEEN 1 AND u.cost_nano, true)
    """,
    "a budget holds what its open holds say": """
        SELECT b.id::text, 'held ' || b.held_nano || ', holds ' || coalesce(h.total, 0)
          FROM budget b LEFT JOIN (SELECT x AS id, sum(amount_nano) AS total
                                     FROM hold, unnest(budget_ids) AS x WHERE state = 'open' GROUP BY 1) h
            ON h.id = b.id
         WHERE b.held_nano <> coalesce(h.total, 0)
    """,
    SPENT: """
        SELECT b.id::text, 'spent ' || b.spent_nano || ', charged ' || coalesce(c.sure, 0)
               || CASE WHEN c.late > 0 THEN ' to ' || c.sure + c.late ELSE '' END
          FROM budget b
          LEFT JOIN (SELECT b.id, coalesce(sum(u.cost_nano) FILTER (WHERE u.created_at >= b.period_start), 0)
                            AS sure,
                            coalesce(sum(u.cost_nano) FILTER (WHERE u.created_at < b.period_start), 0) AS late
                       FROM hold h
                      CROSS JOIN LATERAL unnest(h.budget_ids) AS x (id)
                       JOIN budget b ON b.id = x.id
                       JOIN usage_record u ON u.reference = h.reference
                      WHERE h.budget_ids <> '{{}}' AND u.created_at >= b.period_start - {roll_slack}
                      GROUP BY 1) c ON c.id = b.id
         WHERE b.spent_nano NOT BETWEEN coalesce(c.sure, 0) AND coalesce(c.sure + c.late, 0)
    """,
    "no hold outlives its deadline by an hour": """
        SELECT reference::text, 'deadline ' || deadline_at
          FROM hold
         WHERE state = 'open' AND greatest(deadline_at, {watched_since}) < now() - interval '1 hour'
    """,
    "what guards the books is in force": """
        SELECT g.name, 'missing or not valid'
          FROM unnest(ARRAY[{guards}]) AS g (name)
         WHERE NOT EXISTS (SELECT FROM pg_constraint c LEFT JOIN pg_index i ON i.indexrelid = c.conindid
                            WHERE c.conname = g.name AND c.convalidated
                              AND c.connamespace = (SELECT relnamespace FROM pg_class
                                                     WHERE oid = 'transfer'::regclass)
                              AND coalesce(i.indisvalid AND i.indisready, true))
        UNION ALL
        SELECT t.name || '.append_only', 'the trigger is missing or asleep'
          FROM unnest(ARRAY[{append_only}]) AS t (name)
         WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = t.name::regclass
                              AND tgname = 'append_only' AND tgenabled IN ('O', 'A'))
    """,
}


def checks_of(scope: Mapping[str, str]) -> dict[str, str]:
    """The queries for what the scope names."""
    return {name: query.format(**CONSTANTS, **scope) for name, query in CHECKS.items()}


async def verify(conn: Connection) -> list[Violation]:
    """Every broken rule of the books; call it inside a REPEATABLE READ transaction."""
    return await run_checks(conn, checks_of(EVERYTHING))


async def run_checks(conn: Connection, checks: Mapping[str, str]) -> list[Violation]:
    """Run queries that return (subject, detail) of offenders; at most MAX_REPORTED of each."""
    await conn.execute("SELECT set_config('work_mem', $1, true)", WORK_MEMORY)
    violations: list[Violation] = []
    for invariant, query in checks.items():
        # Materialized: a plan that finds the first offenders soon takes long where there are none.
        rows = await conn.fetch(
            f"WITH v AS MATERIALIZED ({query}) SELECT * FROM v LIMIT {MAX_REPORTED}"  # noqa: S608 - constants
        )
        violations += [Violation(invariant=invariant, subject=row[0], detail=row[1]) for row in rows]
    return violations


async def count_entries(conn: Connection) -> int:
    """How many entries the books have."""
    return int(await conn.fetchval("SELECT count(*) FROM entry"))
