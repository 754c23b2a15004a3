"""Connections that lead to judged addresses whatever the URL says, and where an answer has to begin."""

import ssl
from collections.abc import Iterable, Sequence
from typing import Any, Final

import httpcore

from gateway.outbound.addresses import Address

_HEAD_BYTES: Final = 65_536
_READ_BYTES: Final = 8_192
"""At once, until the status is there. A server may send any number of interim answers before it, and to
read megabytes of them in one go keeps this process from all else."""


class Pinned(httpcore.AsyncNetworkBackend):
    """Connects to the first of the addresses that takes a connection, by whatever name it is asked for."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses
        self._inner = httpcore.AnyIOBackend()
        self.is_answered = False
        """Set when the status is there: what follows is the caller's to bound."""

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - it was judged, and may mean something else by now
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises ConnectError or ConnectTimeout, the last address's."""
        failure: Exception = httpcore.ConnectError("there is no address")
        for address in self._addresses:
            try:
                stream = await self._inner.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Bounded(stream, self)
        raise failure


class _Bounded(httpcore.AsyncNetworkStream):
    """A connection on which the status comes within the first bytes, or never."""

    def __init__(self, inner: httpcore.AsyncNetworkStream, line: Pinned) -> None:
        self._inner = inner
        self._line = line
        self._bytes = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        if self._line.is_answered:
            return await self._inner.read(max_bytes, timeout)
        if self._bytes > _HEAD_BYTES:
            raise httpcore.ReadError("no status within the first bytes")
        block = await self._inner.read(min(max_bytes, _READ_BYTES), timeout)
        self._bytes += len(block)
        return block

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> httpcore.AsyncNetworkStream:
        return _Bounded(await self._inner.start_tls(ssl_context, server_hostname, timeout), self._line)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
