"""From a decoded body to a GenerationRequest: the model's ranges and defaults, every error by name."""

import random
from typing import Any, Final

import msgspec

from engine import Task
from gateway.audio import AudioFormat, AudioSettings, UnsupportedEncoding, resolve_encoding
from gateway.catalog import Model
from gateway.dialects.native.body import ALIASES, GenerationBody
from gateway.dialects.native.validation_audio import Context, Wanted, check_audio
from gateway.dialects.native.validation_delivery import read_delivery
from gateway.dialects.native.validation_knobs import MAX_PROMPT_CHARACTERS, check_knobs, check_task
from gateway.dialects.native.validation_money import read_max_cost
from gateway.dialects.native.validation_provider import read_provider
from gateway.dialects.native.validation_values import Notes, checked_text, choice, within
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.generation import (
    LANGUAGES,
    MAX_SEED,
    MAX_VARIATIONS,
    SAMPLE_RATE,
    TIME_SIGNATURES,
    GenerationRequest,
    ResponseFormat,
    normalize_key_scale,
)

MAX_LYRICS_CHARACTERS: Final = 10_000
MAX_INLINE_FRAMES: Final = 600 * SAMPLE_RATE
MAX_METADATA_PAIRS: Final = 16
MAX_METADATA_KEY_CHARACTERS: Final = 64
MAX_METADATA_VALUE_CHARACTERS: Final = 512
MAX_KEY_SCALE_CHARACTERS: Final = 32
BPM_RANGE: Final = (30, 300)
RANDOM_SEED: Final = -1
DRAWN_SEEDS: Final = 2**31 - MAX_VARIATIONS
"""A drawn seed is below: with all its variations it is one that every backend takes."""
LOSSY_FORMATS: Final = "format mp3 or ogg"


class Checked(msgspec.Struct, frozen=True):
    """A request that the model can serve, and what was let go on the way."""

    request: GenerationRequest
    warnings: tuple[str, ...]
    max_cost_nano: int | None = None
    """The most that the client agrees to pay."""


async def check_body(body: GenerationBody, model: Model, context: Context) -> Checked:
    """Raises InvalidRequest or UnsupportedParameter, naming the field and the nearest valid value.

    Files are looked up last: FileGone is only told of a request that could be served with them.
    """
    fields = _fold_aliases(body)
    notes = Notes(strict=bool(fields["strict"]))
    plain = _read_plain(fields, model, context)
    knobs = check_knobs(fields, plain["task"], model, notes, planner=context.planner)
    _check_encoding(plain["format"], plain["audio_settings"])
    delivery = read_delivery(fields, variations=plain["n"], ports=context.ports)
    max_cost_nano = read_max_cost(body.max_cost_usd)
    wanted = Wanted(
        task=plain["task"],
        source=fields["source_audio"],
        reference=fields["reference_audio"],
        seconds=fields["audio_duration"],
        start=knobs["repainting_start"],
        end=knobs["repainting_end"],
        thinking=knobs["thinking"],
    )
    shape = await check_audio(wanted, model, notes, context)
    request = GenerationRequest(
        **plain, **knobs, **delivery, **msgspec.structs.asdict(shape), provider=read_provider(body.provider)
    )
    _check_answer(request)
    return Checked(request, tuple(notes.warnings), max_cost_nano)


def _check_answer(request: GenerationRequest) -> None:
    """An answer with the bytes in it is made in memory: one song of any length, or more of shorter ones."""
    fitting = max(1, MAX_INLINE_FRAMES // request.frames)
    if request.wants_base64 and request.n > fitting:
        raise InvalidRequest(
            f"{request.n} songs of this length are too much for one answer in base64: ask for URLs, or fewer",
            param="n",
            suggestion=str(fitting),
        )


def check_metadata(metadata: dict[str, str] | None) -> None:
    """At most 16 pairs of short texts, as OpenAI has it."""
    pairs = metadata or {}
    if len(pairs) > MAX_METADATA_PAIRS:
        raise InvalidRequest(f"metadata has more than {MAX_METADATA_PAIRS} pairs", param="metadata")
    for key, value in pairs.items():
        checked_text("metadata", key, MAX_METADATA_KEY_CHARACTERS)
        checked_text(f"metadata.{key}", value, MAX_METADATA_VALUE_CHARACTERS)


def _read_plain(fields: dict[str, Any], model: Model, context: Context) -> dict[str, Any]:
    """What every model knows."""
    lyrics = checked_text("lyrics", fields["lyrics"] or "", MAX_LYRICS_CHARACTERS)
    return {
        "prompt": _prompt(fields["prompt"]),
        "lyrics": lyrics,
        "instrumental": bool(fields["instrumental"]) or not lyrics.strip(),
        "seed": _seed(fields["seed"]),
        "n": within("n", 1 if fields["n"] is None else fields["n"], 1, MAX_VARIATIONS),
        "task": check_task(choice("task", fields["task"], Task, Task.TEXT2MUSIC), model, context.models),
        "bpm": within("bpm", fields["bpm"], *BPM_RANGE),
        "key_scale": _key_scale(fields["key_scale"]),
        "time_signature": _time_signature(fields["time_signature"]),
        "vocal_language": _language(fields["vocal_language"]),
        "format": choice("format", fields["format"], AudioFormat, AudioFormat.FLAC),
        "audio_settings": _audio_settings(fields["audio_settings"]),
        "response_format": _response_format(fields["response_format"]),
        "return_base64": bool(fields["return_base64"]),
        "strict": bool(fields["strict"]),
    }


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


def _prompt(value: str | None) -> str:
    if value is None or not value.strip():
        raise InvalidRequest(
            "prompt is required: describe the music",
            param="prompt",
            suggestion="lo-fi hip hop, mellow piano, 80 bpm",
        )
    return checked_text("prompt", value, MAX_PROMPT_CHARACTERS)


def _seed(value: int | None) -> int:
    if value is None or value == RANDOM_SEED:
        return random.randrange(DRAWN_SEEDS)  # noqa: S311 - no secret
    checked = within("seed", value, 0, MAX_SEED)
    return value if checked is None else checked


def _response_format(value: str | None) -> ResponseFormat:
    if value == "base64":
        return ResponseFormat.B64_JSON
    return choice("response_format", value, ResponseFormat, ResponseFormat.URL)


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


def _check_encoding(audio_format: AudioFormat, settings: AudioSettings | None) -> None:
    try:
        resolve_encoding(audio_format, settings)
    except UnsupportedEncoding as error:
        kind = UnsupportedParameter if error.param == "audio_settings" else InvalidRequest
        nearest = " or ".join(map(str, error.nearest))
        raise kind(str(error), param=error.param, suggestion=nearest or LOSSY_FORMATS) from error
