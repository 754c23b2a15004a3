"""What time ends: lapsed leases, deadlines, cancellations that were asked for in advance.

Every process does this, also those that serve HTTP: a gateway without workers still keeps its word.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from gateway.database import DATABASE_ERRORS
from gateway.jobs import moving, queue, settlement

PERIOD_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


async def reap_forever(
    pool: "asyncpg.Pool[asyncpg.Record]", *, on_change: Callable[[], None] | None = None
) -> None:
    """Reap each second until cancelled; `on_change` is called when jobs were queued again or ended."""
    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        try:
            back, ended = await reap(pool)
        except DATABASE_ERRORS as error:
            log.warning("reaper.failed", error=type(error).__name__)
            continue
        if (back or ended) and on_change is not None:
            on_change()


async def reap(pool: "asyncpg.Pool[asyncpg.Record]") -> tuple[int, int]:
    """Do what is due now; how many jobs were queued again, how many ended. Several processes may do so
    at once.
    """
    async with pool.acquire() as conn, conn.transaction():
        back = await queue.take_back_lapsed(conn)
    async with pool.acquire() as conn, conn.transaction():
        await moving.give_up_unwatched(conn)
    async with pool.acquire() as conn:
        moved = await moving.reroute(conn)
    async with pool.acquire() as conn:
        cancelled = await settlement.ask_for_due_cancellations(conn)
    ended = await settlement.end_hopeless(pool)
    if back or moved or ended:
        log.info("reaper.reaped", queued_again=back, moved=moved, asked_to_cancel=cancelled, ended=ended)
    return back + moved, ended
