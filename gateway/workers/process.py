"""The worker process put together: engine, encoder, store, pool."""

import asyncio
import os
from typing import Final

from engine.runtime import open_engine
from gateway.audio import Encoder
from gateway.backends.engine import EngineBackend
from gateway.backends.rehearsal import RehearsalBackend
from gateway.bootstrap import connect, open_pool
from gateway.settings import Settings
from gateway.storage import AudioStore
from gateway.workers.delivery import Delivery
from gateway.workers.janitor import sweep_forever
from gateway.workers.scratch import scratch_folder
from gateway.workers.worker import Worker

CAPACITY: Final = 4
"""Jobs under way at once: one renders while others are encoded and stored."""
POOL_SIZE: Final = 4
NICENESS: Final = 10
"""Rendering yields to whoever answers requests on the same machine."""


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop`; raises SchemaError on a database of another version."""
    os.nice(NICENESS)
    store = AudioStore(settings.storage_url)
    async with open_pool(settings, size=POOL_SIZE) as pool:
        with open_engine(device=settings.engine_device) as engine, scratch_folder(settings.home) as scratch:
            worker = Worker(
                pool=pool,
                backend=RehearsalBackend(EngineBackend(engine)),
                delivery=Delivery(encoder=Encoder(), store=store, scratch=scratch),
                capacity=CAPACITY,
                connect=lambda: connect(settings),
            )
            sweeping = asyncio.create_task(sweep_forever(pool, store))
            try:
                await worker.run(stop)
            finally:
                sweeping.cancel()
