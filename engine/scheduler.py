"""Which waiting requests form the next batch: pure, free of torch and of clocks.

The oldest request always leads, so nothing starves: each batch shortens the queue in front of everybody.
Younger requests of the leader's model join in order of arrival, where they fit and where little is padded: a
batch costs as much as if every song were as long as its longest. Those that do not join keep their place.
"""

from collections.abc import Callable, Sequence

import msgspec

from engine.schema import EngineRequest


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one batch of a runner may hold. A single request always fits, whatever its length.

    Lengths are in frames at 48 kHz; a request of open length counts with the most that it may have.
    """

    requests: int
    frames: int
    """Padded: the longest length times the number of requests."""
    bucket: int = 1
    """Lengths in one bucket of this many frames are as good as equal."""
    waste: float = 0.2
    """The share of a batch's frames that may be padding."""
    fits: Callable[[Sequence[EngineRequest]], bool] | None = None
    """What else must hold of a batch: that it fits into memory, for one."""

    def __post_init__(self) -> None:
        if self.requests < 1 or self.frames < 1 or self.bucket < 1:
            raise ValueError("a batch must hold at least one request and one frame")
        if not 0 <= self.waste < 1:
            raise ValueError("the share of padding lies between 0 and 1")


def next_batch(waiting: Sequence[EngineRequest], limits: BatchLimits) -> list[EngineRequest]:
    """The requests to run next, oldest first; `waiting` is in order of arrival, `limits` are the leader's."""
    batch: list[EngineRequest] = []
    for request in waiting:
        if len(batch) >= limits.requests:
            break
        if not batch or (request.model == batch[0].model and _belongs(request, batch, limits)):
            batch.append(request)
    return batch


def pack(lengths: Sequence[int], limits: BatchLimits) -> list[list[int]]:
    """Indices into `lengths` (frames), grouped by the same rules: for songs whose length a plan decided.

    Each of them has passed `limits.fits` with at least this length, and in a batch at least this large.
    """
    left, groups = list(range(len(lengths))), []
    while left:
        group: list[int] = []
        for index in left:
            if len(group) < limits.requests and (
                not group or _pads_little([lengths[i] for i in (*group, index)], limits)
            ):
                group.append(index)
        groups.append(group)
        left = [index for index in left if index not in group]
    return groups


def _belongs(request: EngineRequest, batch: list[EngineRequest], limits: BatchLimits) -> bool:
    together = [*batch, request]
    if not _pads_little([member.frames for member in together], limits):
        return False
    return limits.fits is None or limits.fits(together)


def _pads_little(lengths: Sequence[int], limits: BatchLimits) -> bool:
    buckets = [-(-length // limits.bucket) for length in lengths]
    padded = len(buckets) * max(buckets)
    return padded * limits.bucket <= limits.frames and padded - sum(buckets) <= limits.waste * padded
