"""What nobody needs any more: audio whose retention is over, with what failed attempts left beside it.

That of jobs, and what clients have uploaded.
"""

import asyncio
from typing import Final

import asyncpg
import structlog

from gateway.database import DATABASE_ERRORS
from gateway.files import store as files
from gateway.jobs import retention
from gateway.storage import AudioStore, StoreError

BATCH: Final = 50
PERIOD_SECONDS: Final = 60

log = structlog.get_logger(__name__)


async def sweep_forever(pool: "asyncpg.Pool[asyncpg.Record]", store: AudioStore) -> None:
    """Sweep now and then, until cancelled; what cannot be deleted today is tried again."""
    while True:
        try:
            jobs, uploads = await sweep(pool, store), await sweep_files(pool, store)
        except (*DATABASE_ERRORS, StoreError) as error:
            log.warning("janitor.failed", error=type(error).__name__)
            jobs = uploads = 0
        if jobs or uploads:
            log.info("janitor.swept", jobs=jobs, files=uploads)
        if max(jobs, uploads) < BATCH:
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


async def sweep_files(pool: "asyncpg.Pool[asyncpg.Record]", store: AudioStore) -> int:
    """Delete uploaded files that nobody needs; returns how many. As with jobs, the bytes go first."""
    async with pool.acquire() as conn:
        unneeded = await retention.find_unneeded_files(conn, limit=BATCH)
    for found in unneeded:
        await store.delete(found.key)
    if unneeded:
        async with pool.acquire() as conn:
            await files.forget(conn, [found.id for found in unneeded])
    return len(unneeded)
