"""Breaking a throw-away database on purpose, past every trigger and foreign key, to see it noticed."""

from collections.abc import Sequence

import asyncpg


async def plant(
    dsn: str, superuser_dsn: str, statements: Sequence[str], *, without: Sequence[str] = ()
) -> None:
    """Run `statements` as the superuser with triggers asleep; `without` names CHECKs (table.name) to drop."""
    conn = await asyncpg.connect(superuser_dsn, database=dsn.rpartition("/")[2])
    try:
        await conn.execute("SET session_replication_role = replica")
        for check in without:
            table, _, name = check.partition(".")
            await conn.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        for statement in statements:
            assert not (await conn.execute(statement)).endswith(" 0"), f"changed nothing: {statement}"
    finally:
        await conn.close()
