"""Hints: a provider told us that a task may have ended. All that is believed is that a look is worth it."""

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

import billing
from gateway.database import DATABASE_ERRORS
from gateway.routing import RUNWARE, WAVESPEED
from gateway.signed_urls import derive_key

CHANNEL: Final = "antiphon_providers"
PATH: Final = "/webhooks/providers"
RECONNECT_SECONDS: Final = 1.0
_REF: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_PURPOSE: Final = b"antiphon webhooks of runware v1"

Connect = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]

log = structlog.get_logger(__name__)


class Hint(msgspec.Struct, frozen=True):
    """The backend's name, and its id of the task."""

    backend: str
    ref: str


_decoder: Final = msgspec.json.Decoder(Hint)


def wavespeed_webhook_url(public_url: str) -> str:
    """Where WaveSpeed posts to, which signs its webhooks: no secret."""
    return f"{public_url}{PATH}/{WAVESPEED}"


def runware_webhook_url(public_url: str, secret_key: str) -> str:
    """Where Runware posts to, which signs nothing: whoever knows the URL may give hints."""
    return f"{public_url}{PATH}/{RUNWARE}/{_runware_token(secret_key)}"


def is_runware_token(given: str, secret_key: str) -> bool:
    """Compared without telling by the time it takes."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), _runware_token(secret_key).encode())


def is_ref(text: str) -> bool:
    """Whether it may be an id of a task."""
    return _REF.fullmatch(text) is not None


async def tell(conn: billing.Connection, hints: Sequence[Hint]) -> None:
    """Tell every worker that listens; those that do not know the task do nothing."""
    await conn.execute(
        "SELECT pg_notify($1, hint) FROM unnest($2::text[]) AS t (hint)",
        CHANNEL,
        [msgspec.json.encode(hint).decode() for hint in hints],
    )


async def listen_for_hints(connect: Connect, on_hint: Callable[[str, str], None]) -> None:
    """Endless: call `on_hint(backend, ref)` for every hint. While there is no connection, polling does it."""

    def hear(_: object, __: int, ___: str, payload: object) -> None:
        try:
            hint = _decoder.decode(str(payload))
        except (ValueError, RecursionError):
            return  # not ours
        if is_ref(hint.ref):
            on_hint(hint.backend, hint.ref)

    while True:
        closed = asyncio.Event()
        conn = None
        try:
            conn = await connect()
            conn.add_termination_listener(lambda _, closed=closed: closed.set())
            await conn.add_listener(CHANNEL, hear)
            await closed.wait()
        except DATABASE_ERRORS as error:
            log.warning("hints.listen_failed", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_SECONDS)
        finally:
            if conn is not None:
                conn.terminate()


def _runware_token(secret_key: str) -> str:
    """Follows from the installation's secret, and tells nothing about it."""
    return derive_key(secret_key, _PURPOSE).hex()
