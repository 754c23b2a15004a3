"""The chores of the ledger, on real Postgres: each is done once, however many processes do them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

import billing
from gateway.bookkeeping import Chore, keep_books_forever, ledger_chores, tell_notices
from tests.factories import PATIENCE_SECONDS, USD, Pool, expire_now, new_customer, open_shop, until


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=8) as opened:
        async with opened.acquire() as conn:
            await open_shop(conn)
        yield opened


async def test_what_happens_to_money_is_told_once_however_many_processes_look(pool: Pool) -> None:
    async with pool.acquire() as conn:
        for _ in range(5):
            await new_customer(conn, credit_nano=USD // 2)
    told = sum(await asyncio.gather(*(tell_notices(pool) for _ in range(6))))
    assert told == 5
    assert await tell_notices(pool) == 0
    assert await pool.fetchval("SELECT count(*) FROM notice WHERE told_at IS NOT NULL") == 5


async def test_credit_expires_and_debts_are_paid_by_the_chores(pool: Pool) -> None:
    async with pool.acquire() as conn:
        lapsing = (await new_customer(conn, credit_nano=USD)).organization_id
        owing = (await new_customer(conn, credit_nano=USD)).organization_id
        await conn.execute("UPDATE credit_grant SET expires_at = 'infinity' WHERE account_id = $1", lapsing)
        await expire_now(conn, lapsing)
    async with pool.acquire() as conn, conn.transaction():
        await billing.take_back(
            conn,
            account_id=owing,
            kind="dispute",
            external_ref="dp_1",
            amount_nano=3 * USD,
            top_up_ref="pi_1",
        )
        await billing.grant(conn, account_id=owing, amount_nano=3 * USD, reason="goodwill")
    task = asyncio.create_task(keep_books_forever(ledger_chores(pool)))

    async def settled() -> bool:
        async with pool.acquire() as conn:
            accounts = [await billing.read_account(conn, one) for one in (lapsing, owing)]
        return [(a.posted_nano, a.owed_nano) for a in accounts] == [(0, 0), (USD, 0)]

    await until(settled, what="the chores")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    async with pool.acquire() as conn:
        assert await billing.verify(conn) == []


async def test_a_chore_that_fails_stops_no_other_and_is_tried_again() -> None:
    failures, done = 0, asyncio.Event()

    async def fail() -> None:
        nonlocal failures
        failures += 1
        raise billing.LedgerConflict("the books refuse")

    async def work() -> None:
        if failures >= 2:
            done.set()

    task = asyncio.create_task(keep_books_forever([Chore("fail", 0.0, fail), Chore("work", 0.0, work)]))
    await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert failures >= 2
