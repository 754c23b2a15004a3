"""The one seam of the engine: what a model family must offer to be rendered by the engine's thread."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from engine.errors import EngineError
from engine.scheduler import BatchLimits
from engine.schema import EngineRequest, EngineResult


class Progress(msgspec.Struct, frozen=True, tag=True):
    """One step of one request is done."""

    id: str
    fraction: float
    """0 to 1, of this request."""


class Finished(msgspec.Struct, frozen=True, tag=True, eq=False):
    """One request has its song."""

    id: str
    result: EngineResult


class Failed(msgspec.Struct, frozen=True, tag=True, eq=False):
    """One request of the batch failed and the others go on."""

    id: str
    error: EngineError


RunnerEvent = Progress | Finished | Failed


class Runner(Protocol):
    """Renders batches of one model family, on the engine's only thread.

    `run` yields between steps, and a step should take no more than about 0.2 s: between two events the engine
    looks for cancellations, and closes the iterator when nobody wants the batch any more. Within a batch, a
    runner asks `wanted(id)` before it spends a step on one request. What `run` raises fails the requests that
    have no outcome yet, after each of them was tried alone; a runner that knows the culprit yields Failed.
    """

    @property
    def models(self) -> frozenset[str]:
        """Public names of the models this runner renders."""

    def limits(self, model: str) -> BatchLimits:
        """How much of this model fits into one batch; asked for when nothing renders."""

    def run(self, batch: Sequence[EngineRequest], wanted: Callable[[str], bool]) -> Iterator[RunnerEvent]:
        """Render `batch` (one model, within its limits), oldest first."""


@runtime_checkable
class LimitedRunner(Runner, Protocol):
    """A runner with weights, whose memory ends somewhere. Both methods may be called from any thread."""

    def check(self, request: EngineRequest) -> None:
        """Raise a RequestError if this request can never be rendered here."""

    def longest_seconds(self, model: str) -> float:
        """The longest single song that fits into memory, by the estimate."""
