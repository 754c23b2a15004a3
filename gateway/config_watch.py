"""Caches of what administrators change: keys, prices. A change counts everywhere within a second.

Every change bumps one counter row in the same transaction. Each process reads the counter a few
times a second and drops its caches when it moved; when the counter cannot be read, caches are not
believed at all. Polling one row needs no listening connection and survives poolers and restarts.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import asyncpg
import structlog

import billing
from gateway.database import DATABASE_ERRORS

POLL_SECONDS: Final = 0.3
STALE_SECONDS: Final = 0.9
MAX_ENTRIES: Final = 10_000

K = TypeVar("K")
V = TypeVar("V")

log = structlog.get_logger(__name__)


class ConfigWatch:
    """Knows the counter's last value and how old that knowledge is."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._read_at = float("-inf")
        self.revision = -1

    @property
    def is_fresh(self) -> bool:
        """Whether the counter was read recently enough to believe a cache."""
        return time.monotonic() - self._read_at < STALE_SECONDS

    async def refresh(self) -> None:
        """Read the counter now."""
        started = time.monotonic()
        self.revision = await self._pool.fetchval("SELECT revision FROM config_revision")
        self._read_at = started

    async def run(self) -> None:
        """Keep reading until cancelled; an unreachable database only makes the caches distrusted."""
        while True:
            try:
                async with asyncio.timeout(STALE_SECONDS):
                    await self.refresh()
            except DATABASE_ERRORS as error:
                log.warning("config_watch.unreachable", error=type(error).__name__)
            await asyncio.sleep(POLL_SECONDS)


class RevisionCache(Generic[K, V]):
    """A bounded cache whose entries live until the next change of the configuration."""

    def __init__(self, watch: ConfigWatch, load: Callable[[K], Awaitable[V]]) -> None:
        self._watch = watch
        self._load = load
        self._entries: dict[K, V] = {}
        self._revision = -1

    async def get(self, key: K) -> V:
        """The value for `key`, loaded unless it is known for sure to be current."""
        revision = self._watch.revision
        if revision != self._revision:
            self._entries.clear()
            self._revision = revision
        fresh = self._watch.is_fresh
        if fresh and key in self._entries:
            return self._entries[key]
        value = await self._load(key)
        # A change between the counter's read and the load would be missed: keep nothing then.
        if fresh and self._watch.revision == revision and len(self._entries) < MAX_ENTRIES:
            self._entries[key] = value
        return value


async def bump_revision(conn: billing.Connection) -> None:
    """Tell every process, at this transaction's commit, that keys or prices have changed."""
    await conn.execute("UPDATE config_revision SET revision = revision + 1")
