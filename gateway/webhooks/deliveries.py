"""Deliveries as their owners see them: a page, one with its attempts, and once more."""

import uuid
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

import billing
from gateway.auth.principal import Principal
from gateway.errors import NotFound, NotReplayable
from gateway.ids import first_id, new_id
from gateway.webhooks.claims import webhook_id

STATES: Final = ("pending", "delivered", "exhausted", "dropped")
RETENTION: Final = timedelta(days=30)

_BATCH: Final = 1000
_NEWEST: Final = uuid.UUID(int=2**128 - 1)
_VISIBLE: Final = "delivery.organization_id = $1 AND ($2::uuid IS NULL OR delivery.project_id = $2)"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one place."""

    id: uuid.UUID
    webhook_id: str
    """The header of that name; replays have it, too."""
    event: str
    job_id: uuid.UUID | None
    endpoint_id: uuid.UUID | None
    """None: the URL stood in the job."""
    kind: str
    url: str
    state: str
    attempts: int
    """Begun; one that was cut off with its process left no record."""
    next_attempt_at: datetime | None
    created_at: datetime
    completed_at: datetime | None
    replay_of: uuid.UUID | None


class DeliveryAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try: a status, or an error."""

    n: int
    at: datetime
    status: int | None
    latency_ms: int
    error: str | None
    answer: str | None
    """The first kilobyte of the answer, as text."""


class DeliveryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which deliveries a page shows; None filters nothing."""

    endpoint_id: uuid.UUID | None = None
    job_id: uuid.UUID | None = None
    state: str | None = None
    before: uuid.UUID | None = None
    """Only older ones than this: the cursor."""
    limit: int = 20


_SELECT: Final = """
    SELECT delivery.id, event.id AS webhook_id, event.type AS event, event.job_id, delivery.endpoint_id,
           delivery.kind, delivery.url, delivery.state, delivery.attempts, delivery.next_attempt_at,
           delivery.created_at, delivery.completed_at, delivery.replay_of
      FROM webhook_delivery delivery JOIN webhook_event event ON event.id = delivery.event_id
