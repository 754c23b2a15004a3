"""What our own engine says of a request: its weights, and what its workers have told of them."""

import math
from typing import Final, Protocol

import engine
from engine import Task
from gateway.catalog import Model
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.routing.judgement import Judgement, Objection


class Loaded(Protocol):
    """What a worker tells of a model that it has, or tries to have, in memory."""

    @property
    def state(self) -> str:
        """`loading`, `ready` or `failed`."""

    @property
    def longest_seconds(self) -> float | None:
        """The longest song that fits into the device's memory, if that is known."""

    @property
    def reads_codes(self) -> bool:
        """Whether it has the audio tokenizers that covers and plans need."""

    @property
    def realtime_factor(self) -> float | None:
        """Seconds of audio for each second of work, lately."""


_NOTHING: Final = Judgement()


def judge(request: GenerationRequest, model: Model, loaded: Loaded | None) -> Judgement:
    """Of a request that was checked against its model: what the workers that have it in memory cannot do."""
    if loaded is None:
        return _NOTHING
    if not loaded.reads_codes and (request.task is Task.COVER or request.thinking):
        return _refuse(
            "thinking" if request.thinking else "task",
            "is installed without the audio tokenizers that covers and thinking need",
            "false" if request.thinking else "text2music",
        )
    seconds, most = request.frames / SAMPLE_RATE, longest_seconds(model, loaded)
    if seconds <= most or (request.open_length and most >= model.duration_seconds[0]):
        return _NOTHING
    told = f"has no room for {seconds:g} s in its device's memory; at most {most:g} s fit"
    if request.source_audio is not None:
        return _refuse("source_audio", told, f"at most {most:g} s")
    return _refuse("audio_duration", told, f"{most:g}")


def longest_seconds(model: Model, loaded: Loaded | None) -> float:
    """What it can deliver."""
    longest = model.duration_seconds[1]
    if loaded is None or loaded.longest_seconds is None:
        return longest
    return min(longest, math.floor(loaded.longest_seconds))


def can_express(request: GenerationRequest, model: Model, *, planner: bool) -> bool:
    """Whether weights of this kind hear what was asked of another model; `planner`: whether there is one."""
    knobs = engine.Knobs(
        task=request.task,
        has_source=request.source_audio is not None,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        guidance_type=request.guidance_type,
        cfg_interval_start=request.cfg_interval_start,
        cfg_interval_end=request.cfg_interval_end,
        shift=request.shift,
        timesteps=request.timesteps or None,
        infer_method=request.infer_method,
        negative_prompt=request.negative_prompt,
        repainting_start=request.repainting_start,
        repainting_end=request.repainting_end,
        cover_strength=request.cover_strength,
        cover_noise_strength=request.cover_noise_strength,
        track_name=request.track_name,
        track_classes=request.track_classes or None,
        thinking=request.thinking,
    )
    found = engine.objections(model.variant, knobs, planner=planner)
    return all(told.ineffective and not request.strict for told in found)


def _refuse(param: str, message: str, suggestion: str) -> Judgement:
    return Judgement(objections=(Objection(param=param, message=message, suggestion=suggestion),))
