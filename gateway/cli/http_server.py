"""uvicorn, made to end in order and to bound what strangers may send, and how slowly.

uvicorn has no limit on heads, closes neither trickled heads nor slow bodies, answers garbage behind a
request before that request itself, and takes early answers from clients that are still sending. Here
one sweep a second looks at all connections; a request costs neither a timer nor a look at the clock.
"""

import asyncio
import contextlib
import resource
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from enum import Enum
from http import HTTPStatus
from types import FrameType
from typing import Any, Final, cast

import httptools
import msgspec
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.dialects.native.errors import error_envelope, error_headers
from gateway.errors import GatewayError, HeadTooLarge, InvalidRequest, Overloaded, RequestTimeout

GATHERED_BYTES: Final = 16 * 1024
"""What one write to a connection waits for at most."""
_OTHER_FILES: Final = 256
"""Descriptors that connections leave to the database, the store and the rest."""

log = structlog.get_logger("http")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may take, and how many there may be."""

    head_bytes: int = 64 * 1024
    header_fields: int = 200
    head_seconds: float = 30
    body_seconds: float = 60
    body_bytes_per_second: int = 16 * 1024
    """A body may take `body_seconds`, and longer while it comes at this rate."""
    idle_seconds: float = 75
    """Between requests: longer than clients and proxies keep an idle connection, which is 5 to 60 s."""
    stalled_seconds: float = 120
    """For a client that does not read its answer."""
    linger_seconds: float = 5
    linger_bytes: int = 16 * 1024 * 1024
    """Of a body that nobody wants any more; to close at once could take the answer from the client."""
    connections: int = 10_000
    sweep_seconds: float = 1


class Config(uvicorn.Config):
    """uvicorn's, with what is always so here."""

    def __init__(self, app: Any, *, limits: Limits | None = None, **options: Any) -> None:
        """`options` are uvicorn's own."""
        super().__init__(
            app,
            http=BoundedHttpProtocol,
            ws="none",  # or it speaks WebSocket wherever a library for it happens to be installed
            access_log=False,  # our middleware logs, without the signatures of links
            log_config=None,
            server_header=False,
            **options,
        )
        self.limits = limits or Limits(connections=min(Limits().connections, _room_for_connections()))


