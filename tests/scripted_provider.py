"""The double of the seam below remote backends, and a clock that only tests move."""

import asyncio
import heapq
import itertools
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from gateway.backends.base import BackendUnavailable, Output, Reason
from gateway.backends.remote.pace import Pace
from gateway.backends.remote.provider import Call, Made, Sight, Unknown, Waiting

START = datetime(2026, 1, 1, tzinfo=UTC)
TURNS = 25
"""Of the loop: enough for everything that is ready to run, and for what that makes ready."""


class Clock:
    """Time stands still between two calls of `advance`."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self.time

    def utc(self) -> datetime:
        return START + timedelta(seconds=self.time)

    async def sleep(self, seconds: float) -> None:
        waking = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.time + seconds, next(self._order), waking))
        await waking

    async def settle(self) -> None:
        """Until nothing is left to do at this moment."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        """Let time pass; everything happens in its order."""
        end = self.time + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, waking = heapq.heappop(self._sleepers)
            if waking.done():
                continue
            self.time = due
            waking.set_result(None)
            await self.settle()
        self.time = end

    def pace(self, **changes: object) -> Pace:
        return Pace(clock=self.now, sleep=self.sleep, now=self.utc, rng=random.Random(1), **changes)  # type: ignore[arg-type]


class ScriptedProvider:
    """Does what a test says, and remembers what was asked of it."""

    def __init__(
        self,
        *,
        name: str = "runware",
        most_at_once: int = 4,
        can_resend: bool = True,
        looks_at_once: int = 50,
    ) -> None:
        self.name = name
        self.most_at_once = most_at_once
        self.can_resend = can_resend
        self.looks_at_once = looks_at_once
        self.balance: int | BackendUnavailable = 5_000_000_000
        self.sent: list[Call] = []
        self.found: list[Call] = []
        self.looks: list[tuple[str, ...]] = []
        self.stopped: list[str] = []
        self.sights: dict[str, Sight] = {}
        self.send_script: list[Exception | str | None] = []
        """What befalls the next calls of `send`; None, and after the end: accepted."""
        self.find_script: list[Exception | str | None] = []
        """What the next calls of `find` tell; after the end: not there."""
        self.look_script: list[Exception | None] = []
        self.gate: asyncio.Event | None = None
        """Calls of `send` wait for it."""
        self.is_closed = False
        self._numbers = itertools.count(1)

    def new_ref(self) -> str | None:
        return f"ours-{next(self._numbers)}" if self.can_resend else None

    async def send(self, call: Call) -> str:
        self.sent.append(call)
        if self.gate is not None:
            await self.gate.wait()
        fate = self.send_script.pop(0) if self.send_script else None
        if isinstance(fate, Exception):
            raise fate
        ref = fate or call.ref or f"theirs-{next(self._numbers)}"
        self.sights.setdefault(ref, Waiting())
        return ref

    async def find(self, call: Call, *, since: datetime) -> str | None:
        assert since.tzinfo is not None
        self.found.append(call)
        fate = self.find_script.pop(0) if self.find_script else None
        if isinstance(fate, Exception):
            raise fate
        return fate

    async def look(self, refs: Sequence[str]) -> Mapping[str, Sight]:
        assert 0 < len(refs) <= self.looks_at_once
        self.looks.append(tuple(refs))
        fate = self.look_script.pop(0) if self.look_script else None
        if fate is not None:
            raise fate
        return {ref: self.sights.get(ref, Unknown()) for ref in refs}

    async def stop(self, ref: str) -> None:
        self.stopped.append(ref)

    async def balance_nano(self) -> int:
        if isinstance(self.balance, BackendUnavailable):
            raise self.balance
        return self.balance

    async def close(self) -> None:
        self.is_closed = True


def made(*seeds: int, cost_nano: int | None = None) -> Made:
    """Finished songs."""
    outputs = tuple(Output(url=f"https://files.example/{seed}.flac", seed=seed) for seed in seeds)
    return Made(outputs=outputs, cost_nano=cost_nano)


def away(reason: Reason = Reason.OUTAGE, retry_after_seconds: float | None = None) -> BackendUnavailable:
    """Nothing was taken or told."""
    return BackendUnavailable("not now", reason=reason, retry_after_seconds=retry_after_seconds)
