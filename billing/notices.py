"""What somebody should know: written in the commit that made it true, told afterwards."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from billing.connection import Connection


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an account's money."""

    id: int
    account_id: uuid.UUID
    kind: str
    data: dict[str, Any]
    created_at: datetime


async def note(conn: Connection, account_id: uuid.UUID, kind: str, data: Mapping[str, Any]) -> None:
    """Write a notice; amounts in it are decimal strings."""
    await conn.execute(
        "INSERT INTO notice (account_id, kind, data) VALUES ($1, $2, $3::jsonb)",
        account_id,
        kind,
        msgspec.json.encode(data).decode(),
    )


async def take_untold(conn: Connection, *, limit: int = 100) -> list[Notice]:
    """The oldest notices that nobody has told yet; told, for everybody, once the caller commits."""
    rows = await conn.fetch(
        """
        WITH untold AS (
            SELECT id FROM notice WHERE told_at IS NULL ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
        )
        UPDATE notice SET told_at = now() FROM untold WHERE notice.id = untold.id
        RETURNING notice.id, account_id, kind, data::text, created_at
        """,
        limit,
    )
    found = [
        Notice(id=row[0], account_id=row[1], kind=row[2], data=msgspec.json.decode(row[3]), created_at=row[4])
        for row in rows
    ]
    return sorted(found, key=lambda notice: notice.id)
