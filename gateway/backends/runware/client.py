"""One request to Runware and its answer, within bounds of time and size."""

import asyncio
import email.utils
import functools
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
import msgspec

from gateway.backends.runware.wire import Reply, read_reply

MAX_ANSWER_BYTES: Final = 2_000_000
"""Hundreds of times the largest that the vendor has a reason to send."""
_MAX_RETRY_AFTER_SECONDS: Final = 3_600.0
_PIECES: Final = 500
_LEAST_PIECE_BYTES: Final = 64
"""On average. To take a megabyte byte by byte keeps this process from all else, its leases included."""
_LIMITS: Final = httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=30)


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long is waited, in seconds."""

    connect: float = 10
    read: float = 60
    """Between two pieces of an answer."""
    answer: float = 90
    """For all of a request."""
    upload: float = 300
    """For all of one that brings a file."""
    pause: float = 0.5
    """Before a request is sent once more."""


class Lost(Exception):
    """No answer. `arrived`: a part of the request went out, and perhaps the vendor has all of it."""

    def __init__(self, message: str, *, arrived: bool, late: bool = False) -> None:
        super().__init__(message)
        self.arrived = arrived
        self.late = late
        """It took all the time that there was."""


class Client:
    """Posts tasks. One pool of connections, HTTP/2 where the vendor's side speaks it."""

    def __init__(
        self, *, api_key: str, base_url: str, patience: Patience, tls: ssl.SSLContext | None = None
    ) -> None:
        """`tls` None: certificates of public authorities."""
        self._base_url = base_url
        self._patience = patience
        self._http = httpx.AsyncClient(
            http2=True,
            verify=tls or _authorities(),
            limits=_LIMITS,
            timeout=httpx.Timeout(patience.read, connect=patience.connect),
            trust_env=False,
            headers={
                "authorization": f"Bearer {api_key}",
                "content-type": "application/json",
                "accept": "application/json",
                # A small answer must not unfold into a large one.
                "accept-encoding": "identity",
                "user-agent": "Antiphon",
            },
        )

    async def post(self, tasks: Sequence[dict[str, Any]]) -> Reply:
        """The answer, whatever its status; raises Lost."""
        return await self._post(msgspec.json.encode(tasks), self._patience.answer)

    async def post_file(self, tasks: Sequence[dict[str, Any]]) -> Reply:
        """The same, for tasks with megabytes in them."""
        body = await asyncio.to_thread(msgspec.json.encode, tasks)
        return await self._post(body, self._patience.upload)

    async def pause(self) -> None:
        """Before another try."""
        await asyncio.sleep(self._patience.pause)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _post(self, body: bytes, seconds: float) -> Reply:
        begun = _Begun()
        request = self._http.build_request(
            "POST", self._base_url, content=body, extensions={"trace": begun.note}
        )
        head: httpx.Response | None = None
        content = b""
        try:
            async with asyncio.timeout(seconds):
                head = await self._http.send(request, stream=True)
                try:
                    content = await _read(head)
                finally:
                    await head.aclose()
        except (httpx.HTTPError, httpx.StreamError, OSError, UnicodeError, _Unreadable) as error:
            # Its words may hold the address, and that a key. A status alone tells a refusal, but no success.
            if head is None or head.is_success:
                late = isinstance(error, (httpx.TimeoutException, TimeoutError))
                raise Lost(type(error).__name__, arrived=begun.is_so, late=late) from error
        wait = _retry_after(head.headers.get("retry-after", ""))
        return read_reply(head.status_code, content, retry_after_seconds=wait)


class _Unreadable(Exception):
    """Too long, too slow or compressed."""


class _Begun:
    """Whether anything of a request was written: no type of error tells that, least of all a deadline."""

    def __init__(self) -> None:
        self.is_so = False

    async def note(self, event: str, _: Mapping[str, Any]) -> None:
        """A step of the transport's."""
        if event.endswith("send_request_headers.started"):
            self.is_so = True


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Once: to read their list takes longer than many a request."""
    return httpx.create_ssl_context(trust_env=False)


async def _read(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _Unreadable
    content, pieces = bytearray(), 0
    async for piece in response.aiter_raw():
        content += piece
        pieces += 1
        if len(content) > MAX_ANSWER_BYTES:
            raise _Unreadable
        if pieces % _PIECES == 0:
            if len(content) < pieces * _LEAST_PIECE_BYTES:
                raise _Unreadable
            await asyncio.sleep(0)
    return bytes(content)


def _retry_after(value: str) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3)."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None
