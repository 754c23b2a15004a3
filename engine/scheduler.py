"""Which waiting requests form the next batch: pure, free of torch and of clocks.

The oldest request always leads, so nothing starves: each batch shortens the queue in front of everybody.
Younger requests of the leader's model join in order until one does not fit; none overtakes within a model.
"""

from collections.abc import Sequence

import msgspec

from engine.schema import EngineRequest


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one batch of a runner may hold. A single request always fits, whatever its length."""

    requests: int
    frames: int
    """Sum over the batch."""

    def __post_init__(self) -> None:
        if self.requests < 1 or self.frames < 1:
            raise ValueError("a batch must hold at least one request and one frame")


def next_batch(waiting: Sequence[EngineRequest], limits: BatchLimits) -> list[EngineRequest]:
    """The requests to run next, oldest first; `waiting` is in order of arrival, `limits` are the leader's."""
    batch: list[EngineRequest] = []
    frames = 0
    for request in waiting:
        if batch and request.model != batch[0].model:
            continue
        frames += request.frames
        if batch and (len(batch) >= limits.requests or frames > limits.frames):
            break
        batch.append(request)
    return batch
