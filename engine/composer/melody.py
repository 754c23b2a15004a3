"""Tunes: phrases whose rhythm follows the syllables and whose shape is a motif that comes back.

A phrase is drawn once per section kind and place (so every chorus sings the same tune), then fitted to the
chords: strong notes take chord tones, the others walk through the scale between them.
"""

import math

import msgspec
import numpy as np

from engine.composer.dice import Dice, dice, pick
from engine.composer.lyrics import sung_vowels
from engine.composer.score import ChordSpan, Note, Part, Section, SectionKind
from engine.composer.style import Style

K = SectionKind
_RANGES = {
    "flute": 77,
    "violin": 74,
    "bells": 79,
    "vibes": 72,
    "cello": 55,
    "sax": 65,
    "brass": 64,
    "trumpet": 69,
}
_HARMONIZED = {K.CHORUS, K.DROP}
_SHAPES = ("arch", "fall", "rise", "wave", "hill")
_PHRASE_SECONDS = 4.4
_DISTANCE_FROM_HOME = (0.0, 0.7, 0.2, 0.6, 0.5, 0.7, 0.9)


class Tune(msgspec.Struct, frozen=True, kw_only=True):
    """Where and by whom a melody is played."""

    part: Part
    instrument: str
    center: int
    """MIDI pitch around which the tune moves."""
    velocity: float


class _Slot(msgspec.Struct, frozen=True):
    """One sung note before it has a pitch: beats from the start of the phrase."""

    start: float
    beats: float


