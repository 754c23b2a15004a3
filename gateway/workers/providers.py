"""The remote providers of a worker process: opened from settings, watched beside the work, closed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import structlog

from gateway.backends.remote.backend import RemoteBackend
from gateway.backends.remote.pace import Pace
from gateway.backends.remote.provider import Provider
from gateway.backends.runware import Runware
from gateway.backends.wavespeed import WaveSpeed
from gateway.catalog import Catalog
from gateway.database import DATABASE_ERRORS
from gateway.files.inputs import AudioInputs
from gateway.jobs.balances import note_balances
from gateway.jobs.hints import listen_for_hints, runware_webhook_url, wavespeed_webhook_url
from gateway.jobs.queue import Claim
from gateway.routing import RUNWARE, WAVESPEED, configured_providers, judge, open_routes
from gateway.settings import Settings
from gateway.workers.worker import Connect

LEASE_SECONDS: Final = 30.0
"""Of a remote task: longer than of a song in memory, for ten thousand of them are beaten in turn."""
PROVIDER_WAITING_SECONDS: Final = 1800.0
"""A provider that has told of no progress by then is given up."""
BALANCE_SECONDS: Final = 300.0

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def open_remotes(
    settings: Settings, catalog: Catalog, inputs: AudioInputs, *, pace: Pace | None = None
) -> AsyncIterator[list[RemoteBackend]]:
    """One backend for each provider that has a key and a model in the catalog."""
    backends = []
    names = configured_providers(
        runware_api_key=settings.runware_api_key, wavespeed_api_key=settings.wavespeed_api_key
    )
    for name in sorted(names):
        models = {model.id: model for model in catalog.models.values() if name in model.backends}
        if not models:
            continue
        prices = {
            model.id: nano for model in models.values() if (nano := model.provider_price(name)) is not None
        }
        remote_names = {model_id: model.backends[name] for model_id, model in models.items()}
        provider = _open(name, settings, {remote_names[model_id]: nano for model_id, nano in prices.items()})
        backends.append(
            RemoteBackend(
                provider,
                models=remote_names,
                nano_per_second=prices,
                brought=inputs.file,
                capacity=settings.provider_concurrency,
                pace=pace,
            )
        )
    try:
        yield backends
    finally:
        for backend in backends:
            await backend.close()


def warnings_of(settings: Settings, catalog: Catalog) -> Callable[[Claim], tuple[str, ...]]:
    """What a remote route changes of a request, for customers whose job came to it from another."""
    providers = configured_providers(
        runware_api_key=settings.runware_api_key, wavespeed_api_key=settings.wavespeed_api_key
    )
    routes = open_routes(catalog, engine_models=(), planner=None, providers=providers)
    by_queue = {route.queue: route for model in catalog.models.values() for route in routes.of(model)}

    def warn(claim: Claim) -> tuple[str, ...]:
        route = by_queue.get(claim.queue)
        return () if route is None else judge(route, claim.request, None).warnings

    return warn


def _open(name: str, settings: Settings, prices: Mapping[str, int]) -> Provider:
    tells = settings.public_url if settings.provider_webhooks else None
    if name == RUNWARE:
        return Runware(
            api_key=settings.runware_api_key or "",
            base_url=settings.runware_base_url,
            webhook_url=tells and runware_webhook_url(tells, settings.secret_key),
        )
    if name == WAVESPEED:
        return WaveSpeed(
            api_key=settings.wavespeed_api_key or "",
            base_url=settings.wavespeed_base_url,
            price_nano_per_second=prices,
            webhook_url=tells and wavespeed_webhook_url(tells),
        )
    raise AssertionError(name)


async def watch_remotes(
    backends: list[RemoteBackend], pool: "asyncpg.Pool[asyncpg.Record]", connect: Connect
) -> None:
    """Endless: their accounts, what they tell by webhook, and a record of what the accounts held."""
    by_name = {backend.name: backend for backend in backends}

    def hint(name: str, ref: str) -> None:
        if (backend := by_name.get(name)) is not None:
            backend.hint(ref)

    async with asyncio.TaskGroup() as group:
        for backend in backends:
            group.create_task(backend.watch_account())
        group.create_task(listen_for_hints(connect, hint))
        group.create_task(_record_balances(backends, pool))


async def _record_balances(backends: list[RemoteBackend], pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    recorded: dict[str, tuple[datetime, int]] = {}
    while True:
        await asyncio.sleep(1)
        for backend in backends:
            balance = next((one.balance_nano for one in backend.health()), None)
            known = recorded.get(backend.name)
            now = datetime.now(UTC)
            if balance is None or (
                known is not None
                and (known[1] == balance or now - known[0] < timedelta(seconds=BALANCE_SECONDS))
            ):
                continue
            try:
                async with pool.acquire() as conn:
                    await note_balances(conn, {backend.name: balance})
            except DATABASE_ERRORS as error:
                log.warning("provider.balance_not_recorded", error=type(error).__name__)
            recorded[backend.name] = (now, balance)
