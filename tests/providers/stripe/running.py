"""The stand-in as a running server: in a test's own event loop, or alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import stripe
from tests.providers.serving import LOOPBACK, served
from tests.providers.stripe.account import Account
from tests.providers.stripe.control import Control
from tests.providers.stripe.faults import Faults
from tests.providers.stripe.server import application

API_KEY = "sk_test_stand_in_of_the_payment_provider"
TICK_S = 1


class StandIn:
    """A Stripe account behind a socket, and its controls."""

    def __init__(self, api_key: str = API_KEY) -> None:
        self.api_key = api_key
        self.account = Account()
        self.deliveries = self.account.deliveries
        self.faults = Faults()
        self.control = Control(self.account)
        self._connections: list[stripe.HTTPXClient] = []

    @property
    def url(self) -> str:
        """The API's base address, and that of the pages."""
        return self.account.url

    def client(self, **options: Any) -> stripe.StripeClient:
        """The unmodified client of the `stripe` package, for its `..._async` methods; closed at the end."""
        settings = {"http_client": stripe.HTTPXClient(), "max_network_retries": 0} | options
        self._connections.append(settings["http_client"])
        return stripe.StripeClient(self.api_key, base_addresses={"api": self.url}, **settings)

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close_async()


@asynccontextmanager
async def running(
    port: int = 0, *, host: str = LOOPBACK, public_url: str | None = None, api_key: str = API_KEY
) -> AsyncIterator[StandIn]:
    """A stand-in in this event loop; on a free port of the loopback interface unless told otherwise."""
    stand_in = StandIn(api_key)
    app = application(stand_in.account, stand_in.faults, stand_in.control, api_key)
    async with served(app, host, port) as url:
        stand_in.account.url = public_url or url
        stand_in.deliveries.start()
        ticking = asyncio.create_task(_tick(stand_in))
        try:
            yield stand_in
        finally:
            await stand_in.close()
            ticking.cancel()
            await stand_in.deliveries.stop()
            stand_in.faults.clear()


async def _tick(stand_in: StandIn) -> None:
    """What falls due as time passes."""
    while True:
        await asyncio.sleep(TICK_S)
        stand_in.account.clock.tick()
