"""Whether a source that was measured only now still makes the song that was ordered."""

from engine import output_frames
from gateway.audio import InputUnreadable
from gateway.generation import SAMPLE_RATE, GenerationRequest


def edited_frames(request: GenerationRequest, source_frames: int) -> int:
    """How long the result will be, at SAMPLE_RATE.

    Raises:
        InputUnreadable: longer than what was held for, or there is nothing in it to repaint.
    """
    frames = output_frames(
        request.task,
        source_frames=source_frames,
        start=request.repainting_start,
        end=request.repainting_end,
    )
    if frames > request.frames:
        raise InputUnreadable("the source makes a longer song than this model can render")
    start = round((request.repainting_start or 0.0) * SAMPLE_RATE)
    if start > source_frames or start == source_frames == frames:
        raise InputUnreadable("repainting_start lies behind the end of the source")
    return frames
