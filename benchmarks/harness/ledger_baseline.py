"""The ledger as one would write it first: a statement for each hold, another for each settlement.

Its tables have the columns, keys, indexes and checks of the real ones; each statement is as good as
single statements get: guarded update, no read before a write, accounts always in the same order.
"""

from typing import Final

import asyncpg
import uvloop

CUSTOMER: Final = "00000000-0000-0000-0000-000000000010"
REVENUE: Final = "00000000-0000-0000-0000-000000000001"
HELD_NANO: Final = 2_500_000
COST_NANO: Final = 2_375_000

_TABLES: Final = f"""
CREATE TABLE bench_account (LIKE account INCLUDING ALL);
CREATE TABLE bench_hold (LIKE hold INCLUDING ALL, FOREIGN KEY (account_id) REFERENCES bench_account,
                         FOREIGN KEY (price_version_id) REFERENCES price_version);
CREATE TABLE bench_usage (LIKE usage_record INCLUDING ALL, FOREIGN KEY (reference) REFERENCES bench_hold,
                          FOREIGN KEY (account_id) REFERENCES bench_account,
                          FOREIGN KEY (price_version_id) REFERENCES price_version);
CREATE TABLE bench_transfer (LIKE transfer INCLUDING ALL);
CREATE TABLE bench_entry (LIKE entry INCLUDING ALL, FOREIGN KEY (transfer_id) REFERENCES bench_transfer,
                          FOREIGN KEY (account_id) REFERENCES bench_account);
INSERT INTO bench_account (id, kind, posted_nano)
VALUES ('{CUSTOMER}', 'customer', 1000000000000000), ('{REVENUE}', 'revenue', -1000000000000000);
"""  # noqa: S608 - constants

LIFE: Final = f"""
WITH kept AS (
    UPDATE bench_account SET held_nano = held_nano + {HELD_NANO}
     WHERE id = '{CUSTOMER}' AND posted_nano - held_nano + overdraft_nano >= {HELD_NANO} RETURNING id
)
INSERT INTO bench_hold (reference, account_id, price_version_id, amount_nano, deadline_at)
SELECT gen_random_uuid(), kept.id, p.id, {HELD_NANO}, now() + interval '24 hours'
  FROM kept, (SELECT id FROM price_version LIMIT 1) p
RETURNING reference \\gset

WITH closed AS (
    UPDATE bench_hold SET state = 'settled', closed_at = now()
     WHERE reference = :reference AND state = 'open'
    RETURNING reference, account_id, price_version_id, amount_nano
), used AS (
    INSERT INTO bench_usage
           (reference, account_id, price_version_id, frames, sample_rate, billed_ms, cost_nano)
    SELECT reference, account_id, price_version_id, 456000, 48000, 9500, {COST_NANO} FROM closed
), paid AS (
    UPDATE bench_account a SET posted_nano = posted_nano - {COST_NANO}, held_nano = held_nano - amount_nano
      FROM closed WHERE a.id = closed.account_id RETURNING a.id, a.posted_nano
), earned AS (
    UPDATE bench_account a SET posted_nano = a.posted_nano + {COST_NANO}
      FROM paid WHERE a.id = '{REVENUE}' RETURNING a.id, a.posted_nano
), moved AS (
    INSERT INTO bench_transfer (id, kind, reference)
    SELECT gen_random_uuid(), 'settle', reference FROM closed RETURNING id
)
INSERT INTO bench_entry (transfer_id, account_id, amount_nano, balance_after_nano)
SELECT moved.id, e.id, e.amount, e.posted_nano
  FROM moved, (SELECT id, -{COST_NANO} AS amount, posted_nano FROM paid
               UNION ALL SELECT id, {COST_NANO}, posted_nano FROM earned) e;
"""  # noqa: S608 - constants
"""What pgbench runs: one job."""

_CHECKS: Final = {
    "a balance is not what it was at first and the sum of its entries": """
        SELECT a.id FROM bench_account a
          LEFT JOIN (SELECT account_id, sum(amount_nano) AS total FROM bench_entry GROUP BY 1) e
            ON e.account_id = a.id
         WHERE abs(a.posted_nano - coalesce(e.total, 0)) <> 1000000000000000 OR a.held_nano < 0
    """,
    "what is held is not the sum of open holds": """
        SELECT a.id FROM bench_account a
         WHERE a.held_nano <> (SELECT coalesce(sum(amount_nano), 0) FROM bench_hold
                                WHERE account_id = a.id AND state = 'open')
    """,
    "a settled hold has not two entries": """
        SELECT h.reference FROM bench_hold h
          LEFT JOIN bench_transfer t ON t.reference = h.reference AND t.kind = 'settle'
          LEFT JOIN bench_entry e ON e.transfer_id = t.id
         WHERE h.state = 'settled'
         GROUP BY 1 HAVING count(e.id) <> 2 OR sum(e.amount_nano) <> 0
    """,
}


def prepare(dsn: str) -> None:
    """Tables of the baseline; there must be a price."""
    uvloop.run(_prepare(dsn))


async def check(dsn: str) -> tuple[int, list[str]]:
    """How many jobs were settled, and what is wrong with their books."""
    conn = await asyncpg.connect(dsn)
    try:
        problems = [
            f"single statements: {what}" for what, query in _CHECKS.items() if await conn.fetch(query)
        ]
        return await conn.fetchval("SELECT count(*) FROM bench_transfer"), problems
    finally:
        await conn.close()


async def _prepare(dsn: str) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute(_TABLES)
    finally:
        await conn.close()
