"""A request to a URL that a client named, on a connection to an address that was judged.

What is said of a failure names neither addresses nor anything of an answer.
"""

import contextlib
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Final

import httpcore
import httpx
import msgspec

from gateway.outbound.errors import OutboundError
from gateway.outbound.guard import Guard
from gateway.outbound.pinned import Pinned

Content = bytes | AsyncIterable[bytes]

_HEADERS: Final = {"user-agent": "Antiphon", "accept": "*/*", "accept-encoding": "identity"}
_NOT_SENT: Final = "the request could not be sent as it is"


def public_authorities() -> ssl.SSLContext:
    """Trusts them and nobody else. Once per process: to read their list takes longer than many a request."""
    return httpx.create_ssl_context(trust_env=False)


class Reply(msgspec.Struct, frozen=True):
    """An answer, with its body still to come."""

    status: int
    headers: httpx.Headers
    blocks: AsyncIterator[bytes]


class Caller:
    """Asks. It knows no cookies, no proxies and no redirects, and keeps no connection."""

    def __init__(self, guard: Guard, *, tls: ssl.SSLContext | None = None) -> None:
        """`tls` None: certificates of public authorities."""
        self.guard: Final = guard
        self._tls = tls or public_authorities()

    @contextlib.asynccontextmanager
    async def ask(
        self,
        method: str,
        target: httpx.URL,
        *,
        limits: httpx.Timeout,
        headers: Mapping[str, str] = {},
        content: Content | None = None,
    ) -> AsyncIterator[Reply]:
        """The answer of the first address that takes a connection.

        `target` is what the guard has parsed; names of headers are in lower case.

        Raises:
            OutboundError: with the reason; also where the answer breaks off while it is read.
        """
        line = Pinned(await self.guard.judge(target))
        # The name stands in the Host header, and is what the certificate must say.
        all_headers = {**_HEADERS, **headers, "host": target.netloc.decode("ascii")}
        host_name = target.raw_host.decode("ascii").removesuffix(".")
        try:
            async with (
                httpcore.AsyncConnectionPool(ssl_context=self._tls, network_backend=line) as pool,
                pool.stream(
                    method,
                    httpcore.URL(
                        scheme=target.raw_scheme,
                        host=target.raw_host,
                        port=target.port,
                        target=target.raw_path,
                    ),
                    headers=[(name.encode(), value.encode()) for name, value in all_headers.items()],
                    content=_whole(content, headers),
                    extensions={"timeout": limits.as_dict(), "sni_hostname": host_name},
                ) as response,
            ):
                line.is_answered = True
                yield Reply(response.status, httpx.Headers(response.headers), _blocks(response))
        except _FAILURES as error:
            raise OutboundError(_reason(error)) from error


_FAILURES: Final = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, ssl.SSLError)


async def _blocks(response: httpcore.Response) -> AsyncIterator[bytes]:
    try:
        async for block in response.aiter_stream():
            yield block
    except _FAILURES as error:
        raise OutboundError(_reason(error)) from error


def _whole(content: Content | None, headers: Mapping[str, str]) -> bytes | AsyncIterator[bytes] | None:
    """A stream that is held to the length it is said to have: httpcore lets h11's own complaint through."""
    if content is None or isinstance(content, bytes):
        return content
    if "content-length" not in headers:
        return aiter(content)
    return _exactly(content, int(headers["content-length"]))


async def _exactly(content: AsyncIterable[bytes], length: int) -> AsyncIterator[bytes]:
    sent = 0
    async for block in content:
        sent += len(block)
        if sent > length:
            break
        yield block
    if sent != length:
        raise OutboundError(_NOT_SENT)


def _reason(error: Exception) -> str:
    """In words that tell nothing about addresses."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the URL's host has no valid certificate"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpcore.TimeoutException):
        return "the URL did not answer in time"
    if isinstance(error, httpcore.ConnectError):
        return "the URL's host takes no connection"
    if isinstance(error, httpcore.LocalProtocolError):
        return _NOT_SENT
    if isinstance(error, httpcore.WriteError):
        return "the URL's host closed the connection before it had the request"
    return "the URL's answer broke off, or was no valid HTTP"
