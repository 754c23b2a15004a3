"""What a route can make at all, learnt by asking its judge: for the list of models."""

import functools
from collections.abc import Sequence
from typing import Final

import msgspec

from engine import GuidanceType, InferMethod, Task
from gateway.catalog import Model
from gateway.generation import MAX_SEED, SAMPLE_RATE, AudioInput, GenerationRequest
from gateway.routing.choice import MAX_REMOTE_SEED, judge, longest_seconds
from gateway.routing.route import ENGINE, Route

_SOUND: Final = AudioInput(file_id="any", frames=60 * SAMPLE_RATE)
_PROBE: Final = GenerationRequest(
    prompt="a song",
    frames=60 * SAMPLE_RATE,
    seed=1,
    strict=True,
    num_inference_steps=8,
    guidance_scale=2.0,
    shift=3.0,
    negative_prompt="drums",
    bpm=120,
    key_scale="C major",
    time_signature=3,
    vocal_language="en",
    reference_audio=_SOUND,
    cfg_interval_start=0.1,
    cfg_interval_end=0.9,
    guidance_type=GuidanceType.APG,
    infer_method=InferMethod.SDE,
    timesteps=(1.0,),
    thinking=True,
)
"""Every knob turned, by somebody who wants nothing to be let go."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What at least one of the routes to a model takes."""

    tasks: tuple[Task, ...]
    longest_seconds: float
    highest_seed: int
    unheard: frozenset[str]
    """Fields that have no effect, or are refused, on every one of them."""


def offer(model: Model, routes: Sequence[Route]) -> Offer:
    """Of the catalog, what these routes leave; without any route all of it, as test keys have it."""
    if not routes or any(route.backend == ENGINE for route in routes):
        return Offer(
            tasks=model.tasks,
            longest_seconds=model.duration_seconds[1],
            highest_seed=MAX_SEED,
            unheard=frozenset(),
        )
    return Offer(
        tasks=tuple(task for task in model.tasks if any(_has_task(route, task) for route in routes)),
        longest_seconds=max(longest_seconds(route, None) for route in routes),
        highest_seed=MAX_REMOTE_SEED,
        unheard=frozenset.intersection(*map(_unheard, routes)),
    )


@functools.cache
def _has_task(route: Route, task: Task) -> bool:
    probe = GenerationRequest(
        prompt="a song",
        frames=60 * SAMPLE_RATE,
        seed=1,
        task=task,
        source_audio=None if task is Task.TEXT2MUSIC else _SOUND,
    )
    return not judge(route, probe, None).objections


@functools.cache
def _unheard(route: Route) -> frozenset[str]:
    found = judge(route, _PROBE, None).objections
    return frozenset(objection.param for objection in found)