class Server(uvicorn.Server):
    """Ends in order; uvicorn would raise the signal again, before what we have opened is closed."""

    def __init__(self, config: uvicorn.Config, *, on_exit: Callable[[], None] | None = None) -> None:
        """`on_exit` is called with each signal to end: who would wait for long stops waiting."""
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Streams would otherwise be waited for."""
        super().handle_exit(sig, frame)
        if self._on_exit is not None:
            self._on_exit()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A first signal lets requests finish, a second one does not wait for them."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, and sweep until the last connection is closed."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            await super().serve(sockets)
        finally:
            sweeping.cancel()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_limits(self.config).sweep_seconds)
            now = loop.time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedHttpProtocol):
                    connection.sweep(now)


class Phase(Enum):
    """What a connection waits for."""

    NEW = "its first byte"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    DONE = "our answer, then the next request"


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection: never more than its limits, never an answer out of turn."""

    _phase = Phase.NEW
    _since: float | None = None
    """When a sweep first saw this phase; moved on while it is not the client that is waited for."""
    _bytes = 0
    """Of this message, give or take what it shares a packet with."""
    _packet_bytes = 0
    _barren_bytes = 0
    """Received since there was body in a packet."""
    _is_declining = False
    """This request offers to go on in another protocol, which we do not speak."""
    _refusal: GatewayError | None = None
    """The last answer of this connection; given, or waiting for its turn."""

    def __init__(self, config: uvicorn.Config, *args: Any, **options: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(config, *args, **options)
        self._limits = _limits(config)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One more, if there is room."""
        super().connection_made(transport)
        self._exit = LingeringTransport(transport, self._limits)
        self.transport = cast("asyncio.Transport", self._exit)
        if len(self.connections) > self._limits.connections:
            self._refuse(Overloaded("there are too many connections", retry_after_seconds=1))

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless all has been said."""
        if self._refusal is not None or self._exit.is_leaving:
            self._exit.drop(data)
            return
        if self._phase is Phase.BODY:
            self._more_body(data)
            return
        if self._phase is not Phase.HEAD:
            self._begin_head()
        self._parse(data)

    def _more_body(self, data: bytes) -> None:
        cycle = self.cycle
        before = len(cycle.body)
        self._parse(data)
        if cycle is not self.cycle or self._phase is not Phase.BODY:
            return
        if cycle.response_complete:
            self._exit.drop(data)
        elif len(cycle.body) > before:
            self._barren_bytes = 0
        else:
            self._barren_bytes += len(data)
            if self._barren_bytes > self._limits.head_bytes:
                self._refuse(HeadTooLarge("there are too many bytes between those of the body"))

    def _parse(self, data: bytes) -> None:
        self._packet_bytes = len(data)
        self._bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause if isinstance(cause, HeadTooLarge) else InvalidRequest("this is no valid HTTP/1.1")
            )
            return
        if self._phase is Phase.HEAD and self._bytes > self._limits.head_bytes:
            self._refuse(self._head_too_large())

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_declining:
                    self._exit.flush()
                    self.transport = self._exit.inner
                    self.handle_websocket_upgrade()
                    return
                self._is_declining = False
                data = self._head_without_offer() + data[upgrade.args[0] :]
            else:
                return

    def _head_without_offer(self) -> bytes:
        """The head once more: the parser takes what follows an offer for that protocol, not for body."""
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(token for token in tokens if token.lower() != b"upgrade")  # noqa: PLW2901
            if name != b"upgrade":
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def _begin_head(self) -> None:
        self._phase = Phase.HEAD
        self._since = None
        self._bytes = 0

    def on_message_begin(self) -> None:
        """A new request; a packet may hold several."""
        super().on_message_begin()
        if self._phase is not Phase.HEAD:
            self._begin_head()

    def on_headers_complete(self) -> None:
        """What follows is body, which the application bounds."""
        if len(self.headers) > self._limits.header_fields:
            raise HeadTooLarge(f"a request has at most {self._limits.header_fields} header fields")
        if self._bytes + self._packet_bytes > self._limits.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._limits.head_bytes:
                raise self._head_too_large()
        is_offer = self.parser.should_upgrade()
        if is_offer and self.parser.get_method() != b"CONNECT":
            self._is_declining = not self._should_upgrade()
            if self._is_declining:
                return
        super().on_headers_complete()
        if self.expect_100_continue:
            # Answered early, the client may send the body or not: only a new connection is unambiguous.
            self.cycle.keep_alive = False
        if not is_offer:
            self.headers = []  # what comes behind the body is none of the request's headers
        self._barren_bytes = 0
        self._exit.expects_more = True
        self._exit.dropped_bytes = 0
        self._phase = Phase.BODY
        self._since = None

    def on_message_complete(self) -> None:
        """The client has said all."""
        if self._is_declining:
            return
        self._exit.expects_more = False
        self._phase = Phase.DONE
        self._since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Whatever waited for its turn."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._answer(self._refusal)

    def sweep(self, now: float) -> None:
        """End what has waited for the client for too long."""
        self._exit.sweep(now)
        if self.transport.is_closing():
            return
        if self._since is None or self._is_our_move():
            self._since = now
        elif now - self._since > self._patience_seconds():
            if self._phase is Phase.NEW or self._phase is Phase.DONE:
                self.transport.close()  # whoever asks nothing gets no answer
            else:
                self._refuse(RequestTimeout("the request did not arrive in time"))

    def _is_our_move(self) -> bool:
        if self._phase is Phase.BODY:
            return self.flow.read_paused or bool(self.pipeline)
        return self._is_answering()

    def _is_answering(self) -> bool:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _patience_seconds(self) -> float:
        if self._phase is Phase.DONE:
            return self._limits.idle_seconds
        if self._phase is not Phase.BODY:
            return self._limits.head_seconds
        return self._limits.body_seconds + self._bytes / self._limits.body_bytes_per_second

    def _refuse(self, error: GatewayError) -> None:
        """The last answer of this connection, after those to the requests before it."""
        self._refusal = error
        if self._phase is not Phase.BODY:
            if not self._is_answering():
                self._answer(error)
            return
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()  # it was not begun
            return
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.close()
        else:
            self._answer(error)

    def _answer(self, error: GatewayError) -> None:
        request_id = f"req_{secrets.token_hex(12)}"
        log.info("http.refused", request_id=request_id, status=error.status, code=error.code)
        body = msgspec.json.encode(error_envelope(error, request_id))
        fields = {
            **error_headers(error),
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": request_id,
        }
        head = b"".join(b"%b: %b\r\n" % field for field in self.server_state.default_headers)
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
        status = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
        self.transport.write(status + head + b"\r\n" + body)
        self._exit.expects_more = self._phase is not Phase.NEW
        self.transport.close()

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"the head of a request has at most {self._limits.head_bytes} bytes")


