"""The harmony made audible: the chord instrument, pads and arpeggios."""

from collections.abc import Callable, Iterator

from engine.composer.dice import Dice, dice, pick
from engine.composer.melody import chord_at
from engine.composer.score import ChordSpan, Note, Part, Section
from engine.composer.style import Style
from engine.composer.theory import low_pitch, voice_near
from engine.composer.timing import bars, pulse_beats, swing_seconds

Hit = tuple[float, float, float]
"""Beats from the bar line, length in beats, velocity."""
Rule = Callable[[Style, float, Dice], list[Hit]]
Voicings = dict[float, tuple[int, ...]]
"""Start beat of a chord -> its pitches."""


def voice_chords(chords: tuple[ChordSpan, ...], *, low: int, high: int) -> Voicings:
    """Smooth voicings for a whole song."""
    voicings: Voicings = {}
    previous: tuple[int, ...] = ()
    for span in chords:
        previous = voice_near(span.chord, previous, low=low, high=high)
        voicings[span.start_beat] = previous
    return voicings


def _steps(style: Style, bar: float) -> Iterator[float]:
    step = pulse_beats(style)
    return (i * step for i in range(round(bar / step)))


def _held(_style: Style, bar: float, _rng: Dice) -> list[Hit]:
    return [(0.0, bar, 0.8)]


def _ballad(style: Style, bar: float, rng: Dice) -> list[Hit]:
    hits: list[Hit] = [(float(beat), 0.95, 0.85 if beat == 0 else 0.62) for beat in range(int(bar))]
    if pulse_beats(style) < 1 and rng.random() < 0.6:
        hits.append((bar - pulse_beats(style), pulse_beats(style), 0.5))
    return hits


def _eighths(style: Style, bar: float, _rng: Dice) -> list[Hit]:
    step = pulse_beats(style)
    return [(at, step * 0.9, 0.85 if at % 1 == 0 else 0.55) for at in _steps(style, bar)]


def _strum(style: Style, bar: float, rng: Dice) -> list[Hit]:
    step = pulse_beats(style)
    downs: list[Hit] = [(float(beat), 1.0, 0.9 if beat % 2 == 0 else 0.7) for beat in range(int(bar))]
    ups = [(b + 1 - step, step, 0.45) for b in range(int(bar)) if b % 2 or rng.random() < 0.5]
    return downs + (ups if step < 1 else [])


def _power(style: Style, bar: float, _rng: Dice) -> list[Hit]:
    step = pulse_beats(style)
    return [
        (at, step * (1.0 if at % 1 == 0 else 0.8), 0.95 if at == 0 else 0.75) for at in _steps(style, bar)
    ]


def _chug(style: Style, bar: float, rng: Dice) -> list[Hit]:
    step = pulse_beats(style)
    hits: list[Hit] = [(0.0, step * 1.6, 1.0)]
    return hits + [
        (at, step * 0.45, 0.72) for at in _steps(style, bar) if at >= 2 * step and rng.random() < 0.85
    ]


def _stab(style: Style, bar: float, _rng: Dice) -> list[Hit]:
    step = pulse_beats(style)
    if style.time_signature == 3 or step >= 1:
        return [(float(b), 0.5, 0.8) for b in range(1, int(bar))]
    cells = (0.0, 0.75, 1.5, 2.5, 3.25) if style.time_signature == 4 and style.genre.dance else ()
    return [(at, 0.35, 0.8) for at in cells] or [(b + 0.5, 0.4, 0.8) for b in range(int(bar))]


def _skank(style: Style, bar: float, _rng: Dice) -> list[Hit]:
    step = min(0.5, pulse_beats(style))
    return [(b + step, 0.3, 0.85) for b in range(int(bar))]


def _charleston(_style: Style, bar: float, rng: Dice) -> list[Hit]:
    rhythms = ((0.0, 1.5), (0.5, 2.5), (1.5, 3.0), (0.0, 2.5), (1.0, 2.5))
    return [(at, 0.6, 0.75) for at in pick(rng, rhythms) if at < bar]


def _waltz(_style: Style, bar: float, _rng: Dice) -> list[Hit]:
    return [(float(beat), 0.7, 0.6) for beat in range(1, max(2, int(bar)))]


def _funk(style: Style, bar: float, rng: Dice) -> list[Hit]:
    cells: tuple[float, ...] = pick(
        rng, ((0.0, 0.75, 1.5, 2.25, 3.5), (0.5, 0.75, 1.5, 2.5, 2.75), (0.0, 1.25, 1.75, 2.5, 3.25))
    )
    if style.beat_seconds < 0.42:
        cells = tuple(round(2 * at) / 2 for at in cells)
    return [(at, 0.22, 0.8 if at % 1 == 0 else 0.65) for at in dict.fromkeys(cells) if at < bar]


def _bossa(_style: Style, bar: float, rng: Dice) -> list[Hit]:
    cells = pick(rng, ((0.0, 1.0, 2.5, 3.0), (0.5, 1.5, 2.0, 3.5), (0.0, 1.5, 3.0)))
    return [(at, 0.5, 0.7) for at in cells if at < bar]


