"""The worker process put together: engine, encoder, store, pool."""

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
import structlog

from engine import Engine, LoadState, ModelSpec, Tuning
from engine.runtime import open_engine
from gateway.audio import Decoder, Encoder
from gateway.backends.engine import EngineBackend
from gateway.backends.rehearsal import RehearsalBackend
from gateway.backends.remote.backend import RemoteBackend
from gateway.bootstrap import connect, database_url, open_pool
from gateway.catalog import SANDBOX, Catalog, read_catalog
from gateway.files.fetch import open_fetcher
from gateway.files.inputs import AudioInputs
from gateway.files.scratch import scratch_folder
from gateway.jobs.queue import Claim
from gateway.jobs.workforce import LoadedModel
from gateway.routing import open_routes
from gateway.settings import Settings
from gateway.storage import AudioStore
from gateway.workers.collection import Collector, open_collector
from gateway.workers.delivery import Delivery
from gateway.workers.janitor import sweep_forever
from gateway.workers.providers import (
    LEASE_SECONDS,
    PROVIDER_WAITING_SECONDS,
    open_remotes,
    warnings_of,
    watch_remotes,
)
from gateway.workers.worker import Worker

CAPACITY: Final = 4
"""Jobs of the composer under way at once: one renders while others are encoded and stored."""
MODEL_CAPACITY: Final = 16
"""The same where models with weights render several songs at once."""
WAITING_SONGS: Final = 8 * MODEL_CAPACITY
"""In the engine: every job may have eight variations."""
POOL_SIZE: Final = 6
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
    catalog = read_catalog(settings.catalog)
    models = _model_specs(settings, catalog)
    async with open_pool(settings, size=POOL_SIZE) as pool, contextlib.AsyncExitStack() as opened:
        scratch = opened.enter_context(scratch_folder(settings.home))
        engines = [opened.enter_context(engine) for engine in _open_engines(settings, models)]
        encoder = Encoder()
        inputs = _inputs(settings, pool, store, scratch, encoder)
        remotes = await opened.enter_async_context(open_remotes(settings, catalog, inputs))
        hands = Hands(pool, Delivery(encoder=encoder, store=store, scratch=scratch), settings)
        workers = [
            hands.on_engine(engine, inputs, capacity)
            for engine, capacity in zip(engines, (CAPACITY, MODEL_CAPACITY), strict=False)
        ]
        collector = open_collector(settings, scratch)
        warn = warnings_of(settings, catalog)
        workers += [hands.on_provider(remote, collector, warn) for remote in remotes]
        watching = [
            work for engine in engines for work in (stop_when_worn_out(engine, stop), tell_of_models(engine))
        ]
        if remotes:
            watching.append(watch_remotes(remotes, pool, lambda: connect(settings)))
        beside = [asyncio.create_task(work) for work in (sweep_forever(pool, store), *watching)]
        for task in beside:
            task.add_done_callback(_tell_of_crash)
        try:
            await _run_all(workers, stop)
        finally:
            for task in beside:
                task.cancel()


class Hands(msgspec.Struct, frozen=True):
    """What all workers of a process have in common."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    delivery: Delivery
    settings: Settings

    def on_engine(self, engine: Engine, inputs: AudioInputs, capacity: int) -> Worker:
        """A worker that renders here."""
        return Worker(
            pool=self.pool,
            backend=RehearsalBackend(EngineBackend(engine, inputs)),
            delivery=self.delivery,
            capacity=capacity,
            connect=lambda: connect(self.settings),
            models=functools.partial(_loaded, engine),
        )

    def on_provider(
        self,
        remote: RemoteBackend,
        collector: Collector,
        warn: Callable[[Claim], tuple[str, ...]],
        *,
        waiting_seconds: float = PROVIDER_WAITING_SECONDS,
    ) -> Worker:
        """A worker that lets a provider render."""
        return Worker(
            pool=self.pool,
            backend=remote,
            delivery=self.delivery,
            capacity=self.settings.provider_concurrency,
            connect=lambda: connect(self.settings),
            lease_seconds=LEASE_SECONDS,
            waiting_seconds=waiting_seconds,
            collector=collector,
            routes=remote.health,
            observe=remote.note_outcome,
            warn=warn,
        )


def _tell_of_crash(task: asyncio.Task[None]) -> None:
    """What runs beside the workers never ends by itself, but for a watch whose engine has told all."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("worker.crashed_beside", exc_info=error)


def _open_engines(settings: Settings, models: list[ModelSpec]) -> Iterator[Engine]:
    """One for the composer, one for models: songs of test keys never wait for a device, nor it for them.

    Of two in one process only one watches for leaks: the memory is theirs together.
    """
    tuning = Tuning(leak_bytes=None) if models else Tuning()
    yield open_engine(device=settings.engine_device, tuning=tuning)
    if models:
        yield open_engine(
            device=settings.engine_device,
            models=models,
            planner=settings.engine_planner,
            composer=False,
            max_waiting=WAITING_SONGS,
        )


async def _run_all(workers: Sequence[Worker], stop: asyncio.Event) -> None:
    """Until `stop`, or until one ends, which only a defect brings about: then the others stop, too."""
    running = [asyncio.create_task(worker.run(stop)) for worker in workers]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        await asyncio.wait(running)
    for task in running:
        task.result()


def _model_specs(settings: Settings, catalog: Catalog) -> list[ModelSpec]:
    """Raises RoutingError for a name that the catalog does not give to the engine."""
    open_routes(catalog, engine_models=settings.engine_models, planner=settings.engine_planner)
    return [
        ModelSpec(name=name, source=source, variant=catalog.models[name].engine or "")
        for name, source in settings.engine_models
    ]


def _inputs(
    settings: Settings,
    pool: "asyncpg.Pool[asyncpg.Record]",
    store: AudioStore,
    scratch: Path,
    encoder: Encoder,
) -> AudioInputs:
    return AudioInputs(
        pool=pool,
        store=store,
        scratch=scratch,
        fetcher=open_fetcher(allow_private_hosts=settings.allow_private_hosts),
        decoder=Decoder(),
        encoder=encoder,
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
