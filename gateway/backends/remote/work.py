"""One task under way at a provider, as this process knows it."""

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.backends.base import Failed, Piece, RemoteTask, Rendered, RenderTask
from gateway.backends.remote.breaker import Breaker, Permit
from gateway.backends.remote.provider import Made
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.jobs.job import JobErrorCode
from gateway.routing import ordered_frames

_GIVEN_UP: Final = frozenset({JobErrorCode.JOB_CANCELLED, JobErrorCode.TIMEOUT})


class Part(msgspec.Struct, eq=False):
    """A piece that was accepted."""

    piece: Piece
    progress: float = 0.0
    unknown: int = 0
    """How often in a row the provider did not know it."""
    made: Made | None = None


class Work(msgspec.Struct, eq=False, kw_only=True):
    """From `submit` or `recover` until it is forgotten."""

    task: RenderTask
    remote: RemoteTask
    intended: str
    """What it was called before it had an id."""
    breaker: Breaker
    permit: Permit
    nano_per_second: int | None
    sent: float
    """By the clock, also where another process has sent it."""
    watched: float
    """Since when it is looked at."""
    heard: float
    """When the provider last told something of it."""
    parts: dict[str, Part] = msgspec.field(default_factory=dict)
    """By the provider's ids; empty until all are accepted."""
    changed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    outcome: Rendered | Failed | None = None
    is_cancelled: bool = False
    running: int = 0
    """Tasks at the provider that are counted for it."""
    fetching: "asyncio.Task[object] | None" = None
    """What is being brought before anything is sent."""

    @property
    def progress(self) -> float:
        """Of all variations together."""
        done = sum(part.piece.count * (1.0 if part.made else part.progress) for part in self.parts.values())
        return done / self.task.request.n

    @property
    def is_made(self) -> bool:
        """Whether every part is."""
        return all(part.made for part in self.parts.values())

    def rendered(self) -> Rendered:
        """All outputs, in the order of the variations."""
        parts = sorted(self.parts.values(), key=lambda part: part.piece.first)
        outputs = [output for part in parts if part.made for output in part.made.outputs[: part.piece.count]]
        return Rendered(outputs=tuple(outputs), cost_nano=self._made_nano(parts))

    def failed(self, code: JobErrorCode, message: str, *, retryable: bool = False) -> Failed:
        """With what all parts cost us, if all were made; who knows what those cost that were given up."""
        cost = None if code in _GIVEN_UP else self._made_nano(self.parts.values())
        return Failed(code=code, message=message, retryable=retryable, cost_nano=cost)

    def failed_by(self, ref: str, failed: Failed) -> Failed:
        """As one part has failed; of that one the provider told what it costs."""
        others = self._made_nano(part for other, part in self.parts.items() if other != ref)
        cost = None if others is None or failed.cost_nano is None else failed.cost_nano + others
        return msgspec.structs.replace(failed, cost_nano=cost)

    def _made_nano(self, parts: Iterable[Part]) -> int | None:
        """What these cost together; None if one of them is not made, or nobody told."""
        costs = [self._cost_nano(part) if part.made is not None else None for part in parts]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def _cost_nano(self, part: Part) -> int | None:
        """As the provider told, or by its price card."""
        if part.made is not None and part.made.cost_nano is not None:
            return part.made.cost_nano
        if self.nano_per_second is None:
            return None
        return most_nano(self.remote.backend, self.task.request, part.piece.count, self.nano_per_second)


def most_nano(backend: str, request: GenerationRequest, count: int, nano_per_second: int | None) -> int:
    """What `count` variations may cost, by a price for each second that is generated."""
    return -(-count * ordered_frames(backend, request) * (nano_per_second or 0) // SAMPLE_RATE)
