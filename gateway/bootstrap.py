"""Settings become live objects here, opened and closed in one place; the only wiring of both processes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import asyncpg
import msgspec
import structlog

from billing.payments import Till, open_till
from gateway import schema
from gateway.audio import Decoder
from gateway.auth.directory import KeyDirectory
from gateway.backends.wavespeed import WaveSpeed
from gateway.bookkeeping import keep_books_forever, ledger_chores, payment_chores
from gateway.catalog import Catalog, read_catalog
from gateway.config_watch import ConfigWatch
from gateway.dialects.native.render import JobRenderer
from gateway.dialects.native.told_jobs import job_rendering
from gateway.dialects.provider_webhooks import ProviderHooks
from gateway.embedded import read_dsn
from gateway.files.scratch import scratch_folder
from gateway.files.service import Files
from gateway.jobs.forecast import Forecast
from gateway.jobs.reaper import reap_forever
from gateway.jobs.reports import Reports
from gateway.jobs.service import Jobs
from gateway.jobs.watching import JobWatch
from gateway.observability import Metrics
from gateway.outbound import open_sender
from gateway.routing import configured_providers, open_routes
from gateway.settings import Settings, SettingsError
from gateway.signed_urls import UrlSigner
from gateway.storage import AudioStore
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.live import Webhooks
from gateway.webhooks.sending import Postman
from gateway.webhooks.signing import Secrets

log = structlog.get_logger(__name__)

HTTP_POOL_SIZE = 14
WEBHOOK_POOL_SIZE = 4
COMMAND_TIMEOUT_SECONDS = 30
END_SECONDS = 5
STALLED_SECONDS = 5
"""A process that stands still in a transaction (stopped, cut off) loses it, with the locks that it held."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the HTTP process works with."""

    settings: Settings
    pool: "asyncpg.Pool[asyncpg.Record]"
    catalog: Catalog
    keys: KeyDirectory
    jobs: Jobs
    reports: Reports
    payments: Till | None
    store: AudioStore
    signer: UrlSigner
    renderer: JobRenderer
    job_watch: JobWatch
    files: Files
    webhooks: Webhooks
    provider_hooks: ProviderHooks
    metrics: Metrics


def database_url(settings: Settings) -> str:
    """The configured database, else the embedded one of a running `antiphon up`."""
    dsn = settings.database_url or read_dsn(settings.home)
    if dsn is None:
        raise SettingsError(
            "no database: set ANTIPHON_DATABASE_URL, or start `antiphon up` with the same ANTIPHON_HOME"
        )
    return dsn


async def connect(settings: Settings) -> "asyncpg.Connection[asyncpg.Record]":
    """One connection outside any pool, for commands and listeners."""
    conn = await asyncpg.connect(database_url(settings), timeout=10)
    try:
        await _lock_nobody_out(conn)
    except BaseException:
        conn.terminate()
        raise
    return conn


@contextlib.asynccontextmanager
async def open_pool(settings: Settings, *, size: int) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    """A pool on a database whose schema is ours; raises SchemaError otherwise."""
    async with asyncpg.create_pool(
        database_url(settings),
        min_size=min(2, size),
        max_size=size,
        command_timeout=COMMAND_TIMEOUT_SECONDS,
        init=_lock_nobody_out,
        reset=_leave_as_it_is,
    ) as pool:
        async with pool.acquire() as conn:
            await schema.check(conn)
        yield pool


async def _lock_nobody_out(conn: "asyncpg.Connection[asyncpg.Record]") -> None:
    await conn.execute(f"SET idle_in_transaction_session_timeout = '{STALLED_SECONDS}s'")


async def _leave_as_it_is(_: "asyncpg.Connection[asyncpg.Record]") -> None:
    """No query on return: nobody here sets anything that outlives a transaction."""