"""


_FORGET_DELIVERIES: Final = """
    DELETE FROM webhook_delivery WHERE id IN (
        SELECT id FROM webhook_delivery WHERE id < $1 AND state <> 'pending'
         ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
"""
_FORGET_EVENTS: Final = """
    DELETE FROM webhook_event WHERE id IN (
        SELECT id FROM webhook_event event
         WHERE id < $1 AND NOT EXISTS (SELECT FROM webhook_delivery WHERE event_id = event.id)
         ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
"""
_FORGET_ENDPOINTS: Final = """
    DELETE FROM webhook_endpoint WHERE id IN (
        SELECT id FROM webhook_endpoint endpoint
         WHERE id < $1 AND deleted_at IS NOT NULL
           AND NOT EXISTS (SELECT FROM webhook_delivery WHERE endpoint_id = endpoint.id)
         ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


async def list_deliveries(
    pool: "asyncpg.Pool[asyncpg.Record]", principal: Principal, wanted: DeliveryFilter
) -> tuple[list[Delivery], uuid.UUID | None]:
    """A page, newest first, and the cursor of the next one.

    Only what is filtered by is in the text: a plan for `$1 IS NULL OR ...` would serve no index.
    """
    arguments: list[Any] = [principal.organization_id, principal.project_id, wanted.before or _NEWEST]
    conditions = [_VISIBLE, "delivery.id < $3"]
    for column, value in (
        ("delivery.endpoint_id", wanted.endpoint_id),
        ("event.job_id", wanted.job_id),
        ("delivery.state", wanted.state),
    ):
        if value is not None:
            arguments.append(value)
            conditions.append(f"{column} = ${len(arguments)}")
    arguments.append(wanted.limit + 1)
    rows = await pool.fetch(
        f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY delivery.id DESC LIMIT ${len(arguments)}",
        *arguments,
    )
    page = [_from_row(row) for row in rows[: wanted.limit]]
    return page, page[-1].id if len(rows) > wanted.limit else None


async def read_delivery(
    pool: "asyncpg.Pool[asyncpg.Record]", principal: Principal, delivery_id: uuid.UUID
) -> tuple[Delivery, list[DeliveryAttempt]]:
    """With its attempts, in order. Raises NotFound."""
    async with pool.acquire() as conn:
        delivery = await _read(conn, principal, delivery_id)
        return delivery, await read_attempts(conn, delivery_id)


async def read_attempts(conn: billing.Connection, delivery_id: uuid.UUID) -> list[DeliveryAttempt]:
    """Of a delivery that the caller was allowed to read."""
    rows = await conn.fetch(
        """
        SELECT n, at, status, latency_ms, error, answer FROM webhook_attempt
         WHERE delivery_id = $1 ORDER BY n
        """,
        delivery_id,
    )
    return [DeliveryAttempt(**dict(row)) for row in rows]


async def replay(
    pool: "asyncpg.Pool[asyncpg.Record]", principal: Principal, delivery_id: uuid.UUID
) -> Delivery:
    """What waits is due now. What has ended gets a new delivery of the same event, with all its attempts.

    Raises NotFound, or NotReplayable: its endpoint is disabled or deleted, or it was only a test.
    """
    async with pool.acquire() as conn, conn.transaction():
        row = await conn.fetchrow(
            f"""
            SELECT event.type = 'webhook.test' AS is_test,
                   endpoint.id IS NOT NULL AND endpoint.status <> 'enabled' AS is_off
              FROM webhook_delivery delivery JOIN webhook_event event ON event.id = delivery.event_id
              LEFT JOIN webhook_endpoint endpoint ON endpoint.id = delivery.endpoint_id
             WHERE {_VISIBLE} AND delivery.id = $3 FOR UPDATE OF delivery
            """,  # noqa: S608 - constants
            principal.organization_id,
            principal.project_id,
            delivery_id,
        )
        if row is None:
            raise NotFound("there is no such delivery")
        if row["is_test"]:
            raise NotReplayable("a test is not replayed; send another one")
        if row["is_off"]:
            raise NotReplayable("the webhook endpoint of this delivery is disabled or deleted")
        return await _read(conn, principal, await _due_again(conn, delivery_id))


async def forget_old(conn: billing.Connection) -> int:
    """Delete ended deliveries that are older than the retention, and what only they needed.

    Returns how many there were; the caller holds the transaction and comes back until there are none.
    """
    oldest = first_id(await conn.fetchval("SELECT now()"), margin=RETENTION)
    for statement in (_FORGET_DELIVERIES, _FORGET_EVENTS, _FORGET_ENDPOINTS):
        status = await conn.execute(statement, oldest, _BATCH)
        if forgotten := int(status.rpartition(" ")[2]):
            return forgotten
    return 0


async def _due_again(conn: billing.Connection, delivery_id: uuid.UUID) -> uuid.UUID:
    """The delivery to look at: the same one while it waits, or its replay; under way, it is left alone."""
    state = await conn.fetchval("SELECT state FROM webhook_delivery WHERE id = $1", delivery_id)
    if state == "pending":
        await conn.execute(
            """
            UPDATE webhook_delivery SET next_attempt_at = now(), lease_until = NULL
             WHERE id = $1 AND (lease_until IS NULL OR lease_until < now())
            """,
            delivery_id,
        )
        return delivery_id
    waiting = await conn.fetchval(
        """
        SELECT again.id FROM webhook_delivery ended JOIN webhook_delivery again USING (event_id)
         WHERE ended.id = $1 AND again.replay_of = $1 AND again.state = 'pending'
        """,
        delivery_id,
    )
    if waiting is not None:
        return await _due_again(conn, waiting)
    fresh = new_id()
    await conn.execute(
        """
        INSERT INTO webhook_delivery
               (id, event_id, organization_id, project_id, endpoint_id, kind, url, lane, replay_of)
        SELECT $2, event_id, organization_id, project_id, endpoint_id, kind, url, lane, id
          FROM webhook_delivery WHERE id = $1
        """,
        delivery_id,
        fresh,
    )
    return fresh


async def _read(conn: billing.Connection, principal: Principal, delivery_id: uuid.UUID) -> Delivery:
    row = await conn.fetchrow(
        f"{_SELECT} WHERE {_VISIBLE} AND delivery.id = $3",
        principal.organization_id,
        principal.project_id,
        delivery_id,
    )
    if row is None:
        raise NotFound("there is no such delivery")
    return _from_row(row)


def _from_row(row: Any) -> Delivery:
    values = dict(row)
    values["webhook_id"] = webhook_id(values["webhook_id"])
    return Delivery(**values)
