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
from tests.factories import Pool

RunWorker = Callable[[Backend], AbstractAsyncContextManager[Worker]]


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
