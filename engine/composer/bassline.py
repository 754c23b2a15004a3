"""Bass lines: one rule per way of playing, applied to each chord."""

from collections.abc import Callable
from itertools import pairwise

from engine.composer.dice import dice
from engine.composer.score import ChordSpan, Note, Part, Section
from engine.composer.style import Style
from engine.composer.theory import low_pitch
from engine.composer.timing import pulse_beats, swing_seconds

BassHit = tuple[float, float, float, int]
"""Beats from the chord's start, length in beats, velocity, pitch."""
BassRule = Callable[[Style, float, int, int, int], list[BassHit]]


def bass(style: Style, section: Section, chords: tuple[ChordSpan, ...], seed: int) -> list[Note]:
    """The bass line; thin sections keep to long roots."""
    name = style.genre.bassline if section.energy >= 0.4 else "held"
    rule = BASSLINES[name]
    human = dice(seed, f"bass {section.start_beat}")
    spans = [s for s in chords if section.start_beat <= s.start_beat < section.end_beat]
    notes: list[Note] = []
    following = [*[s.chord.root for s in spans[1:]], spans[0].chord.root] if spans else []
    for span, upcoming in zip(spans, following, strict=True):
        root = low_pitch(span.chord.root, 28 if style.bass != "cello" else 36)
        fifth = root + (7 if len(span.chord.tones) < 3 or span.chord.intervals[-1] != 6 else 6)
        beats = min(span.end_beat, section.end_beat) - span.start_beat
        for at, length, velocity, tone in rule(style, beats, root, fifth, low_pitch(upcoming, 28)):
            start = span.start_beat + at
            late = float(human.normal(0.0, style.genre.loose_seconds)) + swing_seconds(style, start)
            notes.append(
                Note(
                    part=Part.BASS,
                    instrument=style.bass,
                    start_beat=start,
                    beats=min(length, beats - at),
                    velocity=velocity * (0.62 + 0.35 * section.energy),
                    pitch=tone,
                    late_seconds=late,
                )
            )
    return notes


def _bass_held(_style: Style, beats: float, root: int, _fifth: int, _next: int) -> list[BassHit]:
    return [(0.0, beats * 0.97, 0.85, root)]


def _bass_eighths(style: Style, beats: float, root: int, _fifth: int, _next: int) -> list[BassHit]:
    step = pulse_beats(style)
    count = max(1, round(beats / step))
    return [(i * step, step * 0.92, 0.9 if i % 2 == 0 else 0.74, root) for i in range(count)]


def _bass_rolling(style: Style, beats: float, root: int, _fifth: int, _next: int) -> list[BassHit]:
    step = pulse_beats(style)
    step = step / 2 if step * style.beat_seconds > 0.2 else step
    count = max(1, round(beats / step))
    return [
        (i * step, step * 0.8, (0.9, 0.65, 0.8, 0.65)[i % 4], root + 12 * (i % 8 == 6)) for i in range(count)
    ]


def _bass_offbeat(style: Style, beats: float, root: int, _fifth: int, _next: int) -> list[BassHit]:
    step = pulse_beats(style)
    if step >= 1:
        return _bass_eighths(style, beats, root, _fifth, _next)
    return [(b + 0.5, 0.45, 0.9, root) for b in range(int(beats))]


def _bass_octaves(style: Style, beats: float, root: int, _fifth: int, _next: int) -> list[BassHit]:
    step = pulse_beats(style)
    count = max(1, round(beats / step))
    return [(i * step, step * 0.75, 0.88 if i % 2 == 0 else 0.72, root + 12 * (i % 2)) for i in range(count)]


def _bass_rootfifth(_style: Style, beats: float, root: int, fifth: int, _next: int) -> list[BassHit]:
    half = max(1.0, beats // 2)
    hits: list[BassHit] = [(0.0, half * 0.9, 0.9, root)]
    return hits + (
        [(half, (beats - half) * 0.9, 0.78, fifth - 12 * (fifth > 40))] if beats - half >= 1 else []
    )


def _bass_walking(style: Style, beats: float, root: int, fifth: int, upcoming: int) -> list[BassHit]:
    third = next(p for p in range(root + 3, root + 5) if style.key.contains(p) or p == root + 4)
    line = [root, third, fifth, upcoming + (1 if upcoming < fifth else -1)]
    if beats < 3:
        line = [root, fifth]
    return [(float(i), 0.9, 0.85 - 0.08 * (i % 2), line[i % len(line)]) for i in range(max(1, int(beats)))]


def _bass_kick(_style: Style, beats: float, root: int, _fifth: int, _next: int) -> list[BassHit]:
    cells = (0.0, 1.5, 2.5) if beats >= 4 else (0.0,)
    return [(a, (b - a) * 0.9, 0.92, root) for a, b in pairwise((*cells, beats))]


def _bass_dub(_style: Style, beats: float, root: int, fifth: int, _next: int) -> list[BassHit]:
    cells = [(0.0, root), (1.0, root), (1.5, fifth), (2.5, root + 12), (3.0, fifth)]
    inside = [(at, pitch) for at, pitch in cells if at < beats]
    ends = [*[at for at, _ in inside[1:]], beats]
    return [(at, (end - at) * 0.8, 0.88, pitch) for (at, pitch), end in zip(inside, ends, strict=True)]


def _bass_funk(style: Style, beats: float, root: int, fifth: int, _next: int) -> list[BassHit]:
    cells = [(0.0, root), (0.75, root), (1.5, root + 12), (2.0, root), (2.75, fifth), (3.5, root + 10)]
    if style.beat_seconds < 0.42:
        cells = [(0.0, root), (1.0, root), (1.5, root + 12), (2.5, fifth), (3.0, root)]
    return [(at, 0.35, 0.9 if at % 1 == 0 else 0.75, pitch) for at, pitch in cells if at < beats]


BASSLINES: dict[str, BassRule] = {
    "held": _bass_held,
    "eighths": _bass_eighths,
    "chug": _bass_eighths,
    "rolling": _bass_rolling,
    "offbeat": _bass_offbeat,
    "octaves": _bass_octaves,
    "rootfifth": _bass_rootfifth,
    "walking": _bass_walking,
    "kick": _bass_kick,
    "dub": _bass_dub,
    "funk": _bass_funk,
}
