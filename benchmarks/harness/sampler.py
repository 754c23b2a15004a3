"""Where a process spends its CPU time: its stack is looked at again and again, and sorted into rooms.

    python -m benchmarks.harness.sampler FILE COMMAND...

runs `antiphon COMMAND...`; SIGUSR1 begins and ends the looking, the findings are written to FILE at the end.
What C code does counts for the Python line that called it; what the event loop does between two calls,
reading and polling, counts as `event loop`.
"""

import dis
import linecache
import re
import resource
import signal
import sys
import time
from collections import defaultdict
from operator import itemgetter
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import msgspec

from gateway.cli import main as antiphon

INTERVAL_SECONDS: Final = 0.001
"""Of wall time, because timers of CPU time are as coarse as 4 ms; a look counts for the CPU time since the
last one, so waiting counts nothing."""
LOG: Final = "log, metrics"
MSGSPEC: Final = "msgspec"
LOOP: Final = "event loop"
OTHER: Final = "other"
KEPT_LINES: Final = 60
ROOMS: Final = (
    ("uvicorn, httptools", ("/uvicorn/", "/httptools/", "/gateway/cli/http_server.py")),
    (LOG, ("/structlog/", "/prometheus_client/", "/gateway/observability.py")),
    ("our dialect", ("/gateway/dialects/", "/gateway/app.py", "/gateway/signed_urls.py")),
    ("keys, caches", ("/gateway/auth/", "/gateway/config_watch.py", "/gateway/allowance.py")),
    ("lane, asyncpg", ("/gateway/jobs/", "/gateway/database.py", "/billing/", "/asyncpg/")),
    ("Litestar", ("/litestar/", "/multidict/", "/anyio/")),
)
_MSGSPEC_CALL: Final = re.compile(
    r"msgspec\.(json|convert|to_builtins)|decoder\.decode|encoder?\.encode|_encode\("
)
_RUNNER: Final = "asyncio/runners.py"
_RESUME: Final = dis.opmap["RESUME"]


class Line(msgspec.Struct, frozen=True):
    """A line that was running, and its CPU time in seconds."""

    room: str
    place: str
    seconds: float


class Findings(msgspec.Struct, kw_only=True):
    """What the sampler saw."""

    looks: int
    user_seconds: float
    system_seconds: float
    rooms: dict[str, float]
    """CPU time in seconds."""
    lines: list[Line]


class Sampler:
    """Adds up CPU time for (room, code, line), in the handler of a timer."""

    def __init__(self) -> None:
        self._seconds: defaultdict[tuple[str, CodeType, int], float] = defaultdict(float)
        self._looks = 0
        self._seen_at = 0.0
        self._rooms: dict[CodeType, str | None] = {}
        self._running = False
        self._used = (0.0, 0.0)

    def install(self) -> None:
        """Wait for the first SIGUSR1."""
        signal.signal(signal.SIGALRM, self._look)
        signal.signal(signal.SIGUSR1, self._switch)

    def findings(self) -> Findings:
        """Sorted, the most frequent first."""
        rooms: defaultdict[str, float] = defaultdict(float)
        lines: defaultdict[tuple[str, str], float] = defaultdict(float)
        for (room, code, line), seconds in self._seconds.items():
            text = linecache.getline(code.co_filename, line).strip()
            name = MSGSPEC if _MSGSPEC_CALL.search(text) and room not in {LOOP, LOG} else room
            rooms[name] += seconds
            short = "/".join(Path(code.co_filename).parts[-2:])
            lines[name, f"{short}:{line} {code.co_qualname}: {text[:60]}"] += seconds
        return Findings(
            looks=self._looks,
            user_seconds=self._used[0],
            system_seconds=self._used[1],
            rooms=dict(sorted(rooms.items(), key=itemgetter(1), reverse=True)),
            lines=[
                Line(*place, seconds)
                for place, seconds in sorted(lines.items(), key=itemgetter(1), reverse=True)[:KEPT_LINES]
            ],
        )

    def _switch(self, _: int, __: FrameType | None) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._running = not self._running
        sign = -1 if self._running else 1
        self._used = (self._used[0] + sign * usage.ru_utime, self._used[1] + sign * usage.ru_stime)
        self._seen_at = time.thread_time()
        interval = INTERVAL_SECONDS if self._running else 0
        signal.setitimer(signal.ITIMER_REAL, interval, interval)

    def _look(self, _: int, frame: FrameType | None) -> None:
        if frame is None or not self._running:
            return
        now = time.thread_time()
        room = LOOP if _is_between_calls(frame) else None
        seen: FrameType | None = frame
        while room is None and seen is not None:
            room = self._room(seen.f_code)
            seen = seen.f_back
        self._seconds[room or OTHER, frame.f_code, frame.f_lineno or 0] += now - self._seen_at
        self._seen_at = now
        self._looks += 1

    def _room(self, code: CodeType) -> str | None:
        if code not in self._rooms:
            self._rooms[code] = next(
                (room for room, parts in ROOMS if any(part in code.co_filename for part in parts)), None
            )
        return self._rooms[code]


def _is_between_calls(frame: FrameType) -> bool:
    """Whether the loop is at work itself, or has called this function just now: the time before is its own.

    Python runs the handler at the first instruction that it comes to after the signal.
    """
    if frame.f_code.co_filename.endswith(_RUNNER):
        return True
    caller = frame.f_back
    is_called_by_loop = caller is not None and caller.f_code.co_filename.endswith(_RUNNER)
    return is_called_by_loop and frame.f_code.co_code[frame.f_lasti] == _RESUME


def main() -> None:
    """Run a command of the product under the sampler."""
    target, sys.argv = Path(sys.argv[1]), ["antiphon", *sys.argv[2:]]
    sampler = Sampler()
    sampler.install()
    try:
        antiphon()
    finally:
        target.write_bytes(msgspec.json.encode(sampler.findings()))


if __name__ == "__main__":
    main()
