"""From a decoded body to a GenerationRequest: the model's ranges and defaults, every error by name."""

import difflib
import random
import re
from collections.abc import Iterable
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final, TypeVar

import msgspec

import billing
from gateway.audio import AudioFormat, AudioSettings, UnsupportedEncoding, resolve_encoding
from gateway.catalog import Model
from gateway.dialects.native.body import ALIASES, GenerationBody
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.generation import (
    LANGUAGES,
    MAX_SEED,
    SAMPLE_RATE,
    TIME_SIGNATURES,
    GenerationRequest,
    ResponseFormat,
    Task,
    normalize_key_scale,
)

MAX_PROMPT_CHARACTERS: Final = 4_000
MAX_LYRICS_CHARACTERS: Final = 10_000
MAX_METADATA_PAIRS: Final = 16
MAX_METADATA_KEY_CHARACTERS: Final = 64
MAX_METADATA_VALUE_CHARACTERS: Final = 512
MAX_KEY_SCALE_CHARACTERS: Final = 32
BPM_RANGE: Final = (30, 300)
SHIFT_RANGE: Final = (0.0, 10.0)
RANDOM_SEED: Final = -1
MAX_USD_CHARACTERS: Final = 64
LOSSY_FORMATS: Final = "format mp3 or ogg"

_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
"""What JSON takes, with an exponent that can be written out."""

Number = TypeVar("Number", int, float)
Choice = TypeVar("Choice", bound=StrEnum)


class Checked(msgspec.Struct, frozen=True):
    """A request that the model can serve, and what was let go on the way."""

    request: GenerationRequest
    warnings: tuple[str, ...]
    max_cost_nano: int | None = None
    """The most that the client agrees to pay."""


def check_body(body: GenerationBody, model: Model) -> Checked:
    """Raises InvalidRequest or UnsupportedParameter, naming the field and the nearest valid value."""
    fields = _fold_aliases(body)
    warnings: list[str] = []
    lyrics = _text("lyrics", fields["lyrics"] or "", MAX_LYRICS_CHARACTERS)
    instrumental = bool(fields["instrumental"]) or not lyrics.strip()
    request = GenerationRequest(
        prompt=_prompt(fields["prompt"]),
        lyrics=lyrics,
        instrumental=instrumental,
        frames=_frames(fields["audio_duration"], model),
        seed=_seed(fields["seed"]),
        task=_choice("task", fields["task"], Task, Task.TEXT2MUSIC),
        num_inference_steps=_knob("num_inference_steps", fields, model.steps, model, warnings),
        guidance_scale=_knob("guidance_scale", fields, model.guidance_scale, model, warnings),
        shift=_within("shift", fields["shift"], *SHIFT_RANGE),
        negative_prompt=_optional_text("negative_prompt", fields["negative_prompt"], MAX_PROMPT_CHARACTERS),
        bpm=_within("bpm", fields["bpm"], *BPM_RANGE),
        key_scale=_key_scale(fields["key_scale"]),
        time_signature=_time_signature(fields["time_signature"]),
        vocal_language=_language(fields["vocal_language"]),
        format=_choice("format", fields["format"], AudioFormat, AudioFormat.FLAC),
        audio_settings=_audio_settings(fields["audio_settings"]),
        response_format=_response_format(fields["response_format"]),
        return_base64=bool(fields["return_base64"]),
    )
    _check_encoding(request)
    return Checked(request, tuple(warnings), _max_cost(body.max_cost_usd))


def check_metadata(metadata: dict[str, str] | None) -> None:
    """At most 16 pairs of short texts, as OpenAI has it."""
    pairs = metadata or {}
    if len(pairs) > MAX_METADATA_PAIRS:
        raise InvalidRequest(f"metadata has more than {MAX_METADATA_PAIRS} pairs", param="metadata")
    for key, value in pairs.items():
        _text("metadata", key, MAX_METADATA_KEY_CHARACTERS)
        _text(f"metadata.{key}", value, MAX_METADATA_VALUE_CHARACTERS)


def _fold_aliases(body: GenerationBody) -> dict[str, Any]:
    fields = msgspec.structs.asdict(body)
    for alias, name in ALIASES.items():
        value = fields.pop(alias)
        if value is None:
            continue
        if fields[name] is not None and fields[name] != value:
            raise InvalidRequest(
                f"{alias} is another name of {name}, and they differ", param=alias, suggestion=name
            )
        fields[name] = value
    return fields


def _max_cost(given: msgspec.Raw | msgspec.UnsetType) -> int | None:
    """Nano-USD of a text or a number, exactly. That it is JSON was checked when the body was decoded."""
    raw = b"null" if isinstance(given, msgspec.UnsetType) else bytes(given)
    if raw == b"null":
        return None
    text = _written_usd(raw) if len(raw) <= MAX_USD_CHARACTERS else None
    if text is None:
        raise InvalidRequest(
            "max_cost_usd must be an amount in USD: a decimal as text, or a number",
            param="max_cost_usd",
            suggestion="0.05",
        )
    nano = Fraction(text) * billing.NANO_PER_USD
    if nano < 0:
        raise InvalidRequest("max_cost_usd must not be negative", param="max_cost_usd", suggestion="0")
    if nano.denominator > 1:
        raise InvalidRequest(
            "max_cost_usd has more than nine decimals",
            param="max_cost_usd",
            suggestion=billing.format_usd(int(nano)),
        )
    return int(nano)


