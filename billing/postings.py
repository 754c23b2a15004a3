"""Double entry: transfers whose legs sum to zero, and the balances that they move."""

import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from billing import notices
from billing.accounts import LEVELS, Account, write_accounts
from billing.connection import Connection
from billing.errors import LedgerConflict
from billing.models import PER_JOB_KINDS
from billing.money import format_usd

_BIGINT: Final = 2**63


class Posting(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer and its legs (account, amount in nano); the amounts sum to zero."""

    kind: str
    legs: tuple[tuple[uuid.UUID, int], ...]
    reference: uuid.UUID | None = None
    external_ref: str | None = None
    reason: str | None = None
    id: uuid.UUID = msgspec.field(default_factory=uuid.uuid4)


async def post(conn: Connection, postings: Sequence[Posting], accounts: dict[uuid.UUID, Account]) -> None:
    """Append transfers and entries and move the locked balances; one statement each."""
    legs: list[tuple[uuid.UUID, uuid.UUID, int, int, str | None]] = []
    for posting in postings:
        if sum(amount for _, amount in posting.legs) != 0:
            raise LedgerConflict(f"{posting.kind} does not sum to zero")
        kind = None if posting.kind in PER_JOB_KINDS else posting.kind
        for account_id, amount in posting.legs:
            account = accounts[account_id]
            account.posted_nano += amount
            if not -_BIGINT <= account.posted_nano < _BIGINT:
                raise LedgerConflict(f"{posting.kind} would make a balance that the books cannot hold")
            legs.append((posting.id, account_id, amount, account.posted_nano, kind))
    await conn.execute(
        """
        INSERT INTO transfer (id, kind, reference, external_ref, reason)
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[])
        """,
        [p.id for p in postings],
        [p.kind for p in postings],
        [p.reference for p in postings],
        [p.external_ref for p in postings],
        [p.reason for p in postings],
    )
    await conn.execute(
        """
        INSERT INTO entry (transfer_id, account_id, amount_nano, balance_after_nano, kind)
        SELECT t, a, n, b, k
          FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[]) WITH ORDINALITY
               AS u (t, a, n, b, k, i)
         ORDER BY i
        """,
        *map(list, zip(*legs, strict=True)),
    )
    await write_accounts(conn, accounts.values())
    await _tell_levels(conn, [a for a in accounts.values() if a.is_customer and a.level != a.level_now])


async def is_booked(conn: Connection, kind: str, external_ref: str) -> bool:
    """Whether this object was booked; the caller holds a lock that all who book such objects take."""
    return bool(
        await conn.fetchval(
            "SELECT true FROM transfer WHERE kind = $1 AND external_ref = $2", kind, external_ref
        )
    )


def without_zeros(legs: Iterable[tuple[uuid.UUID, int]]) -> tuple[tuple[uuid.UUID, int], ...]:
    """The legs that move something."""
    return tuple(leg for leg in legs if leg[1] != 0)


async def _tell_levels(conn: Connection, accounts: Collection[Account]) -> None:
    """Note each threshold that a balance has fallen below; rising above it makes it news again."""
    if not accounts:
        return
    await conn.execute(
        """
        UPDATE account SET level = t.level FROM unnest($1::uuid[], $2::int[]) AS t (id, level)
         WHERE account.id = t.id
        """,
        [a.id for a in accounts],
        [a.level_now for a in accounts],
    )
    for account in accounts:
        for level in range(account.level + 1, account.level_now + 1):
            threshold = (account.low_nano, account.critical_nano)[level - 1]
            await notices.note(
                conn,
                account.id,
                f"balance.{LEVELS[level]}",
                {
                    "balance_usd": format_usd(account.posted_nano),
                    "threshold_usd": format_usd(threshold),
                },
            )
        account.level = account.level_now
