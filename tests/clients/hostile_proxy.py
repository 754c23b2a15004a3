"""A TCP proxy that does to requests what networks do to them, one request after the other."""

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum

PATIENCE_SECONDS = 60


class Fate(Enum):
    """What becomes of a request."""

    PASSES = "it is answered"
    LOST = "the connection ends before anything was forwarded"
    CUT = "half of the request is forwarded"
    UNANSWERED = "it is forwarded; the connection ends before the answer"
    HALF_ANSWERED = "half of the answer is passed on"
    LATE = "the answer comes when the client has given up"
    RESTARTED = "it is forwarded, and the gateway restarts before the answer"
    REFUSED = "the gateway restarts first, and the connection ends"


class HostileProxy:
    """Listens on a port of its own; requests for which no fate was set pass."""

    def __init__(self, upstream_port: int, *, restart: Callable[[], None]) -> None:
        self.upstream_port = upstream_port
        self._restart = restart
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve)
        self.fates: deque[Fate] = deque()
        self.requests: list[bytes] = []
        self.statuses: list[int] = []
        self.after_answer: Callable[[int], None] = lambda _: None

    @property
    def base_url(self) -> str:
        """For a client that thinks it is OpenAI's."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def begin(self, *fates: Fate) -> None:
        """Forget what was, and set what becomes of the next requests."""
        self.fates = deque(fates)
        self.requests.clear()
        self.statuses.clear()
        self.after_answer = lambda _: None

    def start(self) -> None:
        """In a thread: the client blocks the test's."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname(), 1).close()
        self._thread.join(PATIENCE_SECONDS)
        self._listener.close()

    def _serve(self) -> None:
        while not self._is_closed:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(PATIENCE_SECONDS)
                request = read_message(connection)
                if request:
                    self.requests.append(request)
                    self._handle(connection, request, self.fates.popleft() if self.fates else Fate.PASSES)

    def _handle(self, client: socket.socket, request: bytes, fate: Fate) -> None:
        if fate is Fate.REFUSED:
            self._restart()
        if fate in {Fate.LOST, Fate.REFUSED}:
            return
        answer = self._forward(request[: len(request) // 2] if fate is Fate.CUT else request, fate)
        if fate is Fate.RESTARTED:
            self._restart()
        elif fate is Fate.HALF_ANSWERED:
            client.sendall(answer[: len(answer) // 2])
        elif fate is Fate.LATE:
            client.recv(1)  # returns when it hangs up
            client.sendall(answer)
        elif fate is Fate.PASSES:
            head, blank, body = answer.partition(b"\r\n\r\n")
            after_answer, status = self.after_answer, self.statuses[-1]
            client.sendall(head + b"\r\nconnection: close" + blank + body)
            after_answer(status)  # of this answer: who has got it may have begun the next act

    def _forward(self, request: bytes, fate: Fate) -> bytes:
        with socket.create_connection(("127.0.0.1", self.upstream_port), PATIENCE_SECONDS) as upstream:
            upstream.sendall(request)
            if fate is Fate.CUT:
                return b""
            answer = read_message(upstream)
        self.statuses.append(int(answer.split()[1]))
        return answer


def read_message(connection: socket.socket) -> bytes:
    """A request or an answer that says its length; less, if the other side hangs up."""
    received = b""
    while True:
        head, blank, body = received.partition(b"\r\n\r\n")
        if blank and len(body) >= _length(head):
            return received
        more = connection.recv(65_536)
        if not more:
            return received
        received += more


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0


@contextlib.contextmanager
def hostile_proxy(upstream_port: int, *, restart: Callable[[], None]) -> Iterator[HostileProxy]:
    """A running one."""
    proxy = HostileProxy(upstream_port, restart=restart)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
