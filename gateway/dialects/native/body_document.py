"""What OpenAPI says about the body of a generation: every field explained, unknown ones refused.

The ranges are not in the types: msgspec would then check them, without naming the nearest value.
"""

from collections.abc import Iterable
from typing import Any, Final

from litestar._openapi.schema_generation import SchemaCreator
from litestar.openapi.spec import OpenAPIType, Reference, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

from engine import TRACK_NAMES, GuidanceType, InferMethod, Task
from gateway.audio import AudioFormat
from gateway.dialects.native.answer_document import Facts, derived_schema, described
from gateway.dialects.native.body import ALIASES, AudioSettingsBody, GenerationBody, ProviderBody
from gateway.dialects.native.validation import (
    BPM_RANGE,
    MAX_KEY_SCALE_CHARACTERS,
    MAX_LYRICS_CHARACTERS,
    MAX_METADATA_KEY_CHARACTERS,
    MAX_METADATA_PAIRS,
    MAX_METADATA_VALUE_CHARACTERS,
    RANDOM_SEED,
)
from gateway.dialects.native.validation_audio import MAX_REFERENCE_CHARACTERS
from gateway.dialects.native.validation_delivery import TTL_RANGE
from gateway.dialects.native.validation_knobs import (
    END_RANGE,
    MAX_PROMPT_CHARACTERS,
    MAX_TIMESTEPS,
    SHIFT_RANGE,
    START_RANGE,
)
from gateway.dialects.native.validation_money import MAX_USD_CHARACTERS
from gateway.dialects.native.validation_provider import MAX_NAMES
from gateway.generation import LANGUAGES, MAX_SEED, MAX_VARIATIONS, TIME_SIGNATURES, ResponseFormat
from gateway.outbound import MAX_URL_CHARACTERS
from gateway.routing import BACKENDS

