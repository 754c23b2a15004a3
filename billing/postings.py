"""Double entry: transfers whose legs sum to zero, and the balances that they move."""

import uuid
from collections.abc import Collection, Iterable, Sequence

import msgspec

from billing import notices
from billing.accounts import LEVELS, Account, write_accounts
from billing.connection import Connection
from billing.errors import LedgerConflict
from billing.money import format_usd


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
    legs: list[tuple[uuid.UUID, uuid.UUID, int, int]] = []
    for posting in postings:
        if sum(amount for _, amount in posting.legs) != 0:
            raise LedgerConflict(f"{posting.kind} does not sum to zero")
        for account_id, amount in posting.legs:
            account = accounts[account_id]
            account.posted_nano += amount
            legs.append((posting.id, account_id, amount, account.posted_nano))
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
        INSERT INTO entry (transfer_id, account_id, amount_nano, balance_after_nano)
        SELECT t, a, n, b
          FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) WITH ORDINALITY AS u (t, a, n, b, i)
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
        if account.level_now > account.level:
            await notices.note(
                conn,
                account.id,
                f"balance.{LEVELS[account.level_now]}",
                {
                    "balance_usd": format_usd(account.posted_nano),
                    "threshold_usd": format_usd(
                        account.critical_nano if account.level_now == len(LEVELS) - 1 else account.low_nano
                    ),
                },
            )
        account.level = account.level_now
