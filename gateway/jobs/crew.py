"""What the workers can do, as last told: read once a second at most, however many ask."""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import asyncpg
import structlog

from gateway.database import DATABASE_ERRORS
from gateway.jobs.workforce import LoadedModel, Workforce, read_workforce
from gateway.routing import RouteHealth

REFRESH_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Crew:
    """One process' knowledge of the workers."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._workforce = Workforce()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def workforce(self) -> Workforce:
        """All of it; what was known last while the database does not answer."""
        if time.monotonic() - self._read_at > REFRESH_SECONDS:
            async with self._reading:
                if time.monotonic() - self._read_at > REFRESH_SECONDS:
                    await self._read()
        return self._workforce

    async def models(self) -> Mapping[str, LoadedModel]:
        """The engine's, by public id."""
        return (await self.workforce()).models

    async def health(self) -> Mapping[tuple[str, str], RouteHealth]:
        """Of remote routes, by backend and model."""
        return (await self.workforce()).health

    async def _read(self) -> None:
        try:
            async with self._pool.acquire() as conn:
                self._workforce = await read_workforce(conn)
        except DATABASE_ERRORS as error:
            log.warning("crew.unknown", error=type(error).__name__)
        self._read_at = time.monotonic()
