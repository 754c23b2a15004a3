"""What OpenAPI says about the body of a generation: every field explained, unknown ones refused.

The ranges are not in the types: msgspec would then check them, without naming the nearest value.
"""

from collections.abc import Iterable
from typing import Any, Final

from litestar._openapi.schema_generation import SchemaCreator
from litestar.openapi.spec import OpenAPIType, Reference, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

from gateway.audio import AudioFormat
from gateway.dialects.native.answer_document import Facts, derived_schema, described
from gateway.dialects.native.body import ALIASES, AudioSettingsBody, GenerationBody
from gateway.dialects.native.validation import (
    BPM_RANGE,
    MAX_KEY_SCALE_CHARACTERS,
    MAX_LYRICS_CHARACTERS,
    MAX_METADATA_KEY_CHARACTERS,
    MAX_METADATA_PAIRS,
    MAX_METADATA_VALUE_CHARACTERS,
    MAX_PROMPT_CHARACTERS,
    MAX_USD_CHARACTERS,
    RANDOM_SEED,
    SHIFT_RANGE,
)
from gateway.generation import LANGUAGES, MAX_SEED, TIME_SIGNATURES, ResponseFormat, Task

_VISIBLE: Final = r"[^\s\x1c-\x1f\x85]"
"""A character that is no whitespace to Python either."""
_KEY_SCALE: Final = (
    r"^\s*[A-Ga-g]\s*[#♯bB♭]?\s*"
    r"([Mm]|[Mm][Aa][Jj]([Oo][Rr])?|[Mm][Ii][Nn]([Oo][Rr])?|[Mm][Oo][Ll][Ll]|[Dd][Uu][Rr])?\s*$"
)
_AMOUNT: Final = [
    Schema(type=OpenAPIType.STRING, pattern=r"^[0-9]+(\.[0-9]{1,9}0*)?$", max_length=MAX_USD_CHARACTERS - 2),
    Schema(type=OpenAPIType.NUMBER, minimum=0),
    Schema(type=OpenAPIType.NULL),
]
_OF_THE_MODEL: Final = "range and default are the model's, see GET /v1/models"


def _range(low: float, high: float) -> Facts:
    return {"minimum": low, "maximum": high}


def _choice(values: Iterable[Any], **more: Any) -> Facts:
    return {"enum": [*values], **more}


