"""Signed deliveries of events to a webhook endpoint, and everything that can happen to them on the way."""

import asyncio
import hmac
import json
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from tests.providers.stripe.ids import Clock
from tests.providers.stripe.refusals import Refusal

Json = dict[str, Any]
TIMEOUT_S = 20
FIRST_RETRY_S = 5
LONGEST_WAIT_S = 12 * 3600
GIVES_UP_S = 3 * 24 * 3600
OK = range(200, 300)
HEADERS = {
    "accept": "*/*; q=0.5, application/xml",
    "cache-control": "no-cache",
    "content-type": "application/json; charset=utf-8",
    "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One delivery and its answer; no status if there was none."""

    event: str
    type: str
    status: int | None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.status in OK


def signature(payload: str, secret: str, timestamp: int) -> str:
    """The `Stripe-Signature` header: HMAC-SHA256 over the time, a dot and the body; v0 is for show."""
    signed = f"{timestamp}.{payload}".encode()
    v1 = hmac.digest(secret.encode(), signed, "sha256").hex()
    v0 = hmac.digest(b"test mode", signed, "sha256").hex()
    return f"t={timestamp},v1={v1},v0={v0}"


class Deliveries:
    """Sends each event, in the order of making, until an answer 2xx; or as a test tells it to."""

    def __init__(self, clock: Clock) -> None:
        self.endpoint: Endpoint | None = None
        self.attempts: list[Attempt] = []
        self.held: list[Json] = []
        self._clock = clock
        self._holds = self._loses = False
        self._copies = 1
        self._delay_s = 0
        self._waiting: list[tuple[int, Json, int]] = []  # when it is due, the event, how often it failed
        self._queue: asyncio.Queue[tuple[Json, int]] = asyncio.Queue()
        self._client: httpx.AsyncClient | None = None
        self._sender: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, headers=HEADERS, trust_env=False)
        self._sender = asyncio.create_task(self._send_queued())

    async def stop(self) -> None:
        if self._sender and self._client:
            self._sender.cancel()
            with suppress(asyncio.CancelledError):
                await self._sender
            await self._client.aclose()

    def send_to(self, url: str | None, secret: str | None = None) -> str:
        """Where events go from now on; the secret that signs them, a new one unless given."""
        secret = secret or (self.endpoint.secret if self.endpoint else f"whsec_{secrets.token_hex(16)}")
        self.endpoint = Endpoint(url, secret) if url else None
        return secret

    def usual(self, *, copies: int = 1, delay_s: int = 0, lose: bool = False) -> None:
        """How events travel from now on: how many times, how late by Stripe's clock, or not at all."""
        self._copies, self._delay_s, self._loses = copies, delay_s, lose

    def hold(self) -> None:
        """Keep what happens from now on back, until `release` or `drop`."""
        self._holds = True

    async def release(self, *, reverse: bool = False, copies: int = 1) -> list[Attempt]:
        """Deliver what was held back, one after the other, and hold nothing back any more."""
        self._holds, held = False, self.held[:]
        self.held.clear()
        return [
            await self._attempt(event, failures=0)
            for event in (reversed(held) if reverse else held)
            for _ in range(copies)
        ]

    def drop(self) -> int:
        """What was held back never comes; later events come again."""
        self._holds, dropped = False, len(self.held)
        self.held.clear()
        return dropped

    def take(self, event: Json) -> None:
        """A new event: onto its way."""
        if self.endpoint is None or self._loses:
            return
        if self._holds:
            self.held.append(event)
            return
        for _ in range(self._copies):
            if self._delay_s:
                self._waiting.append((self._clock.now() + self._delay_s, event, 0))
            else:
                self._queue.put_nowait((event, 0))

    def queue_due(self) -> None:
        """Delayed deliveries and retries whose time has come."""
        now = self._clock.now()
        due = sorted((one for one in self._waiting if one[0] <= now), key=lambda one: one[0])
        self._waiting = [one for one in self._waiting if one[0] > now]
        for _, event, failures in due:
            self._queue.put_nowait((event, failures))

    def retries(self) -> list[tuple[str, int]]:
        """Events that wait for a further attempt, and the seconds until then."""
        now = self._clock.now()
        return [(event["id"], due - now) for due, event, _ in sorted(self._waiting, key=lambda one: one[0])]

    async def settled(self) -> list[Attempt]:
        """Wait until all that is due was attempted; all attempts so far."""
        await self._queue.join()
        return self.attempts

    async def _send_queued(self) -> None:
        while True:
            event, failures = await self._queue.get()
            try:
                if self.endpoint:
                    await self._attempt(event, failures)
            finally:
                self._queue.task_done()

    async def _attempt(self, event: Json, failures: int) -> Attempt:
        attempt = await self.deliver(event)
        if attempt.ok:
            event["pending_webhooks"] = 0
        else:
            wait = min(FIRST_RETRY_S * 2**failures, LONGEST_WAIT_S)
            due = self._clock.now() + wait
            if due < event["created"] + GIVES_UP_S:
                self._waiting.append((due, event, failures + 1))
        return attempt

    async def deliver(
        self, event: Json, *, secret: str | None = None, age_s: int = 0, alter: Json | None = None
    ) -> Attempt:
        """Send an event once more: with another secret, signed long ago, its object altered once signed."""
        if self.endpoint is None or self._client is None:
            raise Refusal("There is no webhook endpoint: call send_to first.")
        payload = json.dumps(event, indent=2)
        signed = signature(payload, secret or self.endpoint.secret, int(time.time()) - age_s)
        if alter:
            payload = json.dumps(
                event | {"data": event["data"] | {"object": event["data"]["object"] | alter}}, indent=2
            )
        status, error = None, None
        try:
            answer = await self._client.post(
                self.endpoint.url, content=payload, headers={"stripe-signature": signed}
            )
            status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as failure:
            error = repr(failure)
        attempt = Attempt(event["id"], event["type"], status, error)
        self.attempts.append(attempt)
        return attempt

    def report(self) -> Json:
        return {
            "endpoint": self.endpoint.url if self.endpoint else None,
            "held": [{"event": event["id"], "type": event["type"]} for event in self.held],
            "waiting": [{"event": event, "seconds": seconds} for event, seconds in self.retries()],
            "attempts": [asdict(attempt) for attempt in self.attempts],
        }
