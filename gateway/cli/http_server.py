"""uvicorn, made to end in order and to bound what strangers may send before a request begins."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 200
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\nx-should-retry: false\r\n\r\n"
)


class Server(uvicorn.Server):
    """Ends in order; uvicorn would raise the signal again, before what we have opened is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A first signal lets requests finish, a second one does not wait for them."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield


class BoundedHttpProtocol(HttpToolsProtocol):
    """Answers 431 to heads over MAX_HEAD_BYTES or with more than MAX_HEADERS fields.

    The parser itself has no limit: one endless header would be kept in memory until its end.
    """

    _head_bytes = 0
    _is_in_head = True

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless the head has grown too large."""
        if self.transport.is_closing():
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse()

    def on_message_begin(self) -> None:
        """A new request on this connection."""
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete: what follows is body, which the application bounds."""
        self._is_in_head = False
        size = sum(len(name) + len(value) for name, value in self.headers)
        if len(self.headers) > MAX_HEADERS or size > MAX_HEAD_BYTES:
            self._refuse()
            return
        super().on_headers_complete()

    def _refuse(self) -> None:
        self.transport.write(_TOO_LARGE)
        self.transport.close()
