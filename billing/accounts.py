"""Accounts: a balance, what is held of it, and what is left to reserve."""

import uuid
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final

import msgspec

from billing.connection import Connection
from billing.errors import AccountMissing

LEVELS: Final = ("fine", "low", "critical")
"""How much is left, by the two thresholds of the account; the index is what the column stores."""

_COLUMNS: Final = (
    "id, posted_nano, held_nano, overdraft_nano, owed_nano, kind = 'customer', "
    "low_nano, critical_nano, level, next_expiry_at, coalesce(next_expiry_at <= now(), false)"
)


class Account(msgspec.Struct):
    """One account's row while the caller holds its lock; amounts in nano-USD."""

    id: uuid.UUID
    posted_nano: int
    held_nano: int
    overdraft_nano: int = 0
    owed_nano: int = 0
    is_customer: bool = True
    low_nano: int = 0
    critical_nano: int = 0
    level: int = 0
    next_expiry_at: datetime | None = None
    has_lapsed: bool = False
    """Some of its credit has expired and is not booked away yet."""
    lapsed_nano: int = 0
    """How much, where `lock_accounts` was asked to look."""

    @property
    def available_nano(self) -> int:
        """What can still be reserved; never negative for a customer, nothing while something is owed."""
        return 0 if self.owed_nano > 0 else max(self.free_nano - self.lapsed_nano, 0)

    @property
    def free_nano(self) -> int:
        """What is not held, with what may be overdrawn."""
        return self.posted_nano - self.held_nano + self.overdraft_nano

    def reserve(self, amount_nano: int) -> bool:
        """Hold the amount if it is covered; False changes nothing."""
        if amount_nano > self.available_nano:
            return False
        self.held_nano += amount_nano
        return True

    @property
    def level_now(self) -> int:
        """0 fine, 1 low, 2 critical: of what is posted, because what is held comes and goes."""
        return (self.posted_nano < self.low_nano) + (self.posted_nano < self.critical_nano)


async def open_account(conn: Connection, account_id: uuid.UUID) -> None:
    """Open an empty customer account; opening it twice changes nothing."""
    await conn.execute(
        "INSERT INTO account (id, kind) VALUES ($1, 'customer') ON CONFLICT (id) DO NOTHING", account_id
    )


async def lock_accounts(conn: Connection, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Account]:
    """Lock the accounts in id order; raises AccountMissing if one was never opened."""
    wanted = set(ids)
    rows = await conn.fetch(
        f"SELECT {_COLUMNS} FROM account WHERE id = ANY($1) ORDER BY id FOR UPDATE",  # noqa: S608 - constants
        list(wanted),
    )
    accounts = {row[0]: Account(*row) for row in rows}
    if missing := wanted - accounts.keys():
        raise AccountMissing(f"no account {min(map(str, missing))}")
    if lapsed := [account for account in accounts.values() if account.has_lapsed]:
        await _look_for_lapsed(conn, lapsed)
    return accounts


async def write_accounts(conn: Connection, accounts: Collection[Account]) -> None:
    """Write back balances that were changed under lock."""
    await conn.execute(
        """
        UPDATE account SET posted_nano = t.posted, held_nano = t.held
          FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS t (id, posted, held)
         WHERE account.id = t.id
        """,
        [a.id for a in accounts],
        [a.posted_nano for a in accounts],
        [a.held_nano for a in accounts],
    )


async def read_account(conn: Connection, account_id: uuid.UUID) -> Account:
    """The balance now, without a lock; raises AccountMissing."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM account WHERE id = $1",  # noqa: S608 - constants
        account_id,
    )
    if row is None:
        raise AccountMissing(f"no account {account_id}")
    account = Account(*row)
    if account.has_lapsed:
        await _look_for_lapsed(conn, [account])
    return account


async def set_thresholds(
    conn: Connection, account_id: uuid.UUID, *, low_nano: int, critical_nano: int
) -> None:
    """Say at which balances the customer is told; raises AccountMissing.

    A lower threshold has not been told of yet. A higher one is, when the balance changes next.
    """
    status = await conn.execute(
        """
        UPDATE account SET low_nano = $2, critical_nano = $3,
                           level = least(level, (posted_nano < $2)::int + (posted_nano < $3)::int)
         WHERE id = $1
        """,
        account_id,
        low_nano,
        critical_nano,
    )
    if status == "UPDATE 0":
        raise AccountMissing(f"no account {account_id}")


async def _look_for_lapsed(conn: Connection, accounts: Collection[Account]) -> None:
    """Credit whose time is over is not for spending, although the sweep has not booked it away yet."""
    rows = await conn.fetch(
        """
        SELECT account_id, sum(remaining_nano)::bigint AS nano FROM credit_grant
         WHERE account_id = ANY($1) AND closed_at IS NULL AND expires_at <= now() GROUP BY 1
        """,
        [account.id for account in accounts],
    )
    lapsed = {row["account_id"]: row["nano"] for row in rows}
    for account in accounts:
        account.lapsed_nano = lapsed.get(account.id, 0)
