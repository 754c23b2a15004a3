"""Books that an earlier version has kept are right after the upgrade, too."""

import asyncpg
from alembic import command
from sqlalchemy import Connection, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import billing
from gateway import schema
from tests.billing.breaches import Life, delivered, hold
from tests.factories import USD, Conn, new_customer

BEFORE_GRANTS = "0002"


async def go_back_and_come_again(dsn: str) -> None:
    engine = create_async_engine(make_url(dsn).set(drivername="postgresql+asyncpg"), poolclass=NullPool)

    def down_and_up(connection: Connection) -> None:
        command.downgrade(schema.alembic_config(connection), BEFORE_GRANTS)
        command.upgrade(schema.alembic_config(connection), "head")

    async with engine.begin() as connection:
        await connection.run_sync(down_and_up)
    await engine.dispose()


async def test_credit_from_before_there_were_grants_is_that_of_the_last_ones(
    conn: Conn, database: str
) -> None:
    rich, poor, new = [(await new_customer(conn, credit_nano=nano)) for nano in (USD, 2_500_000, 0)]
    for nano in (USD // 2, USD // 4):
        await billing.grant(conn, account_id=rich.organization_id, amount_nano=nano, reason="more")
    for principal, count in ((rich, 80), (poor, 1)):
        async with conn.transaction():
            life = Life(principal, principal, ())
            references = await hold(conn, life, count=count)
            await billing.settle(conn, [delivered(reference, ms=10_000) for reference in references])
    await conn.execute("UPDATE account SET overdraft_nano = 5 * 2500000 WHERE id = $1", new.organization_id)
    async with conn.transaction():
        references = await hold(conn, Life(new, new, ()), count=5)
        await billing.settle(conn, [delivered(reference, ms=10_000) for reference in references])
    assert await billing.verify(conn) == []
    spent = 80 * 2_500_000
    await conn.close()
    await go_back_and_come_again(database)

    again = await asyncpg.connect(database)
    assert await billing.verify(again) == []
    rows = await again.fetch("SELECT amount_nano, remaining_nano FROM credit_grant ORDER BY created_at")
    assert [tuple(row) for row in rows] == [
        (USD, USD - spent),
        (2_500_000, 0),
        (USD // 2, USD // 2),
        (USD // 4, USD // 4),
    ]
    assert (await billing.read_account(again, new.organization_id)).posted_nano == -5 * 2_500_000
    await again.close()
