"""`GET /v1/models`: what can be generated, in which ranges, at which price."""

from typing import Final

import msgspec

import billing
from gateway.catalog import Model
from gateway.dialects.native.render import iso
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
    """What a second of delivered audio costs this organization now, and what it is about to cost."""

    usd_per_second: str
    list_usd_per_second: str
    discount_percent: str
    was_usd_per_second: str | None
    price_version: str
    changes_at: str | None
    next_usd_per_second: str | None
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


def model_view(model: Model, rate: billing.Rate | None) -> ModelView:
    """What the catalog and the price book say of a model."""
    return ModelView(
        id=model.id,
        name=model.name,
        description=model.description,
        aliases=list(model.aliases),
        tasks=[task.value for task in model.tasks],
        parameters=_parameters(model),
        pricing=None if rate is None else _pricing(rate),
        available=rate is not None and can_serve(model),
    )


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
