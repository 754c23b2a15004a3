"""What each model family can do: one table of defaults and ranges, one list of rules. Free of torch.

The gateway asks it before money is held, the engine again before it renders; nothing falls back in silence.
"""

import difflib
from collections.abc import Iterator
from typing import Final

import msgspec

from engine.schema import MAX_SECONDS, SAMPLE_RATE, GuidanceType, InferMethod, Task

TRACK_NAMES: Final = (
    "vocals",
    "backing_vocals",
    "drums",
    "bass",
    "guitar",
    "keyboard",
    "percussion",
    "strings",
    "synth",
    "fx",
    "brass",
    "woodwinds",
)
"""The tracks that the base models were taught to tell apart."""

MAX_TIMESTEPS: Final = 300
MAX_TURBO_TIMESTEPS: Final = 20
SHIFT_RANGE: Final = (0.1, 10.0)

_SOURCE_TASKS: Final = frozenset(Task) - {Task.TEXT2MUSIC}
_EVERY_VARIANT: Final = frozenset({Task.TEXT2MUSIC, Task.COVER, Task.REPAINT})


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of weights. Ranges are lowest, highest, default."""

    name: str
    tasks: frozenset[Task]
    renders: bool = True
    """False: a composer by rule, which has no use for any knob of a model."""
    guided: bool = False
    """Whether guidance has any effect; it is distilled into the turbo weights."""
    steps: tuple[int, int, int] = (1, 20, 8)
    guidance_scale: tuple[float, float, float] = (0.0, 30.0, 1.0)
    shift: float = 3.0
    size: str = "2B"
    seconds: tuple[float, float] = (5.0, 600.0)


def _turbo(name: str, size: str) -> Variant:
    return Variant(name=name, tasks=_EVERY_VARIANT, size=size)


def _guided(name: str, size: str, *, base: bool) -> Variant:
    return Variant(
        name=name,
        tasks=frozenset(Task) if base else _EVERY_VARIANT,
        guided=True,
        steps=(1, 300, 50),
        guidance_scale=(0.0, 30.0, 7.0),
        size=size,
    )


VARIANTS: Final = {
    variant.name: variant
    for variant in (
        Variant(name="composer", tasks=frozenset(Task), renders=False),
        _turbo("turbo", "2B"),
        _guided("base", "2B", base=True),
        _guided("sft", "2B", base=False),
        _turbo("xl-turbo", "XL"),
        _guided("xl-base", "XL", base=True),
        _guided("xl-sft", "XL", base=False),
    )
}


class Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller said about one song, as far as the rules look at it; None: nothing."""

    task: Task = Task.TEXT2MUSIC
    has_source: bool = False
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_type: GuidanceType | None = None
    cfg_interval_start: float | None = None
    cfg_interval_end: float | None = None
    shift: float | None = None
    timesteps: tuple[float, ...] | None = None
    infer_method: InferMethod | None = None
    negative_prompt: str | None = None
    repainting_start: float | None = None
    repainting_end: float | None = None
    cover_strength: float | None = None
    cover_noise_strength: float | None = None
    track_name: str | None = None
    track_classes: tuple[str, ...] | None = None
    thinking: bool = False


class Objection(msgspec.Struct, frozen=True, kw_only=True):
    """One value that cannot be honoured, under its public name."""

    field: str
    message: str
    suggestion: str
    ineffective: bool = False
    """It does no harm and has no effect: worth a warning, or a refusal to those who are strict."""


def objections(variant: Variant, knobs: Knobs, *, planner: bool) -> list[Objection]:
    """Everything that `variant` cannot do of what is asked; `planner`: whether one is loaded."""
    return [
        *_about_task(variant, knobs),
        *_about_editing(knobs),
        *_about_sampling(variant, knobs),
        *_about_guidance(variant, knobs),
        *_about_thinking(variant, knobs, planner=planner),
    ]


def _about_task(variant: Variant, knobs: Knobs) -> Iterator[Objection]:
    if knobs.task not in variant.tasks:
        able = ", ".join(sorted(variant.tasks))
        yield Objection(
            field="task",
            message=f"this model has no task {knobs.task}; it has {able}",
            suggestion="text2music",
        )
    if knobs.task in _SOURCE_TASKS and not knobs.has_source:
        yield Objection(
            field="source_audio",
            message=f"{knobs.task} needs source_audio: a file id or a URL",
            suggestion="upload with POST /v1/files",
        )
    if knobs.task is Task.TEXT2MUSIC and knobs.has_source:
        yield Objection(
            field="source_audio",
            message="text2music takes no source_audio: use reference_audio for a timbre, or task cover",
            suggestion="leave it out",
        )