_URL: Final[Facts] = {"max_length": MAX_URL_CHARACTERS, "pattern": "^[Hh][Tt][Tt][Pp][Ss]?:"}
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
    "audio_duration": (
        f"Seconds of music; {_OF_THE_MODEL}. With a source, its length counts.",
        {"exclusive_minimum": 0, "examples": [30]},
    ),
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
    "task": (
        "What is done with sound; which tasks a model has, see GET /v1/models.",
        _choice(Task, default="text2music"),
    ),
    "source_audio": (
        "What every task but text2music works on: the id of an uploaded file, or a URL.",
        {"max_length": MAX_REFERENCE_CHARACTERS, "pattern": _VISIBLE},
    ),
    "reference_audio": (
        "Sound whose timbre is wanted, for any task: the id of an uploaded file, or a URL.",
        {"max_length": MAX_REFERENCE_CHARACTERS, "pattern": _VISIBLE},
    ),
    "repainting_start": (
        (
            "For repaint: second of the source from which it is made anew; below 0 the song grows before it. "
            "Left out, 0."
        ),
        _range(*START_RANGE),
    ),
    "repainting_end": (
        (
            "For repaint: second up to which it is made anew; beyond the source the song grows after it. "
            "Left out, the source's end."
        ),
        _range(*END_RANGE),
    ),
    "cover_strength": ("For cover: share of the steps that follow the source; left out, all.", _range(0, 1)),
    "cover_noise_strength": (
        "For cover: how much of the source is in the noise that it starts from; left out, nothing.",
        _range(0, 1),
    ),
    "track_name": ("For extract and lego: the track. Required there.", _choice(TRACK_NAMES)),
    "track_classes": (
        "For complete: the tracks that are missing.",
        {"max_items": len(TRACK_NAMES), "items": Schema(type=OpenAPIType.STRING, enum=[*TRACK_NAMES])},
    ),
    "cfg_interval_start": (
        "Guidance holds from this time on; 0 is the finished music, 1 the noise. Left out, 0.",
        _range(0, 1),
    ),
    "cfg_interval_end": ("Guidance holds up to this time; left out, 1.", _range(0, 1)),
    "guidance_type": (
        "How guided and unguided become one: adaptive projected, plain, or by angle.",
        _choice(GuidanceType),
    ),
    "infer_method": (
        "How a step is taken: straight on (`ode`), or with fresh noise drawn from the seed (`sde`).",
        _choice(InferMethod, default="ode"),
    ),
    "timesteps": (
        "Instead of steps and shift: falling numbers, the first at most 1, the last above 0.",
        {
            "min_items": 1,
            "max_items": MAX_TIMESTEPS,
            "items": Schema(type=OpenAPIType.NUMBER, exclusive_minimum=0, maximum=1),
            "examples": [[1.0, 0.9, 0.75, 0.5]],
        },
    ),
    "thinking": (
        (
            "Let a language model plan the song first: metadata, words and structure. With `audio_duration` "
            "left out it also decides how long the song is; the model's longest is then reserved."
        ),
        {"default": False},
    ),
    "n": (
        "Variations, each a result of its own with the next seed; each is billed.",
        {**_range(1, MAX_VARIATIONS), "default": 1},
    ),
    "strict": (
        "Refuse what has no effect on this model (`unsupported_parameter`) instead of warning of it.",
        {"default": False},
    ),
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
    "provider": (
        (
            "Which backends may serve it. A name alone means this one and no other; an object has `order`, "
            "`only`, `ignore` and `allow_fallbacks`. Which routes a model has, see GET /v1/models."
        ),
        {"examples": ["engine"]},
    ),
    "webhook_url": (
        "Called when the job has ended, with a signature of Standard Webhooks.",
        {**_URL, "examples": ["https://your-site.example/antiphon"]},
    ),
    "upload_url": (
        "The file is PUT there when it is ready; `n` must be 1.",
        {**_URL, "examples": ["https://bucket.example.com/song.mp3?signature=..."]},
    ),
    "ttl": (
        "Seconds after the end of the job for which the audio is kept; left out, as long as all others.",
        {**_range(*TTL_RANGE), "examples": [86_400]},
    ),
    "max_cost_usd": (
        "The most that you agree to pay, in USD, as text or number: if it can cost more, `price_changed`.",
        {"one_of": None, "any_of": _AMOUNT, "examples": ["0.05"]},
    ),
}
_BACKENDS: Final[Facts] = {
    "max_items": MAX_NAMES,
    "items": Schema(type=OpenAPIType.STRING, enum=[*BACKENDS]),
}
_PROVIDER: Final[dict[str, tuple[str, Facts]]] = {
    "order": ("These first, in this order; then the others, unless `allow_fallbacks` is false.", _BACKENDS),
    "only": ("These and no others.", _BACKENDS),
    "ignore": ("Not these.", _BACKENDS),
    "allow_fallbacks": ("False: the first choice or none.", {"default": True}),
}
_SETTINGS: Final[dict[str, tuple[str, Facts]]] = {
    "bitrate": ("kbit/s; which are possible depends on format, rate and channels.", {"examples": [192]}),
    "channels": ("Mono or stereo.", _choice((1, 2), default=2)),
    "sample_rate": ("Hz; which are possible depends on the format.", {"default": 48_000}),
}
_ALIASES: Final = {
    alias: (f"Another name of `{name}`.", _GENERATION[name][1]) for alias, name in ALIASES.items()
}
_BODIES: Final = {
    GenerationBody: _GENERATION | _ALIASES,
    AudioSettingsBody: _SETTINGS,
    ProviderBody: _PROVIDER,
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
    {
        "model": "ace-step-1.5-base",
        "prompt": "string quartet, slow waltz, melancholic",
        "negative_prompt": "drums",
        "time_signature": 3,
        "guidance_type": "adg",
        "n": 2,
        "strict": True,
    },
]


class BodySchemas(OpenAPISchemaPlugin):
    """Completes the schemas of request bodies, which Litestar derives from their types alone."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Our request bodies."""
        return field_definition.annotation in _BODIES

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """The derived schema, and what only we know."""
        schema = derived_schema(self, field_definition, schema_creator)
        schema.additional_properties = False
        known = _BODIES[field_definition.annotation]
        if field_definition.annotation is GenerationBody:
            schema.examples = _EXAMPLES
            schema.any_of = [_given("prompt"), _given("input")]
            schema.all_of = [Schema(schema_not=_given(*names)) for names in ALIASES.items()]
        schema.properties = {
            name: _complete(found, *known.get(name, _IGNORED))
            for name, found in (schema.properties or {}).items()
        }
        if isinstance(provider := schema.properties.get("provider"), Schema):
            _name_backends(provider)
        return schema


def _complete(found: Schema | Reference, description: str, facts: Facts) -> Schema | Reference:
    completed = described(found, facts)
    if isinstance(completed, Reference):
        return Schema(all_of=[completed], description=description)
    completed.description = description
    return completed


def _name_backends(provider: Schema) -> None:
    """A name alone is one of those that there are."""
    for part in provider.one_of or ():
        if isinstance(part, Schema) and part.type == OpenAPIType.STRING:
            part.enum = [*BACKENDS]


def _given(*names: str) -> Schema:
    """All of these are there, and are not null."""
    present = Schema(schema_not=Schema(type=OpenAPIType.NULL))
    return Schema(required=list(names), properties=dict.fromkeys(names, present))
