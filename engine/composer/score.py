"""The written music: what the composer decided, before any sound. Times are in beats if not named."""

from enum import StrEnum

import msgspec

from engine.composer.style import Style
from engine.composer.theory import Chord


class SectionKind(StrEnum):
    """The parts of a song the composer tells apart."""

    INTRO = "intro"
    VERSE = "verse"
    PRE_CHORUS = "pre-chorus"
    CHORUS = "chorus"
    BRIDGE = "bridge"
    BUILD = "build"
    DROP = "drop"
    BREAK = "break"
    INSTRUMENTAL = "instrumental"
    OUTRO = "outro"


class Part(StrEnum):
    """Who plays: one mixer channel each."""

    DRUMS = "drums"
    BASS = "bass"
    CHORDS = "chords"
    PAD = "pad"
    ARP = "arp"
    LEAD = "lead"
    VOICE = "voice"
    COUNTER = "counter"
    EFFECTS = "effects"


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the form, already placed in time."""

    kind: SectionKind
    label: str
    """The tag as written, or the kind."""
    turn: int
    """How many sections of this kind came before."""
    start_beat: float
    beats: float
    energy: float
    """0 (bare) to 1 (everything plays)."""
    lines: tuple[str, ...] = ()

    @property
    def end_beat(self) -> float:
        return self.start_beat + self.beats


class ChordSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One chord sounding from `start_beat` for `beats`."""

    start_beat: float
    beats: float
    chord: Chord

    @property
    def end_beat(self) -> float:
        return self.start_beat + self.beats


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One event; drums have the drum as `instrument` and no pitch."""

    part: Part
    instrument: str
    start_beat: float
    beats: float
    velocity: float
    """0 to 1, linear in loudness."""
    pitch: int = 0
    vowel: str = ""
    """What a voice sings: one of a, e, i, o, u."""
    pan: float = 0.0
    """-1 (left) to 1, added to the part's own place."""
    late_seconds: float = 0.0
    """Human lateness or swing; negative is early."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """A whole song."""

    style: Style
    frames: int
    sections: tuple[Section, ...]
    chords: tuple[ChordSpan, ...]
    notes: tuple[Note, ...]
    """In order of `start_beat`."""
    end_beat: float
    """Where the last chord is struck, to ring until the end."""

    def seconds(self, beat: float) -> float:
        """Where a beat falls in the song."""
        return self.style.lead_in_seconds + beat * 60.0 / self.style.bpm
