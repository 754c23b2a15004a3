"""`GET /v1/models`: what can be generated, in which ranges, at which price."""

from collections.abc import Sequence
from typing import Final

import msgspec

import billing
from engine import TRACK_NAMES, GuidanceType, InferMethod, Task
from gateway.catalog import SANDBOX, Model
from gateway.dialects.native.render import iso
from gateway.dialects.native.validation import BPM_RANGE
from gateway.dialects.native.validation_knobs import END_RANGE, SHIFT_RANGE, START_RANGE, idle_knobs
from gateway.generation import LANGUAGES, MAX_VARIATIONS, TIME_SIGNATURES
from gateway.jobs.workforce import LoadedModel, Workforce
from gateway.routing import ENGINE, Circuit, Offer, Route, RouteHealth, Routes, longest_seconds, offer

_CREATED: Final = 1_770_000_000
"""OpenAI's clients need a number here; nobody reads it."""


class Parameter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One field of the request: its type, and the values that it takes for this model."""

    type: str
    minimum: float | None = None
    maximum: float | None = None
    default: float | str | bool | None = None
    values: list[str | int] | None = None
    tasks: list[str] | None = None
    """Null: all that the model has."""
    has_effect: bool = True


_EDITING: Final[dict[str, tuple[list[Task], Parameter]]] = {
    "source_audio": ([task for task in Task if task is not Task.TEXT2MUSIC], Parameter(type="string")),
    "repainting_start": (
        [Task.REPAINT],
        Parameter(type="number", minimum=START_RANGE[0], maximum=START_RANGE[1], default=0),
    ),
    "repainting_end": (
        [Task.REPAINT],
        Parameter(type="number", minimum=END_RANGE[0], maximum=END_RANGE[1]),
    ),
    "cover_strength": ([Task.COVER], Parameter(type="number", minimum=0, maximum=1, default=1)),
    "cover_noise_strength": ([Task.COVER], Parameter(type="number", minimum=0, maximum=1, default=0)),
    "track_name": ([Task.EXTRACT, Task.LEGO], Parameter(type="string", values=[*TRACK_NAMES])),
    "track_classes": ([Task.COMPLETE], Parameter(type="array", values=[*TRACK_NAMES])),
}
"""Which tasks each of them belongs to."""


class Pricing(msgspec.Struct, kw_only=True):
    """What a second of delivered audio costs this organization now, and what it is about to cost."""

    usd_per_second: str
    list_usd_per_second: str
    discount_percent: str
    was_usd_per_second: str | None
    price_version: str
    changes_at: str | None
    next_usd_per_second: str | None
    billing_unit: str = "second"


class RouteView(msgspec.Struct, kw_only=True):
    """One way to this model that is configured here, and how it fares."""

    backend: str
    state: str
    """`absent` while no worker has told of it. Our own engine: `ready`, `loading` or `failed`. A provider:
    `ready`, `open` while nothing is sent to it, `half_open` while it is tried again, or `no_credit`.
    """
    warm: bool
    """Whether it has rendered already, so that the next song waits for nothing."""
    load_seconds: float | None
    realtime_factor: float | None
    """Seconds of audio for each second of work, lately."""
    latency_seconds: float | None
    """From sending a song to having it, lately, at a provider."""
    longest_seconds: float | None
    """What it can deliver: what fits into the device's memory, or the provider's limit."""


class ModelView(msgspec.Struct, kw_only=True):
    """One model, in OpenAI's shape and more."""

    id: str
    object: str = "model"
    created: int = _CREATED
    owned_by: str = "antiphon"
    name: str
    description: str
    aliases: list[str]
    tasks: list[str]
    parameters: dict[str, Parameter]
    pricing: Pricing | None
    available: bool
    """Whether live keys can use it on this installation; test keys always can."""
    routes: list[RouteView]


class ModelList(msgspec.Struct, kw_only=True):
    """All models."""

    object: str = "list"
    data: list[ModelView]


def model_view(model: Model, rate: billing.Rate | None, routes: Routes, workforce: Workforce) -> ModelView:
    """What the catalog, the price book and the workers say of a model."""
    configured = routes.of(model)
    offered = offer(model, configured)
    return ModelView(
        id=model.id,
        name=model.name,
        description=model.description,
        aliases=list(model.aliases),
        tasks=[task.value for task in offered.tasks],
        parameters=_parameters(model, routes, offered),
        pricing=None if rate is None else _pricing(rate),
        available=rate is not None and bool(configured),
        routes=[_route(route, workforce) for route in configured if model.id != SANDBOX],
    )


