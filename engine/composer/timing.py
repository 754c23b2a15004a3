"""Small steps, bars and swing: how beats turn into places that hands can hit."""

from collections.abc import Iterator

from engine.composer.score import Section
from engine.composer.style import Style


def pulse_beats(style: Style) -> float:
    """The accompaniment's small step: an eighth, unless the tempo makes that frantic or sleepy."""
    if style.time_signature == 6:
        return 1 / 3 if style.beat_seconds > 0.39 else 1.0
    half = style.beat_seconds / 2
    return 1.0 if half < 0.14 else 0.25 if half > 0.56 else 0.5


def swing_seconds(style: Style, beat: float) -> float:
    """How late an off-beat comes: off-eighths, or off-sixteenths where the genre swings those."""
    if style.genre.swing == 0 or style.time_signature == 6:
        return 0.0
    unit = 0.5 if style.genre.swing >= 0.25 and style.beat_seconds < 0.75 else 0.25
    off = abs((beat / unit) % 2 - 1) < 1e-3
    return style.genre.swing * unit * style.beat_seconds * off


def bars(style: Style, section: Section) -> Iterator[tuple[int, float, float]]:
    """Index, start and length of each bar; the last one may be short."""
    bar = float(style.beats_per_bar)
    count = -int(-section.beats // bar)
    for i in range(count):
        start = section.start_beat + i * bar
        yield i, start, min(bar, section.end_beat - start)
