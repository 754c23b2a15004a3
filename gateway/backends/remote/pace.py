"""Time as remote backends see it; tests bring a clock of their own."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

LOOK_SECONDS: Final = 1.0
"""From a task's acceptance to the first look at it."""
LONGEST_LOOK_SECONDS: Final = 10.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How time passes, and what happens when."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], datetime] = _utc_now
    rng: random.Random = msgspec.field(default_factory=random.Random)
    first_look_seconds: float = LOOK_SECONDS
    longest_look_seconds: float = LONGEST_LOOK_SECONDS
    look_growth: float = 1.5
    looks_per_second: float = 10.0
    """Requests, at most, however many tasks there are: then each is looked at less often."""
    gather_seconds: float = 0.5
    """What is due waits for what else soon is, or a hundred tasks would make a hundred requests."""
    looks_at_a_time: int = 4
    """Requests under way at once."""
    find_delays: tuple[float, ...] = (1.0, 3.0, 6.0)
    """Before each look for a call that was sent, perhaps: lists lag behind."""
    again_delays: tuple[float, ...] = (1.0, 3.0)
    """Before a part of a task is sent again, of which others were accepted."""
    unknown_seconds: float = 10.0
    """After its acceptance a task may be unknown for as long."""
    silence_seconds: float = 900.0
    """A provider that tells nothing of a task for as long has lost it."""
    patience_seconds: float = 1800.0
    """A provider that has not made a task by then will not."""
    balance_seconds: float = 60.0
