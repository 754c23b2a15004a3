"""A customer's receiver, and all that brings events there: real Postgres, real sockets."""

import asyncio
import contextlib
import ssl
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from gateway.auth.principal import Principal
from gateway.dialects.native.render import JobRenderer
from gateway.dialects.native.told_jobs import job_rendering
from gateway.jobs.forecast import Forecast
from gateway.outbound import Sender, open_guard
from gateway.signed_urls import UrlSigner
from gateway.storage import AudioStore
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.endpoints import Endpoint, create_endpoint
from gateway.webhooks.sending import Postman
from gateway.webhooks.signing import Secrets
from gateway.webhooks.totals import read_webhook_totals
from tests.factories import SECRET_KEY, Pool
from tests.gateway.webhooks.receiver import Receiver, receiving
from tests.workbench import Workbench

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing here speaks TLS, and the list of authorities takes long to read."""


class Office:
    """What one process does for webhooks, step by step."""

    def __init__(self, pool: Pool, store: AudioStore, renderer: JobRenderer) -> None:
        self.pool = pool
        self.store = store
        self.renderer = renderer
        self.secrets = Secrets(SECRET_KEY)
        self.render = job_rendering(pool, renderer, origin="https://music.example")
        self.deliverer = self.new_deliverer()

    def new_deliverer(
        self, *, allow_private_hosts: bool = True, at_once: int = 32, webhook_seconds: float = 10
    ) -> Deliverer:
        postman = Postman(
            pool=self.pool,
            sender=Sender(open_guard(allow_private_hosts=allow_private_hosts), tls=TLS),
            store=self.store,
            secrets=self.secrets,
            render=self.render,
            webhook_seconds=webhook_seconds,
        )
        return Deliverer(pool=self.pool, postman=postman, at_once=at_once, idle_seconds=0.05)

    async def deliver(self, deliverer: Deliverer | None = None) -> None:
        """Everything that is due, and what becomes due by it."""
        deliverer = deliverer or self.deliverer
        while True:
            is_over = await deliverer._claim()
            if running := list(deliverer._running):
                await asyncio.wait(running)
            elif is_over:
                return

    @contextlib.asynccontextmanager
    async def running(self, deliverer: Deliverer | None = None) -> AsyncIterator[None]:
        """As a background task."""
        task = asyncio.create_task((deliverer or self.deliverer).run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def endpoint(self, principal: Principal, url: str, **fields: Any) -> Endpoint:
        return await create_endpoint(self.pool, principal, url=url, **({"events": None} | fields))

    async def pass_time(self, span: timedelta = timedelta(days=1)) -> None:
        """As if so much time had passed for all that waits and is not under way."""
        await self.pool.execute(
            """
            UPDATE webhook_delivery SET next_attempt_at = next_attempt_at - $1::interval
             WHERE state = 'pending' AND lease_until IS NULL
            """,
            span,
        )

    async def rows(self, table: str) -> list[dict[str, Any]]:
        order = "delivery_id, n" if table == "webhook_attempt" else "id"
        return [dict(row) for row in await self.pool.fetch(f"SELECT * FROM {table} ORDER BY {order}")]  # noqa: S608

    async def states(self) -> list[str]:
        return [row["state"] for row in await self.rows("webhook_delivery")]

    async def totals(self) -> dict[tuple[str, str], int]:
        async with self.pool.acquire() as conn:
            return {(one.kind, one.result): one.total for one in await read_webhook_totals(conn)}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def office(pool: Pool, store: AudioStore) -> AsyncIterator[Office]:
    forecast = Forecast(pool)
    renderer = JobRenderer(store=store, signer=UrlSigner(SECRET_KEY), forecast=forecast, public_url=None)
    yield Office(pool, store, renderer)
    await forecast.close()


async def ended_job(
    bench: Workbench, principal: Principal, *, fails: bool = False, **fields: Any
) -> uuid.UUID:
    """A job of that key, from submit to its end."""
    job = await bench.submit(principal, **fields)
    claim = await bench.claim_one()
    assert claim.job_id == job.id
    await (bench.fail(claim) if fails else bench.deliver(claim))
    return job.id
