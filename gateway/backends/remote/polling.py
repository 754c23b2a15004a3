"""One schedule for everything that is under way at a provider: no task of the loop for any of it.

What is due is looked at in batches, a few requests at a time and so many a second, whatever there is: with
ten thousand tasks each is looked at less often, and the provider's load and ours stay the same.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from gateway.backends.base import BackendUnavailable
from gateway.backends.remote.pace import Pace
from gateway.backends.remote.provider import Sight

_JITTER: Final = 0.1
_PAGE: Final = 100
"""Tasks on a page of a list, which is how a provider is asked for more than that at once."""
_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0

log = structlog.get_logger(__name__)


class Looks(Protocol):
    """What of a provider is needed here."""

    @property
    def name(self) -> str: ...

    @property
    def looks_at_once(self) -> int: ...

    async def look(self, refs: Sequence[str]) -> Mapping[str, Sight]: ...


class _Watched(msgspec.Struct, eq=False):
    ref: str
    interval: float
    due: float | None = None
    """None while it is being looked at."""
    is_urgent: bool = False
    """Somebody asked for a look while one was under way."""


class Poller:
    """Looks at refs until they are dropped, and tells what it saw."""

    def __init__(self, provider: Looks, on_sight: Callable[[str, Sight], None], pace: Pace) -> None:
        self._provider = provider
        self._on_sight = on_sight
        self._pace = pace
        self._watched: dict[str, _Watched] = {}
        self._heap: list[tuple[float, int, _Watched]] = []
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._free = pace.looks_at_a_time
        self._next_request = 0.0
        self._next_batch = 0.0
        self._failures = 0
        self._running: asyncio.Task[None] | None = None
        self._looking: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, ref: str) -> None:
        """Look at it from now on; begins with the first ref, in the loop that is running."""
        watched = self._watched.setdefault(ref, _Watched(ref, self._pace.first_look_seconds))
        if watched.due is None:
            self._schedule(watched, watched.interval)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())

    def drop(self, ref: str) -> None:
        """Of no interest any more."""
        self._watched.pop(ref, None)

    def hint(self, ref: str) -> None:
        """Something has changed: look at once, before all that is merely due."""
        watched = self._watched.get(ref)
        if watched is None:
            return
        watched.interval = self._pace.first_look_seconds
        if watched.due is None:
            watched.is_urgent = True
        elif watched.due > 0:
            self._put(watched, 0.0)

    async def close(self) -> None:
        """Look no more."""
        tasks = [task for task in (self._running, *self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._running = None

    def _schedule(self, watched: _Watched, seconds: float) -> None:
        spread = self._pace.rng.uniform(1 - _JITTER, 1 + _JITTER)
        self._put(watched, self._pace.clock() + seconds * spread)

    def _put(self, watched: _Watched, due: float) -> None:
        watched.due = due
        heapq.heappush(self._heap, (due, next(self._order), watched))
        if self._heap[0][2] is watched:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            wait = self._wait_seconds()
            if wait is None:
                await self._wake.wait()
            elif wait > 0:
                await self._sleep(wait)
            else:
                self._look()

    def _wait_seconds(self) -> float | None:
        """Until the next request may go out; None: nothing to be done before somebody wakes us."""
        while self._heap and not self._is_current(self._heap[0]):
            heapq.heappop(self._heap)
        if not self._heap or self._free == 0:
            return None
        due = self._heap[0][0]
        earliest = max(due, self._next_batch) if due > 0 else 0.0
        return max(earliest, self._next_request) - self._pace.clock()

    def _is_current(self, entry: tuple[float, int, _Watched]) -> bool:
        """Entries are never searched for: those that no longer count are passed over."""
        due, _, watched = entry
        return self._watched.get(watched.ref) is watched and watched.due == due

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until something is due earlier."""
        sleeping = asyncio.ensure_future(self._pace.sleep(seconds))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait([sleeping, waking], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()

    def _look(self) -> None:
        """At as many of those that are due as one request takes."""
        now, batch = self._pace.clock(), list[_Watched]()
        while self._heap and len(batch) < self._provider.looks_at_once:
            if not self._is_current(self._heap[0]):
                heapq.heappop(self._heap)
            elif self._heap[0][0] <= now:
                watched = heapq.heappop(self._heap)[2]
                watched.due = None
                batch.append(watched)
            else:
                break
        if not batch:
            return
        self._free -= 1
        requests = self._requests(len(batch))
        self._next_request = max(self._next_request, now) + requests / self._pace.looks_per_second
        if len(batch) < self._provider.looks_at_once:
            self._next_batch = now + self._pace.gather_seconds
        looking = asyncio.get_running_loop().create_task(self._look_at(batch))
        self._looking.add(looking)
        looking.add_done_callback(self._looking.discard)

    def _requests(self, count: int) -> int:
        """What a look at so many tasks comes to: one request, or one for each, or all pages of a list."""
        if self._provider.looks_at_once <= _PAGE:
            return 1
        return min(count, 1 + len(self._watched) // _PAGE)

    async def _look_at(self, batch: Sequence[_Watched]) -> None:
        seen: Mapping[str, Sight] = {}
        try:
            seen = await self._provider.look([watched.ref for watched in batch])
            self._failures = 0
        except BackendUnavailable as error:
            self._back_off(error.retry_after_seconds, error.reason.value)
        except Exception:
            # Whatever is wrong with one answer, what is under way elsewhere must be looked at again.
            log.exception("provider.look_broken", provider=self._provider.name)
            self._back_off(None, "defect")
        finally:
            self._free += 1
            for watched in batch:
                self._again(watched)
            self._wake.set()
        for ref, sight in seen.items():
            if ref in self._watched:
                self._tell(ref, sight)

    def _tell(self, ref: str, sight: Sight) -> None:
        try:
            self._on_sight(ref, sight)
        except Exception:
            log.exception("provider.sight_broken", provider=self._provider.name)

    def _again(self, watched: _Watched) -> None:
        if self._watched.get(watched.ref) is not watched or watched.due is not None:
            return
        if watched.is_urgent:
            watched.is_urgent = False
            self._put(watched, 0.0)
            return
        watched.interval = min(watched.interval * self._pace.look_growth, self._pace.longest_look_seconds)
        self._schedule(watched, watched.interval)

    def _back_off(self, retry_after_seconds: float | None, reason: str) -> None:
        """No request before that; the provider has trouble enough."""
        pause = min(_PAUSE_SECONDS * 2**self._failures, _LONGEST_PAUSE_SECONDS)
        self._failures = min(self._failures + 1, 10)
        pause = min(max(pause, retry_after_seconds or 0.0), _LONGEST_PAUSE_SECONDS)
        pause *= self._pace.rng.uniform(1.0, 1 + 2 * _JITTER)
        self._next_request = max(self._next_request, self._pace.clock() + pause)
        log.warning(
            "provider.look_failed", provider=self._provider.name, reason=reason, pause_seconds=round(pause, 1)
        )
