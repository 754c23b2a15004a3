"""Keep-alive HTTP/1.1 clients that cost as little as Python allows, in a process of their own.

Each connection has one request under way. Requests are bytes made beforehand; of an answer the status is
checked and the length is read. All of it is one loop over sockets: on two cores that the gateway and
Postgres share with the clients, asyncio's streams cost five times as much and measure themselves.
"""

import itertools
import multiprocessing
import selectors
import socket
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, Self, TypeVar

import msgspec

NAP_SECONDS: Final = 0.001
GRACE_SECONDS: Final = 30.0
SHOWN_OF_ANSWER: Final = 600
_LENGTH: Final = b"content-length: "
_BLANK_LINE: Final = b"\r\n\r\n"

Given = TypeVar("Given")
Answer = TypeVar("Answer")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, and when to stop: after so many seconds, or so many requests."""

    port: int
    requests: Sequence[bytes]
    """Sent in turn, whichever connection is free."""
    expected: bytes
    """The status that counts as success, for example b"202"."""
    clients: int = 64
    seconds: float = 600.0
    count: int | None = None
    nap_seconds: float = NAP_SECONDS
    """Pause before each look at the sockets, so that one look finds several answers. It halves the clients'
    CPU time and adds at most itself to each latency; 0 measures a single client."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    succeeded: int
    failed: int
    first_failure: str
    seconds: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    cpu_seconds: float
    """Of the clients themselves."""

    @property
    def rate(self) -> float:
        """Successful answers per second."""
        return self.succeeded / self.seconds


class LoadProcess:
    """The process of the clients; it is started once and idle between two plans."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        self._pool.submit(int).result()  # started before anything is measured
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(self, plan: Plan) -> Load:
        """Return when every connection has its last answer."""
        return self.call(run_plan, plan)

    def call(self, function: Callable[[Given], Answer], given: Given) -> Answer:
        """Run anything else there."""
        return self._pool.submit(function, given).result()


def post(path: str, key: str, body: bytes) -> bytes:
    """One request with a JSON body."""
    more = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return _head("POST", path, key, more) + body


def get(path: str, key: str) -> bytes:
    """One request without a body."""
    return _head("GET", path, key, "")


def _head(method: str, path: str, key: str, more: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\naccept: */*\r\n"
    return f"{head}{more}\r\n".encode()


def run_plan(plan: Plan) -> Load:
    """Run the clients in this process; LoadProcess does it in another one."""
    cpu = time.process_time()
    started = time.perf_counter()
    run = _Run(plan, until=started + plan.seconds)
    run.open()
    run.follow()
    seconds = time.perf_counter() - started
    latencies = sorted(run.latencies) or [0.0]
    return Load(
        succeeded=len(run.latencies),
        failed=run.failed,
        first_failure=run.first_failure,
        seconds=seconds,
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1e3,
        longest_ms=latencies[-1] * 1e3,
        cpu_seconds=time.process_time() - cpu,
    )


class _Client:
    """One connection: when its request was sent, and what of the answer is here."""

    __slots__ = ("part", "recv", "send", "sent_at", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.recv = self.socket.recv
        self.send = self.socket.send
        self.sent_at = 0.0
        self.part = b""


class _Run:
    """The connections of one plan."""

    def __init__(self, plan: Plan, *, until: float) -> None:
        self.latencies = array("d")
        self.failed = 0
        self.first_failure = ""
        self._plan = plan
        self._until = until
        self._expected = b"HTTP/1.1 " + plan.expected
        requests: Iterator[bytes] = itertools.cycle(plan.requests)
        self._requests = requests if plan.count is None else itertools.islice(requests, plan.count)
        self._selector = selectors.DefaultSelector()
        self._open = 0

    def open(self) -> None:
        """Connect, then send the first request of each."""
        clients = [_Client(self._plan.port) for _ in range(self._plan.clients)]
        for client in clients:
            self._selector.register(client.socket, selectors.EVENT_READ, client)
        self._open = len(clients)
        for client in clients:
            self._send_next(client, time.perf_counter())

    def follow(self) -> None:
        """Take answers and send the next requests until there is nothing more to wait for."""
        while self._open:
            if self._plan.nap_seconds:
                time.sleep(self._plan.nap_seconds)
            ready = self._selector.select(GRACE_SECONDS)
            if not ready:
                self._fail(f"{self._open} requests have no answer after {GRACE_SECONDS:.0f} s")
                return
            for key, _ in ready:
                self._take(key.data)

    def _take(self, client: "_Client") -> None:
        data = client.recv(65536)
        if not data:
            self._fail("the server closed a connection")
            self._leave(client)
            return
        if client.part:
            data = client.part + data
        head_end = data.find(_BLANK_LINE)
        at = data.find(_LENGTH, 0, head_end)
        if at < 0 or len(data) < head_end + 4 + int(data[at + 16 : data.find(b"\r", at)]):
            client.part = data
            return
        client.part = b""
        now = time.perf_counter()
        if data.startswith(self._expected):
            self.latencies.append(now - client.sent_at)
        else:
            self._fail(data[:SHOWN_OF_ANSWER].decode(errors="replace"))
        self._send_next(client, now)

    def _send_next(self, client: _Client, moment: float) -> None:
        request = next(self._requests, None) if moment < self._until else None
        if request is None:
            self._leave(client)
            return
        client.sent_at = moment
        client.send(request)  # smaller than any socket's buffer, so never sent in part

    def _leave(self, client: _Client) -> None:
        self._selector.unregister(client.socket)
        client.socket.close()
        self._open -= 1

    def _fail(self, what: str) -> None:
        """Count it, and keep the first for the report."""
        self.failed += 1
        self.first_failure = self.first_failure or what
