"""Ctrl-C and SIGTERM as an exception, but only where it does no harm."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

import msgspec

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The operator wants the program to end."""


class StopSignals(msgspec.Struct):
    """While entered, signals are counted, and raise `Stopped` inside `raising()` and `pause()` only.

    Elsewhere, for example between the start of a process and the note of its number, they wait.
    """

    received: int = 0
    _raises: bool = False
    _before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            before = signal.getsignal(number)
            if number is signal.SIGHUP and before is signal.SIG_IGN:
                continue  # nohup
            self._before[number] = before
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Let a signal interrupt this block, whatever it waits for."""
        with self._switched(on=True):
            if self.received:
                raise Stopped
            yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Keep signals from interrupting this block inside a `raising` one."""
        with self._switched(on=False):
            yield

    def pause(self, seconds: float) -> None:
        """Sleep; raises Stopped at once when a signal comes or came."""
        with self.raising():
            time.sleep(seconds)

    def impatient(self) -> bool:
        """True after the second signal: end now, tidy or not."""
        return self.received > 1

    @contextmanager
    def _switched(self, *, on: bool) -> Iterator[None]:
        before, self._raises = self._raises, on
        try:
            yield
        finally:
            self._raises = before

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.received += 1
        if self._raises:
            raise Stopped
