"""Keys, scales and chords as numbers: pitches are MIDI notes (60 = middle C, 440 Hz = 69)."""

import itertools
import re
from typing import Self

import msgspec

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SHARPS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
NUMERALS = ("i", "ii", "iii", "iv", "v", "vi", "vii")
_NUMERAL = re.compile(r"(b?)(vii|vi|v|iv|iii|ii|i)(maj7|7|9|sus4|sus2|5|6|dim)?", re.IGNORECASE)
_QUALITIES = {
    "": (0, 4, 7),
    "m": (0, 3, 7),
    "dim": (0, 3, 6),
    "5": (0, 7),
    "sus4": (0, 5, 7),
    "sus2": (0, 2, 7),
    "6": (0, 4, 7, 9),
    "m6": (0, 3, 7, 9),
    "7": (0, 4, 7, 10),
    "m7": (0, 3, 7, 10),
    "maj7": (0, 4, 7, 11),
    "9": (0, 4, 10, 14),
    "m9": (0, 3, 10, 14),
}


class Key(msgspec.Struct, frozen=True):
    """A tonic pitch class (0 = C) and one of the two modes."""

    tonic: int
    minor: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `F# minor` or `Bb major`; raises ValueError."""
        match = re.fullmatch(r"([A-G])([#b]?) (major|minor)", text)
        if match is None:
            raise ValueError(f"not a key: {text!r}")
        shift = {"": 0, "#": 1, "b": -1}[match[2]]
        return cls((LETTERS[match[1]] + shift) % 12, match[3] == "minor")

    @property
    def name(self) -> str:
        """Like `C# minor`: what `parse` reads."""
        return f"{SHARPS[self.tonic]} {'minor' if self.minor else 'major'}"

    @property
    def scale(self) -> tuple[int, ...]:
        return MINOR if self.minor else MAJOR

    def pitch(self, degree: int, near: int) -> int:
        """MIDI pitch of a scale step: 0 is the tonic nearest `near`, 7 the one above, -1 the step below."""
        octave, step = divmod(degree, 7)
        base = near - (near - self.tonic + 6) % 12 + 6
        return base + 12 * octave + self.scale[step]

    def contains(self, pitch: int) -> bool:
        return (pitch - self.tonic) % 12 in self.scale


class Chord(msgspec.Struct, frozen=True):
    """A root pitch class and the intervals above it, in semitones."""

    root: int
    intervals: tuple[int, ...]

    @property
    def tones(self) -> tuple[int, ...]:
        """Pitch classes, root first."""
        return tuple((self.root + interval) % 12 for interval in self.intervals)


def read_chord(numeral: str, key: Key) -> Chord:
    """`I`, `vi7`, `bVII`: upper case is major, lower case minor, degrees are of the key's own scale."""
    match = _NUMERAL.fullmatch(numeral)
    if match is None:
        raise ValueError(f"not a chord: {numeral!r}")
    flat, name, quality = match[1], match[2], match[3] or ""
    root = key.tonic + key.scale[NUMERALS.index(name.lower())] - len(flat)
    minor = name.islower() and quality in {"", "6", "7", "9"}
    return Chord(root % 12, _QUALITIES[("m" if minor else "") + quality])


def low_pitch(pitch_class: int, floor: int) -> int:
    """The pitch of a class in the octave from `floor` up."""
    return floor + (pitch_class - floor) % 12


def voice_near(chord: Chord, previous: tuple[int, ...], *, low: int, high: int) -> tuple[int, ...]:
    """The chord's tones between `low` and `high`, placed so that each voice moves as little as it can."""
    choices = [[p for p in range(low, high + 1) if p % 12 == tone] for tone in chord.tones]
    candidates = (tuple(sorted(voicing)) for voicing in itertools.product(*choices))
    target = previous or (low + high - 4) // 2
    return min((c for c in candidates if len(set(c)) == len(c)), key=lambda c: (_distance(c, target), c))


def _distance(voicing: tuple[int, ...], target: "tuple[int, ...] | int") -> float:
    spread = voicing[-1] - voicing[0]
    crowding = 4.0 * (spread > 16) + 1.5 * sum(b - a < 3 for a, b in itertools.pairwise(voicing))
    if isinstance(target, int):
        return sum(abs(pitch - target) for pitch in voicing) / len(voicing) + crowding
    drift = 0.3 * abs(sum(voicing) / len(voicing) - sum(target) / len(target))
    return sum(min(abs(pitch - old) for old in target) for pitch in voicing) + crowding + drift
