"""What providers post to us when a task has ended. Nothing in it is believed: it only makes us look sooner.

WaveSpeed signs its webhooks; Runware signs nothing, so its URL carries a token of ours.
"""

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from litestar import Router, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.status_codes import HTTP_200_OK

from gateway.database import DATABASE_ERRORS
from gateway.dialects.native.guarding import GatewayRequest
from gateway.errors import InvalidRequest, NotFound, Overloaded
from gateway.jobs.hints import PATH, Hint, is_ref, is_runware_token, tell
from gateway.routing import RUNWARE, WAVESPEED

log = structlog.get_logger(__name__)

MAX_BODY_BYTES: Final = 262_144
"""A task with its whole request, however long its lyrics are."""
TOLERANCE_SECONDS: Final = 300
SECRET_KEPT_SECONDS: Final = 600
"""Before what does not fit the secret makes us ask for it again: the operator may have changed it."""
SECRET_PAUSE_SECONDS: Final = 10
"""Between two questions for a secret that we do not have."""
SECRET_SECONDS: Final = 10
"""For one such question, while those who post wait."""
RETRY_AFTER_SECONDS: Final = 30
MOST_HINTS: Final = 20
"""Of one body."""
MAX_ID_CHARACTERS: Final = 256
MOST_SIGNATURES: Final = 5

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNATURE: Final = re.compile(r"v3,([0-9a-f]{64})", re.ASCII)
_SIGNATURE_HEADER: Final = "webhook-signature"


class _Prediction(msgspec.Struct, frozen=True):
    id: str


class _Item(msgspec.Struct, frozen=True):
    task: str = msgspec.field(name="taskUUID", default="")


class _Items(msgspec.Struct, frozen=True):
    data: list[_Item] = []
    errors: list[_Item] = []


_prediction: Final = msgspec.json.Decoder(_Prediction)
_items: Final = msgspec.json.Decoder(_Items)

FetchSecret = Callable[[], Awaitable[str | None]]
"""The secret that WaveSpeed signs with, without its prefix; None while it cannot be had."""


