"""What a network and a vendor do to a caller: slowness, cut connections, refusals, garbage, broken audio."""

from collections import deque
from typing import Literal, get_args

import msgspec

Where = Literal[
    "audioInference",
    "getResponse",
    "mediaStorage",
    "accountManagement",
    "getTaskDetails",
    "authentication",
    "ping",
    "download",
    "webhook",
]
HostileKind = Literal[
    "wrong_types",
    "nulls",
    "deep",
    "missing",
    "foreign",
    "duplicates",
    "both",
    "not_object",
    "no_data",
    "huge_numbers",
]
OutputKind = Literal[
    "silent",
    "clipped",
    "truncated",
    "half",
    "double",
    "short",
    "long",
    "text",
    "empty",
    "huge",
    "missing",
    "redirect",
    "private",
    "fewer",
    "none",
    "mono",
]
HookKind = Literal["duplicate", "early", "late", "forged", "never"]


class Status(msgspec.Struct, frozen=True, tag=True):
    """Not accepted: that status, and an error for each task. The code defaults to the status's usual one."""

    code: int
    error_code: str | None = None
    message: str | None = None
    retry_after: float | None = None


class Drop(msgspec.Struct, frozen=True, tag=True):
    """The connection is cut without an answer: before anything is done, or when the task exists."""

    after_accepting: bool = False


class Delay(msgspec.Struct, frozen=True, tag=True):
    """The request waits before it is handled; or it is handled, and its answer waits."""

    seconds: float
    after_accepting: bool = False


class Raw(msgspec.Struct, frozen=True, tag=True):
    """These bytes are the answer; nothing is done."""

    body: bytes
    code: int = 200
    content_type: str = "application/json"


class Huge(msgspec.Struct, frozen=True, tag=True):
    """A JSON string of that many bytes is the answer, streamed; nothing is done."""

    bytes_count: int
    code: int = 200


class Hostile(msgspec.Struct, frozen=True, tag=True):
    """Handled as usual; the answer is JSON that no client should trust."""

    kind: HostileKind


class TaskFails(msgspec.Struct, frozen=True, tag=True):
    """The task is accepted and fails at its end."""

    code: str = "inferenceError"
    message: str = "generation failed"


class Outputs(msgspec.Struct, frozen=True, tag=True):
    """The task is accepted and ends in success, with output that is not what was asked."""

    kind: OutputKind


class Hook(msgspec.Struct, frozen=True, tag=True):
    """What becomes of a task's webhook."""

    kind: HookKind
    seconds: float = 0


Fault = Status | Drop | Delay | Raw | Huge | Hostile | TaskFails | Outputs | Hook

ONLY_AT: dict[type, tuple[str, ...]] = {
    TaskFails: ("audioInference",),
    Outputs: ("audioInference",),
    Hook: ("webhook",),
    Hostile: ("audioInference", "getResponse", "mediaStorage", "accountManagement", "getTaskDetails"),
}
"""Faults that only make sense in some places; the others befall any request that is answered."""


class Faults:
    """A queue of faults per place; each request of the place takes the first."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Fault]] = {where: deque() for where in get_args(Where)}

    def add(self, where: Where, fault: Fault, times: int = 1) -> None:
        allowed = ONLY_AT.get(type(fault))
        if where not in self._queues:
            raise ValueError(f"no such place: {where}; there are {', '.join(self._queues)}")
        if (allowed and where not in allowed) or (where == "webhook" and not isinstance(fault, Hook)):
            raise ValueError(f"{type(fault).__name__} cannot befall {where}")
        self._queues[where].extend([fault] * times)

    def take(self, where: str) -> Fault | None:
        queue = self._queues.get(where)
        return queue.popleft() if queue else None

    def pending(self) -> dict[str, list[Fault]]:
        return {where: list(queue) for where, queue in self._queues.items() if queue}

    def clear(self) -> None:
        for queue in self._queues.values():
            queue.clear()
