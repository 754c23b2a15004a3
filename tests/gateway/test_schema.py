"""One schema: the same in models and migrations, and nobody works on another."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from alembic import command
from sqlalchemy import Connection, Text, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway import schema
from gateway.bootstrap import open_pool
from gateway.embedded import EmbeddedPostgres
from gateway.schema import SchemaError
from gateway.settings import read_settings
from gateway.tables import metadata
from tests.databases import fresh_database

HEAD = "0009"


@pytest.fixture
async def empty_database(template_database: str, postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """DSN of a database in which nothing is."""
    async with fresh_database(postgres, template_database, empty=True) as dsn:
        yield dsn


async def catalog(dsn: str) -> list[tuple[Any, ...]]:
    """Every column, constraint, index and trigger of a database, as text."""
    conn = await asyncpg.connect(dsn)
    try:
        rows = await conn.fetch(
            """
            SELECT table_name, column_name, data_type, is_nullable, column_default
              FROM information_schema.columns WHERE table_schema = 'public'
            UNION ALL
            SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
              FROM pg_constraint WHERE connamespace = 'public'::regnamespace
            UNION ALL
            SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
            UNION ALL
            SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), '', ''
              FROM pg_trigger WHERE NOT tgisinternal
             ORDER BY 1, 2, 3
            """
        )
        return [tuple(row) for row in rows]
    finally:
        await conn.close()


async def check(dsn: str) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        await schema.check(conn)
    finally:
        await conn.close()


async def test_models_and_migrations_agree(database: str) -> None:
    engine = create_async_engine(make_url(database).set(drivername="postgresql+asyncpg"), poolclass=NullPool)

    def compare(connection: Connection) -> None:
        command.check(schema.alembic_config(connection))

    async with engine.begin() as connection:
        await connection.run_sync(compare)
    await engine.dispose()


async def test_the_models_alone_would_make_the_same_tables(database: str, empty_database: str) -> None:
    # Alembic compares neither CHECKs nor the conditions of indexes.
    engine = create_async_engine(
        make_url(empty_database).set(drivername="postgresql+asyncpg"), poolclass=NullPool
    )
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    migrated = [
        row for row in await catalog(database) if "alembic_version" not in row and "append_only" not in row
    ]
    assert await catalog(empty_database) == migrated


async def test_upgrading_again_changes_nothing(empty_database: str) -> None:
    assert await asyncio.to_thread(schema.upgrade, empty_database) == HEAD
    once = await catalog(empty_database)
    assert await asyncio.to_thread(schema.upgrade, empty_database) == HEAD
    assert await catalog(empty_database) == once
    await check(empty_database)


async def test_every_step_but_the_first_can_be_taken_back(database: str) -> None:
    engine = create_async_engine(make_url(database).set(drivername="postgresql+asyncpg"), poolclass=NullPool)

    def down_and_up(connection: Connection) -> None:
        command.downgrade(schema.alembic_config(connection), "0001")
        command.upgrade(schema.alembic_config(connection), "head")

    before = await catalog(database)
    async with engine.begin() as connection:
        await connection.run_sync(down_and_up)
    await engine.dispose()
    assert await catalog(database) == before


async def test_programs_that_start_together_upgrade_once(empty_database: str, database: str) -> None:
    upgrades = (asyncio.to_thread(schema.upgrade, empty_database) for _ in range(3))
    assert await asyncio.gather(*upgrades) == [HEAD] * 3
    assert await catalog(empty_database) == await catalog(database)
    await check(empty_database)


async def test_an_upgrade_that_waits_for_nobody_gives_up(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_SECONDS", 0.1)
    conn = await asyncpg.connect(database)
    async with conn.transaction():
        await conn.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Exception, match="lock timeout"):
            await asyncio.to_thread(schema.upgrade, database)
    await conn.close()


async def test_a_database_that_cannot_be_entered_is_the_drivers_own_error(database: str) -> None:
    missing = make_url(database).set(database="nothing").render_as_string(hide_password=False)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncio.to_thread(schema.upgrade, missing)


@pytest.mark.parametrize("revision", ["9999", "a-fork"])
async def test_a_newer_schema_is_refused_in_one_line(database: str, revision: str) -> None:
    conn = await asyncpg.connect(database)
    await conn.execute("UPDATE alembic_version SET version_num = $1", revision)
    await conn.close()
    with pytest.raises(SchemaError) as refusal:
        await check(database)
    assert str(refusal.value) == (
        f"the database is at revision {revision}, newer than this program's {HEAD}; update antiphon"
    )


@pytest.mark.parametrize("statement", ["DROP TABLE alembic_version", "DELETE FROM alembic_version"])
async def test_a_missing_schema_is_refused_in_one_line(database: str, statement: str) -> None:
    conn = await asyncpg.connect(database)
    await conn.execute(statement)
    await conn.close()
    with pytest.raises(SchemaError) as refusal:
        await check(database)
    assert str(refusal.value) == (
        f"the database has no schema; run `antiphon migrate` to create revision {HEAD}"
    )


async def test_nobody_gets_a_pool_on_a_foreign_schema(
    empty_database: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = read_settings(
        {"ANTIPHON_DATABASE_URL": empty_database, "ANTIPHON_HOME": str(tmp_path_factory.mktemp("home"))}
    )
    with pytest.raises(SchemaError):
        async with open_pool(settings, size=1):
            pass


def test_closed_sets_are_stored_by_their_values_as_text() -> None:
    # A database enum is stored by its names, and cannot lose a value again.
    kinds = {type(column.type) for table in metadata.tables.values() for column in table.columns}
    assert Text in kinds
    assert {kind.__name__ for kind in kinds} & {"Enum", "ENUM", "Float", "Numeric", "REAL"} == set()


def test_money_is_whole_numbers() -> None:
    for table in metadata.tables.values():
        for column in table.columns:
            if "nano" in column.name or column.name.endswith("_ms"):
                assert type(column.type).__name__ == "BigInteger"