class ProviderHooks:
    """Tells workers to look at what providers say has ended."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        secret_key: str,
        fetch_wavespeed_secret: FetchSecret | None = None,
        runware: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`fetch_wavespeed_secret` None, `runware` False: nothing is expected from that one."""
        self._pool = pool
        self._secret_key = secret_key
        self._fetch = fetch_wavespeed_secret
        self._runware = runware
        self._clock = clock
        self._secret: str | None = None
        self._asked_at = -float("inf")
        self._asking = asyncio.Lock()

    def expects(self, backend: str, token: str = "") -> bool:
        """Whether this door is there."""
        if backend == WAVESPEED:
            return self._fetch is not None
        return self._runware and is_runware_token(token, self._secret_key)

    def is_plausible(self, webhook_id: str | None, timestamp: str | None, signatures: str | None) -> bool:
        """What the headers alone tell, before a body is read or a secret is asked for."""
        if not webhook_id or len(webhook_id) > MAX_ID_CHARACTERS or not webhook_id.isascii():
            return False
        if timestamp is None or _TIMESTAMP.fullmatch(timestamp) is None:
            return False
        is_fresh = abs(self._clock() - int(timestamp)) <= TOLERANCE_SECONDS
        return is_fresh and bool(_read_signatures(signatures))

    async def is_signed(self, body: bytes, webhook_id: str, timestamp: str, signatures: str) -> bool:
        """Whether WaveSpeed signed this. Raises Overloaded while its secret cannot be had."""
        secret = await self._current_secret(SECRET_PAUSE_SECONDS if self._secret is None else None)
        if _matches(secret, body, webhook_id, timestamp, signatures):
            return True
        newer = await self._current_secret(SECRET_KEPT_SECONDS)
        return newer != secret and _matches(newer, body, webhook_id, timestamp, signatures)

    async def tell(self, backend: str, refs: Sequence[str]) -> None:
        """Raises Overloaded while the database is away: providers send it again."""
        known = [Hint(backend, ref) for ref in dict.fromkeys(refs) if is_ref(ref)][:MOST_HINTS]
        if not known:
            return
        try:
            async with self._pool.acquire() as conn:
                await tell(conn, known)
        except DATABASE_ERRORS as error:
            raise Overloaded(
                "this cannot be handed on right now; send it again", retry_after_seconds=RETRY_AFTER_SECONDS
            ) from error

    async def _current_secret(self, older_than_seconds: float | None) -> str:
        """What is kept; asked for anew if it is older. A failure to get it changes nothing."""
        async with self._asking:
            if older_than_seconds is not None and self._clock() - self._asked_at > older_than_seconds:
                self._secret = await self._ask_for_secret() or self._secret
                self._asked_at = self._clock()  # afterwards: those who waited must not wait once more
            if self._secret is None:
                raise Overloaded(
                    "the signature cannot be checked right now; send it again",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            return self._secret

    async def _ask_for_secret(self) -> str | None:
        if self._fetch is None:
            return None
        try:
            async with asyncio.timeout(SECRET_SECONDS):
                return await self._fetch()
        except TimeoutError:
            return None


@post(f"/{WAVESPEED}", status_code=HTTP_200_OK)
async def receive_from_wavespeed(
    request: GatewayRequest, provider_hooks: NamedDependency[ProviderHooks]
) -> dict[str, Any]:
    """Receive a prediction that has ended.

    200 when workers were told to look at it; 400 for what WaveSpeed has not signed within the last five
    minutes; 503 while that cannot be checked, or told.
    """
    if not provider_hooks.expects(WAVESPEED):
        raise NotFound("there is nothing at this path")
    webhook_id, timestamp, signatures = (
        request.header(name) for name in (b"webhook-id", b"webhook-timestamp", _SIGNATURE_HEADER.encode())
    )
    if not provider_hooks.is_plausible(webhook_id, timestamp, signatures):
        raise _forged()
    body = await request.body()
    if not await provider_hooks.is_signed(body, webhook_id or "", timestamp or "", signatures or ""):
        log.warning("webhooks.forged", backend=WAVESPEED, bytes=len(body))
        raise _forged()
    await provider_hooks.tell(WAVESPEED, [_decode(_prediction, body).id])
    return {"received": True}


@post(f"/{RUNWARE}/{{token:str}}", status_code=HTTP_200_OK)
async def receive_from_runware(
    request: GatewayRequest, token: FromPath[str], provider_hooks: NamedDependency[ProviderHooks]
) -> dict[str, Any]:
    """Receive results or errors of tasks. 404 without the right token: then there is nothing at this path."""
    if not provider_hooks.expects(RUNWARE, token):
        raise NotFound("there is nothing at this path")
    told = _decode(_items, await request.body())
    await provider_hooks.tell(RUNWARE, [item.task for item in (*told.data, *told.errors)])
    return {"received": True}


router: Final = Router(
    PATH,
    route_handlers=[receive_from_wavespeed, receive_from_runware],
    request_class=GatewayRequest,
    request_max_body_size=MAX_BODY_BYTES,
    include_in_schema=False,
)


def _read_signatures(header: str | None) -> list[str]:
    found = (_SIGNATURE.fullmatch(one) for one in (header or "").split(" ")[:MOST_SIGNATURES])
    return [match[1] for match in found if match]


def _matches(secret: str, body: bytes, webhook_id: str, timestamp: str, signatures: str) -> bool:
    """The secret is used as text."""
    signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(given, expected) for given in _read_signatures(signatures))


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("this tells of no task") from error


def _forged() -> InvalidRequest:
    return InvalidRequest(
        "this was not signed by WaveSpeed within the last five minutes", param=_SIGNATURE_HEADER
    )
