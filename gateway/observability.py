"""Structured logs, request ids and process-local metrics. Never a secret, never a prompt."""

import asyncio
import logging
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import msgspec
import structlog
import structlog.tracebacks
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Histogram
from structlog.tracebacks import ExceptionDictTransformer

REQUEST_ID_HEADER: Final = b"x-request-id"
QUIET_ROUTES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_UNROUTED: Final = "unmatched"


class _AccessLine(msgspec.Struct, kw_only=True):
    """One request, with the fields that any other line has."""

    timestamp: datetime
    level: str = "info"
    process: str
    event: str = "http.request"
    request_id: str
    method: str
    route: str
    status: int
    milliseconds: float


class _AccessLog:
    """One line per request: structlog's processors took a tenth of a submit's time.

    Requests that end in the same turn of the event loop, as a batch does, are written together.
    """

    def __init__(self, process: str, stream: BinaryIO) -> None:
        self._process = process
        self._stream = stream
        self._encode = msgspec.json.Encoder().encode
        self._gathered: list[bytes] = []

    def write(self, request_id: str, method: str, route: str, status: int, seconds: float) -> None:
        line = _AccessLine(
            timestamp=datetime.now(UTC),
            process=self._process,
            request_id=request_id,
            method=method,
            route=route,
            status=status,
            milliseconds=round(seconds * 1000, 2),
        )
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._flush)
        self._gathered.append(self._encode(line))

    def _flush(self) -> None:
        lines = b"\n".join(self._gathered) + b"\n"
        self._gathered.clear()
        self._stream.write(lines)
        self._stream.flush()


_access_log = _AccessLog("", sys.stderr.buffer)


def configure_logging(process: str) -> None:
    """One JSON object per line on stderr."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Never the local variables of a traceback: they hold keys and prompts.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    global _access_log  # noqa: PLW0603 - a process has one log
    _access_log = _AccessLog(process, sys.stderr.buffer)


def _render(_: Any, __: str, event: structlog.typing.EventDict) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


class Metrics:
    """Histograms of this process; what must survive restarts comes from Postgres instead."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self.http_request_seconds: Final = Histogram(
            "antiphon_http_request_seconds",
            "Time to answer, by route template.",
            ["route", "method", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.admit_seconds: Final = Histogram(
            "antiphon_admit_seconds",
            "Time to commit one admission batch.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.admit_batch_size: Final = Histogram(
            "antiphon_admit_batch_size",
            "Requests per admission batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=self.registry,
        )

    def observe_admission(self, size: int, seconds: float) -> None:
        """One batch was committed."""
        self.admit_batch_size.observe(size)
        self.admit_seconds.observe(seconds)


class ObserveRequests:
    """ASGI middleware: a request id on every answer, one log line and one observation per request."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._children: dict[tuple[str, str, int], Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Observe HTTP; everything else passes."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"
        scope["state"]["request_id"] = request_id
        started = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID_HEADER, request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._observe(scope, request_id, status, time.perf_counter() - started)

    def _observe(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = scope.get("path_template") or _UNROUTED
        method = str(scope.get("method", ""))
        key = (route, method if route != _UNROUTED else "any", status)
        if (child := self._children.get(key)) is None:
            child = self._children[key] = self._metrics.http_request_seconds.labels(*map(str, key))
        child.observe(seconds)
        if route not in QUIET_ROUTES:
            _access_log.write(request_id, method, route, status, seconds)
