"""What Runware's ACE-Step models can express of a request, and what they would change of it. No I/O here."""

from typing import Final

from engine import GuidanceType, InferMethod, Task
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.routing.judgement import Judgement, Objection

TASKS: Final = (Task.TEXT2MUSIC, Task.COVER, Task.REPAINT)
MOST_AT_ONCE: Final = 4
"""Variations in one task there."""
LEAST_SECONDS: Final = 30
MOST_SECONDS: Final = 300
"""Of a new song, of a source, and of what a repaint makes of it."""
TEXT_CHARACTERS: Final = (2, 3000)
"""Of a prompt, and of a negative prompt."""
MOST_LYRICS_CHARACTERS: Final = 3000
MAX_SEED: Final = 2**31 - 1
GUIDANCE_SCALE: Final = (1.0, 30.0)

_TURBO_STEPS: Final = 20
_STEPS: Final = 300
_EVEN_IF_STRICT: Final = (
    f"runware makes no song shorter than {LEAST_SECONDS} s: it is made longer and cut to the asked length"
)


def is_turbo(air: str) -> bool:
    """Whether the model of that name has guidance distilled into its weights, and no knob for it."""
    return "turbo" in air


def most_steps(air: str) -> int:
    """Of the model of that name."""
    return _TURBO_STEPS if is_turbo(air) else _STEPS


