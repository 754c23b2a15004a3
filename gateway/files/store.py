"""Uploaded sound: a row in Postgres and an object in the audio store.

The row comes first, not yet `stored`; then the object; then the row is completed. What a crash leaves half
done has a row that expires, so the janitor finds all bytes that there are.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

import billing
from gateway.auth.principal import Principal

RETENTION: Final = timedelta(days=7)
"""From the upload; `expires_at` tells the customer."""
STORING: Final = timedelta(hours=1)
"""More than it takes to bring a file into the store."""

_COLUMNS: Final = (
    "id, organization_id, project_id, filename, purpose, container, size_bytes, sha256, frames, sample_rate, "
    "channels, created_at, expires_at"
)
_OWNED: Final = "organization_id = $1 AND ($2::uuid IS NULL OR project_id = $2)"
_VISIBLE: Final = f"{_OWNED} AND stored AND expires_at > now()"
_NEWEST: Final = uuid.UUID(int=2**128 - 1)
_OLDEST: Final = uuid.UUID(int=0)


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded file. `frames` is its length at 48 kHz; rate and channels are those it came with."""

    id: uuid.UUID
    organization_id: uuid.UUID
    project_id: uuid.UUID | None
    filename: str
    purpose: str | None
    container: str
    size_bytes: int
    sha256: bytes
    frames: int
    sample_rate: int
    channels: int
    created_at: datetime
    expires_at: datetime

    @property
    def key(self) -> str:
        """Its place in the audio store."""
        return file_key(self.organization_id, self.id, self.container)


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was received and decoded, before it is stored."""

    id: uuid.UUID
    filename: str
    purpose: str | None
    container: str
    size_bytes: int
    sha256: bytes
    frames: int
    sample_rate: int
    channels: int


class Possession(msgspec.Struct, frozen=True):
    """What all files of an organization take."""

    files: int
    size_bytes: int


class UnneededFile(msgspec.Struct, frozen=True):
    """A file that has expired, and that no job waits for."""

    id: uuid.UUID
    organization_id: uuid.UUID
    container: str

    @property
    def key(self) -> str:
        """Its place in the audio store."""
        return file_key(self.organization_id, self.id, self.container)


def file_key(organization_id: uuid.UUID, file_id: uuid.UUID, container: str) -> str:
    """Where the original bytes lie: never below a folder that holds results."""
    return f"files/{organization_id.hex}/{file_id.hex}.{container}"


async def measure_possession(conn: billing.Connection, organization_id: uuid.UUID) -> Possession:
    """Of all projects, with what has expired but is still there."""
    row = await conn.fetchrow(
        "SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM file WHERE organization_id = $1",
        organization_id,
    )
    return Possession(*row) if row else Possession(0, 0)


async def announce(conn: billing.Connection, principal: Principal, new: NewFile) -> None:
    """Before its bytes are brought into the store; nobody sees the file yet."""
    await conn.execute(
        """
        INSERT INTO file (id, organization_id, project_id, key_id, filename, purpose, container, size_bytes,
                          sha256, frames, sample_rate, channels, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, now() + $13)
        """,
        new.id,
        principal.organization_id,
        principal.project_id,
        principal.key_id,
        new.filename,
        new.purpose,
        new.container,
        new.size_bytes,
        new.sha256,
        new.frames,
        new.sample_rate,
        new.channels,
        STORING,
    )


async def complete(conn: billing.Connection, file_id: uuid.UUID, retention: timedelta) -> StoredFile | None:
    """Its bytes are there; None if that took so long that the janitor has removed the row."""
    row = await conn.fetchrow(
        f"UPDATE file SET stored = true, expires_at = created_at + $2 WHERE id = $1 RETURNING {_COLUMNS}",  # noqa: S608 - constants
        file_id,
        retention,
    )
    return _from_row(row)


async def find(conn: billing.Connection, principal: Principal, file_id: uuid.UUID) -> StoredFile | None:
    """A file that the caller may see: one look into one index."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM file WHERE {_VISIBLE} AND id = $3",  # noqa: S608 - constants
        principal.organization_id,
        principal.project_id,
        file_id,
    )
    return _from_row(row)


async def find_kept(
    conn: billing.Connection,
    *,
    organization_id: uuid.UUID,
    project_id: uuid.UUID | None,
    file_id: uuid.UUID,
) -> StoredFile | None:
    """The same for the worker of an admitted job: also what has expired since, or was deleted."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM file WHERE {_OWNED} AND stored AND id = $3",  # noqa: S608 - constants
        organization_id,
        project_id,
        file_id,
    )
    return _from_row(row)


async def list_page(
    conn: billing.Connection,
    principal: Principal,
    *,
    limit: int,
    before: uuid.UUID | None,
    purpose: str | None,
) -> list[StoredFile]:
    """Newest first."""
    rows = await conn.fetch(
        f"""
        SELECT {_COLUMNS} FROM file
         WHERE {_VISIBLE} AND (organization_id, id) >= ($1, $3) AND (organization_id, id) < ($1, $4)
           AND ($5::text IS NULL OR purpose = $5)
         ORDER BY organization_id DESC, id DESC LIMIT $6
        """,  # noqa: S608 - constants
        principal.organization_id,
        principal.project_id,
        _OLDEST,
        before or _NEWEST,
        purpose,
        limit,
    )
    return [StoredFile(**dict(row)) for row in rows]


async def expire_now(conn: billing.Connection, principal: Principal, file_id: uuid.UUID) -> bool:
    """What deleting means: nobody sees it any more; False if the caller did not see it before."""
    found = await conn.fetchval(
        f"UPDATE file SET expires_at = now() WHERE {_VISIBLE} AND id = $3 RETURNING id",  # noqa: S608 - constants
        principal.organization_id,
        principal.project_id,
        file_id,
    )
    return found is not None


async def forget(conn: billing.Connection, ids: Sequence[uuid.UUID]) -> None:
    """Their bytes are gone."""
    await conn.execute("DELETE FROM file WHERE id = ANY($1)", ids)


def _from_row(row: Any) -> StoredFile | None:
    return None if row is None else StoredFile(**dict(row))
