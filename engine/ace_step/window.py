"""Which part of a song a repaint makes anew, in samples and in latent frames. Free of torch."""

from typing import Final

import msgspec

from engine.errors import InvalidRequest
from engine.schema import SAMPLE_RATE, EngineRequest, output_frames

_HOP: Final = 1920


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """All in samples on the result's clock, which begins earlier than the source's where the song grows."""

    start: int
    """From here on the sound is new,"""
    end: int
    """up to here."""
    source_start: int
    source_end: int

    @property
    def keeps_before(self) -> bool:
        """Whether any of the source stays in front of the window."""
        return self.start > self.source_start

    @property
    def keeps_after(self) -> bool:
        return self.end < self.source_end

    def latents(self) -> tuple[int, int]:
        """First and one past the last latent frame that has any new sample."""
        return self.start // _HOP, -(-self.end // _HOP)


def window_of(request: EngineRequest) -> Window:
    """The window of a repaint. Whatever lies outside the source is new, whatever was asked for."""
    if request.source is None:
        raise InvalidRequest("source: repaint needs a source")
    length = request.source.frames
    asked_start = round((request.repainting_start or 0.0) * SAMPLE_RATE)
    asked_end = length if request.repainting_end is None else round(request.repainting_end * SAMPLE_RATE)
    if asked_end <= asked_start:
        raise InvalidRequest(
            "repainting_end must come after repainting_start; without one, it is the source's end"
        )
    total = output_frames(
        request.task, source_frames=length, start=request.repainting_start, end=request.repainting_end
    )
    if total != request.frames:
        raise InvalidRequest(f"frames: this repaint is {total} frames long, not {request.frames}")
    before = max(0, -asked_start)
    # A start beyond the source, or an end in front of it, would leave a gap that is neither old nor new.
    start, end = min(asked_start + before, before + length), max(asked_end + before, before)
    return Window(start=start, end=end, source_start=before, source_end=before + length)
