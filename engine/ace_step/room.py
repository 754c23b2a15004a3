"""How much memory one model may fill, and what requests need of it."""

from collections.abc import Callable, Sequence

import torch

from engine.ace_step.memory import (
    MIN_CHUNK_FRAMES,
    Shape,
    fitting_chunk,
    free_bytes,
    longest_seconds,
    peak_bytes,
)
from engine.ace_step.tasks import latent_frames
from engine.admission import is_guided
from engine.schema import EngineRequest
from engine.variants import Variant


class Room:
    """`measure` belongs to the thread that renders, the rest to any."""

    def __init__(
        self,
        shape: Shape,
        variant: Variant,
        device: torch.device,
        *,
        most_bytes: int | None,
        kept: Callable[[], int],
    ) -> None:
        """`most_bytes`: a limit instead of measuring. `kept`: what would be given back if memory ran out."""
        self.shape = shape
        self._variant, self._device = variant, device
        self._most_bytes, self._kept = most_bytes, kept
        self._bytes = self._measured()

    @property
    def bytes(self) -> int:
        """As measured when nothing rendered, weights included, or more if there is more by now.

        Else a moment's shortage would last: whatever is refused never leads to a new measurement.
        """
        self._bytes = max(self._bytes, self._measured())
        return self._bytes

    def measure(self) -> None:
        """Look again, while nothing renders."""
        self._bytes = self._measured()

    def rows(self, batch: Sequence[EngineRequest]) -> int:
        """Of one forward pass: a guided song has two."""
        return sum(2 if is_guided(request, self._variant) else 1 for request in batch)

    def needed_bytes(self, batch: Sequence[EngineRequest]) -> int:
        """With the smallest chunks."""
        return peak_bytes(self.shape, _frames(batch), rows=self.rows(batch), chunk=MIN_CHUNK_FRAMES)

    def fits(self, batch: Sequence[EngineRequest]) -> bool:
        """Whether all of them may be rendered at once, by the last measurement."""
        return self.needed_bytes(batch) <= self._bytes

    def longest_seconds(self, *, rows: int) -> float:
        """Of a single song."""
        return longest_seconds(self.shape, self.bytes, rows=rows)

    def chunk_frames(self, batch: Sequence[EngineRequest], *, most: int) -> int:
        """The largest chunk of sound, up to `most`, with which they fit."""
        rows = self.rows(batch)
        return fitting_chunk(self.shape, _frames(batch), rows=rows, most=most, device_bytes=self._bytes)

    def _measured(self) -> int:
        if self._most_bytes is not None:
            return self._most_bytes
        return self.shape.weights_bytes + self.shape.fixed_bytes + self._kept() + free_bytes(self._device)


def _frames(batch: Sequence[EngineRequest]) -> list[int]:
    return [latent_frames(request.frames) for request in batch]