def ordered_frames(request: GenerationRequest) -> int:
    """What is asked for there, and charged: a new song in tenths of a second, and never too short."""
    if request.task is not Task.TEXT2MUSIC:
        return request.frames
    tenths = -(-request.frames * 10 // SAMPLE_RATE)
    return min(max(tenths, LEAST_SECONDS * 10), MOST_SECONDS * 10) * SAMPLE_RATE // 10


def cfg_scale(scale: float) -> float:
    """As it is sent: in its range, in hundredths."""
    low, high = GUIDANCE_SCALE
    return round(min(max(scale, low), high), 2)


def judge(request: GenerationRequest, air: str) -> Judgement:
    """What stands between the request and the model that Runware calls `air`."""
    told = _Told(strict=request.strict)
    if request.task not in TASKS:
        told.refuse("task", f"has no task {request.task}; it has {', '.join(TASKS)}", str(TASKS[0]))
    _judge_words(told, request)
    _judge_sound(told, request)
    _judge_length(told, request)
    _judge_guidance(told, request, turbo=is_turbo(air))
    _judge_sampling(told, request, most_steps(air))
    return Judgement(objections=tuple(told.objections), warnings=tuple(told.warnings))


class _Told:
    """Objections, and warnings that are objections to those who want nothing to be let go."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self.objections: list[Objection] = []
        self.warnings: list[str] = []

    def refuse(self, param: str, message: str, suggestion: str | None = None) -> None:
        self.objections.append(Objection(param=param, message=message, suggestion=suggestion))

    def let_go(self, param: str, suggestion: str = "leave it out", *, of: str = "") -> None:
        """It has no effect there. `of`: only this value of it."""
        named = f"{param} {of}".strip()
        if self._strict:
            self.refuse(param, f"has no use for {named}", suggestion)
        else:
            self.warnings.append(f"{named} has no effect at runware and was ignored")

    def clamp(self, param: str, value: float, low: float, high: float) -> None:
        """A knob of quality outside the range is moved to its end."""
        if low <= value <= high:
            return
        bounds = f"takes {param} from {low:g} to {high:g}"
        nearest = f"{min(max(value, low), high):g}"
        if self._strict:
            self.refuse(param, bounds, nearest)
        else:
            self.warnings.append(f"runware {bounds}: it was set to {nearest}")


def _judge_words(told: _Told, request: GenerationRequest) -> None:
    low, high = TEXT_CHARACTERS
    if not low <= len(request.prompt) <= high:
        told.refuse("prompt", f"takes prompts of {low} to {high} characters", _nearest_length(request.prompt))
    if not request.instrumental and len(request.lyrics) > MOST_LYRICS_CHARACTERS:
        told.refuse(
            "lyrics",
            f"takes at most {MOST_LYRICS_CHARACTERS} characters of lyrics",
            f"at most {MOST_LYRICS_CHARACTERS} characters",
        )
    last_start = request.seed + (request.n - 1) // MOST_AT_ONCE * MOST_AT_ONCE
    if last_start > MAX_SEED:
        # Folded into the range it would be another seed, and nobody would know.
        told.refuse("seed", f"takes seeds up to {MAX_SEED}", str(MAX_SEED - (last_start - request.seed)))


def _judge_sound(told: _Told, request: GenerationRequest) -> None:
    if request.reference_audio is not None:
        told.refuse("reference_audio", "takes no reference_audio", "leave it out")
    source = request.source_audio
    if source is not None and (source.frames or 0) > MOST_SECONDS * SAMPLE_RATE:
        told.refuse(
            "source_audio", f"takes at most {MOST_SECONDS} s of source_audio", f"at most {MOST_SECONDS} s"
        )
    windows = (
        ("repainting_start", request.repainting_start, -MOST_SECONDS),
        ("repainting_end", request.repainting_end, 0),
    )
    for param, seconds, least in windows:
        if seconds is not None and not least <= seconds <= MOST_SECONDS:
            nearest = least if seconds < least else MOST_SECONDS
            told.refuse(param, f"takes {param} from {least} to {MOST_SECONDS} s", str(nearest))


def _judge_length(told: _Told, request: GenerationRequest) -> None:
    is_new = request.task is Task.TEXT2MUSIC
    if request.open_length:
        # That of an edit follows a source whose length nobody knows yet.
        if is_new:
            told.refuse("audio_duration", "does not decide by itself how long a song is", str(LEAST_SECONDS))
        return
    if request.frames > MOST_SECONDS * SAMPLE_RATE:
        param, nearest = ("audio_duration", str(MOST_SECONDS)) if is_new else _longest_part(request)
        told.refuse(param, f"makes at most {MOST_SECONDS} s", nearest)
    elif is_new and request.frames < LEAST_SECONDS * SAMPLE_RATE:
        told.warnings.append(_EVEN_IF_STRICT)


def _longest_part(request: GenerationRequest) -> tuple[str, str]:
    """What makes an edit long, where it grows or the source itself; and what would not."""
    source = ((request.source_audio.frames if request.source_audio else None) or 0) / SAMPLE_RATE
    start, end = request.repainting_start or 0.0, request.repainting_end or 0.0
    excess = request.frames / SAMPLE_RATE - MOST_SECONDS
    if start >= 0 and end <= source:
        return "source_audio", f"at most {MOST_SECONDS} s"
    if -start > end - source:
        return "repainting_start", f"{min(start + excess, 0.0):g}"
    return "repainting_end", f"{max(end - excess, source):g}"


def _judge_guidance(told: _Told, request: GenerationRequest, *, turbo: bool) -> None:
    scale, negative = request.guidance_scale, request.negative_prompt
    if turbo:
        # A scale of 1 is what these weights do anyway.
        given = {
            "guidance_scale": None if scale == 1 else scale,
            "guidance_type": request.guidance_type,
            "cfg_interval_start": request.cfg_interval_start,
            "cfg_interval_end": request.cfg_interval_end,
            "negative_prompt": negative,
        }
        for param, value in given.items():
            if value is not None:
                told.let_go(param)
        return
    if scale is not None:
        told.clamp("guidance_scale", scale, *GUIDANCE_SCALE)
    if request.guidance_type is GuidanceType.ADG:
        told.let_go("guidance_type", str(GuidanceType.APG), of="adg")
    if negative is None:
        return
    low, high = TEXT_CHARACTERS
    if scale is not None and cfg_scale(scale) <= 1:
        told.let_go("negative_prompt", of="without guidance (guidance_scale above 1)")
    elif not low <= len(negative) <= high:
        told.refuse(
            "negative_prompt",
            f"takes negative prompts of {low} to {high} characters",
            _nearest_length(negative),
        )


def _nearest_length(text: str) -> str:
    low, high = TEXT_CHARACTERS
    return f"at least {low} characters" if len(text) < low else f"at most {high} characters"


def _judge_sampling(told: _Told, request: GenerationRequest, most: int) -> None:
    if request.num_inference_steps is not None:
        told.clamp("num_inference_steps", request.num_inference_steps, 1, most)
    if request.shift is not None:
        told.let_go("shift")
    if request.timesteps:
        told.let_go("timesteps")
    if request.infer_method is InferMethod.SDE:
        told.let_go("infer_method", str(InferMethod.ODE), of="sde")
    if request.thinking:
        told.let_go("thinking", "false")
