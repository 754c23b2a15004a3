"""The worker process put together: engine, encoder, store, pool."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
import structlog

from engine import Engine, LoadState, ModelSpec
from engine.runtime import open_engine
from gateway.audio import Decoder, Encoder
from gateway.backends.engine import EngineBackend
from gateway.backends.rehearsal import RehearsalBackend
from gateway.bootstrap import connect, database_url, open_pool
from gateway.catalog import SANDBOX, Catalog, read_catalog
from gateway.files.fetch import open_fetcher
from gateway.files.inputs import AudioInputs
from gateway.files.scratch import scratch_folder
from gateway.jobs.workforce import LoadedModel
from gateway.routing import open_routes
from gateway.settings import Settings
from gateway.storage import AudioStore
from gateway.workers.delivery import Delivery
from gateway.workers.janitor import sweep_forever
from gateway.workers.worker import Worker

CAPACITY: Final = 4
"""Jobs under way at once: one renders while others are encoded and stored."""
MODEL_CAPACITY: Final = 16
"""The same where models with weights render several songs at once."""
WAITING_SONGS: Final = 8 * MODEL_CAPACITY
"""In the engine: every job may have eight variations."""
POOL_SIZE: Final = 4
WEAR_SECONDS: Final = 5.0
NICENESS: Final = 10
"""Rendering yields to whoever answers requests on the same machine."""

log = structlog.get_logger(__name__)


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """Work until `stop`, or until memory leaks; raises SchemaError on a database of another version."""
    _yield_to_others()
    # Looked up once: while an embedded database restarts, the home does not know where it is.
    settings = msgspec.structs.replace(settings, database_url=database_url(settings))
    store = AudioStore(settings.storage_url)
    models = _model_specs(settings, read_catalog(settings.catalog))
    async with open_pool(settings, size=POOL_SIZE) as pool:
        engine = open_engine(
            device=settings.engine_device,
            models=models,
            planner=settings.engine_planner,
            max_waiting=WAITING_SONGS,
        )
        with engine, scratch_folder(settings.home) as scratch:
            inputs = _inputs(settings, pool, store, scratch)
            worker = Worker(
                pool=pool,
                backend=RehearsalBackend(EngineBackend(engine, inputs)),
                delivery=Delivery(encoder=Encoder(), store=store, scratch=scratch),
                capacity=MODEL_CAPACITY if models else CAPACITY,
                connect=lambda: connect(settings),
                models=lambda: _loaded(engine),
            )
            beside = [
                asyncio.create_task(sweep_forever(pool, store)),
                asyncio.create_task(stop_when_worn_out(engine, stop)),
                asyncio.create_task(tell_of_models(engine)),
            ]
            try:
                await worker.run(stop)
            finally:
                for task in beside:
                    task.cancel()


def _model_specs(settings: Settings, catalog: Catalog) -> list[ModelSpec]:
    """Raises RoutingError for a name that the catalog does not give to the engine."""
    open_routes(catalog, engine_models=settings.engine_models, planner=settings.engine_planner)
    return [
        ModelSpec(name=name, source=source, variant=catalog.models[name].engine or "")
        for name, source in settings.engine_models
    ]


def _inputs(
    settings: Settings, pool: "asyncpg.Pool[asyncpg.Record]", store: AudioStore, scratch: Path
) -> AudioInputs:
    return AudioInputs(
        pool=pool,
        store=store,
        scratch=scratch,
        fetcher=open_fetcher(allow_private_hosts=settings.allow_private_hosts),
        decoder=Decoder(),
    )


def _loaded(engine: Engine) -> list[LoadedModel]:
    """What the engine tells of its models with weights, for whoever admits jobs and shows models."""
    return [
        LoadedModel(
            model=status.model,
            state=status.state.value,
            warm=status.warm,
            load_seconds=status.load_seconds,
            realtime_factor=status.realtime_factor,
            longest_seconds=status.longest_seconds,
            reads_codes=status.reads_codes,
            error=status.error,
        )
        for status in engine.status()
        if status.model != SANDBOX
    ]


async def tell_of_models(engine: Engine, *, period_seconds: float = 1.0) -> None:
    """Log of each model once that it is ready, or why it is not: refusals of jobs send operators here."""
    told: set[str] = {SANDBOX}
    while left := [status for status in engine.status() if status.model not in told]:
        for status in left:
            if status.state is LoadState.FAILED:
                log.error("worker.model_failed", model=status.model, reason=status.error)
            elif status.state is LoadState.READY:
                log.info("worker.model_ready", model=status.model, seconds=status.load_seconds)
            else:
                continue
            told.add(status.model)
        await asyncio.sleep(period_seconds)


async def stop_when_worn_out(
    engine: Engine, stop: asyncio.Event, *, period_seconds: float = WEAR_SECONDS
) -> None:
    """A worker that leaks finishes what it has and ends; whoever started it starts a fresh one."""
    while True:
        await asyncio.sleep(period_seconds)
        if engine.worn_out:
            break
    log.warning("worker.worn_out", models=sorted(engine.models))
    stop.set()


def _yield_to_others() -> None:
    """Be nice, also where Linux shares the CPU among sessions, and looks at niceness only inside them."""
    os.nice(NICENESS)
    if os.getsid(0) == os.getpid():  # else the session is somebody's terminal
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(NICENESS))
