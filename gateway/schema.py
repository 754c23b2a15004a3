"""The database schema: one Alembic history, upgraded under a lock, checked before anyone serves."""

import asyncio
from pathlib import Path
from typing import Any, Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import billing
from gateway.tables import metadata

SCRIPTS: Final = Path(__file__).resolve().parent.parent / "migrations"
LOCK_TIMEOUT_SECONDS: Final = 5
"""A migration that cannot have its table lock gives up, instead of queueing everybody behind it."""
_ADVISORY_LOCK: Final = 0x616E7469  # "anti": only one process migrates at a time


class SchemaError(Exception):
    """The database's schema is not the one that this program was written for."""


def upgrade(dsn: str) -> str:
    """Bring the schema to this program's revision; returns it. Safe to call from many processes."""
    try:
        return asyncio.run(_upgrade(dsn))
    except DBAPIError as error:
        # The driver's own error, as everywhere else: it is two wrappings down.
        cause = error.orig.__cause__ if error.orig is not None else None
        raise (cause or error) from error


async def check(conn: billing.Connection) -> None:
    """Raise SchemaError, in one clear line, unless the schema is exactly this program's."""
    try:
        found = await conn.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        found = None
    scripts = ScriptDirectory(str(SCRIPTS))
    head = scripts.get_current_head()
    if found == head:
        return
    if found is None:
        raise SchemaError(f"the database has no schema; run `antiphon migrate` to create revision {head}")
    if found in {script.revision for script in scripts.walk_revisions()}:
        raise SchemaError(f"the database is at revision {found}; run `antiphon migrate` to reach {head}")
    raise SchemaError(
        f"the database is at revision {found}, newer than this program's {head}; update antiphon"
    )


def compare_options() -> dict[str, Any]:
    """How models and database are compared, the same in migrations and in tests."""
    return {"target_metadata": metadata, "compare_type": True, "compare_server_default": True}


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration, without a file, on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    return config


async def _upgrade(dsn: str) -> str:
    engine = create_async_engine(make_url(dsn).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
            await connection.run_sync(_run_upgrade)
            return str((await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar())
    finally:
        await engine.dispose()


def _run_upgrade(connection: Connection) -> None:
    command.upgrade(alembic_config(connection), "head")
