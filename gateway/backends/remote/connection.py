"""HTTP to a provider: every request is bounded in time and size, none is repeated behind a caller's back.

A request without an answer is told apart: nothing of it was written, or the provider may have acted on it.
"""

import asyncio
import functools
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import msgspec

from gateway.outbound import public_authorities

MAX_RETRY_AFTER_SECONDS: Final = 3_600.0
_MAX_CONNECTIONS: Final = 64
_MAX_IDLE_CONNECTIONS: Final = 16
_IDLE_SECONDS: Final = 15.0
"""Shorter than the patience of any server: a submit on a connection that it just closed is ambiguous."""
_CHUNKS: Final = 500
_LEAST_CHUNK_BYTES: Final = 64
"""On average. To take a megabyte byte by byte keeps this process from all else, its leases included."""
_HEADERS: Final = {
    "user-agent": "Antiphon",
    "accept": "application/json",
    # A small answer must not unfold into a large one.
    "accept-encoding": "identity",
}
_JSON: Final = {"content-type": "application/json"}
_DELAY_SECONDS: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_MAX_DATE_CHARACTERS: Final = 40


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """In seconds. `query`, `submit` and `upload` are each for all of a request, to the last byte."""

    connect: float = 10.0
    """Also for a connection of the pool to become free."""
    read: float = 60.0
    """Between two chunks of a response."""
    query: float = 20.0
    """Of a question that may be asked again."""
    submit: float = 90.0
    """Of a request that may start something."""
    upload: float = 300.0
    """Of one that brings a file."""


class RequestFailed(Exception):
    """There is no response. Its words are the type of the cause: those of the cause may hold an address."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.timed_out: Final = isinstance(cause, httpx.TimeoutException | TimeoutError)
        """It took all the time that there was."""


class NotSent(RequestFailed):
    """Nothing of the request has left this process."""


class NoResponse(RequestFailed):
    """The request went out, at least in part: the provider may have acted on it."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """Whatever its status; a redirect is not followed. The body of a refusal is empty where it broke off."""

    status: int
    body: bytes
    retry_after_seconds: float | None

    @property
    def is_success(self) -> bool:
        """Whether the provider did as asked."""
        return 200 <= self.status < 300


class Connection:
    """A bounded pool of connections to one provider, with our key; HTTP/2 where the provider speaks it."""

    def __init__(
        self, *, base_url: str, api_key: str, timeouts: Timeouts, tls: ssl.SSLContext | None = None
    ) -> None:
        """Every path follows `base_url`. `tls` None: certificates of public authorities."""
        self.timeouts: Final = timeouts
        self._base_url = base_url
        self._client = httpx.AsyncClient(
            http2=True,
            verify=tls or _public_authorities(),
            trust_env=False,
            headers={**_HEADERS, "authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect, pool=timeouts.connect),
            limits=httpx.Limits(
                max_connections=_MAX_CONNECTIONS,
                max_keepalive_connections=_MAX_IDLE_CONNECTIONS,
                keepalive_expiry=_IDLE_SECONDS,
            ),
        )

    async def get(self, path: str, *, max_bytes: int) -> Response:
        """Ask a question. Raises NotSent or NoResponse, also for a success of more than `max_bytes`."""
        request = self._client.build_request("GET", self._base_url + path)
        return await self._send(request, max_bytes=max_bytes, seconds=self.timeouts.query)

    async def post(
        self,
        path: str,
        content: bytes,
        *,
        max_bytes: int,
        seconds: float,
        params: Mapping[str, str] | None = None,
    ) -> Response:
        """Send JSON, once, with `seconds` for everything. Raises as `get` does."""
        request = self._client.build_request(
            "POST", self._base_url + path, content=content, params=params, headers=_JSON
        )
        return await self._send(request, max_bytes=max_bytes, seconds=seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _send(self, request: httpx.Request, *, max_bytes: int, seconds: float) -> Response:
        trace = _Trace()
        request.extensions["trace"] = trace.note
        head: httpx.Response | None = None
        body = b""
        try:
            async with asyncio.timeout(seconds):
                head = await self._client.send(request, stream=True)
                try:
                    body = await _read(head, max_bytes)
                finally:
                    await head.aclose()
        except (httpx.HTTPError, httpx.StreamError, OSError, UnicodeError, _Unreadable) as error:
            # A TimeoutError is an OSError. A status alone tells a refusal, but no success.
            if head is None or head.is_success:
                raise (NoResponse if trace.has_begun else NotSent)(error) from error
        return Response(
            status=head.status_code,
            body=body,
            retry_after_seconds=_retry_after(head.headers.get("retry-after", "")),
        )


class _Unreadable(Exception):
    """Too long, too slow or compressed."""


class _Trace:
    """Whether anything of a request was written: no type of error tells that, least of all a deadline."""

    def __init__(self) -> None:
        self.has_begun = False

    async def note(self, event: str, _: Mapping[str, Any]) -> None:
        """A step of the transport's."""
        if event.endswith("send_request_headers.started"):
            self.has_begun = True


@functools.cache
def _public_authorities() -> ssl.SSLContext:
    """Apart from the one of URLs that clients named: here the protocols that it offers include HTTP/2."""
    return public_authorities()


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _Unreadable
    body, chunks = bytearray(), 0
    async for chunk in response.aiter_raw():
        body += chunk
        chunks += 1
        if len(body) > max_bytes:
            raise _Unreadable
        if chunks % _CHUNKS == 0:
            if len(body) < chunks * _LEAST_CHUNK_BYTES:
                raise _Unreadable
            await asyncio.sleep(0)
    return bytes(body)


def _retry_after(value: str) -> float | None:
    """Seconds or a date (RFC 9110, 10.2.3), and some send a fraction; None for what is neither."""
    if len(value) > _MAX_DATE_CHARACTERS:
        return None
    if _DELAY_SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:  # all dates of HTTP are UTC
        when = when.replace(tzinfo=UTC)
    return min(max((when - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)
