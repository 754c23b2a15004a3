"""The whole ledger as JSON or CSV, for whoever keeps books elsewhere: streamed from one snapshot.

The amounts sum to zero, and those of an account to its balance less its opening balance, to the nano.
"""

import csv
import io
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final

import msgspec

from billing.connection import Connection
from billing.money import format_usd

CHUNK: Final = 2_000
"""Rows in memory at once."""
PATIENCE: Final = "10min"
"""How long the reader may pause; meanwhile the snapshot keeps the database from cleaning up."""
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take for a formula, also in full width."""
_CONTROLS: Final = dict.fromkeys([*range(0x20), 0x7F, 0x85, 0x2028, 0x2029], " ")

Write = Callable[[bytes], object]


class ExportedAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One account: what it had before the first exported entry, and what it has now."""

    account_id: str
    kind: str
    opening_usd: str
    opening_nano: int
    balance_usd: str
    balance_nano: int


class ExportedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One leg of one transfer; the fields are the columns."""

    id: int
    created_at: datetime
    transfer_id: str
    kind: str
    account_id: str
    account_kind: str
    amount_usd: str
    amount_nano: int
    balance_after_usd: str
    balance_after_nano: int
    reference: str | None
    external_ref: str | None
    reason: str | None


class Exported(msgspec.Struct, kw_only=True):
    """How much there was."""

    entries: int = 0
    amount_nano: int = 0
    """Zero, if the books are right and nothing was left out."""
    amount_usd: str = "0.000000000"


async def write_json(conn: Connection, write: Write, *, since: datetime | None = None) -> Exported:
    """One JSON object: accounts, entries, totals. `write` may block; nothing is kept."""
    totals = Exported()
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        await _be_patient(conn)
        write(b'{"accounts":[')
        before = b"\n"
        async for accounts in _accounts(conn, since):
            write(before + b",\n".join(map(msgspec.json.encode, accounts)))
            before = b",\n"
        write(b'],\n"entries":[')
        before = b"\n"
        async for entries in _entries(conn, since, totals):
            write(before + b",\n".join(map(msgspec.json.encode, entries)))
            before = b",\n"
        write(b'],\n"totals":' + msgspec.json.encode(totals) + b"}\n")
    return totals


async def write_csv(conn: Connection, write: Write, *, since: datetime | None = None) -> Exported:
    """A header and one line per entry; text that a spreadsheet would calculate is quoted by an apostrophe."""
    totals = Exported()
    names = ExportedEntry.__struct_fields__
    write((",".join(names) + "\n").encode())
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        await _be_patient(conn)
        async for entries in _entries(conn, since, totals):
            lines = io.StringIO()
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerows(
                [
                    entry.id,
                    msgspec.to_builtins(entry.created_at),
                    entry.transfer_id,
                    entry.kind,
                    entry.account_id,
                    entry.account_kind,
                    entry.amount_usd,
                    entry.amount_nano,
                    entry.balance_after_usd,
                    entry.balance_after_nano,
                    entry.reference,
                    harmless(entry.external_ref),
                    harmless(entry.reason),
                ]
                for entry in entries
            )
            write(lines.getvalue().encode())
    return totals


def harmless(text: str | None) -> str | None:
    """Text of others for one cell of a spreadsheet: on one line, and never a formula."""
    if text is None:
        return None
    line = text.translate(_CONTROLS)
    return f"'{line}" if line.lstrip().startswith(FORMULA_STARTS) else line


async def _be_patient(conn: Connection) -> None:
    """Who reads the export may be slower than a transaction may otherwise stand still."""
    await conn.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{PATIENCE}'")


async def _accounts(conn: Connection, since: datetime | None) -> AsyncIterator[list[ExportedAccount]]:
    cursor = await conn.cursor(
        """
        SELECT a.id, a.kind, a.posted_nano, (a.posted_nano - coalesce(e.total, 0))::bigint
          FROM account a
          LEFT JOIN (SELECT account_id, sum(amount_nano) AS total FROM entry
                      WHERE $1::timestamptz IS NULL OR created_at >= $1 GROUP BY 1) e ON e.account_id = a.id
         ORDER BY a.id
        """,
        since,
    )
    while rows := await cursor.fetch(CHUNK):
        yield [
            ExportedAccount(
                account_id=account_id.hex,
                kind=kind,
                opening_usd=format_usd(opening),
                opening_nano=opening,
                balance_usd=format_usd(posted),
                balance_nano=posted,
            )
            for account_id, kind, posted, opening in rows
        ]


async def _entries(
    conn: Connection, since: datetime | None, totals: Exported
) -> AsyncIterator[list[ExportedEntry]]:
    cursor = await conn.cursor(
        """
        SELECT e.id, e.created_at, t.id, t.kind, a.id, a.kind, e.amount_nano, e.balance_after_nano,
               t.reference, t.external_ref, t.reason
          FROM entry e JOIN transfer t ON t.id = e.transfer_id JOIN account a ON a.id = e.account_id
         WHERE $1::timestamptz IS NULL OR e.created_at >= $1
         ORDER BY e.id
        """,
        since,
    )
    while rows := await cursor.fetch(CHUNK):
        chunk = [_entry(*row) for row in rows]
        totals.entries += len(chunk)
        totals.amount_nano += sum(entry.amount_nano for entry in chunk)
        totals.amount_usd = format_usd(totals.amount_nano)
        yield chunk


def _entry(
    entry_id: int,
    created_at: datetime,
    transfer_id: uuid.UUID,
    kind: str,
    account_id: uuid.UUID,
    account_kind: str,
    amount_nano: int,
    balance_after_nano: int,
    reference: uuid.UUID | None,
    external_ref: str | None,
    reason: str | None,
) -> ExportedEntry:
    return ExportedEntry(
        id=entry_id,
        created_at=created_at,
        transfer_id=transfer_id.hex,
        kind=kind,
        account_id=account_id.hex,
        account_kind=account_kind,
        amount_usd=format_usd(amount_nano),
        amount_nano=amount_nano,
        balance_after_usd=format_usd(balance_after_nano),
        balance_after_nano=balance_after_nano,
        reference=None if reference is None else reference.hex,
        external_ref=external_ref,
        reason=reason,
    )
