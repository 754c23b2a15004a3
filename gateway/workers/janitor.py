"""What nobody needs any more: audio whose retention is over, with what failed attempts left beside it."""

import asyncio
from typing import Final

import asyncpg
import structlog

from gateway.database import DATABASE_ERRORS
from gateway.jobs import retention
from gateway.storage import AudioStore, StoreError

BATCH: Final = 50
PERIOD_SECONDS: Final = 60

log = structlog.get_logger(__name__)


async def sweep_forever(pool: "asyncpg.Pool[asyncpg.Record]", store: AudioStore) -> None:
    """Sweep now and then, until cancelled; what cannot be deleted today is tried again."""
    while True:
        try:
            swept = await sweep(pool, store)
        except (*DATABASE_ERRORS, StoreError) as error:
            log.warning("janitor.failed", error=type(error).__name__)
            swept = 0
        if swept:
            log.info("janitor.swept", jobs=swept)
        if swept < BATCH:
            await asyncio.sleep(PERIOD_SECONDS)


async def sweep(pool: "asyncpg.Pool[asyncpg.Record]", store: AudioStore) -> int:
    """Delete the files of expired jobs; returns how many jobs were swept.

    Files go first, outside any transaction: a crash between the two only means that they are looked
    for again. Two workers that sweep the same job find that deleting twice does no harm.
    """
    async with pool.acquire() as conn:
        expired = await retention.find_expired(conn, limit=BATCH)
    for job in expired:
        await store.delete_below(job.folder)
    if expired:
        async with pool.acquire() as conn:
            await retention.note_deleted(conn, [job.id for job in expired])
    return len(expired)
