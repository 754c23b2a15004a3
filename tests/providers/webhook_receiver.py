"""A webhook endpoint that keeps what it is sent, and answers as a test tells it to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import stripe
from litestar import Litestar, Request, Response, post
from stripe import Event

from tests.providers.stripe import served


@dataclass
class Receiver:
    """Bodies and signatures as they came; the next answers, 200 once they are used up."""

    url: str = ""
    received: list[tuple[bytes, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def event(self, place: int, secret: str) -> Event:
        """One of them, verified as a customer of Stripe does it."""
        payload, signature = self.received[place]
        return stripe.Webhook.construct_event(payload, signature, secret)

    def types(self, secret: str) -> list[str]:
        return [self.event(place, secret).type for place in range(len(self.received))]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()

    @post("/webhooks/stripe")
    async def take(request: Request[Any, Any, Any]) -> Response[None]:
        receiver.received.append((await request.body(), request.headers["stripe-signature"]))
        receiver.headers.append(dict(request.headers))
        return Response(None, status_code=receiver.answers.pop(0) if receiver.answers else 200)

    async with served(Litestar([take], openapi_config=None, logging_config=None)) as address:
        receiver.url = f"{address}/webhooks/stripe"
        yield receiver
