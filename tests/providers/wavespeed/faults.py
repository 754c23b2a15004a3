"""What a provider, or the network before it, does to a caller."""

import asyncio
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import msgspec

Where = Literal[
    "submit",
    "poll",
    "list",
    "delete",
    "upload",
    "put",
    "balance",
    "pricing",
    "models",
    "secret",
    "download",
    "webhook",
]
Sound = Literal[
    "silent",
    "clipped",
    "truncated",
    "half",
    "double",
    "short",
    "text",
    "page",
    "huge",
    "missing",
    "redirect",
    "private",
    "local",
    "empty",
    "wav",
    "flac",
]
Oddity = Literal[
    "nulls",
    "wrong_types",
    "deep",
    "bare",
    "no_data",
    "no_id",
    "list",
    "infinite",
    "foreign_id",
    "path_in_id",
    "long_id",
    "odd_outputs",
]


class Status(msgspec.Struct, frozen=True, tag=True):
    """An answer with that HTTP status; the documented body of the status unless told another.

    `after_accepting`: as from a proxy whose patience ends, the work is done and nobody is told.
    `location`: where a redirect leads.
    """

    code: int
    body: str | None = None
    retry_after: str | int | None = None
    location: str | None = None
    after_accepting: bool = False


class Drop(msgspec.Struct, frozen=True, tag=True):
    """The connection is cut without an answer: before anything is done, or after."""

    after_accepting: bool = False


class Delay(msgspec.Struct, frozen=True, tag=True):
    """Nothing is heard for so long: before anything is done, or after. A webhook comes that late.

    What is delayed is done even if the caller has gone.
    """

    seconds: float
    after_accepting: bool = False


class Raw(msgspec.Struct, frozen=True, tag=True):
    """Those bytes as the body of a 200; with `instead_of_http`, those bytes and no HTTP at all.

    As JSON, `body` is base64.
    """

    body: bytes = b"\x00\xff<html>garbage"
    instead_of_http: bool = False
    after_accepting: bool = True


class Huge(msgspec.Struct, frozen=True, tag=True):
    """A body of so many bytes, without a length ahead; JSON that never gets to its end.

    `compressed`: by gzip, a thousandth of that on the wire, whatever the caller accepts.
    """

    bytes_count: int = 100_000_000
    compressed: bool = False
    after_accepting: bool = True


class Cut(msgspec.Struct, frozen=True, tag=True):
    """The right answer, but the connection ends halfway through its body."""


class Drip(msgspec.Struct, frozen=True, tag=True):
    """The right answer, byte by byte with a pause after each: no read waits long, the whole takes ages."""

    pause_seconds: float = 0.05


class Odd(msgspec.Struct, frozen=True, tag=True):
    """A 200 with JSON that is not what the documentation says."""

    kind: Oddity
    after_accepting: bool = True


class TaskFails(msgspec.Struct, frozen=True, tag=True):
    """The prediction ends so. `status` may be another word: cancelled, timeout, deleted, one never heard."""

    code: int = 1403
    error: str = "task execution failed"
    status: str = "failed"


class Takes(msgspec.Struct, frozen=True, tag=True):
    """The prediction takes so long; None: until `complete` or `fail` is called."""

    seconds: float | None = None


class Outputs(msgspec.Struct, frozen=True, tag=True):
    """What the prediction's file is instead of a song as asked.

    silent, clipped, truncated (it breaks off), half, double, short (3 %, or down to `share`
    of the length), text (as audio/mpeg), page (HTML with status 200), huge (100 MB that begin as a song),
    missing (404), redirect (302 to the metadata address), private (the output itself is that address), local
    (a file: URL), empty (`outputs: []`), wav and flac (right, but no MP3).
    """

    kind: Sound
    share: float = 0.97


class Hooks(msgspec.Struct, frozen=True, tag=True):
    """How the next prediction's webhook comes.

    duplicate (twice, same id), early (completed, before the submit is answered and before a poll knows it;
    the usual one follows), late (`seconds` after the end), forged (signed with another secret), old (signed
    rightly, 301 s ago), altered (body changed once signed), unsigned, never.
    """

    kind: Literal["duplicate", "early", "late", "forged", "old", "altered", "unsigned", "never"]
    seconds: float = 1.0


Fault = Status | Drop | Delay | Raw | Huge | Cut | Drip | Odd | TaskFails | Takes | Outputs | Hooks
OF_TASKS = (TaskFails, Takes, Outputs)
OfTask = TypeVar("OfTask", TaskFails, Takes, Outputs)


class _Queued:
    def __init__(self, place: str, fault: Fault, times: int | None) -> None:
        self.place = place
        self.fault = fault
        self.times = times


class Faults:
    """The faults that wait for their requests, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._queued: list[_Queued] = []
        self._woken = asyncio.Event()

    def add(self, where: Where, fault: Fault, times: int | None = 1) -> None:
        if where not in get_args(Where):
            raise ValueError(f"there is no {where!r}; there are {', '.join(get_args(Where))}")
        if isinstance(fault, Hooks) != (where == "webhook") and not isinstance(fault, Delay):
            raise ValueError(f"{fault!r} does not befall a {where}")
        if isinstance(fault, OF_TASKS) and where != "submit":
            raise ValueError(f"{type(fault).__name__} befalls what is submitted, not a {where}")
        self._queued.append(_Queued(_place(where, fault), fault, times))

    def take(self, where: str) -> Fault | None:
        """The fault of this request, counted; those of tasks are kept for what is accepted."""
        return self._take(lambda one: one.place == where)

    def take_of_task(self, kind: type[OfTask]) -> OfTask | None:
        """The fault of that kind of the prediction that is being accepted, counted."""
        found = self._take(lambda one: one.place == "task" and isinstance(one.fault, kind))
        return found if isinstance(found, kind) else None

    def take_early(self) -> bool:
        """Whether the next webhook comes early; then that fault is counted."""
        first = next((one for one in self._queued if one.place == "webhook"), None)
        early = first is not None and isinstance(first.fault, Hooks) and first.fault.kind == "early"
        return early and self.take("webhook") is not None

    def clear(self) -> None:
        """No more faults; what is delayed right now goes on at once."""
        self._queued.clear()
        self._woken.set()
        self._woken = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        woken = self._woken
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            pass

    def report(self) -> list[dict[str, object]]:
        return [{"where": one.place, "fault": repr(one.fault), "times": one.times} for one in self._queued]

    def _take(self, fits: Callable[[_Queued], bool]) -> Fault | None:
        found = next((one for one in self._queued if fits(one)), None)
        if found is None:
            return None
        if found.times is not None:
            found.times -= 1
            if found.times <= 0:
                self._queued.remove(found)
        return found.fault


def _place(where: Where, fault: Fault) -> str:
    return "task" if isinstance(fault, OF_TASKS) else where
