"""What an empty installation gets, so that the first request works: an organization, credit, two keys."""

from collections.abc import Callable
from typing import Final

import asyncpg
import msgspec

import billing
from gateway.auth.directory import create_key, create_organization
from gateway.auth.keys import derive_pepper
from gateway.settings import Settings

FIRST_CREDIT_NANO: Final = 5_000_000_000
_LOCK: Final = 0x66697273  # "firs": two processes starting together make one organization


class FirstKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The first organization and its keys."""

    organization_id: str
    live_key: str
    test_key: str


async def ensure_first_organization(
    dsn: str, settings: Settings, *, save: Callable[[FirstKeys], None]
) -> FirstKeys | None:
    """Create the first organization in an empty database; None if there is one already.

    `save` keeps the keys before the commit: a crash between the two leaves saved keys that open
    nothing and are replaced at the next start, never working keys that nobody knows.
    """
    conn = await asyncpg.connect(dsn, timeout=10)
    try:
        async with conn.transaction():
            await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            if await conn.fetchval("SELECT true FROM organization LIMIT 1"):
                return None
            keys = await _create_first(conn, settings)
            save(keys)
            return keys
    finally:
        await conn.close()


async def _create_first(conn: billing.Connection, settings: Settings) -> FirstKeys:
    pepper = derive_pepper(settings.secret_key)
    organization_id = await create_organization(conn, name="First organization")
    await billing.grant(
        conn, account_id=organization_id, amount_nano=FIRST_CREDIT_NANO, reason="welcome credit"
    )
    keys = {
        test: (
            await create_key(
                conn,
                pepper=pepper,
                organization_id=organization_id,
                name="first test key" if test else "first live key",
                test=test,
            )
        )[1]
        for test in (False, True)
    }
    return FirstKeys(organization_id=organization_id.hex, live_key=keys[False], test_key=keys[True])
