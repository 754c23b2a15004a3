"""The worker process put together: engine, encoder, store, pool."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from engine.runtime import open_engine
from gateway.audio import Encoder
from gateway.backends.engine import EngineBackend
from gateway.backends.rehearsal import RehearsalBackend
from gateway.bootstrap import connect, database_url, open_pool
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
    _yield_to_others()
    # Looked up once: while an embedded database restarts, the home does not know where it is.
    settings = msgspec.structs.replace(settings, database_url=database_url(settings))
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


def _yield_to_others() -> None:
    """Be nice, also where Linux shares the CPU among sessions, and looks at niceness only inside them."""
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():  # else the session is somebody's terminal
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(NICENESS))
