"""What a model's kind of weights can honour, by the engine's own table: asked before any money is held."""

from collections.abc import Sequence
from typing import Any, Final

import engine
from engine import GuidanceType, InferMethod, Task
from gateway.catalog import Model
from gateway.dialects.native.validation_audio import Usable
from gateway.dialects.native.validation_values import (
    Notes,
    Number,
    optional_choice,
    optional_text,
    those_that_can,
    within,
)
from gateway.errors import InvalidRequest, UnsupportedParameter

MAX_PROMPT_CHARACTERS: Final = 4_000
MAX_TIMESTEPS: Final = 300
SHIFT_RANGE: Final = (0.1, 10.0)
START_RANGE: Final = (-600.0, 600.0)
"""Seconds on the source's clock; a song is never longer than 600."""
END_RANGE: Final = (0.0, 600.0)

_EVERYTHING: Final = engine.Knobs(
    num_inference_steps=8,
    guidance_scale=2.0,
    guidance_type=engine.GuidanceType.APG,
    cfg_interval_start=0.1,
    cfg_interval_end=0.9,
    shift=3.0,
    timesteps=(1.0,),
    infer_method=engine.InferMethod.ODE,
    negative_prompt="drums",
)
"""Every knob turned, to learn which of them a model does not hear."""

Knobs = dict[str, Any]
"""Values by the names that GenerationRequest has for them."""


def check_knobs(fields: dict[str, Any], task: Task, model: Model, notes: Notes, *, planner: bool) -> Knobs:
    """What is kept of them; raises InvalidRequest or UnsupportedParameter, notes what has no effect.

    `planner`: whether this installation has one.
    """
    knobs = _read(fields, model)
    found: list[engine.Objection] = []
    # Who says nothing hears no objection; most requests do not.
    if task is not Task.TEXT2MUSIC or fields["source_audio"] is not None or set(knobs.values()) != {None}:
        found = engine.objections(model.variant, _as_the_engine_has_it(knobs, task, fields), planner=planner)
    for objection in found:
        if not objection.ineffective:
            # The only one that is about the installation, not about the request.
            kind = UnsupportedParameter if objection.field == "thinking" else InvalidRequest
            raise kind(objection.message, param=objection.field, suggestion=objection.suggestion)
    for objection in found:
        message = objection.message
        if not model.variant.renders:
            message = f"{objection.field} has no effect on {model.id}"
        notes.add(objection.field, message, suggestion=objection.suggestion)
        knobs[objection.field] = None
    knobs["thinking"] = bool(knobs["thinking"])
    for several in ("timesteps", "track_classes"):
        knobs[several] = knobs[several] or ()
    return knobs


def idle_knobs(model: Model) -> set[str]:
    """What the client may say and this model does not hear."""
    return {o.field for o in engine.objections(model.variant, _EVERYTHING, planner=True) if o.ineffective}


def check_task(task: Task, model: Model, models: Sequence[Usable]) -> Task:
    """The catalog's word on it; an operator may offer less than the weights can do."""
    if task not in model.tasks:
        raise InvalidRequest(
            f"{model.id} has no task {task}; it has {', '.join(model.tasks)}"
            + those_that_can([other.id for other in models if task in other.tasks]),
            param="task",
            suggestion=str(model.tasks[0]),
        )
    return task


def _read(fields: dict[str, Any], model: Model) -> Knobs:
    classes = _listed("track_classes", fields["track_classes"], len(engine.TRACK_NAMES)) or ()
    return {
        "num_inference_steps": _ranged("num_inference_steps", fields, model.steps),
        "guidance_scale": _ranged("guidance_scale", fields, model.guidance_scale),
        "shift": within("shift", fields["shift"], *SHIFT_RANGE),
        "negative_prompt": optional_text("negative_prompt", fields["negative_prompt"], MAX_PROMPT_CHARACTERS),
        "cfg_interval_start": within("cfg_interval_start", fields["cfg_interval_start"], 0.0, 1.0),
        "cfg_interval_end": within("cfg_interval_end", fields["cfg_interval_end"], 0.0, 1.0),
        "guidance_type": optional_choice("guidance_type", fields["guidance_type"], GuidanceType),
        "infer_method": optional_choice("infer_method", fields["infer_method"], InferMethod),
        "timesteps": _timesteps(fields["timesteps"]),
        "repainting_start": within("repainting_start", fields["repainting_start"], *START_RANGE),
        "repainting_end": within("repainting_end", fields["repainting_end"], *END_RANGE),
        "cover_strength": within("cover_strength", fields["cover_strength"], 0.0, 1.0),
        "cover_noise_strength": within("cover_noise_strength", fields["cover_noise_strength"], 0.0, 1.0),
        "track_name": fields["track_name"],
        "track_classes": tuple(dict.fromkeys(classes)) or None,
        "thinking": fields["thinking"] or None,
    }


def _as_the_engine_has_it(knobs: Knobs, task: Task, fields: dict[str, Any]) -> engine.Knobs:
    return engine.Knobs(
        **knobs
        | {
            "task": task,
            "has_source": fields["source_audio"] is not None,
            "thinking": bool(knobs["thinking"]),
        }
    )


def _ranged(name: str, fields: dict[str, Any], bounds: tuple[Number, Number, Number] | None) -> Number | None:
    """By the catalog's range. Where it has none the knob has no effect, as the engine's table will tell."""
    value: Number | None = fields[name]
    if bounds is not None:
        return within(name, value, bounds[0], bounds[1])
    if value is not None and value < 0:
        raise InvalidRequest(f"{name} must not be negative", param=name, suggestion="0")
    return value


def _timesteps(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Times that there are; which of them make a schedule depends on the weights."""
    times = _listed("timesteps", values, MAX_TIMESTEPS)
    if times is not None and not (times and all(0 < time <= 1 for time in times)):
        raise InvalidRequest(
            "timesteps must be falling numbers, each above 0 and at most 1",
            param="timesteps",
            suggestion="[1.0, 0.9, 0.75, 0.5]",
        )
    return times


def _listed(name: str, values: tuple[Any, ...] | None, most: int) -> tuple[Any, ...] | None:
    """Not too many."""
    if values is not None and len(values) > most:
        raise InvalidRequest(
            f"{name} has {len(values)} values; at most {most} are taken",
            param=name,
            suggestion=f"at most {most} values",
        )
    return values
