"""Event streams and steady polls at once: what open browser tabs and impatient clients are to a gateway.

Polls are sent at their time, whether earlier ones were answered or not; a poll that finds no free
connection waits, and its latency counts from the time at which it should have been sent.
"""

import itertools
import selectors
import socket
import time
from array import array
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from benchmarks.harness.load import get

POLL_CONNECTIONS: Final = 64
NAP_SECONDS: Final = 0.001
GRACE_SECONDS: Final = 10.0
FIRST_END_SECONDS: Final = 60.0
SHOWN_OF_ANSWER: Final = 600
_BLANK_LINE: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "
_EVENT: Final = b"\ndata:"
_FINAL_EVENTS: Final = (b"event: completed\n", b"event: failed\n")
_LAST_CHUNK: Final = b"0\r\n\r\n"


class LivePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to follow and what to poll, with one key."""

    port: int
    key: str
    jobs: Sequence[str]
    """Ids in the order in which they will be worked off: a stream that ends is followed by the next job."""
    streams: int
    polls_per_second: float
    seconds: float


class LiveLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    polls: int
    p50_ms: float
    p99_ms: float
    seconds: float
    streams: int
    """Opened, and answered with 200."""
    completed: int
    """Streams that brought the job's final event and ended."""
    events: int
    failed: int
    first_failure: str
    cpu_seconds: float


def run_live(plan: LivePlan) -> LiveLoad:
    """Open all streams, then poll for the plan's seconds."""
    run = _Run(plan)
    run.open_streams()
    cpu, started = time.process_time(), time.perf_counter()
    run.poll()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    run.await_first_end()
    run.close()
    latencies = sorted(run.latencies) or [0.0]
    return LiveLoad(
        polls=len(run.latencies),
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1e3,
        seconds=seconds,
        streams=run.answered,
        completed=run.completed,
        events=run.events,
        failed=run.failed,
        first_failure=run.first_failure,
        cpu_seconds=cpu,
    )


class _Connection:
    """A socket and what of its answer has been read."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.part = b""
        self.due_at = 0.0
        self.answered = False
        self.final = False


class _Run:
    """The connections of one plan."""

    def __init__(self, plan: LivePlan) -> None:
        self.latencies = array("d")
        self.events = self.completed = self.answered = self.failed = 0
        self.first_failure = ""
        self._plan = plan
        self._selector = selectors.DefaultSelector()
        self._unfollowed = iter(plan.jobs)
        self._polls = itertools.cycle([get(f"/v1/jobs/{job}", plan.key) for job in plan.jobs])
        self._free = deque[_Connection]()
        self._open: set[_Connection] = set()

    def open_streams(self) -> None:
        """Return when every stream has been answered with its first event."""
        for _ in range(self._plan.streams):
            self._follow_next()
        for _ in range(POLL_CONNECTIONS if self._plan.polls_per_second else 0):
            connection = _Connection(self._plan.port)
            self._selector.register(connection.socket, selectors.EVENT_READ, (self._take_poll, connection))
            self._open.add(connection)
            self._free.append(connection)
        deadline = time.perf_counter() + GRACE_SECONDS
        while self.answered + self.failed < self._plan.streams and time.perf_counter() < deadline:
            self._turn()
        if self.answered < self._plan.streams:
            self._fail(f"{self.answered} of {self._plan.streams} streams were answered")

    def poll(self) -> None:
        """Send what is due, for the plan's seconds, then wait for the last answers."""
        interval = 1 / self._plan.polls_per_second if self._plan.polls_per_second else 1.0
        started = time.perf_counter()
        until = started + self._plan.seconds
        due = deque[float]()
        sent = 0
        while (now := time.perf_counter()) < until + GRACE_SECONDS:
            while self._plan.polls_per_second and (moment := started + sent * interval) <= min(now, until):
                due.append(moment)
                sent += 1
            while due and self._free:
                connection = self._free.popleft()
                connection.due_at = due.popleft()
                connection.socket.send(next(self._polls))
            if now >= until and not due and len(self._free) == POLL_CONNECTIONS:
                return
            self._turn()
        if self._plan.polls_per_second:
            self._fail(f"{POLL_CONNECTIONS - len(self._free) + len(due)} polls were not answered")

    def await_first_end(self) -> None:
        """On a busy machine a short plan ends before the first song: listen until one is heard of."""
        deadline = time.perf_counter() + FIRST_END_SECONDS
        while self._plan.streams and not self.completed and time.perf_counter() < deadline:
            self._turn()

    def close(self) -> None:
        """Hang up."""
        for connection in self._open:
            connection.socket.close()

    def _turn(self) -> None:
        time.sleep(NAP_SECONDS)
        for key, _ in self._selector.select(0):
            take, connection = key.data
            data = connection.socket.recv(65536)
            if data:
                take(connection, data)
            else:
                self._fail("the server closed a connection")
                self._drop(connection)

    def _follow_next(self) -> None:
        job = next(self._unfollowed, None)
        if job is None:
            return
        connection = _Connection(self._plan.port)
        self._selector.register(connection.socket, selectors.EVENT_READ, (self._take_events, connection))
        self._open.add(connection)
        connection.socket.send(get(f"/v1/jobs/{job}/events", self._plan.key))

    def _take_events(self, connection: _Connection, data: bytes) -> None:
        data = connection.part + data
        if not connection.answered:
            if _BLANK_LINE not in data:
                connection.part = data
                return
            if not data.startswith(b"HTTP/1.1 200"):
                self._fail(data[:SHOWN_OF_ANSWER].decode(errors="replace"))
                self._drop(connection)
                return
            connection.answered = True
            self.answered += 1
        whole, blank, connection.part = data.rpartition(b"\n\n")  # the end of an event, also within a chunk
        self.events += whole.count(_EVENT)
        connection.final = connection.final or any(name in whole for name in _FINAL_EVENTS)
        if connection.part.endswith(_LAST_CHUNK) or (not blank and data.endswith(_LAST_CHUNK)):
            self._end_stream(connection)

    def _end_stream(self, connection: _Connection) -> None:
        if connection.final:
            self.completed += 1
        else:
            self._fail("a stream ended before its job")
        self._drop(connection)
        self._follow_next()

    def _take_poll(self, connection: _Connection, data: bytes) -> None:
        data = connection.part + data
        head_end = data.find(_BLANK_LINE)
        at = data.find(_LENGTH, 0, head_end)
        if at < 0 or len(data) < head_end + 4 + int(data[at + 16 : data.find(b"\r", at)]):
            connection.part = data
            return
        connection.part = b""
        if data.startswith(b"HTTP/1.1 200"):
            self.latencies.append(time.perf_counter() - connection.due_at)
        else:
            self._fail(data[:SHOWN_OF_ANSWER].decode(errors="replace"))
        self._free.append(connection)

    def _drop(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        self._open.discard(connection)
        connection.socket.close()

    def _fail(self, what: str) -> None:
        self.failed += 1
        self.first_failure = self.first_failure or what
