"""Accounts: a balance, what is held of it, and what is left to reserve."""

import uuid
from collections.abc import Collection, Iterable

import msgspec

from billing.connection import Connection
from billing.errors import AccountMissing


class Account(msgspec.Struct, kw_only=True):
    """One account's row while the caller holds its lock; amounts in nano-USD."""

    id: uuid.UUID
    posted_nano: int
    held_nano: int
    overdraft_nano: int = 0

    @property
    def available_nano(self) -> int:
        """What can still be reserved; never negative for a customer."""
        return self.posted_nano - self.held_nano + self.overdraft_nano

    def reserve(self, amount_nano: int) -> bool:
        """Hold the amount if it is covered; False changes nothing."""
        if amount_nano > self.available_nano:
            return False
        self.held_nano += amount_nano
        return True


async def open_account(conn: Connection, account_id: uuid.UUID) -> None:
    """Open an empty customer account; opening it twice changes nothing."""
    await conn.execute(
        "INSERT INTO account (id, kind) VALUES ($1, 'customer') ON CONFLICT (id) DO NOTHING", account_id
    )


async def lock_accounts(conn: Connection, ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Account]:
    """Lock the accounts in id order; raises AccountMissing if one was never opened."""
    wanted = set(ids)
    rows = await conn.fetch(
        """
        SELECT id, posted_nano, held_nano, overdraft_nano
          FROM account WHERE id = ANY($1) ORDER BY id FOR UPDATE
        """,
        list(wanted),
    )
    accounts = {
        row["id"]: Account(id=row["id"], posted_nano=row[1], held_nano=row[2], overdraft_nano=row[3])
        for row in rows
    }
    if missing := wanted - accounts.keys():
        raise AccountMissing(f"no account {min(map(str, missing))}")
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
        "SELECT id, posted_nano, held_nano, overdraft_nano FROM account WHERE id = $1", account_id
    )
    if row is None:
        raise AccountMissing(f"no account {account_id}")
    return Account(id=row["id"], posted_nano=row[1], held_nano=row[2], overdraft_nano=row[3])
