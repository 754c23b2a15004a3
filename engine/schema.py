"""What goes into the engine and what comes out. Free of torch."""

import re
from enum import StrEnum
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.errors import InvalidRequest

SAMPLE_RATE: Final = 48_000
MAX_SECONDS: Final = 600
MAX_FRAMES: Final = MAX_SECONDS * SAMPLE_RATE
MAX_TEXT_CHARACTERS: Final = 65_536
TIME_SIGNATURES: Final = (2, 3, 4, 6)
KEY_SCALE: Final = re.compile(r"[A-G][#b]? (major|minor)")


class Task(StrEnum):
    """What is done with sound."""

    TEXT2MUSIC = "text2music"
    COVER = "cover"
    """The source's melody and rhythm, in the prompt's style."""
    REPAINT = "repaint"
    """A window of the source anew; beyond its ends, the song grows."""
    EXTRACT = "extract"
    """One track of the source alone."""
    LEGO = "lego"
    """One new track that fits the source."""
    COMPLETE = "complete"
    """The source, with the missing tracks."""


class GuidanceType(StrEnum):
    """How the guided and the unguided velocity become one."""

    APG = "apg"
    """Adaptive projected guidance (arXiv 2410.02416)."""
    CFG = "cfg"
    """Plain classifier-free guidance."""
    ADG = "adg"
    """Angle-based dynamic guidance."""


class InferMethod(StrEnum):
    """How a step is taken along the velocity."""

    ODE = "ode"
    SDE = "sde"
    """Predict the clean song, then add fresh noise, seeded by the song."""


class Sound(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Recorded sound: float32, shape [2, frames], 48 kHz, full scale is 1."""

    samples: NDArray[np.float32]

    @property
    def frames(self) -> int:
        return int(self.samples.shape[1])


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One song to render. Raises InvalidRequest, naming the field, when a value is out of range.

    None means that the variant's own default holds. What a variant can do stands in `engine.variants`.
    """

    id: str
    """Unique among the requests inside one engine."""
    model: str
    prompt: str
    lyrics: str
    frames: int
    """Exact length of the result, in frames at 48 kHz; with `open_length` the most that it may have."""
    open_length: bool = False
    """The planner decides how long the song is."""
    seed: int
    bpm: int | None = None
    """30-300; None: the prompt or the style decides."""
    key_scale: str | None = None
    """Like `C major`, `F# minor`, `Bb major`."""
    time_signature: int | None = None
    """2, 3, 4 or 6 (6/8: `bpm` then counts dotted quarters)."""
    vocal_language: str | None = None
    instrumental: bool = False
    negative_prompt: str | None = None

    task: Task = Task.TEXT2MUSIC
    source: Sound | None = None
    """What every task but text2music works on."""
    reference: Sound | None = None
    """Sound whose timbre is wanted, for any task."""
    repainting_start: float | None = None
    """Seconds; below 0 the song grows at its beginning. None: 0."""
    repainting_end: float | None = None
    """Seconds; beyond the source the song grows at its end. None: the source's end."""
    cover_strength: float | None = None
    """Share of the steps that follow the source; None: all."""
    cover_noise_strength: float | None = None
    """0-1: how much of the source the first noise contains; None: nothing."""
    track_name: str | None = None
    track_classes: tuple[str, ...] = ()

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_type: GuidanceType | None = None
    cfg_interval: tuple[float, float] = (0.0, 1.0)
    """Guidance holds while the time t (1: noise, 0: music) lies inside."""
    shift: float | None = None
    timesteps: tuple[float, ...] = ()
    """Falling, in (0, 1]; instead of steps and shift."""
    infer_method: InferMethod = InferMethod.ODE

    thinking: bool = False
    """Let the planner write metadata and audio codes first."""
    plan_seed: int | None = None
    """Variations of one plan share it; None: `seed`."""

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
        if (self.source is None) != (self.task is Task.TEXT2MUSIC):
            raise InvalidRequest(
                f"source: {self.task} {'needs' if self.source is None else 'takes no'} source"
            )
        for sound in (self.source, self.reference):
            if sound is not None and (sound.samples.dtype != np.float32 or sound.samples.shape[:1] != (2,)):
                raise InvalidRequest("source and reference must be float32 of shape [2, frames]")


class EngineResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One finished song."""

    samples: NDArray[np.float32]
    """Shape [2, frames]: left and right, full scale is 1."""
    sample_rate: int = SAMPLE_RATE
    seed: int
    deterministic: bool
    """Whether the same request gives the same bits on the same machine, whatever is rendered beside it."""
    phases: dict[str, float] | None = None
    """Seconds of each phase (plan, prepare, denoise, decode); songs of one batch share a denoising."""


def output_frames(
    task: Task, *, source_frames: int, start: float | None = None, end: float | None = None
) -> int:
    """How long the result of an editing task is, in frames: the source's length, or more where it grows.

    `start` and `end` are those of a repaint, in seconds on the source's clock.
    """
    if task is not Task.REPAINT:
        return source_frames
    before = max(0, -round((start or 0.0) * SAMPLE_RATE))
    after = max(0, round(end * SAMPLE_RATE) - source_frames) if end is not None else 0
    return before + source_frames + after


def result_fault(result: EngineResult, request: EngineRequest) -> str | None:
    """What is wrong with a runner's result, or None; the engine never passes on a broken song."""
    samples: Any = result.samples
    fits = samples.ndim == 2 and samples.shape[0] == 2 and samples.dtype == np.float32
    if not fits or not _is_asked_length(samples.shape[1], request):
        return f"wanted float32 [2, {request.frames}], got {samples.dtype} {list(samples.shape)}"
    # A sum is NaN or infinite if any sample is, and needs no mask as large as the song.
    if not np.isfinite(samples.sum(dtype=np.float64)):
        return "the samples are not all finite"
    return None


def _is_asked_length(frames: int, request: EngineRequest) -> bool:
    return 0 < frames <= request.frames if request.open_length else frames == request.frames