def _written_usd(raw: bytes) -> str | None:
    """The amount as the client wrote it; None for what is no decimal."""
    if raw.startswith(b'"'):
        text = msgspec.json.decode(raw, type=str)
        return text if _DECIMAL.fullmatch(text) else None
    text = raw.decode()
    return text if _NUMBER.fullmatch(text) else None


def _prompt(value: str | None) -> str:
    if value is None or not value.strip():
        raise InvalidRequest(
            "prompt is required: describe the music",
            param="prompt",
            suggestion="lo-fi hip hop, mellow piano, 80 bpm",
        )
    return _text("prompt", value, MAX_PROMPT_CHARACTERS)


def _text(name: str, value: str, most: int) -> str:
    if len(value) > most:
        raise InvalidRequest(
            f"{name} has {len(value)} characters; at most {most} are taken",
            param=name,
            suggestion=f"at most {most} characters",
        )
    return value


def _optional_text(name: str, value: str | None, most: int) -> str | None:
    return _text(name, value, most) if value and value.strip() else None


def _frames(seconds: float | None, model: Model) -> int:
    low, high, default = model.duration_seconds
    checked = _within("audio_duration", default if seconds is None else seconds, low, high)
    return round((default if checked is None else checked) * SAMPLE_RATE)


def _seed(value: int | None) -> int:
    if value is None or value == RANDOM_SEED:
        return random.getrandbits(MAX_SEED.bit_length())
    checked = _within("seed", value, 0, MAX_SEED)
    return value if checked is None else checked


def _knob(
    name: str,
    fields: dict[str, Any],
    bounds: tuple[Number, Number, Number] | None,
    model: Model,
    warnings: list[str],
) -> Number | None:
    """A quality knob: checked where the model has it, let go with a warning where it has not."""
    value = fields[name]
    if value is None:
        return None
    if bounds is None:
        if value < 0:
            raise InvalidRequest(f"{name} must not be negative", param=name, suggestion="0")
        warnings.append(f"{name} has no effect on {model.id} and was ignored")
        return None
    low, high, _ = bounds
    checked: Number | None = _within(name, value, low, high)
    return checked


def _within(name: str, value: Number | None, low: Number, high: Number) -> Number | None:
    if value is None or low <= value <= high:  # exact for integers of any size; false for NaN
        return value
    raise InvalidRequest(
        f"{name} must be between {_plain(low)} and {_plain(high)}",
        param=name,
        suggestion=_plain(low if value < low else high),
    )


def _plain(number: float) -> str:
    """All digits, and no decimal point where nothing follows it."""
    return str(int(number)) if number == int(number) else str(number)


def _choice(name: str, value: str | None, choices: type[Choice], default: Choice) -> Choice:
    if value is None:
        return default
    try:
        return choices(value)
    except ValueError:
        raise _not_one_of(name, value, choices) from None


def _not_one_of(name: str, value: object, choices: Iterable[object]) -> InvalidRequest:
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value)[:100].lower(), names, n=1, cutoff=0.0)
    return InvalidRequest(
        f"{name} must be one of {', '.join(names)}", param=name, suggestion=near[0] if near else names[0]
    )


def _response_format(value: str | None) -> ResponseFormat:
    if value == "base64":
        return ResponseFormat.B64_JSON
    return _choice("response_format", value, ResponseFormat, ResponseFormat.URL)


def _key_scale(value: str | None) -> str | None:
    if value is None:
        return None
    normal = normalize_key_scale(value) if len(value) <= MAX_KEY_SCALE_CHARACTERS else None
    if normal is None:
        raise InvalidRequest(
            "key_scale is not a key: write a note and major or minor", param="key_scale", suggestion="C major"
        )
    return normal


def _time_signature(value: int | None) -> int | None:
    if value is not None and value not in TIME_SIGNATURES:
        nearest = min(TIME_SIGNATURES, key=lambda beats: abs(beats - value))
        raise InvalidRequest(
            f"time_signature must be one of {', '.join(map(str, TIME_SIGNATURES))} (beats in a bar)",
            param="time_signature",
            suggestion=str(nearest),
        )
    return value


def _language(value: str | None) -> str | None:
    if value is not None and value not in LANGUAGES:
        code = value[:2].lower()  # `english`, `EN` and `en-US` mean `en`
        raise InvalidRequest(
            f"vocal_language must be one of {', '.join(sorted(LANGUAGES))}",
            param="vocal_language",
            suggestion=code if code in LANGUAGES else "unknown",
        )
    return value


def _audio_settings(settings: AudioSettings | None) -> AudioSettings | None:
    """Without the decoder's own strictness, which is no part of a request."""
    return None if settings is None else AudioSettings(**msgspec.structs.asdict(settings))


def _check_encoding(request: GenerationRequest) -> None:
    try:
        resolve_encoding(request.format, request.audio_settings)
    except UnsupportedEncoding as error:
        kind = UnsupportedParameter if error.param == "audio_settings" else InvalidRequest
        nearest = " or ".join(map(str, error.nearest))
        raise kind(str(error), param=error.param, suggestion=nearest or LOSSY_FORMATS) from error