def _about_editing(knobs: Knobs) -> Iterator[Objection]:
    owners = {
        "repainting_start": (Task.REPAINT,),
        "repainting_end": (Task.REPAINT,),
        "cover_strength": (Task.COVER,),
        "cover_noise_strength": (Task.COVER,),
        "track_name": (Task.EXTRACT, Task.LEGO),
        "track_classes": (Task.COMPLETE,),
    }
    for field, tasks in owners.items():
        if getattr(knobs, field) is not None and knobs.task not in tasks:
            yield Objection(
                field=field,
                message=f"{field} belongs to {' and '.join(tasks)}, not to {knobs.task}",
                suggestion="leave it out",
            )
    for field in ("cover_strength", "cover_noise_strength"):
        yield from _outside(field, getattr(knobs, field), 0.0, 1.0)
    start, end = knobs.repainting_start, knobs.repainting_end
    if end is not None and round(end * SAMPLE_RATE) <= round((start or 0.0) * SAMPLE_RATE):
        yield Objection(
            field="repainting_end",
            message="repainting_end must come after repainting_start",
            suggestion=f"{min((start or 0.0) + 1.0, MAX_SECONDS):g}",
        )
    names = (knobs.track_name,) if knobs.track_name is not None else knobs.track_classes or ()
    for name in names:
        if name not in TRACK_NAMES:
            near = difflib.get_close_matches(name[:40].lower(), TRACK_NAMES, n=1, cutoff=0.0)
            yield Objection(
                field="track_name" if knobs.track_name is not None else "track_classes",
                message=f"there is no track {name[:40]!r}; the tracks are {', '.join(TRACK_NAMES)}",
                suggestion=near[0],
            )
    if knobs.task in (Task.EXTRACT, Task.LEGO) and knobs.track_name is None:
        yield Objection(
            field="track_name", message=f"{knobs.task} needs a track_name", suggestion=TRACK_NAMES[0]
        )


def _about_sampling(variant: Variant, knobs: Knobs) -> Iterator[Objection]:
    if not variant.renders:
        return
    yield from _outside("num_inference_steps", knobs.num_inference_steps, *variant.steps[:2])
    yield from _outside("shift", knobs.shift, *SHIFT_RANGE)
    if knobs.timesteps is None:
        return
    most = MAX_TIMESTEPS if variant.guided else MAX_TURBO_TIMESTEPS
    falling = all(a > b for a, b in zip(knobs.timesteps, knobs.timesteps[1:], strict=False))
    inside = all(0 < t <= 1 for t in knobs.timesteps)
    if not 1 <= len(knobs.timesteps) <= most or not falling or not inside:
        yield Objection(
            field="timesteps",
            message=f"timesteps must be 1-{most} falling numbers, each above 0 and at most 1",
            suggestion="[1.0, 0.9, 0.75, 0.5]",
        )
    for field in ("num_inference_steps", "shift"):
        if getattr(knobs, field) is not None:
            yield Objection(
                field=field, message=f"timesteps are given: {field} has no meaning", suggestion="leave it out"
            )


def _about_guidance(variant: Variant, knobs: Knobs) -> Iterator[Objection]:
    if variant.renders:
        yield from _outside("guidance_scale", knobs.guidance_scale, *variant.guidance_scale[:2])
    start, end = knobs.cfg_interval_start, knobs.cfg_interval_end
    yield from _outside("cfg_interval_start", start, 0.0, 1.0)
    yield from _outside("cfg_interval_end", end, 0.0, 1.0)
    if (0.0 if start is None else start) > (1.0 if end is None else end):
        yield Objection(
            field="cfg_interval_end",
            message="cfg_interval_end must not come before cfg_interval_start",
            suggestion=str(start),
        )
    idle = ["guidance_scale", "guidance_type", "cfg_interval_start", "cfg_interval_end", "negative_prompt"]
    if not variant.renders:
        idle = [*idle[:-1], "num_inference_steps", "shift", "timesteps", "infer_method"]
    elif variant.guided:
        scale = variant.guidance_scale[2] if knobs.guidance_scale is None else knobs.guidance_scale
        idle = ["negative_prompt", "guidance_type"] if scale <= 1 else []
    for field in idle:
        if getattr(knobs, field) is not None and (field, getattr(knobs, field)) != ("guidance_scale", 1):
            yield Objection(
                field=field,
                message=f"{field} has no effect {_where(variant)}",
                suggestion="leave it out",
                ineffective=True,
            )


def _where(variant: Variant) -> str:
    if not variant.renders:
        return "on the composer"
    return "without guidance (guidance_scale above 1)" if variant.guided else "on turbo models"


def _about_thinking(variant: Variant, knobs: Knobs, *, planner: bool) -> Iterator[Objection]:
    if not knobs.thinking:
        return
    if knobs.task is not Task.TEXT2MUSIC:
        yield Objection(
            field="thinking", message=f"thinking plans new songs; {knobs.task} has one", suggestion="false"
        )
    elif variant.renders and not planner:
        yield Objection(
            field="thinking",
            message="this installation has no planner (ANTIPHON_ENGINE_PLANNER)",
            suggestion="false",
        )
    elif not variant.renders:
        yield Objection(
            field="thinking",
            message="thinking has no effect on the composer",
            suggestion="leave it out",
            ineffective=True,
        )


def _outside(field: str, value: float | None, low: float, high: float) -> Iterator[Objection]:
    if value is not None and not low <= value <= high:  # true for NaN
        yield Objection(
            field=field,
            message=f"{field} must be between {low:g} and {high:g}",
            suggestion=f"{low if value < low else high:g}",
        )
