"""What time ends: lapsed leases, deadlines, cancellations that were asked for in advance.

Every process does this, also those that serve HTTP: a gateway without workers still keeps its word.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from gateway.database import DATABASE_ERRORS
from gateway.jobs import queue, settlement

PERIOD_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


async def reap_forever(
    pool: "asyncpg.Pool[asyncpg.Record]", *, on_change: Callable[[], None] | None = None
) -> None:
    """Reap each second until cancelled; `on_change` is called when jobs were queued again or ended."""
    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        try:
            changed = await reap(pool)
        except DATABASE_ERRORS as error:
            log.warning("reaper.failed", error=type(error).__name__)
            continue
        if changed and on_change is not None:
            on_change()


async def reap(pool: "asyncpg.Pool[asyncpg.Record]") -> int:
    """Do what is due now; returns how many jobs were touched. Several processes may do so at once."""
    cancelled = await settlement.cancel_due(pool)
    async with pool.acquire() as conn:
        back = await queue.take_back_lapsed(conn)
    hopeless = await settlement.end_hopeless(pool)
    if cancelled or back or hopeless:
        log.warning("reaper.reaped", cancelled=cancelled, queued_again=back, ended=hopeless)
    return cancelled + back + hopeless
