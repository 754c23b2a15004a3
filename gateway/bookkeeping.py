"""What keeps the books by itself: credit expires, debts are collected, notices are told, books are checked.

Every HTTP process runs it; rows are taken with SKIP LOCKED and checks under an advisory lock, so that
many processes do each thing once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg
import msgspec
import structlog

import billing
from billing import payments
from gateway.database import DATABASE_ERRORS
from gateway.jobs.audit import check_recent
from gateway.webhooks.outbox import note_money

log = structlog.get_logger(__name__)

TICK_SECONDS: Final = 1.0
TOP_UP_SECONDS: Final = 3.0
SWEEP_SECONDS: Final = 60.0
HOUR_SECONDS: Final = 3600.0


class Chore(msgspec.Struct):
    """Something to do again and again, and when it is due next."""

    name: str
    every_seconds: float
    do: Callable[[], Awaitable[Any]]
    due_at: float = 0.0


def ledger_chores(pool: "asyncpg.Pool[asyncpg.Record]") -> list[Chore]:
    """What the ledger needs, whatever else is configured."""
    watch = billing.LedgerWatch()
    return [
        Chore("tell", TICK_SECONDS, lambda: tell_notices(pool)),
        Chore("expire", SWEEP_SECONDS, lambda: _until_done(pool, billing.expire_due)),
        Chore("collect", SWEEP_SECONDS, lambda: _until_done(pool, billing.collect_debts)),
        Chore("check", SWEEP_SECONDS, lambda: _check(pool, watch)),
    ]


def payment_chores(till: payments.Till) -> list[Chore]:
    """What needs the payment provider."""
    return [
        Chore("auto_top_up", TOP_UP_SECONDS, lambda: payments.run_auto_top_ups(till.pool, till.processor)),
        Chore("look_again", SWEEP_SECONDS, lambda: payments.look_again(till.pool, till.processor)),
        Chore("forget", HOUR_SECONDS, lambda: _until_done(till.pool, payments.forget_old_events)),
    ]


async def keep_books_forever(wanted: Sequence[Chore]) -> None:
    """Do each chore when it is due until cancelled; one that fails is tried again at its next time."""
    while True:
        now = time.monotonic()
        for chore in wanted:
            if chore.due_at <= now:
                chore.due_at = now + chore.every_seconds
                await _do(chore)
        await asyncio.sleep(TICK_SECONDS)


async def tell_notices(pool: "asyncpg.Pool[asyncpg.Record]") -> int:
    """Tell of what happened to somebody's money, in the log and by webhooks; returns how many notices
    there were.
    """
    async with pool.acquire() as conn, conn.transaction():
        notices = await billing.take_untold(conn)
        await note_money(conn, notices)
    for notice in notices:
        log.warning(
            "money.notice",
            kind=notice.kind,
            organization=notice.account_id.hex,
            notice=notice.id,
            data=notice.data,
        )
    return len(notices)


async def _do(chore: Chore) -> None:
    try:
        await chore.do()
    except DATABASE_ERRORS as error:
        log.warning("bookkeeping.failed", chore=chore.name, error=type(error).__name__)
    except payments.PaymentError as error:
        log.warning("bookkeeping.failed", chore=chore.name, error=str(error))
    except (billing.BillingError, asyncpg.IntegrityConstraintViolationError):
        log.exception("bookkeeping.refused", chore=chore.name)


async def _check(pool: "asyncpg.Pool[asyncpg.Record]", watch: billing.LedgerWatch) -> None:
    async with pool.acquire() as conn:
        await check_recent(conn, watch)


async def _until_done(
    pool: "asyncpg.Pool[asyncpg.Record]", work: Callable[[billing.Connection], Awaitable[int]]
) -> None:
    """One transaction after the other, so that nobody's account is locked for long."""
    done = 1
    while done:
        async with pool.acquire() as conn, conn.transaction():
            done = await work(conn)
