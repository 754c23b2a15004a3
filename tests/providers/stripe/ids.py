"""Ids as Stripe shapes them, and a clock that a test may move."""

import secrets
import string
import time
from collections.abc import Callable

LETTERS = string.ascii_letters + string.digits
LENGTHS = {"cus": 14, "cs_test": 60, "req": 14}
USUAL_LENGTH = 24


def new_id(prefix: str) -> str:
    return f"{prefix}_" + random_text(LENGTHS.get(prefix, USUAL_LENGTH))


def random_text(length: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(length))


class Clock:
    """Stripe's time. It goes as the machine's does, some seconds off when a test moved it."""

    def __init__(self) -> None:
        self.offset_s = 0
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> int:
        return int(time.time()) + self.offset_s

    def on_move(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def advance(self, seconds: int) -> int:
        """Move Stripe's time; what falls due by it happens before this returns. Negative goes back."""
        self.offset_s += seconds
        self.tick()
        return self.now()

    def tick(self) -> None:
        for listener in self._listeners:
            listener()
