"""The past cannot be changed: a trigger refuses it to everybody, and the owner has no right to do it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

import billing
from gateway.embedded import EmbeddedPostgres
from tests.billing.breaches import delivered, hold, live
from tests.factories import Conn

CHANGES = (
    "UPDATE {} SET created_at = now()",
    "UPDATE {} SET created_at = created_at WHERE false",
    "DELETE FROM {}",
    "DELETE FROM {} WHERE false",
    "TRUNCATE {} CASCADE",
)
WITH_ROWS_THAT_REFER_TO_IT = ("price_version", "transfer")

pytestmark = pytest.mark.parametrize("table", billing.APPEND_ONLY)


@pytest.fixture
async def superuser(database: str, postgres: EmbeddedPostgres) -> AsyncIterator[Conn]:
    """Whom no missing right stops."""
    conn = await asyncpg.connect(postgres.superuser_dsn, database=database.rpartition("/")[2])
    yield conn
    await conn.close()


async def all_of(conn: Conn, table: str) -> list[asyncpg.Record]:
    return await conn.fetch(f"SELECT * FROM {table}")  # noqa: S608 - constants


async def test_the_trigger_refuses_it_even_to_a_superuser(conn: Conn, superuser: Conn, table: str) -> None:
    await live(conn)
    before = await all_of(conn, table)
    assert before
    for change in CHANGES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"{table} is append-only"):
            await superuser.execute(change.format(table))
    assert await all_of(conn, table) == before


async def test_without_the_trigger_the_owner_has_no_right_to_it(
    conn: Conn, superuser: Conn, table: str
) -> None:
    await live(conn)
    before = await all_of(conn, table)
    who = await conn.fetchrow(
        """
        SELECT tableowner = current_user AS is_owner, rolsuper FROM pg_tables, pg_roles
         WHERE tablename = $1 AND rolname = current_user
        """,
        table,
    )
    assert (who["is_owner"], who["rolsuper"]) == (True, False)
    await superuser.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only")
    for change in CHANGES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"permission denied for table {table}"):
            await conn.execute(change.format(table))
    assert await all_of(conn, table) == before


async def test_what_foreign_keys_need_is_no_way_to_change_the_past(
    conn: Conn, superuser: Conn, table: str
) -> None:
    life = await live(conn)
    # Their check locks the row that is referred to, as the owner: for that it may update one column.
    change = f"UPDATE {table} SET {'reference' if table == 'usage_record' else 'id'} = gen_random_uuid()"  # noqa: S608
    if table == "entry":
        change = "UPDATE entry SET id = DEFAULT"
    is_referred_to = table in WITH_ROWS_THAT_REFER_TO_IT
    refusal = "is append-only" if is_referred_to else "permission denied"
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match=refusal):
        await conn.execute(change)
    await superuser.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only")
    async with conn.transaction():
        (reference,) = await hold(conn, life, count=1)
        await billing.settle(conn, [delivered(reference)])
        await billing.set_price(conn, model="sandbox", nano_per_second=7)
    await superuser.execute(f"ALTER TABLE {table} ENABLE TRIGGER append_only")
    assert await billing.verify(conn) == []
