"""Where customers want to be told, and when that is not tried any more.

An endpoint that the caller may not see does not exist, in the answer as in the query.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec
import structlog

import billing
from gateway.auth.principal import Principal
from gateway.errors import InvalidRequest, NotFound, TooManyEndpoints
from gateway.ids import new_id
from gateway.webhooks import outbox
from gateway.webhooks.events import EventType, check_events

log = structlog.get_logger(__name__)

MAX_ENDPOINTS: Final = 20
"""Of an organization."""
MAX_DESCRIPTION: Final = 500
FAILING_FOR: Final = timedelta(days=5)
"""Without one success: then it is disabled. Retries of one event are over after three."""

_DROPPED_AT_ONCE: Final = 50_000

VISIBLE: Final = "organization_id = $1 AND ($2::uuid IS NULL OR project_id = $2)"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One of them as its row stands."""

    id: uuid.UUID
    organization_id: uuid.UUID
    project_id: uuid.UUID | None
    """None: hears of the whole organization."""
    url: str
    events: tuple[str, ...] | None
    """None: all."""
    description: str
    status: str
    """`enabled` or `disabled`."""
    disabled_reason: str | None
    """`customer`; `gone`: it answered with 410; `failing`: nothing arrived for five days."""
    failing_since: datetime | None
    created_at: datetime
    secret_version: int
    old_secret_until: datetime | None


class EndpointChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be different."""

    url: str | msgspec.UnsetType = msgspec.UNSET
    events: Sequence[str] | msgspec.UnsetType | None = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    """Enabling forgets why it was disabled; what was dropped meanwhile can be replayed."""


_COLUMNS: Final = ", ".join(Endpoint.__struct_fields__)


async def create_endpoint(
    pool: "asyncpg.Pool[asyncpg.Record]",
    principal: Principal,
    *,
    url: str,
    events: Sequence[str] | None,
    description: str = "",
) -> Endpoint:
    """A URL that was checked by `outbound`; a project's key makes an endpoint of the project.

    Raises InvalidRequest: unknown events or a long description; TooManyEndpoints.
    """
    chosen = check_events(events)
    _check_description(description)
    async with pool.acquire() as conn, conn.transaction():
        # Locked, so that two who count at once do not both find room.
        await conn.execute(
            "SELECT FROM organization WHERE id = $1 FOR NO KEY UPDATE", principal.organization_id
        )
        count = await conn.fetchval(
            "SELECT count(*) FROM webhook_endpoint WHERE organization_id = $1 AND deleted_at IS NULL",
            principal.organization_id,
        )
        if count >= MAX_ENDPOINTS:
            raise TooManyEndpoints(f"an organization has at most {MAX_ENDPOINTS} webhook endpoints")
        row = await conn.fetchrow(
            f"""
            INSERT INTO webhook_endpoint (id, organization_id, project_id, url, events, description)
            VALUES ($1, $2, $3, $4, $5, $6) RETURNING {_COLUMNS}
            """,  # noqa: S608 - constants
            new_id(),
            principal.organization_id,
            principal.project_id,
            url,
            chosen,
            description,
        )
    return _from_row(row)


async def list_endpoints(pool: "asyncpg.Pool[asyncpg.Record]", principal: Principal) -> list[Endpoint]:
    """All that the caller may see, oldest first."""
    rows = await pool.fetch(
        f"SELECT {_COLUMNS} FROM webhook_endpoint WHERE {VISIBLE} AND deleted_at IS NULL ORDER BY id",  # noqa: S608 - constants
        principal.organization_id,
        principal.project_id,
    )
    return [_from_row(row) for row in rows]


async def read_endpoint(
    pool: "asyncpg.Pool[asyncpg.Record]", principal: Principal, endpoint_id: uuid.UUID
) -> Endpoint:
    """Raises NotFound."""
    row = await pool.fetchrow(
        f"SELECT {_COLUMNS} FROM webhook_endpoint WHERE {VISIBLE} AND id = $3 AND deleted_at IS NULL",  # noqa: S608 - constants
        principal.organization_id,
        principal.project_id,
        endpoint_id,
    )
    return _found(row)


async def update_endpoint(
    pool: "asyncpg.Pool[asyncpg.Record]",
    principal: Principal,
    endpoint_id: uuid.UUID,
    changes: EndpointChanges,
) -> Endpoint:
    """Raises NotFound, or InvalidRequest. What waits goes to a new URL; disabled, it is dropped."""
    columns = _changed_columns(changes)
    if not columns:
        return await read_endpoint(pool, principal, endpoint_id)
    settings = ", ".join(f"{name} = ${n}" for n, name in enumerate(columns, start=4))
    row = await pool.fetchrow(
        f"""
        UPDATE webhook_endpoint SET {settings}
         WHERE {VISIBLE} AND id = $3 AND deleted_at IS NULL RETURNING {_COLUMNS}
        """,  # noqa: S608 - names of columns
        principal.organization_id,
        principal.project_id,
        endpoint_id,
        *columns.values(),
    )
    endpoint = _found(row)
    if endpoint.status == "disabled":
        await _drop(pool, endpoint_id)
    return endpoint


async def delete_endpoint(
    pool: "asyncpg.Pool[asyncpg.Record]", principal: Principal, endpoint_id: uuid.UUID
) -> None:
    """What waits for it is dropped; what was delivered stays readable. Raises NotFound."""
    row = await pool.fetchrow(
        f"""
        UPDATE webhook_endpoint
           SET deleted_at = now(), status = 'disabled',
               disabled_reason = coalesce(disabled_reason, 'customer')
         WHERE {VISIBLE} AND id = $3 AND deleted_at IS NULL RETURNING {_COLUMNS}
        """,  # noqa: S608 - constants
        principal.organization_id,
        principal.project_id,
        endpoint_id,
    )
    _found(row)
    await _drop(pool, endpoint_id)


async def disable_failing(
    pool: "asyncpg.Pool[asyncpg.Record]", endpoint_id: uuid.UUID, url: str, *, is_gone: bool
) -> bool:
    """Disable it if it says that it is gone, or has failed for too long, and tell the other endpoints.

    `url`: where that was seen. An endpoint that has moved meanwhile stays.
    """
    reason = "gone" if is_gone else "failing"
    async with pool.acquire() as conn, conn.transaction():
        row = await conn.fetchrow(
            f"""
            UPDATE webhook_endpoint SET status = 'disabled', disabled_reason = $2
             WHERE id = $1 AND url = $5 AND status = 'enabled'
               AND ($3 OR failing_since < now() - $4::interval)
            RETURNING {_COLUMNS}
            """,  # noqa: S608 - constants
            endpoint_id,
            reason,
            is_gone,
            FAILING_FOR,
            url,
        )
        if row is None:
            return False
        await _tell_disabled(conn, _from_row(row))
        await _count(conn, "disabled", 1)
    log.warning("webhooks.endpoint_disabled", endpoint=endpoint_id.hex, reason=reason)
    await _drop(pool, endpoint_id)
    return True


async def _tell_disabled(conn: billing.Connection, endpoint: Endpoint) -> None:
    event = outbox.Event(
        organization_id=endpoint.organization_id,
        project_id=endpoint.project_id,
        type=EventType.ENDPOINT_DISABLED,
        payload={"endpoint_id": endpoint.id.hex, "url": endpoint.url, "reason": endpoint.disabled_reason},
    )
    await outbox.note_events(conn, [event], but_for=endpoint.id)


async def _drop(pool: "asyncpg.Pool[asyncpg.Record]", endpoint_id: uuid.UUID) -> None:
    """End what waits for an endpoint that is disabled, also what is under way.

    By batches: behind a busy customer's dead endpoint there may be millions. Where this breaks off, the
    rest is dropped when it is claimed.
    """
    dropped = _DROPPED_AT_ONCE
    while dropped == _DROPPED_AT_ONCE:
        async with pool.acquire() as conn, conn.transaction():
            status = await conn.execute(
                """
                WITH locked AS (
                    SELECT id FROM webhook_delivery
                     WHERE lane = $1 AND state = 'pending'
                       AND NOT EXISTS (SELECT FROM webhook_endpoint WHERE id = $2 AND status = 'enabled')
                     ORDER BY next_attempt_at LIMIT $3 FOR UPDATE
                )
                UPDATE webhook_delivery
                   SET state = 'dropped', completed_at = now(), next_attempt_at = NULL, lease_until = NULL
                  FROM locked WHERE webhook_delivery.id = locked.id
                """,
                outbox.endpoint_lane(endpoint_id),
                endpoint_id,
                _DROPPED_AT_ONCE,
            )
            dropped = int(status.rpartition(" ")[2])
            await _count(conn, "dropped", dropped)


async def _count(conn: billing.Connection, result: str, number: int) -> None:
    if number:
        await conn.execute(
            """
            INSERT INTO webhook_tally (kind, result, total) VALUES ('webhook', $1, $2)
            ON CONFLICT (kind, result) DO UPDATE SET total = webhook_tally.total + excluded.total
            """,
            result,
            number,
        )


def _changed_columns(changes: EndpointChanges) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if changes.url is not msgspec.UNSET:
        columns |= {"url": changes.url, "failing_since": None}
    if changes.events is not msgspec.UNSET:
        columns["events"] = check_events(changes.events)
    if changes.description is not msgspec.UNSET:
        _check_description(changes.description)
        columns["description"] = changes.description
    if changes.enabled is True:
        columns |= {"status": "enabled", "disabled_reason": None, "failing_since": None}
    elif changes.enabled is False:
        columns |= {"status": "disabled", "disabled_reason": "customer"}
    return columns


def _check_description(text: str) -> None:
    if len(text) > MAX_DESCRIPTION or "\x00" in text:
        raise InvalidRequest(
            f"description must have at most {MAX_DESCRIPTION} characters, and no NUL", param="description"
        )


def _found(row: Any) -> Endpoint:
    if row is None:
        raise NotFound("there is no such webhook endpoint")
    return _from_row(row)


def _from_row(row: Any) -> Endpoint:
    values = dict(row)
    values["events"] = None if values["events"] is None else tuple(values["events"])
    return Endpoint(**values)
