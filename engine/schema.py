"""What goes into the engine and what comes out. Free of torch."""

import re
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.errors import InvalidRequest

SAMPLE_RATE = 48_000
MAX_SECONDS = 600
MAX_FRAMES = MAX_SECONDS * SAMPLE_RATE
MAX_TEXT_CHARACTERS = 65_536
TIME_SIGNATURES = (2, 3, 4, 6)
KEY_SCALE = re.compile(r"[A-G][#b]? (major|minor)")


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One song to render. Raises InvalidRequest, naming the field, when a value is out of range."""

    id: str
    """Unique among the requests inside one engine."""
    model: str
    prompt: str
    lyrics: str
    frames: int
    """Exact length of the result, in frames at 48 kHz."""
    seed: int
    bpm: int | None = None
    """30-300; None: the prompt or the style decides."""
    key_scale: str | None = None
    """Like `C major`, `F# minor`, `Bb major`."""
    time_signature: int | None = None
    """2, 3, 4 or 6 (6/8: `bpm` then counts dotted quarters)."""
    vocal_language: str | None = None
    instrumental: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MAX_FRAMES:
            raise InvalidRequest(f"frames must be 1-{MAX_FRAMES}, not {self.frames}")
        if self.bpm is not None and not 30 <= self.bpm <= 300:
            raise InvalidRequest(f"bpm must be 30-300, not {self.bpm}")
        if self.time_signature is not None and self.time_signature not in TIME_SIGNATURES:
            raise InvalidRequest(f"time_signature must be in {TIME_SIGNATURES}, not {self.time_signature}")
        if self.key_scale is not None and not KEY_SCALE.fullmatch(self.key_scale):
            raise InvalidRequest(f"key_scale must look like 'F# minor', not {self.key_scale!r}")
        if max(len(self.prompt), len(self.lyrics)) > MAX_TEXT_CHARACTERS:
            raise InvalidRequest(f"prompt and lyrics may have {MAX_TEXT_CHARACTERS} characters each")


class EngineResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One finished song."""

    samples: NDArray[np.float32]
    """Shape [2, frames]: left and right, full scale is 1."""
    sample_rate: int = SAMPLE_RATE
    seed: int
    deterministic: bool
    """Whether the same request gives the same bits on the same machine."""


def result_fault(result: EngineResult, request: EngineRequest) -> str | None:
    """What is wrong with a runner's result, or None; the engine never passes on a broken song."""
    samples: Any = result.samples
    if samples.dtype != np.float32 or samples.shape != (2, request.frames):
        return f"wanted float32 [2, {request.frames}], got {samples.dtype} {list(samples.shape)}"
    # A sum is NaN or infinite if any sample is, and needs no mask as large as the song.
    if not np.isfinite(samples.sum(dtype=np.float64)):
        return "the samples are not all finite"
    return None
