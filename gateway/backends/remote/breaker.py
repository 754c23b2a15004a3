"""Whether a backend is tried for a model: opened by failures of its own, tried again one job at a time.

One customer's jobs may fail by what is in them. While others are served, they alone open nothing.
"""

import random
import statistics
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from gateway.routing import Circuit

CONSECUTIVE: Final = 5
"""Failures in a row that open it."""
WINDOW: Final = 20
"""Latest attempts that are judged together: half of them failing opens it, too."""
WITNESS_SECONDS: Final = 60.0
"""For so long a success with one customer speaks against the failures of another."""
OPEN_SECONDS: Final = 15.0
LONGEST_OPEN_SECONDS: Final = 300.0
_JITTER: Final = 0.2
"""Processes that saw the same outage do not all try again in the same second."""
_LATENCIES: Final = 50

Owner = uuid.UUID | None
"""The organization whose job it is."""


class Permit(msgspec.Struct, eq=False):
    """Leave to make one attempt; it is given back once, by one of Breaker's three endings."""

    owner: Owner = None
    is_probe: bool = False
    is_open: bool = True


class _Record:
    """The latest attempts, whose they were, and who was served."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latest: deque[tuple[bool, Owner]] = deque(maxlen=WINDOW)
        """Whether it failed."""
        self._in_a_row: deque[Owner] = deque(maxlen=WINDOW)
        self._served: dict[Owner, float] = {}
        """The last two customers, and when: whoever fails, one of them is another."""

    @property
    def error_rate(self) -> float:
        """Share of failures."""
        return sum(failed for failed, _ in self._latest) / len(self._latest) if self._latest else 0.0

    @property
    def is_bad(self) -> bool:
        """Enough to stop."""
        failing = [owner for failed, owner in self._latest if failed]
        often = len(self._latest) == WINDOW and self._are(WINDOW // 2, failing)
        return often or self._are(CONSECUTIVE, self._in_a_row)

    def note_success(self, owner: Owner) -> None:
        """A song was delivered."""
        self._latest.append((False, owner))
        self._in_a_row.clear()
        self._served.pop(owner, None)
        self._served = dict([*list(self._served.items())[-1:], (owner, self._clock())])

    def note_failure(self, owner: Owner) -> None:
        """By the backend's fault, it seems."""
        self._latest.append((True, owner))
        self._in_a_row.append(owner)

    def clear(self) -> None:
        """What failed is mended."""
        self._latest.clear()
        self._in_a_row.clear()

    def serves_others(self, owner: Owner) -> bool:
        """Lately."""
        since = self._clock() - WITNESS_SECONDS
        return any(other != owner and when >= since for other, when in self._served.items())

    def _are(self, many: int, failing: Iterable[Owner]) -> bool:
        """Whether so many failed; while others are served, not by one customer's jobs alone."""
        most = many // 2 + 1
        counts = Counter(failing).items()
        return many <= sum(
            min(count, most) if self.serves_others(owner) else count for owner, count in counts
        )


class Breaker:
    """One backend and model. Counts only what was the backend's fault; keeps no time of its own."""

    def __init__(self, clock: Callable[[], float], *, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads, hides nothing
        self._record = _Record(clock)
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._opened_in_a_row = 0
        self._open_until: float | None = None
        self._is_testing = False
        self._probe: Permit | None = None
        self._why: str | None = None

    @property
    def circuit(self) -> Circuit:
        """At this moment."""
        if not self._is_testing:
            return Circuit.CLOSED
        is_open = self._open_until is not None and self._clock() < self._open_until
        return Circuit.OPEN if is_open else Circuit.HALF_OPEN

    @property
    def why(self) -> str | None:
        """What opened it, until it is closed."""
        return self._why if self._is_testing else None

    @property
    def open_seconds(self) -> float | None:
        """Until it is tried again."""
        return self._open_until - self._clock() if self._open_until and self.circuit is Circuit.OPEN else None

    @property
    def lets_through(self) -> bool:
        """Whether `admit` would."""
        circuit = self.circuit
        return circuit is Circuit.CLOSED or (circuit is Circuit.HALF_OPEN and self._probe is None)

    @property
    def error_rate(self) -> float:
        """Share of the latest attempts that failed by the backend's fault."""
        return self._record.error_rate

    @property
    def latency_seconds(self) -> float | None:
        """From submit to music, in the middle of the latest ones."""
        return statistics.median(self._latencies) if self._latencies else None

    def admit(self, owner: Owner = None) -> Permit | None:
        """Leave for one attempt; None: not now."""
        if not self.lets_through:
            return None
        if self.circuit is Circuit.CLOSED:
            return Permit(owner=owner)
        self._probe = Permit(owner=owner, is_probe=True)
        return self._probe

    def enter(self, owner: Owner = None) -> Permit:
        """Leave for an attempt that is under way already: it counts, and tries nothing."""
        return Permit(owner=owner)

    def note_latency(self, seconds: float) -> None:
        """Of an attempt that made music, whatever becomes of it."""
        self._latencies.append(seconds)

    def succeeded(self, permit: Permit) -> None:
        """It made music that was delivered."""
        if not self._take_back(permit):
            return
        self._record.note_success(permit.owner)
        if permit.is_probe:
            self._close()

    def failed(self, permit: Permit, why: str, *, for_certain: bool = False) -> None:
        """By the backend's fault. `for_certain`: every other attempt will fail like this one, it seems."""
        if not self._take_back(permit):
            return
        self._record.note_failure(permit.owner)
        if permit.is_probe:
            self._open(why)
        elif not self._is_testing:
            is_everybodys = for_certain and not self._record.serves_others(permit.owner)
            if is_everybodys or self._record.is_bad:
                self._open(why)

    def released(self, permit: Permit) -> None:
        """It ended in a way that says nothing of the backend: refused content, a cancellation."""
        self._take_back(permit)

    def trip(self, why: str) -> None:
        """Known from elsewhere: nothing would work here either."""
        if not self._is_testing:
            self._open(why)

    def try_again(self) -> None:
        """What opened it is mended, as far as anybody knows: the next job finds out."""
        if self._is_testing:
            self._open_until = None

    def _take_back(self, permit: Permit) -> bool:
        was_open, permit.is_open = permit.is_open, False
        if permit is self._probe:
            self._probe = None
        return was_open

    def _open(self, why: str) -> None:
        seconds = min(OPEN_SECONDS * 2**self._opened_in_a_row, LONGEST_OPEN_SECONDS)
        if seconds < LONGEST_OPEN_SECONDS:
            self._opened_in_a_row += 1
        self._is_testing = True
        self._open_until = self._clock() + seconds * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
        self._why = why

    def _close(self) -> None:
        self._is_testing = False
        self._open_until = None
        self._opened_in_a_row = 0
        self._record.clear()
