"""Repeats: a request that was sent before gets the job that it made then, not a second one.

A client says so by an idempotency key, which names the request for as long as the job is kept; or, as
the OpenAI clients do after a lost answer, by counting its tries: then the same body with the same API
key within ten minutes is the same request.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec

import billing

RETRY_WINDOW: Final = timedelta(minutes=10)

IdempotencyScope = tuple[uuid.UUID, uuid.UUID | None, bool, str]
"""Organization, project, test or live, key: within what an idempotency key is unique."""
RequestIdentity = tuple[uuid.UUID, bytes]
"""API key, digest of route and body."""


class Repeats(msgspec.Struct, kw_only=True):
    """Earlier jobs that the submissions of a batch may be repeats of. The walk adds its own."""

    by_key: dict[IdempotencyScope, tuple[uuid.UUID, bytes]] = msgspec.field(default_factory=dict)
    """Job id and request digest."""
    by_request: dict[RequestIdentity, uuid.UUID] = msgspec.field(default_factory=dict)


def retry_slot(key_id: uuid.UUID, request_hash: bytes, created_at: datetime) -> int:
    """Where the index keeps this request: by minute first, so that new entries stay close together.

    An index on the digest alone would touch, and after each checkpoint log, another page for each job.
    """
    return _slot(key_id, request_hash, _minute(created_at))


async def find_by_key(
    conn: billing.Connection, scopes: Iterable[IdempotencyScope]
) -> dict[IdempotencyScope, tuple[uuid.UUID, bytes]]:
    """Jobs with these idempotency keys. Complete only while their accounts are locked."""
    wanted = list(scopes)
    if not wanted:
        return {}
    rows = await conn.fetch(
        """
        SELECT organization_id, project_id, test, idempotency_key, id, request_hash
          FROM job
         WHERE organization_id = ANY($1) AND idempotency_key = ANY($2)
        """,
        list({scope[0] for scope in wanted}),
        list({scope[3] for scope in wanted}),
    )
    return {(row[0], row[1], row[2], row[3]): (row[4], row[5]) for row in rows}


async def find_by_request(
    conn: billing.Connection, identities: Iterable[RequestIdentity], *, now: datetime
) -> dict[RequestIdentity, uuid.UUID]:
    """The newest job of each request within the window. Complete only while their accounts are locked."""
    wanted = set(identities)
    if not wanted:
        return {}
    last = _minute(now) + 1  # another process' clock may be ahead
    minutes = range(last - RETRY_WINDOW // timedelta(minutes=1) - 1, last + 1)
    rows = await conn.fetch(
        """
        SELECT key_id, request_hash, id
          FROM job WHERE retry_slot = ANY($1) AND created_at > $2 ORDER BY id
        """,
        [_slot(*identity, minute) for identity in wanted for minute in minutes],
        now - RETRY_WINDOW,
    )
    return {(row[0], row[1]): row[2] for row in rows if (row[0], row[1]) in wanted}


def _minute(moment: datetime) -> int:
    return int(moment.timestamp()) // 60


def _slot(key_id: uuid.UUID, request_hash: bytes, minute: int) -> int:
    return minute << 32 | (int.from_bytes(request_hash[:4]) ^ (key_id.int & 0xFFFFFFFF))
