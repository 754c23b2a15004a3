"""`GET /v1/models`: what can be generated, in which ranges, at which price."""

from typing import Final

import msgspec

import billing
from gateway.catalog import Model
from gateway.dialects.native.validation import BPM_RANGE, SHIFT_RANGE
from gateway.generation import LANGUAGES, MAX_SEED, TIME_SIGNATURES
from gateway.routing import can_serve

_CREATED: Final = 1_770_000_000
"""OpenAI's clients need a number here; nobody reads it."""


class Parameter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One field of the request: its type, and the values that it takes for this model."""

    type: str
    minimum: float | None = None
    maximum: float | None = None
    default: float | str | None = None
    values: list[str | int] | None = None


class Pricing(msgspec.Struct, kw_only=True):
    """What a second of delivered audio costs now; `was` is a former price, struck through."""

    usd_per_second: str
    was_usd_per_second: str | None
    billing_unit: str = "second"


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


class ModelList(msgspec.Struct, kw_only=True):
    """All models."""

    object: str = "list"
    data: list[ModelView]


def model_view(model: Model, price: billing.Price | None) -> ModelView:
    """What the catalog and the price book say of a model."""
    return ModelView(
        id=model.id,
        name=model.name,
        description=model.description,
        aliases=list(model.aliases),
        tasks=[task.value for task in model.tasks],
        parameters=_parameters(model),
        pricing=None if price is None else _pricing(price),
        available=price is not None and can_serve(model),
    )


def _pricing(price: billing.Price) -> Pricing:
    was = price.was_nano_per_second
    return Pricing(
        usd_per_second=billing.format_usd(price.nano_per_second),
        was_usd_per_second=None if was is None else billing.format_usd(was),
    )


def _parameters(model: Model) -> dict[str, Parameter]:
    return {
        "prompt": Parameter(type="string"),
        "lyrics": Parameter(type="string"),
        "audio_duration": _ranged("number", model.duration_seconds),
        **({"num_inference_steps": _ranged("integer", model.steps)} if model.steps else {}),
        **({"guidance_scale": _ranged("number", model.guidance_scale)} if model.guidance_scale else {}),
        "shift": Parameter(type="number", minimum=SHIFT_RANGE[0], maximum=SHIFT_RANGE[1]),
        "seed": Parameter(type="integer", minimum=-1, maximum=MAX_SEED),
        "bpm": Parameter(type="integer", minimum=BPM_RANGE[0], maximum=BPM_RANGE[1]),
        "key_scale": Parameter(type="string"),
        "time_signature": Parameter(type="integer", values=list(TIME_SIGNATURES)),
        "vocal_language": Parameter(type="string", values=[*sorted(LANGUAGES)]),
        "format": Parameter(type="string", values=["flac", "wav", "mp3", "ogg"], default="flac"),
        "response_format": Parameter(type="string", values=["url", "b64_json"], default="url"),
    }


def _ranged(type_: str, bounds: tuple[float, float, float]) -> Parameter:
    low, high, default = bounds
    return Parameter(type=type_, minimum=low, maximum=high, default=default)