def _route(route: Route, workforce: Workforce) -> RouteView:
    """What is wrong with it is the operator's business, and stands in the log."""
    if route.backend == ENGINE:
        loaded = workforce.models.get(route.model.id) or LoadedModel(model="", state="absent")
        return RouteView(
            backend=route.backend,
            state=loaded.state,
            warm=loaded.warm,
            load_seconds=loaded.load_seconds,
            realtime_factor=loaded.realtime_factor,
            latency_seconds=None,
            longest_seconds=loaded.longest_seconds,
        )
    health = workforce.health.get((route.backend, route.model.id))
    return RouteView(
        backend=route.backend,
        state=_state(health),
        warm=health is not None and health.latency_seconds is not None,
        load_seconds=None,
        realtime_factor=None,
        latency_seconds=None if health is None else health.latency_seconds,
        longest_seconds=longest_seconds(route, None),
    )


def _state(health: RouteHealth | None) -> str:
    if health is None:
        return "absent"
    if health.no_credit:
        return "no_credit"
    return "ready" if health.circuit is Circuit.CLOSED else health.circuit.value


def _pricing(rate: billing.Rate) -> Pricing:
    price, following = rate.price, rate.next_price
    return Pricing(
        usd_per_second=billing.format_usd(price.net_nano_per_second),
        list_usd_per_second=billing.format_usd(price.nano_per_second),
        discount_percent=price.discount_percent,
        was_usd_per_second=_usd_or_none(price.was_nano_per_second),
        price_version=price.id.hex,
        changes_at=None if rate.changes_at is None else iso(rate.changes_at),
        next_usd_per_second=_usd_or_none(None if following is None else following.net_nano_per_second),
    )


def _usd_or_none(nano: int | None) -> str | None:
    return None if nano is None else billing.format_usd(nano)


def _parameters(model: Model, routes: Routes, offered: Offer) -> dict[str, Parameter]:
    """What the request may say to this model; a knob that is missing here has no effect on it."""
    low, _, default = model.duration_seconds
    longest = offered.longest_seconds
    found = {
        "prompt": Parameter(type="string"),
        "lyrics": Parameter(type="string"),
        "audio_duration": _ranged("number", (low, longest, min(default, longest))),
        "n": Parameter(type="integer", minimum=1, maximum=MAX_VARIATIONS, default=1),
        **_knobs(model),
        "seed": Parameter(type="integer", minimum=-1, maximum=offered.highest_seed),
        "bpm": Parameter(type="integer", minimum=BPM_RANGE[0], maximum=BPM_RANGE[1]),
        "key_scale": Parameter(type="string"),
        "time_signature": Parameter(type="integer", values=list(TIME_SIGNATURES)),
        "vocal_language": Parameter(type="string", values=[*sorted(LANGUAGES)]),
        **_editing(model, offered.tasks),
        **({"thinking": Parameter(type="boolean", default=False)} if routes.can_plan(model) else {}),
        "format": Parameter(type="string", values=["flac", "wav", "mp3", "ogg"], default="flac"),
        "response_format": Parameter(type="string", values=["url", "b64_json"], default="url"),
        "strict": Parameter(type="boolean", default=False),
    }
    return {name: parameter for name, parameter in found.items() if name not in offered.unheard}


def _knobs(model: Model) -> dict[str, Parameter]:
    variant = model.variant
    knobs = {
        "num_inference_steps": _ranged("integer", model.steps or variant.steps),
        "guidance_scale": _ranged("number", model.guidance_scale or variant.guidance_scale),
        "shift": Parameter(
            type="number", minimum=SHIFT_RANGE[0], maximum=SHIFT_RANGE[1], default=variant.shift
        ),
        "timesteps": Parameter(type="array"),
        "infer_method": Parameter(type="string", values=[*InferMethod], default=InferMethod.ODE),
        "guidance_type": Parameter(type="string", values=[*GuidanceType], default=GuidanceType.APG),
        "cfg_interval_start": Parameter(type="number", minimum=0, maximum=1, default=0),
        "cfg_interval_end": Parameter(type="number", minimum=0, maximum=1, default=1),
        "negative_prompt": Parameter(type="string"),
    }
    idle = idle_knobs(model)
    for name in idle & {"num_inference_steps", "guidance_scale"}:
        # The catalog may give a range to what has no effect, for clients that always send it.
        if (model.steps if name == "num_inference_steps" else model.guidance_scale) is not None:
            knobs[name].has_effect = False
            idle -= {name}
    return {name: knob for name, knob in knobs.items() if name not in idle}


def _editing(model: Model, offered: Sequence[Task]) -> dict[str, Parameter]:
    """Each for some tasks only, as far as these are on offer."""
    found = {}
    for name, (tasks, parameter) in _EDITING.items():
        if able := [task for task in tasks if task in offered]:
            found[name] = msgspec.structs.replace(parameter, tasks=able)
    if model.engine is not None:
        found["reference_audio"] = Parameter(type="string")
    return found


def _ranged(type_: str, bounds: tuple[float, float, float]) -> Parameter:
    low, high, default = bounds
    return Parameter(type=type_, minimum=low, maximum=high, default=default)
