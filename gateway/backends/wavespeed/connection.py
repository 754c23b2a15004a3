"""WaveSpeed's API over HTTP: every request is bounded in time and size, and none is sent twice."""

import asyncio
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx
import msgspec

MAX_RETRY_AFTER_SECONDS: Final = 3600.0
_CONNECTIONS: Final = 64
_IDLE_CONNECTIONS: Final = 16
_KEPT_SECONDS: Final = 15.0
"""Shorter than the patience of any server: a submit on a connection that it just closed is ambiguous."""
_PIECES: Final = 500
_LEAST_PIECE_BYTES: Final = 64
"""On average. To take a megabyte byte by byte keeps this process from all else, its leases included."""
_HEADERS: Final = {"user-agent": "Antiphon", "accept": "application/json", "accept-encoding": "identity"}


class NotSent(Exception):
    """Nothing of the request has left this process."""


class NoAnswer(Exception):
    """The request went out, at least in part, and what came back tells nothing."""


class Answer(msgspec.Struct, frozen=True):
    """What came back. The body of a refusal is empty where it could not be read."""

    status: int
    body: bytes
    retry_after_seconds: float | None

    @property
    def is_success(self) -> bool:
        """Whether the vendor did as asked."""
        return 200 <= self.status < 300


class Deadlines(msgspec.Struct, frozen=True, kw_only=True):
    """For one request. Submits may take a while; questions are answered at once, or asked again later."""

    connect_seconds: float = 10.0
    """Also for a free connection of ours."""
    read_seconds: float = 60.0
    """Between two pieces of the answer."""
    submit_seconds: float = 90.0
    """From the first step to the last byte."""
    question_seconds: float = 20.0


class Connection:
    """A bounded pool of connections to the API, with our key."""

    def __init__(
        self, *, base_url: str, api_key: str, deadlines: Deadlines, tls: ssl.SSLContext | None = None
    ) -> None:
        """`base_url`: before `/api/v3`. `tls` None: certificates of public authorities."""
        self._base = f"{base_url.rstrip('/')}/api/v3"
        self._deadlines = deadlines
        self._client = httpx.AsyncClient(
            http2=True,
            verify=tls or httpx.create_ssl_context(trust_env=False),
            trust_env=False,
            headers={**_HEADERS, "authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(
                deadlines.read_seconds, connect=deadlines.connect_seconds, pool=deadlines.connect_seconds
            ),
            limits=httpx.Limits(
                max_connections=_CONNECTIONS,
                max_keepalive_connections=_IDLE_CONNECTIONS,
                keepalive_expiry=_KEPT_SECONDS,
            ),
        )

    async def get(self, path: str, *, most_bytes: int) -> Answer:
        """Raises NotSent or NoAnswer."""
        return await self._ask("GET", path, most_bytes=most_bytes, seconds=self._deadlines.question_seconds)

    async def ask(self, path: str, body: Any, *, most_bytes: int) -> Answer:
        """Post a question as JSON. Raises NotSent or NoAnswer."""
        return await self._ask(
            "POST",
            path,
            content=msgspec.json.encode(body),
            most_bytes=most_bytes,
            seconds=self._deadlines.question_seconds,
        )

    async def submit(self, path: str, body: Any, *, params: Mapping[str, str], most_bytes: int) -> Answer:
        """Send an order as JSON, once. Raises NotSent or NoAnswer."""
        return await self._ask(
            "POST",
            path,
            content=msgspec.json.encode(body),
            params=params,
            most_bytes=most_bytes,
            seconds=self._deadlines.submit_seconds,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        most_bytes: int,
        seconds: float,
        content: bytes | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        begun = _Begun()
        request = self._client.build_request(
            method,
            self._base + path,
            content=content,
            params=params,
            headers=None if content is None else {"content-type": "application/json"},
            extensions={"trace": begun.note},
        )
        head: httpx.Response | None = None
        body = b""
        try:
            async with asyncio.timeout(seconds):
                head = await self._client.send(request, stream=True)
                try:
                    body = await _read(head, most_bytes)
                finally:
                    await head.aclose()
        except (httpx.HTTPError, httpx.StreamError, OSError, UnicodeError, _Unreadable) as error:
            # A TimeoutError is an OSError. Without a body that ends, the status alone tells a refusal; an
            # empty success tells nothing.
            if head is None:
                kind = NoAnswer if begun.is_so else NotSent
                raise kind(f"{method} {path.partition('?')[0]}: {type(error).__name__}") from error
        return Answer(head.status_code, body, _retry_after(head.headers.get("retry-after")))


class _Unreadable(Exception):
    """Too long, or in too many pieces."""


class _Begun:
    """Whether anything of a request was written: no type of error tells that, least of all a deadline."""

    def __init__(self) -> None:
        self.is_so = False

    async def note(self, event: str, _: Mapping[str, Any]) -> None:
        """A step of the transport's."""
        if event.endswith("send_request_headers.started"):
            self.is_so = True


async def _read(response: httpx.Response, most_bytes: int) -> bytes:
    body, pieces = bytearray(), 0
    async for piece in response.aiter_raw():
        body += piece
        pieces += 1
        if len(body) > most_bytes:
            raise _Unreadable
        if pieces % _PIECES == 0:
            if len(body) < pieces * _LEAST_PIECE_BYTES:
                raise _Unreadable
            await asyncio.sleep(0)
    return bytes(body)


def _retry_after(header: str | None) -> float | None:
    """Seconds, or a date; within bounds, and None for what is neither."""
    if header is None or len(header) > 40:
        return None
    if header.isascii() and header.isdigit():
        return min(float(header), MAX_RETRY_AFTER_SECONDS)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    if when.tzinfo is None:
        return None
    return min(max((when - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)
