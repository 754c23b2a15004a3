"""The composer behind the engine's seam."""

from collections.abc import Callable, Iterator, Sequence

import torch

from engine.composer.edit import perform
from engine.errors import OutOfMemory
from engine.runner import Finished, Progress, RunnerEvent
from engine.scheduler import BatchLimits
from engine.schema import EngineRequest, EngineResult

MODEL = "sandbox"
_LIMITS = BatchLimits(requests=1, frames=1)


class ComposerRunner:
    """Renders one song at a time on the CPU, where a song takes about a fiftieth of its length."""

    def __init__(self, *, threads: int) -> None:
        self._threads = threads

    @property
    def models(self) -> frozenset[str]:
        return frozenset({MODEL})

    def limits(self, model: str) -> BatchLimits:
        del model  # there is only one
        return _LIMITS

    def run(self, batch: Sequence[EngineRequest], wanted: Callable[[str], bool]) -> Iterator[RunnerEvent]:
        """Each request in turn; raises OutOfMemory when torch cannot allocate the song."""
        # Here and not at import: the setting belongs to the thread that renders.
        torch.set_num_threads(self._threads)
        for request in batch:
            if wanted(request.id):
                yield from _one(request)


@torch.inference_mode()
def _one(request: EngineRequest) -> Iterator[RunnerEvent]:
    yield Progress(request.id, 0.0)
    try:
        for step in perform(request):
            if isinstance(step, float):
                yield Progress(request.id, step)
            else:
                result = EngineResult(samples=step.numpy(), seed=request.seed, deterministic=True)
                yield Finished(request.id, result)
    except RuntimeError as error:
        if "not enough memory" in str(error) or "can't allocate" in str(error):
            raise OutOfMemory("the song did not fit into memory") from error
        raise
