"""Organizations, projects and keys: issued, found, revoked."""

import ipaddress
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg
import msgspec

import billing
from gateway.auth.keys import SHOWN_CHARACTERS, Pepper, derive_pepper, digest, generate_key, is_well_formed
from gateway.auth.principal import Principal, Scope
from gateway.config_watch import ConfigWatch, RevisionCache, bump_revision
from gateway.database import DATABASE_ERRORS, Reader
from gateway.errors import ClientError, InvalidApiKey, InvalidRequest, MissingApiKey, NotFound
from gateway.ids import new_id

READS_AT_ONCE: Final = 2


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a new key may do; None is unlimited."""

    scopes: Sequence[str] | None = None
    models: Sequence[str] | None = None
    cidrs: Sequence[str] | None = None
    expires_at: datetime | None = None
    requests_per_minute: int | None = None
    max_open_jobs: int | None = None
    budget_nano: int | None = None
    budget_period: str = "total"


class KeyDirectory:
    """Finds the principal behind a key, from a cache that a revocation empties within a second."""

    def __init__(self, *, pool: "asyncpg.Pool[asyncpg.Record]", watch: ConfigWatch, secret_key: str) -> None:
        self._reader = Reader(pool, at_once=READS_AT_ONCE)
        self._pepper = derive_pepper(secret_key)
        self._watch = watch
        self._cache: RevisionCache[str, Principal] = RevisionCache(watch, self._load)

    async def authenticate(self, key: str | None, *, client_host: str | None) -> Principal:
        """The caller; raises MissingApiKey or InvalidApiKey."""
        if not key:
            raise MissingApiKey("send an API key: Authorization: Bearer aph_live_... or x-api-key")
        principal = await self._cache.get(key)
        principal.check_usable(now=datetime.now(UTC), client_host=client_host)
        return principal

    async def still_opens(self, key: str | None, *, client_host: str | None, scope: Scope) -> bool:
        """Whether a key that was accepted before would be again; yes, while that cannot be looked up."""
        if not self._watch.is_fresh:
            return True
        try:
            (await self.authenticate(key, client_host=client_host)).check_scope(scope)
        except ClientError:
            return False
        except DATABASE_ERRORS:
            return True
        return True

    async def _load(self, key: str) -> Principal:
        """From the database; only principals are cached, so that nobody fills the cache with guesses."""
        if not is_well_formed(key):
            raise InvalidApiKey("this is not a valid API key: it is cut, mistyped or of another service")
        row = await self._reader.run(lambda conn: _find_key(conn, digest(key, self._pepper)))
        if row is None:
            raise InvalidApiKey("this API key does not exist or was revoked")
        return msgspec.convert(dict(row), Principal)


async def _find_key(conn: billing.Connection, key_digest: bytes) -> asyncpg.Record | None:
    return await conn.fetchrow(
        """
        SELECT id AS key_id, organization_id, project_id, mode = 'test' AS test, scopes, models, cidrs,
               requests_per_minute, max_open_jobs, expires_at,
               EXISTS (SELECT FROM budget
                        WHERE subject IN (api_key.id, project_id, organization_id)) AS has_budget
          FROM api_key WHERE digest = $1 AND revoked_at IS NULL
        """,
        key_digest,
    )


async def create_organization(conn: billing.Connection, *, name: str) -> uuid.UUID:
    """A new organization with an empty account."""
    organization_id = new_id()
    await conn.execute("INSERT INTO organization (id, name) VALUES ($1, $2)", organization_id, name)
    await billing.open_account(conn, organization_id)
    return organization_id


async def create_project(conn: billing.Connection, *, organization_id: uuid.UUID, name: str) -> uuid.UUID:
    """A new project of an organization."""
    project_id = new_id()
    await conn.execute(
        "INSERT INTO project (id, organization_id, name) VALUES ($1, $2, $3)",
        project_id,
        organization_id,
        name,
    )
    return project_id


async def create_key(
    conn: billing.Connection,
    *,
    pepper: Pepper,
    organization_id: uuid.UUID,
    name: str,
    test: bool,
    project_id: uuid.UUID | None = None,
    limits: KeyLimits | None = None,
) -> tuple[uuid.UUID, str]:
    """Issue a key; the second value is the key itself, which nobody can read again.

    Raises NotFound for an organization or project that does not exist, InvalidRequest for limits
    that cannot be meant.
    """
    limits = limits or KeyLimits()
    _check_limits(limits)
    await _check_owner(conn, organization_id, project_id)
    mode = "test" if test else "live"
    key_id, key = new_id(), generate_key(mode)
    await conn.execute(
        """
        INSERT INTO api_key (id, organization_id, project_id, name, mode, prefix, digest, pepper_id, scopes,
                             models, cidrs, requests_per_minute, max_open_jobs, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """,
        key_id,
        organization_id,
        project_id,
        name,
        mode,
        key[:SHOWN_CHARACTERS],
        digest(key, pepper),
        pepper.id,
        limits.scopes,
        limits.models,
        limits.cidrs,
        limits.requests_per_minute,
        limits.max_open_jobs,
        limits.expires_at,
    )
    if limits.requests_per_minute is not None or limits.max_open_jobs is not None:
        await conn.execute("INSERT INTO key_meter (key_id, minute_start) VALUES ($1, now())", key_id)
    if limits.budget_nano is not None:
        await billing.set_budget(
            conn,
            account_id=organization_id,
            subject=key_id,
            scope="key",
            period=limits.budget_period,
            limit_nano=limits.budget_nano,
        )
    return key_id, key


async def revoke_key(conn: billing.Connection, key_id: uuid.UUID) -> None:
    """End a key everywhere within a second; revoking it again changes nothing. Raises NotFound."""
    found = await conn.fetchval(
        "UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING id", key_id
    )
    if found is None:
        raise NotFound(f"there is no key {key_id}")
    await bump_revision(conn)


def _check_limits(limits: KeyLimits) -> None:
    if unknown := set(limits.scopes or ()) - set(Scope):
        raise InvalidRequest(f"no scope {min(unknown)!r}: choose from {', '.join(Scope)}", param="scopes")
    for cidr in limits.cidrs or ():
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            raise InvalidRequest(f"{cidr!r} is no network: {error}", param="cidrs") from error
    for name, least in (("requests_per_minute", 1), ("max_open_jobs", 1), ("budget_nano", 0)):
        if (value := getattr(limits, name)) is not None and value < least:
            raise InvalidRequest(f"{name} must be at least {least}, not {value}", param=name)
    if limits.budget_period not in billing.BUDGET_PERIODS:
        raise InvalidRequest(
            f"no budget period {limits.budget_period!r}: choose from {', '.join(billing.BUDGET_PERIODS)}",
            param="budget_period",
        )


async def _check_owner(
    conn: billing.Connection, organization_id: uuid.UUID, project_id: uuid.UUID | None
) -> None:
    if not await conn.fetchval("SELECT true FROM organization WHERE id = $1", organization_id):
        raise NotFound(f"there is no organization {organization_id}")
    if project_id is not None and not await conn.fetchval(
        "SELECT true FROM project WHERE id = $1 AND organization_id = $2", project_id, organization_id
    ):
        raise NotFound(f"the organization has no project {project_id}")