_GENERATION: Final[dict[str, tuple[str, Facts]]] = {
    "model": ("Id or alias of a model.", {"examples": ["sandbox", "ace-step-1.5-xl"]}),
    "prompt": (
        "The music in words: genre, mood, instruments, tempo. Required.",
        {
            "max_length": MAX_PROMPT_CHARACTERS,
            "pattern": _VISIBLE,
            "examples": ["lo-fi hip hop, mellow piano, 80 bpm"],
        },
    ),
    "lyrics": (
        "Words to sing, with section tags such as [verse] and [chorus]; empty means instrumental.",
        {"max_length": MAX_LYRICS_CHARACTERS, "examples": ["[verse]\nMorning light on the water"]},
    ),
    "audio_duration": (f"Seconds of music; {_OF_THE_MODEL}.", {"exclusive_minimum": 0, "examples": [30]}),
    "num_inference_steps": (f"Diffusion steps; {_OF_THE_MODEL}.", {"minimum": 0}),
    "guidance_scale": (f"How closely the prompt is followed; {_OF_THE_MODEL}.", {"minimum": 0}),
    "shift": ("Shift of the noise schedule; left out, the model's own.", _range(*SHIFT_RANGE)),
    "negative_prompt": ("What should not be heard.", {"max_length": MAX_PROMPT_CHARACTERS}),
    "seed": (
        "The same seed and request give the same music; left out or -1, a random one, told in the result.",
        _range(RANDOM_SEED, MAX_SEED),
    ),
    "format": ("Audio file format.", _choice(AudioFormat, default="flac")),
    "response_format": (
        "A link, or the file itself as base64; `base64` is the same as `b64_json`.",
        _choice([*ResponseFormat, "base64"], default="url"),
    ),
    "return_base64": ("Add the file as base64 beside the link.", {"default": False}),
    "audio_settings": ("Settings of mp3 and ogg files.", {}),
    "bpm": ("Beats per minute.", {**_range(*BPM_RANGE), "examples": [120]}),
    "key_scale": (
        "A key: a note and major or minor.",
        {"pattern": _KEY_SCALE, "max_length": MAX_KEY_SCALE_CHARACTERS, "examples": ["C major", "F# minor"]},
    ),
    "time_signature": ("Beats in a bar.", _choice(TIME_SIGNATURES)),
    "vocal_language": (
        "Language of the lyrics; `unknown` lets the model find out.",
        _choice(sorted(LANGUAGES)),
    ),
    "instrumental": ("No voice, whatever the lyrics say.", {}),
    "task": ("What is done with sound.", _choice(Task, default="text2music")),
    "metadata": (
        "Short texts of your own, returned with the job.",
        {
            "max_properties": MAX_METADATA_PAIRS,
            "property_names": Schema(max_length=MAX_METADATA_KEY_CHARACTERS),
            "additional_properties": Schema(
                type=OpenAPIType.STRING, max_length=MAX_METADATA_VALUE_CHARACTERS
            ),
            "examples": [{"order": "1234"}],
        },
    ),
    "max_cost_usd": (
        "The most that you agree to pay, in USD, as text or number: if it can cost more, `price_changed`.",
        {"one_of": None, "any_of": _AMOUNT, "examples": ["0.05"]},
    ),
}
_SETTINGS: Final[dict[str, tuple[str, Facts]]] = {
    "bitrate": ("kbit/s; which are possible depends on format, rate and channels.", {"examples": [192]}),
    "channels": ("Mono or stereo.", _choice((1, 2), default=2)),
    "sample_rate": ("Hz; which are possible depends on the format.", {"default": 48_000}),
}
_ALIASES: Final = {
    alias: (f"Another name of `{name}`.", _GENERATION[name][1]) for alias, name in ALIASES.items()
}
_IGNORED: Final = ("Accepted for clients of other services, and ignored.", Facts())
_EXAMPLES: Final = [
    {
        "model": "sandbox",
        "prompt": "lo-fi hip hop, mellow piano, 80 bpm",
        "audio_duration": 20,
        "format": "mp3",
    },
    {
        "model": "ace-step-1.5-xl",
        "prompt": "warm indie folk, acoustic guitar, close female voice",
        "lyrics": "[verse]\nMorning light on the water",
        "audio_duration": 60,
        "key_scale": "G major",
        "seed": 7,
    },
]


class BodySchemas(OpenAPISchemaPlugin):
    """Completes the schemas of request bodies, which Litestar derives from their types alone."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Our request bodies."""
        return field_definition.annotation in {GenerationBody, AudioSettingsBody}

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """The derived schema, and what only we know."""
        schema = derived_schema(self, field_definition, schema_creator)
        schema.additional_properties = False
        is_generation = field_definition.annotation is GenerationBody
        known = _GENERATION | _ALIASES if is_generation else _SETTINGS
        if is_generation:
            schema.examples = _EXAMPLES
            schema.any_of = [_given("prompt"), _given("input")]
            schema.all_of = [Schema(schema_not=_given(*names)) for names in ALIASES.items()]
        schema.properties = {
            name: _complete(found, *known.get(name, _IGNORED))
            for name, found in (schema.properties or {}).items()
        }
        return schema


def _complete(found: Schema | Reference, description: str, facts: Facts) -> Schema | Reference:
    completed = described(found, facts)
    if isinstance(completed, Reference):
        return Schema(all_of=[completed], description=description)
    completed.description = description
    return completed


def _given(*names: str) -> Schema:
    """All of these are there, and are not null."""
    present = Schema(schema_not=Schema(type=OpenAPIType.NULL))
    return Schema(required=list(names), properties=dict.fromkeys(names, present))