COMPS: dict[str, Rule] = {
    "held": _held,
    "ballad": _ballad,
    "eighths": _eighths,
    "strum": _strum,
    "power": _power,
    "chug": _chug,
    "stab": _stab,
    "skank": _skank,
    "charleston": _charleston,
    "arpeggio": _eighths,
    "ostinato": _eighths,
    "waltz": _waltz,
    "funk": _funk,
    "bossa": _bossa,
}


_LEFT_HAND = {"held", "ballad", "eighths", "strum", "arpeggio"}
"""Ways of playing that double the root below."""


def comp(
    style: Style, section: Section, chords: tuple[ChordSpan, ...], voicings: Voicings, seed: int
) -> list[Note]:
    """The chord instrument; thin sections hold their chords or strike them softly."""
    name = style.genre.comp
    if section.energy < 0.4 and name not in {"arpeggio", "strum", "waltz", "skank"}:
        name = "ballad" if style.genre.comp in {"eighths", "ballad"} and section.energy > 0.3 else "held"
    rule = COMPS[name]
    loudness = 0.6 + 0.36 * section.energy
    human = dice(seed, f"comp {section.start_beat}")
    notes: list[Note] = []
    for i, bar_start, bar in bars(style, section):
        shape = dice(seed, f"comp {section.kind} {i % 2}")
        for j, (at, beats, velocity) in enumerate(rule(style, bar, shape)):
            start = bar_start + at
            span = chord_at(chords, start)
            pitches = voicings[span.start_beat]
            if name in _LEFT_HAND:
                pitches = (low_pitch(span.chord.root, 43), *pitches)
            if name == "arpeggio":
                pitches = (_broken(pitches, j),)
            length = beats if name != "held" else span.end_beat - start
            length = min(length, section.end_beat - start)
            notes += _strike(
                style, (start, length), pitches, loudness * velocity, human, rolled=name == "strum"
            )
    return notes


def _broken(pitches: tuple[int, ...], step: int) -> int:
    """Up and down again."""
    order = [*pitches, *pitches[-2:0:-1]]
    return order[step % len(order)]


def _strike(
    style: Style,
    place: tuple[float, float],
    pitches: tuple[int, ...],
    velocity: float,
    human: Dice,
    *,
    rolled: bool,
) -> list[Note]:
    late = float(human.normal(0.0, style.genre.loose_seconds)) + swing_seconds(style, place[0])
    if style.chords == "power_guitar":
        pitches = (low_pitch(pitches[0], 40),)  # one note of this instrument is already a power chord
    spread = 0.011 if rolled else 0.002
    return [
        Note(
            part=Part.CHORDS,
            instrument=style.chords,
            start_beat=place[0],
            beats=place[1],
            velocity=min(1.0, velocity * float(human.uniform(0.88, 1.04))),
            pitch=pitch,
            late_seconds=late + spread * i,
        )
        for i, pitch in enumerate(pitches)
    ]


def pad(style: Style, section: Section, chords: tuple[ChordSpan, ...], voicings: Voicings) -> list[Note]:
    """Sustained chords over a doubled root: one long note per voice and chord."""
    notes: list[Note] = []
    for span in chords:
        if section.start_beat <= span.start_beat < section.end_beat:
            length = min(span.end_beat, section.end_beat) - span.start_beat
            for i, pitch in enumerate((low_pitch(span.chord.root, 48), *voicings[span.start_beat])):
                pan = (0.0, -0.5, 0.4, -0.2, 0.6)[i % 5]
                notes.append(
                    _plain(
                        Part.PAD, style.pad, (span.start_beat, length), 0.5 + 0.4 * section.energy, pitch, pan
                    )
                )
    return notes


def arp(
    style: Style, section: Section, chords: tuple[ChordSpan, ...], voicings: Voicings, seed: int
) -> list[Note]:
    """Broken chords on the small step, one octave above the chord instrument."""
    pattern = pick(dice(seed, "arp"), ((0, 1, 2, 3), (0, 2, 1, 3), (3, 2, 1, 0), (0, 1, 2, 1), (0, 2, 3, 2)))
    step = pulse_beats(style)
    if step == 0.5 and style.genre.dance and style.beat_seconds / 4 > 0.1:
        step = 0.25
    notes: list[Note] = []
    for i in range(round(section.beats / step)):
        start = section.start_beat + i * step
        pitches = voicings[chord_at(chords, start).start_beat]
        octave, index = divmod(pattern[i % 4], len(pitches))
        accent = 0.75 if i % 4 == 0 else 0.52
        velocity = accent * (0.5 + 0.5 * section.energy)
        pan = 0.35 if i % 2 else -0.35
        notes.append(
            _plain(Part.ARP, style.arp, (start, step), velocity, pitches[index] + 12 + 12 * octave, pan)
        )
    return notes


def _plain(
    part: Part, instrument: str, place: tuple[float, float], velocity: float, pitch: int, pan: float
) -> Note:
    return Note(
        part=part,
        instrument=instrument,
        start_beat=place[0],
        beats=place[1],
        velocity=velocity,
        pitch=pitch,
        pan=pan,
    )