def _tell_of_crash(task: asyncio.Task[None]) -> None:
    """None of them ends by itself: what ended it is a defect, and loud."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("background.crashed", exc_info=error)


@contextlib.asynccontextmanager
async def open_http(settings: Settings) -> AsyncIterator[Live]:
    """The HTTP process' objects."""
    catalog = read_catalog(settings.catalog)
    routes = open_routes(
        catalog,
        engine_models=settings.engine_models,
        planner=settings.engine_planner,
        providers=configured_providers(
            runware_api_key=settings.runware_api_key, wavespeed_api_key=settings.wavespeed_api_key
        ),
    )
    store = AudioStore(settings.storage_url)
    signer = UrlSigner(settings.secret_key)
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as opened:
        pool = await opened.enter_async_context(open_pool(settings, size=HTTP_POOL_SIZE))
        # Their own: however much is to be told, nobody who asks waits for it.
        telling = await opened.enter_async_context(open_pool(settings, size=WEBHOOK_POOL_SIZE))
        scratch = opened.enter_context(scratch_folder(settings.home))
        watch = ConfigWatch(pool)
        await watch.refresh()
        till = open_payments(settings, pool)
        forecast = Forecast(pool)
        renderer = JobRenderer(store=store, signer=signer, forecast=forecast, public_url=settings.public_url)
        webhooks = _open_webhooks(settings, telling, store, renderer)
        provider_hooks = await opened.enter_async_context(_open_provider_hooks(settings, pool))
        background = [
            asyncio.create_task(watch.run()),
            asyncio.create_task(reap_forever(pool)),
            asyncio.create_task(keep_books_forever(ledger_chores(pool))),
            asyncio.create_task(webhooks.deliverer.run()),
        ]
        if till is not None:
            # Beside the others: a provider that hangs delays no bookkeeping.
            background.append(asyncio.create_task(keep_books_forever(payment_chores(till))))
        for task in background:
            task.add_done_callback(_tell_of_crash)
        jobs = Jobs(pool=pool, watch=watch, routes=routes, on_batch=metrics.observe_admission)
        job_watch = JobWatch(pool=pool, forecast=forecast)
        try:
            yield Live(
                settings=settings,
                pool=pool,
                catalog=catalog,
                keys=KeyDirectory(pool=pool, watch=watch, secret_key=settings.secret_key),
                jobs=jobs,
                reports=Reports(pool),
                payments=till,
                store=store,
                signer=signer,
                renderer=renderer,
                job_watch=job_watch,
                files=Files(pool=pool, store=store, scratch=scratch, decoder=Decoder()),
                webhooks=webhooks,
                provider_hooks=provider_hooks,
                metrics=metrics,
            )
        finally:
            job_watch.stop()
            await forecast.close()
            await jobs.close()
            await _end(background)
            if till is not None:
                await till.close()


def _open_webhooks(
    settings: Settings, pool: "asyncpg.Pool[asyncpg.Record]", store: AudioStore, renderer: JobRenderer
) -> Webhooks:
    secrets = Secrets(settings.secret_key)
    postman = Postman(
        pool=pool,
        sender=open_sender(allow_private_hosts=settings.allow_private_hosts),
        store=store,
        secrets=secrets,
        render=job_rendering(pool, renderer, origin=settings.public_url or settings.base_url),
    )
    return Webhooks(pool=pool, secrets=secrets, deliverer=Deliverer(pool=pool, postman=postman))


@contextlib.asynccontextmanager
async def _open_provider_hooks(
    settings: Settings, pool: "asyncpg.Pool[asyncpg.Record]"
) -> AsyncIterator[ProviderHooks]:
    """Doors for what providers tell, where they were asked to tell it."""
    wanted, wavespeed = settings.provider_webhooks, None
    if wanted and settings.wavespeed_api_key is not None:
        wavespeed = WaveSpeed(
            api_key=settings.wavespeed_api_key, base_url=settings.wavespeed_base_url, price_nano_per_second={}
        )
    try:
        yield ProviderHooks(
            pool,
            secret_key=settings.secret_key,
            fetch_wavespeed_secret=wavespeed.webhook_secret if wavespeed else None,
            runware=wanted and settings.runware_api_key is not None,
        )
    finally:
        if wavespeed is not None:
            await wavespeed.close()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel, more than once: a cancellation is lost in a task that something else wakes at that moment."""
    running = set(tasks)
    for _ in range(END_SECONDS):
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1)
        if not running:
            return
    log.error("background.does_not_end", tasks=[task.get_name() for task in running])


def open_payments(settings: Settings, pool: "asyncpg.Pool[asyncpg.Record]") -> Till | None:
    """What a process needs to take payments; None without a key of Stripe's. The caller closes it."""
    if settings.stripe_secret_key is None:
        return None
    return open_till(
        pool,
        secret_key=settings.stripe_secret_key,
        webhook_secret=settings.stripe_webhook_secret,
        base_url=settings.stripe_base_url,
    )
