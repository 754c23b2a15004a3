"""Grants: where a balance comes from. What is spent is taken from what expires first.

The lock of the account is the lock of its grants. Over the open grants of a customer, what is left
sums to what is posted (to zero while an overdraft is in use).
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final

import msgspec

from billing.accounts import Account, lock_accounts
from billing.connection import Connection
from billing.errors import LedgerConflict
from billing.models import BREAKAGE, PROMO_EXPENSE, REVENUE
from billing.postings import Posting, post

GRANT_KINDS: Final = ("promotional", "refund", "paid")
"""In the order in which grants that expire together are spent: what was paid for goes last."""

SWEEP: Final = 200
"""Accounts whose expired credit is booked away in one transaction."""


class Grant(msgspec.Struct):
    """What is left of one grant, while the caller holds the lock of its account."""

    id: uuid.UUID
    account_id: uuid.UUID
    kind: str
    transfer_id: uuid.UUID
    remaining_nano: int
    expires_at: datetime | None
    has_lapsed: bool


async def grant(
    conn: Connection,
    *,
    account_id: uuid.UUID,
    amount_nano: int,
    reason: str,
    expires_at: datetime | None = None,
    external_ref: str | None = None,
) -> Account:
    """Give credit that nobody paid for; returns the account after it. The amount is positive."""
    if amount_nano <= 0:
        raise LedgerConflict("a grant is a positive amount")
    accounts = await lock_accounts(conn, {account_id, PROMO_EXPENSE})
    posting = Posting(
        kind="grant",
        external_ref=external_ref,
        reason=reason,
        legs=((account_id, amount_nano), (PROMO_EXPENSE, -amount_nano)),
    )
    await add(conn, posting, accounts, account_id, kind="promotional", expires_at=expires_at)
    return accounts[account_id]


async def refund_usage(conn: Connection, *, reference: uuid.UUID, reason: str) -> Account:
    """Give back, as credit, what a delivery was charged; once.

    Raises LedgerConflict if nothing was charged for it, or if it was given back already.
    """
    usage = await conn.fetchrow(
        "SELECT account_id, cost_nano FROM usage_record WHERE reference = $1", reference
    )
    if usage is None or usage["cost_nano"] == 0:
        raise LedgerConflict("nothing was charged for this job")
    account_id, cost = usage
    accounts = await lock_accounts(conn, {account_id, REVENUE})
    if await conn.fetchval(
        "SELECT true FROM transfer WHERE kind = 'usage_refund' AND reference = $1", reference
    ):
        raise LedgerConflict("what this job cost was given back already")
    posting = Posting(
        kind="usage_refund", reference=reference, reason=reason, legs=((account_id, cost), (REVENUE, -cost))
    )
    await add(conn, posting, accounts, account_id, kind="refund")
    return accounts[account_id]


async def expire_due(conn: Connection) -> int:
    """Book away credit whose time is over, except what is held; returns how many accounts lost some.

    What running jobs hold stays until they end: the money was good when it was held. Call it again
    while it returns something: at most SWEEP accounts are done at once.
    """
    due = await conn.fetch(
        """
        SELECT id FROM account WHERE next_expiry_at <= now() AND posted_nano > held_nano
         ORDER BY next_expiry_at LIMIT $1
        """,
        SWEEP,
    )
    if not due:
        return 0
    accounts = await lock_accounts(conn, {BREAKAGE, *(row["id"] for row in due)})
    grants = await read_grants(conn, accounts)
    postings, changed = [], []
    for account in (a for a in accounts.values() if a.is_customer):
        lapsed = [g for g in grants.get(account.id, ()) if g.has_lapsed]
        amount = min(sum(g.remaining_nano for g in lapsed), max(account.posted_nano - account.held_nano, 0))
        if amount > 0:
            changed += drain(lapsed, amount)
            postings.append(Posting(kind="expiry", legs=((account.id, -amount), (BREAKAGE, amount))))
    if postings:
        await post(conn, postings, accounts)
    await write_grants(conn, changed)
    await refresh_expiry(conn, accounts)
    return len(postings)


async def add(
    conn: Connection,
    posting: Posting,
    accounts: dict[uuid.UUID, Account],
    account_id: uuid.UUID,
    *,
    kind: str,
    expires_at: datetime | None = None,
) -> None:
    """Post a transfer that adds to an account, and open the grant of what it added.

    Its time is that of the moment under the lock: of two in one transaction one is older.
    """
    amount = sum(nano for leg_account, nano in posting.legs if leg_account == account_id)
    overdrawn = max(-accounts[account_id].posted_nano, 0)
    await post(conn, [posting], accounts)
    if amount == 0:
        return
    left = max(amount - overdrawn, 0)
    await conn.execute(
        """
        INSERT INTO credit_grant (id, account_id, transfer_id, kind, amount_nano, remaining_nano, expires_at,
                                  closed_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, CASE WHEN $6::bigint = 0 THEN now() END, clock_timestamp())
        """,
        uuid.uuid4(),
        account_id,
        posting.id,
        kind,
        amount,
        left,
        expires_at,
    )
    if expires_at is not None:
        await refresh_expiry(conn, [account_id])


async def read_grants(conn: Connection, account_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, list[Grant]]:
    """The open grants of locked accounts, in the order in which they are spent.

    What has lapsed goes last, only for holds that nothing else covers: so it makes no difference whether
    the sweep books it away before a job ends or after.
    """
    rows = await conn.fetch(
        """
        SELECT id, account_id, kind, transfer_id, remaining_nano, expires_at,
               coalesce(expires_at <= now(), false)
          FROM credit_grant WHERE account_id = ANY($1) AND closed_at IS NULL
         ORDER BY coalesce(expires_at <= now(), false), expires_at NULLS LAST,
                  array_position($2::text[], kind), created_at, id
        """,
        list(account_ids),
        GRANT_KINDS,
    )
    grants: dict[uuid.UUID, list[Grant]] = {}
    for row in rows:
        grants.setdefault(row["account_id"], []).append(Grant(*row))
    return grants


def drain(grants: Sequence[Grant], amount_nano: int) -> list[Grant]:
    """Take the amount from the grants in their order; returns those that changed.

    More than there is drains them all: the rest is overdraft.
    """
    changed = []
    for one in grants:
        if amount_nano == 0:
            break
        taken = min(one.remaining_nano, amount_nano)
        if taken:
            one.remaining_nano -= taken
            amount_nano -= taken
            changed.append(one)
    return changed


async def write_grants(conn: Connection, changed: Collection[Grant]) -> None:
    """Write back what is left of grants that were drained."""
    if not changed:
        return
    left = {one.id: one.remaining_nano for one in changed}
    await conn.execute(
        """
        UPDATE credit_grant SET remaining_nano = t.nano, closed_at = CASE WHEN t.nano = 0 THEN now() END
          FROM unnest($1::uuid[], $2::bigint[]) AS t (id, nano)
         WHERE credit_grant.id = t.id
        """,
        list(left),
        list(left.values()),
    )
    if ended := {one.account_id for one in changed if one.remaining_nano == 0 and one.expires_at is not None}:
        await refresh_expiry(conn, ended)


async def refresh_expiry(conn: Connection, account_ids: Iterable[uuid.UUID]) -> None:
    """Note on locked accounts when credit of theirs expires next."""
    await conn.execute(
        """
        UPDATE account SET next_expiry_at = t.next
          FROM (SELECT a AS id, (SELECT min(expires_at) FROM credit_grant
                                  WHERE account_id = a AND closed_at IS NULL) AS next
                  FROM unnest($1::uuid[]) AS a) t
         WHERE account.id = t.id AND account.next_expiry_at IS DISTINCT FROM t.next
        """,
        list(account_ids),
    )
