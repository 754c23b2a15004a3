"""Somebody's server: keeps what it is sent, and answers by path as a test tells it to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar import HttpMethod, Litestar, Request, Response, route
from standardwebhooks import Webhook

from tests.providers.stripe import served


@dataclass
class Message:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(msgspec.json.decode(self.body))

    def verified(self, secret: str) -> dict[str, Any]:
        """As a customer does it; raises WebhookVerificationError."""
        return dict(Webhook(secret).verify(self.body, self.headers))


@dataclass
class Receiver:
    """`answers` by path: the next statuses, 200 once they are used up; `hangs`: paths that never answer."""

    address: str = ""
    received: list[Message] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    text: bytes = b"thank you"
    at_once: Counter[str] = field(default_factory=Counter)
    most_at_once: Counter[str] = field(default_factory=Counter)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str) -> str:
        return f"{self.address}{path}"

    def paths(self) -> list[str]:
        return [message.path for message in self.received]


@asynccontextmanager
async def receiving(*, delay_seconds: float = 0) -> AsyncIterator[Receiver]:
    """It takes so long for each answer."""
    receiver = Receiver()

    @route("/{path:path}", http_method=[HttpMethod.POST, HttpMethod.PUT])
    async def take(request: Request[Any, Any, Any]) -> Response[bytes]:
        path = request.scope["path"]
        receiver.at_once[path] += 1
        receiver.most_at_once[path] = max(receiver.most_at_once[path], receiver.at_once[path])
        try:
            body = await request.body()
            receiver.received.append(Message(request.method, path, dict(request.headers), body))
            if path in receiver.hangs:
                await receiver.closing.wait()
            await asyncio.sleep(delay_seconds)
            statuses = receiver.answers.get(path)
            status = statuses.pop(0) if statuses else 200
            headers = {"location": receiver.url("/elsewhere")} if 300 <= status < 400 else {}
            return Response(receiver.text, status_code=status, headers=headers)
        finally:
            receiver.at_once[path] -= 1

    app = Litestar([take], openapi_config=None, logging_config=None, request_max_body_size=None)
    async with served(app) as address:
        receiver.address = address
        try:
            yield receiver
        finally:
            receiver.closing.set()
