"""The vocabulary between dialects and backends: what is wanted, vendor-free; no I/O here."""

import re
from enum import StrEnum
from typing import Final

import msgspec

from engine import GuidanceType, InferMethod, Task
from gateway.audio import AudioFormat, AudioSettings

SAMPLE_RATE: Final = 48_000
"""Hz of every master recording."""

MAX_SEED: Final = 2**32 - 1
MAX_VARIATIONS: Final = 8

TIME_SIGNATURES: Final = (2, 3, 4, 6)
"""Beats in a bar."""

LANGUAGES: Final = frozenset(
    "ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt "
    "ro ru sa sk sr sv sw ta te th tl tr uk ur vi yue zh unknown".split()
)
"""What ACE-Step 1.5 was trained to sing; `unknown` means instrumental or to be detected."""

_KEY = re.compile(r"([A-Ga-g])\s*([#♯b♭]?)\s*(major|minor|maj|min|dur|moll|m|M)?", re.ASCII | re.IGNORECASE)


class ResponseFormat(StrEnum):
    """How the audio is handed over."""

    URL = "url"
    B64_JSON = "b64_json"


class AudioInput(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sound that the client brought: an uploaded file, or what stands behind a URL."""

    file_id: str | None = None
    url: str | None = None
    frames: int | None = None
    """Length at SAMPLE_RATE; None while it is not known: a URL."""


class ProviderChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which backends the client wants, by their names."""

    order: tuple[str, ...] = ()
    """These first; the others after them."""
    only: tuple[str, ...] = ()
    """No others; empty: all."""
    ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    """False: the first choice or none."""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the client wants, checked against the model's ranges. Lengths in frames at SAMPLE_RATE."""

    prompt: str
    frames: int
    """Length of each result; with `open_length` the most that it may have, which is held for."""
    open_length: bool = False
    """The source behind a URL, or the planner, decides how long a result is."""
    seed: int
    n: int = 1
    """Variations, each a result of its own; see `variation_seed`."""
    task: Task = Task.TEXT2MUSIC
    lyrics: str = ""
    """Empty: instrumental."""
    instrumental: bool = False
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    shift: float | None = None
    negative_prompt: str | None = None
    bpm: int | None = None
    key_scale: str | None = None
    """`C major`, `F# minor`, `Bb major`"""
    time_signature: int | None = None
    vocal_language: str | None = None
    format: AudioFormat = AudioFormat.FLAC
    audio_settings: AudioSettings | None = None
    response_format: ResponseFormat = ResponseFormat.URL
    return_base64: bool = False
    source_audio: AudioInput | None = None
    """What every task but text2music works on."""
    reference_audio: AudioInput | None = None
    """Sound whose timbre is wanted."""
    repainting_start: float | None = None
    """Seconds; below 0 the song grows at its beginning. None: 0."""
    repainting_end: float | None = None
    """Seconds; beyond the source the song grows at its end. None: the source's end."""
    cover_strength: float | None = None
    cover_noise_strength: float | None = None
    track_name: str | None = None
    track_classes: tuple[str, ...] = ()
    cfg_interval_start: float | None = None
    cfg_interval_end: float | None = None
    guidance_type: GuidanceType | None = None
    infer_method: InferMethod | None = None
    timesteps: tuple[float, ...] = ()
    """Instead of steps and shift; empty: those hold."""
    thinking: bool = False
    """Let the planner write metadata and audio codes first."""
    strict: bool = False
    """Refuse what has no effect, instead of warning of it."""
    provider: ProviderChoice | None = None
    webhook_url: str | None = None
    """Told when the job has ended."""
    upload_url: str | None = None
    """Where the file is PUT when it is there."""
    ttl: int | None = None
    """Seconds after its end for which the audio is kept; None: as long as all others."""

    def variation_seed(self, index: int) -> int:
        """The seed of variation `index` (from 0)."""
        return (self.seed + index) % (MAX_SEED + 1)

    @property
    def wants_base64(self) -> bool:
        """Whether replies carry the bytes themselves."""
        return self.return_base64 or self.response_format is ResponseFormat.B64_JSON


def normalize_key_scale(text: str) -> str | None:
    """'am' -> 'A minor', 'B♭ Major' -> 'Bb major', 'F#' -> 'F# major'; None if it is no key."""
    match = _KEY.fullmatch(text.strip())
    if match is None:
        return None
    accidental = match[2].replace("♯", "#").replace("♭", "b").replace("B", "b")
    quality = match[3] or ""
    minor = quality == "m" or quality.lower() in {"min", "minor", "moll"}
    return f"{match[1].upper()}{accidental} {'minor' if minor else 'major'}"
