"""The rules of money hold a second time, in Postgres: against every program and every hand."""

import uuid

import asyncpg
import pytest

import billing
from tests.factories import USD, Conn, new_customer


@pytest.fixture
async def account_id(conn: Conn) -> uuid.UUID:
    """A customer whose life has left a row in each table of the past."""
    account_id = (await new_customer(conn)).organization_id
    price_id = await conn.fetchval("SELECT id FROM price_version WHERE model = 'sandbox'")
    reference = uuid.uuid4()
    await conn.execute(
        """
        INSERT INTO hold (reference, account_id, price_version_id, amount_nano, deadline_at)
        VALUES ($1, $2, $3, 250, now() + interval '1 hour')
        """,
        reference,
        account_id,
        price_id,
    )
    await conn.execute("UPDATE account SET held_nano = 250 WHERE id = $1", account_id)
    async with conn.transaction():
        await billing.settle(conn, [billing.Delivery(reference=reference, frames=48, sample_rate=48_000)])
    assert await billing.verify(conn) == []
    return account_id


@pytest.mark.usefixtures("account_id")
@pytest.mark.parametrize("table", billing.APPEND_ONLY)
async def test_the_past_is_append_only(conn: Conn, table: str) -> None:
    before = await conn.fetch(f"SELECT * FROM {table}")  # noqa: S608 - constants
    assert before
    for statement in (
        f"UPDATE {table} SET created_at = now()",  # noqa: S608
        f"DELETE FROM {table}",  # noqa: S608
        f"TRUNCATE {table} CASCADE",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"append-only|permission denied"):
            await conn.execute(statement)
    assert await conn.fetch(f"SELECT * FROM {table}") == before  # noqa: S608


@pytest.mark.parametrize(
    "change",
    [
        f"held_nano = {USD + 1}",
        "posted_nano = -1",
        "held_nano = -1",
        "overdraft_nano = -1",
        "kind = 'friend'",
    ],
)
async def test_an_account_cannot_be_overdrawn(conn: Conn, account_id: uuid.UUID, change: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await conn.execute(f"UPDATE account SET {change} WHERE id = $1", account_id)  # noqa: S608


async def test_credit_on_trust_is_a_decision_that_the_account_shows(
    conn: Conn, account_id: uuid.UUID
) -> None:
    await conn.execute("UPDATE account SET overdraft_nano = 5 WHERE id = $1", account_id)
    account = await billing.read_account(conn, account_id)
    assert account.available_nano == account.posted_nano + 5
    assert account.reserve(account.available_nano)
    assert not account.reserve(1)


async def test_the_house_holds_nothing(conn: Conn) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await conn.execute("UPDATE account SET held_nano = 1 WHERE id = $1", billing.REVENUE)


@pytest.mark.usefixtures("account_id")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE hold SET state = 'open'",
        "UPDATE hold SET closed_at = NULL",
        "UPDATE hold SET state = 'lost'",
        "UPDATE hold SET amount_nano = -1",
        "INSERT INTO transfer (id, kind) VALUES (gen_random_uuid(), 'settle')",
        "INSERT INTO transfer (id, kind) VALUES (gen_random_uuid(), 'theft')",
        "INSERT INTO price_version (id, model, nano_per_second) VALUES (gen_random_uuid(), 'm', -1)",
        """
        INSERT INTO price_version (id, model, nano_per_second, was_nano_per_second)
        VALUES (gen_random_uuid(), 'm', 2, 2)
        """,
        """
        INSERT INTO price_version (id, model, nano_per_second, discount_ppm)
        VALUES (gen_random_uuid(), 'm', 2, 1000001)
        """,
        """
        INSERT INTO usage_record (reference, account_id, price_version_id, frames, sample_rate, billed_ms,
                                  cost_nano)
        SELECT gen_random_uuid(), account_id, price_version_id, 48, 48000, 2, 1 FROM usage_record
        """,
        """
        INSERT INTO usage_record (reference, account_id, price_version_id, frames, sample_rate, billed_ms,
                                  cost_nano)
        SELECT gen_random_uuid(), account_id, price_version_id, 0, 48000, 0, 0 FROM usage_record
        """,
    ],
)
async def test_a_row_that_contradicts_itself_cannot_be_written(conn: Conn, statement: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await conn.execute(statement)


@pytest.mark.usefixtures("account_id")
async def test_a_job_has_one_settlement(conn: Conn) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await conn.execute(
            """
            INSERT INTO transfer (id, kind, reference)
            SELECT gen_random_uuid(), kind, reference FROM transfer WHERE kind = 'settle'
            """
        )