def _limits(config: uvicorn.Config) -> Limits:
    return config.limits if isinstance(config, Config) else Limits()


class LingeringTransport:
    """A transport that, closed while the client is sending, first lets it hear the answer.

    Closing a socket with unread data resets the connection, and with it may go the answer. So the
    writing half is closed first; what comes is dropped until the client is done, or took too long.
    """

    def __init__(self, inner: asyncio.Transport, limits: Limits) -> None:
        """`expects_more`: the client is in the middle of a message."""
        self.inner = inner
        self.abort = inner.abort
        self.expects_more = False
        self.is_leaving = False
        self.dropped_bytes = 0
        self._limits = limits
        self._leaving_since: float | None = None
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._gathered: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Soon, with what else is written until then: head and body of an answer are one system call."""
        if not self._gathered and len(data) < GATHERED_BYTES:
            asyncio.get_running_loop().call_soon(self.flush)
            self._gathered.append(data)
            return
        self._gathered.append(data)
        if len(data) >= GATHERED_BYTES or sum(map(len, self._gathered)) >= GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Now."""
        data = b"".join(self._gathered)
        self._gathered.clear()
        if data and not self.inner.is_closing():  # the connection may have been lost since
            self.inner.write(data)

    def is_closing(self) -> bool:
        """Nothing more may be written."""
        return self.is_leaving or self.inner.is_closing()

    def close(self) -> None:
        """Now, or once the client has stopped sending."""
        if self.is_closing():
            return
        self.flush()
        self.is_leaving = True
        if self.expects_more:
            self.inner.resume_reading()
            self.inner.write_eof()
        else:
            self.inner.close()

    def drop(self, data: bytes) -> None:
        """Read by nobody; bounded."""
        self.dropped_bytes += len(data)
        if self.dropped_bytes > self._limits.linger_bytes:
            self.inner.abort()

    def sweep(self, now: float) -> None:
        """End what does not end by itself: a client that does not read, or that does not stop sending."""
        unsent_bytes = self.inner.get_write_buffer_size()
        if unsent_bytes != self._unsent_bytes:
            self._unsent_bytes, self._unsent_since = unsent_bytes, now
        if unsent_bytes:
            is_stuck = now - self._unsent_since > self._limits.stalled_seconds
        elif not self.is_closing():
            is_stuck = False
        else:
            self._leaving_since = self._leaving_since or now
            since = max(self._leaving_since, self._unsent_since)
            is_stuck = now - since > self._limits.linger_seconds
        if is_stuck:
            self.inner.abort()


def _room_for_connections() -> int:
    """What the system lets us open, as far as that can be raised, less what others need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return max(soft - _OTHER_FILES, _OTHER_FILES)
