"""A worker in this process, on a database with prices and a folder of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import asyncpg
import pytest

from gateway.audio import Encoder
from gateway.backends.base import Backend
from gateway.storage import AudioStore
from gateway.workers.delivery import Delivery
from gateway.workers.worker import Worker
from tests.factories import Pool, open_lane, open_shop
from tests.workbench import Workbench

RunWorker = Callable[[Backend], AbstractAsyncContextManager[Worker]]


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=8) as opened:
        async with opened.acquire() as conn:
            await open_shop(conn)
        yield opened


@pytest.fixture
async def bench(pool: Pool, database: str) -> AsyncIterator[Workbench]:
    async with open_lane(database) as jobs:
        yield Workbench(pool, jobs)


@pytest.fixture
def store(tmp_path: Path) -> AudioStore:
    return AudioStore((tmp_path / "audio").as_uri())


@pytest.fixture
def run_worker(pool: Pool, store: AudioStore, database: str, tmp_path: Path) -> RunWorker:
    """Workers that run while their context is open, and then drain."""

    @contextlib.asynccontextmanager
    async def run(backend: Backend) -> AsyncIterator[Worker]:
        worker = Worker(
            pool=pool,
            backend=backend,
            delivery=Delivery(encoder=Encoder(), store=store, scratch=tmp_path),
            capacity=2,
            connect=lambda: asyncpg.connect(database),
        )
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            await running

    return run
