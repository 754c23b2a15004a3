"""Reading and rotating secrets. After a rotation both are valid for a day, so that nothing is refused."""

import uuid

import asyncpg

from gateway.auth.principal import Principal
from gateway.errors import NotFound
from gateway.webhooks.endpoints import VISIBLE, read_endpoint
from gateway.webhooks.signing import OLD_SECRET_LIFETIME, Secret, Secrets


async def endpoint_secret(
    pool: "asyncpg.Pool[asyncpg.Record]", secrets: Secrets, principal: Principal, endpoint_id: uuid.UUID
) -> Secret:
    """Raises NotFound."""
    endpoint = await read_endpoint(pool, principal, endpoint_id)
    return Secret(
        value=secrets.value(endpoint.id, endpoint.secret_version),
        version=endpoint.secret_version,
        old_until=endpoint.old_secret_until,
    )


async def rotate_endpoint_secret(
    pool: "asyncpg.Pool[asyncpg.Record]", secrets: Secrets, principal: Principal, endpoint_id: uuid.UUID
) -> Secret:
    """Raises NotFound."""
    row = await pool.fetchrow(
        f"""
        UPDATE webhook_endpoint
           SET secret_version = secret_version + 1, old_secret_until = now() + $4::interval
         WHERE {VISIBLE} AND id = $3 AND deleted_at IS NULL RETURNING secret_version, old_secret_until
        """,  # noqa: S608 - constants
        principal.organization_id,
        principal.project_id,
        endpoint_id,
        OLD_SECRET_LIFETIME,
    )
    if row is None:
        raise NotFound("there is no such webhook endpoint")
    return Secret(value=secrets.value(endpoint_id, row[0]), version=row[0], old_until=row[1])


async def request_secret(
    pool: "asyncpg.Pool[asyncpg.Record]", secrets: Secrets, principal: Principal
) -> Secret:
    """What the URLs in the caller's jobs are signed with: the project's, or the organization's.

    A key of a project does not learn what other projects' receivers trust.
    """
    owner_id = _owner(principal)
    row = await pool.fetchrow("SELECT version, old_until FROM webhook_signing WHERE owner_id = $1", owner_id)
    version, old_until = row or (1, None)
    return Secret(value=secrets.value(owner_id, version), version=version, old_until=old_until)


async def rotate_request_secret(
    pool: "asyncpg.Pool[asyncpg.Record]", secrets: Secrets, principal: Principal
) -> Secret:
    """The next version."""
    owner_id = _owner(principal)
    rows = await pool.fetch(
        """
        INSERT INTO webhook_signing AS signing (owner_id, version, old_until)
        VALUES ($1, 2, now() + $2::interval)
        ON CONFLICT (owner_id) DO UPDATE SET version = signing.version + 1, old_until = excluded.old_until
        RETURNING version, old_until
        """,
        owner_id,
        OLD_SECRET_LIFETIME,
    )
    ((version, old_until),) = rows
    return Secret(value=secrets.value(owner_id, version), version=version, old_until=old_until)


def _owner(principal: Principal) -> uuid.UUID:
    return principal.project_id or principal.organization_id
