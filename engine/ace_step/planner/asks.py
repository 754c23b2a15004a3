"""What the planner is asked, and what it answers. Free of torch."""

from typing import Final

import msgspec

from engine.errors import EngineError, InvalidRequest
from engine.schema import SAMPLE_RATE

CODES_PER_SECOND: Final = 5
AUDIO_CODES: Final = 64_000
"""Size of the code book: FSQ levels 8, 8, 8, 5, 5, 5."""
MIN_SECONDS: Final = 10
MAX_SECONDS: Final = 600
"""Bounds of what the planner decides on itself; a caller may ask for less."""

LANGUAGES: Final = tuple(
    "ar az bg bn ca cs da de el en es fa fi fr he hi hr ht hu id is it ja ko la lt ms ne nl no pa pl pt ro "
    "ru sa sk sr sv sw ta te th tl tr uk ur vi yue zh unknown".split()
)
"""`unknown`: instrumental, or for the planner to find out."""
KEYS: Final = tuple(
    f"{note}{accidental} {mode}"
    for note in "ABCDEFG"
    for accidental in ("", "#", "b", "♯", "♭")
    for mode in ("major", "minor")
)
TIME_SIGNATURES: Final = (2, 3, 4, 6)
MIN_BPM: Final = 30
MAX_BPM: Final = 300


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How a token is drawn, in this order: guidance, constraint, repetition, top-k, top-p, temperature."""

    guidance_scale: float = 2.0
    """Scores are `uncond + s * (cond - uncond)`; 1: without the unconditional branch."""
    repetition_penalty: float = 1.0
    top_k: int = 0
    """0: all."""
    top_p: float = 0.9
    temperature: float = 0.85
    """0: always the likeliest token."""

    def __post_init__(self) -> None:
        if not (
            self.guidance_scale >= 0
            and self.repetition_penalty > 0
            and self.top_k >= 0
            and 0 < self.top_p <= 1
            and self.temperature >= 0
        ):
            raise InvalidRequest(f"sampling: no such setting: {self}")


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata that a caller insists on; None: the planner decides."""

    bpm: int | None = None
    key_scale: str | None = None
    time_signature: int | None = None
    vocal_language: str | None = None
    """One of `LANGUAGES`; `unknown` leaves it to the planner."""
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if self.bpm is not None and not MIN_BPM <= self.bpm <= MAX_BPM:
            raise InvalidRequest(f"bpm must be {MIN_BPM}-{MAX_BPM}, not {self.bpm}")
        if self.key_scale is not None and self.key_scale not in KEYS:
            raise InvalidRequest(f"key_scale must look like 'F# minor', not {self.key_scale[:40]!r}")
        if self.time_signature is not None and self.time_signature not in TIME_SIGNATURES:
            raise InvalidRequest(f"time_signature must be in {TIME_SIGNATURES}, not {self.time_signature}")
        if self.vocal_language is not None and self.vocal_language not in LANGUAGES:
            raise InvalidRequest(f"vocal_language: there is no language {self.vocal_language[:40]!r}")
        if self.duration_s is not None and not 1 <= self.duration_s <= MAX_SECONDS:
            raise InvalidRequest(f"duration must be 1-{MAX_SECONDS} s, not {self.duration_s:g}")

    @property
    def language(self) -> str | None:
        """The vocal language, if one is insisted on."""
        return None if self.vocal_language == "unknown" else self.vocal_language


class PlanAsk(msgspec.Struct, frozen=True, kw_only=True):
    """One song to plan."""

    id: str
    """Unique within one call; variations of one plan have ids of their own."""
    caption: str
    lyrics: str
    instrumental: bool = False
    """Lyrics are then not read."""
    wishes: Wishes = Wishes()
    negative_prompt: str | None = None
    seed: int
    """Of the audio codes."""
    plan_seed: int | None = None
    """Of the metadata, which variations share; None: `seed`."""
    min_seconds: int = MIN_SECONDS
    max_seconds: int = MAX_SECONDS
    """How long the song may be where the wishes leave it open."""
    write_caption: bool = True
    """Let the planner write a fuller caption than the caller's."""
    sampling: Sampling = Sampling()

    def __post_init__(self) -> None:
        if not 1 <= self.min_seconds <= self.max_seconds <= MAX_SECONDS:
            raise InvalidRequest(
                f"duration must lie in 1-{MAX_SECONDS} s, not {self.min_seconds}-{self.max_seconds}"
            )


class Song(msgspec.Struct, frozen=True, kw_only=True):
    """A song's metadata, complete."""

    bpm: int
    key_scale: str
    """Like `C major`, `F# minor`, `Bb major`: accidentals in ASCII."""
    time_signature: int
    language: str
    caption: str
    duration_s: float

    @property
    def frames(self) -> int:
        """Length at 48 kHz."""
        return round(self.duration_s * SAMPLE_RATE)


class Plan(Song, frozen=True, kw_only=True):
    """One planned song."""

    codes: tuple[int, ...]
    """Five a second, each in 0-63999."""


class FormatAsk(msgspec.Struct, frozen=True, kw_only=True):
    """Caption and lyrics to be put into the form that the models were trained on."""

    id: str
    caption: str
    lyrics: str
    wishes: Wishes = Wishes()
    seed: int = 0
    sampling: Sampling = Sampling()


class SampleAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A wish in plain words, from which a whole song description is invented."""

    id: str
    query: str
    """Empty: anything."""
    instrumental: bool = False
    wishes: Wishes = Wishes()
    seed: int = 0
    sampling: Sampling = Sampling()


class UnderstandAsk(msgspec.Struct, frozen=True, kw_only=True):
    """Audio codes to be described in words."""

    id: str
    codes: tuple[int, ...]
    seed: int = 0
    sampling: Sampling = Sampling(temperature=0.3)


WriteAsk = FormatAsk | SampleAsk | UnderstandAsk


class Description(Song, frozen=True, kw_only=True):
    """A song in words: the answer to every `WriteAsk`."""

    lyrics: str


class Planning(msgspec.Struct, frozen=True, tag=True):
    """One ask came further."""

    id: str
    fraction: float
    """0 to 1, of this ask."""


class Planned(msgspec.Struct, frozen=True, tag=True):
    """One song has its plan."""

    id: str
    plan: Plan


class Written(msgspec.Struct, frozen=True, tag=True):
    """One `WriteAsk` has its answer."""

    id: str
    description: Description


class PlanFailed(msgspec.Struct, frozen=True, tag=True, eq=False):
    """One ask failed and the others go on."""

    id: str
    error: EngineError


PlanEvent = Planning | Planned | PlanFailed
WriteEvent = Planning | Written | PlanFailed