def sing(style: Style, section: Section, chords: tuple[ChordSpan, ...], tune: Tune, seed: int) -> list[Note]:
    """The melody of one section: its lines one after the other, or phrases of its own if it has none."""
    notes: list[Note] = []
    beats = _phrase_beats(style, section)
    count = max(1, int(section.beats // beats))
    texts = _texts(section, count) if tune.part is Part.VOICE else [""] * count
    for i, text in enumerate(texts):
        form = "ABAC"[i % 4] if count % 3 else "AAB"[i % 3]
        start = section.start_beat + i * beats
        room = min(beats, section.end_beat - start)
        vowels = sung_vowels(text) if text else "o" * _own_syllables(style, section, form, room, seed)
        notes.extend(
            _phrase(style, section, chords, tune, vowels, (start, room), form, seed, last=i == count - 1)
        )
    return notes


def _phrase_beats(style: Style, section: Section) -> float:
    """Whole bars close to a breath; halves of that if the section holds more lines than breaths."""
    bar = float(style.beats_per_bar)
    beats = bar * max(1.0, 2.0 ** round(math.log2(_PHRASE_SECONDS / style.bar_seconds)))
    beats = min(beats, section.beats)
    while len(section.lines) * beats > section.beats and beats > bar / 2 and beats * style.beat_seconds > 1.2:
        beats /= 2
    return beats


def _texts(section: Section, count: int) -> list[str]:
    """Lines in order over `count` phrases; short texts are repeated, too long ones share a phrase."""
    lines = list(section.lines)
    if not lines:
        return [""] * count
    if len(lines) > count:
        groups = np.array_split(np.arange(len(lines)), count)
        return [" ".join(lines[i] for i in group) for group in groups]
    spare = count - len(lines)
    if spare and spare < len(lines):
        # Not enough room to sing it all again: the last phrases repeat the last lines.
        return lines + lines[-spare:]
    return [lines[i % len(lines)] for i in range(count)]


def _own_syllables(style: Style, section: Section, form: str, beats: float, seed: int) -> int:
    rng = dice(seed, f"density {section.kind} {form}")
    seconds = beats * style.beat_seconds
    return max(1, min(24, round(seconds * float(rng.uniform(1.3, 2.1)) * (0.7 + 0.5 * section.energy))))


def _phrase(
    style: Style,
    section: Section,
    chords: tuple[ChordSpan, ...],
    tune: Tune,
    vowels: str,
    place: tuple[float, float],
    form: str,
    seed: int,
    *,
    last: bool,
) -> list[Note]:
    start, room = place
    rng = dice(seed, f"phrase {section.kind} {form} {len(vowels)}")
    slots = _rhythm(style, len(vowels), room, rng)
    steps = _contour(section, form, slots, room, seed)
    degrees = _fit_to_chords(style, slots, steps, chords, start, tune.center, cadence=last or form == "C")
    human = dice(seed, f"human {tune.part} {start}")
    return [
        Note(
            part=tune.part,
            instrument=tune.instrument,
            start_beat=start + slot.start,
            beats=slot.beats,
            velocity=tune.velocity
            * float(human.uniform(0.86, 1.0))
            * (1.06 if slot.start % 1 == 0 else 0.94),
            pitch=style.key.pitch(degree, tune.center),
            vowel=vowel,
            late_seconds=float(human.normal(0.0, style.genre.loose_seconds)) + 0.004,
        )
        for slot, degree, vowel in zip(slots, degrees, vowels, strict=False)
    ]


def _grid(style: Style) -> float:
    """Finest step of a melody, in beats: an eighth, or whatever is near a fifth of a second."""
    if style.time_signature == 6:
        return 1 / 3 if style.beat_seconds > 0.4 else 1.0
    return next((g for g in (0.25, 0.5, 1.0, 2.0) if g * style.beat_seconds >= 0.17), 2.0)


def _rhythm(style: Style, count: int, room: float, rng: Dice) -> list[_Slot]:
    """`count` onsets on the grid in about the first four fifths of the phrase, strong places first."""
    grid = _grid(style)
    while count > 0.95 * room / grid and grid * style.beat_seconds > 0.09:
        grid /= 2
    cells = max(1, round(room / grid))
    usable = max(1, min(cells, max(count, round(cells * 0.8))))
    count = min(count, usable)
    coarse = 2 * grid
    weights = np.array(
        [1.0 + 1.2 * ((i * grid) % 1 < 1e-6) + 0.7 * ((i * grid) % coarse < 1e-6) for i in range(usable)]
    )
    # An even spread, pulled towards strong places, with a seeded nudge: speech-like and never a heap.
    ideal = np.arange(count) * usable / count
    score = weights * rng.uniform(0.75, 1.25, usable)
    chosen: list[int] = []
    for i, target in enumerate(ideal):
        first = chosen[-1] + 1 if chosen else 0
        limit = usable - (count - i)
        window = range(first, limit + 1)
        chosen.append(max(window, key=lambda cell: float(score[cell]) - 0.9 * abs(cell - float(target))))
    onsets = [cell * grid for cell in chosen]
    ends = [*onsets[1:], min(room, onsets[-1] + max(1.0, room - onsets[-1]) * 0.85)]
    longest = max(grid, 2.4 / style.beat_seconds)
    return [
        _Slot(a, min(longest, max(grid * 0.9, (b - a) * 0.96))) for a, b in zip(onsets, ends, strict=True)
    ]


def _contour(section: Section, form: str, slots: list[_Slot], room: float, seed: int) -> list[int]:
    """Scale steps around the centre: one motif per section kind, answered in B and closed in C."""
    rng = dice(seed, f"motif {section.kind}")
    shape, height = pick(rng, _SHAPES), float(rng.uniform(3.0, 5.0)) + 1.5 * section.energy
    wiggle = rng.integers(-1, 2, 64)
    lift = {"A": 0, "B": int(rng.choice((1, 2, -2))), "C": -1}[form] + round(2.5 * (section.energy - 0.5))
    steps: list[int] = []
    for i, slot in enumerate(slots):
        x = min(1.0, slot.start / max(room * 0.85, 1e-6))
        steps.append(round(_curve(shape, x) * height) + int(wiggle[i % 64]) + lift)
    return steps


def _curve(shape: str, x: float) -> float:
    """From 0 to 1 over a phrase; centred near zero so that tunes stay in range."""
    return {
        "arch": float(np.sin(np.pi * x)) - 0.4,
        "fall": 0.6 - x,
        "rise": x - 0.4,
        "wave": 0.6 * float(np.sin(2 * np.pi * x)),
        "hill": float(np.sin(np.pi * min(1.0, 1.6 * x))) * (1.0 - 0.5 * x) - 0.3,
    }[shape]


def _fit_to_chords(
    style: Style,
    slots: list[_Slot],
    steps: list[int],
    chords: tuple[ChordSpan, ...],
    start: float,
    center: int,
    *,
    cadence: bool,
) -> list[int]:
    """Scale degrees: long and strong notes on chord tones, leaps of more than a sixth folded back."""
    degrees: list[int] = []
    for i, (slot, step) in enumerate(zip(slots, steps, strict=True)):
        strong = slot.start % 1 < 1e-6 or slot.beats * style.beat_seconds > 0.55 or i == len(slots) - 1
        tones = chord_at(chords, start + slot.start).chord.tones
        if cadence and i == len(slots) - 1 and style.key.tonic in tones:
            tones = (style.key.tonic,)
        previous = degrees[-1] if degrees else step
        aim = previous + max(-4, min(4, step - previous))
        options = [d for d in range(aim - 4, aim + 5) if -7 <= d <= 9]
        if strong:
            fitting = [d for d in options if style.key.pitch(d, center) % 12 in tones]
            options = fitting or options
        degrees.append(min(options, key=lambda d: (_cost(d, aim, previous), d)))
    return degrees


def _cost(degree: int, aim: int, previous: int) -> float:
    """Between equals the tonic and its third win, so that the tune says its key; notes repeat last."""
    return abs(degree - aim) + 0.4 * (degree == previous) + _DISTANCE_FROM_HOME[degree % 7]


def chord_at(chords: tuple[ChordSpan, ...], beat: float) -> ChordSpan:
    """The chord sounding at a beat; the last one after the end."""
    low, high = 0, len(chords) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if chords[middle].start_beat <= beat + 1e-6 else (low, middle - 1)
    return chords[low]


def center_of(instrument: str) -> int:
    """Where an instrument sings best."""
    return _RANGES.get(instrument, 70)


def is_harmonized(section: Section) -> bool:
    """Whether a second voice joins in thirds."""
    return section.kind in _HARMONIZED and section.energy > 0.8
