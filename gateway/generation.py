"""The vocabulary between dialects and backends: what is wanted, vendor-free; no I/O here."""

import re
from enum import StrEnum
from typing import Final

import msgspec

from gateway.audio import AudioFormat, AudioSettings

SAMPLE_RATE: Final = 48_000
"""Hz of every master recording."""

MAX_SEED: Final = 2**32 - 1

TIME_SIGNATURES: Final = (2, 3, 4, 6)
"""Beats in a bar."""

LANGUAGES: Final = frozenset(
    "ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt "
    "ro ru sa sk sr sv sw ta te th tl tr uk ur vi yue zh unknown".split()
)
"""What ACE-Step 1.5 was trained to sing; `unknown` means instrumental or to be detected."""

_KEY = re.compile(r"([A-Ga-g])\s*([#♯b♭]?)\s*(major|minor|maj|min|dur|moll|m|M)?", re.ASCII | re.IGNORECASE)


class Task(StrEnum):
    """What is done with sound."""

    TEXT2MUSIC = "text2music"


class ResponseFormat(StrEnum):
    """How the audio is handed over."""

    URL = "url"
    B64_JSON = "b64_json"


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the client wants, checked against the model's ranges. Lengths in frames at SAMPLE_RATE."""

    prompt: str
    frames: int
    seed: int
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
