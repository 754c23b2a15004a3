"""Drum parts: one row of patterns per genre, a fill before each change, a cymbal after it."""

import msgspec

from engine.composer.dice import Dice, dice, pick
from engine.composer.score import Note, Part, Section, SectionKind
from engine.composer.style import Style
from engine.composer.timing import swing_seconds

K = SectionKind
LEVELS = {"X": 1.0, "x": 0.72, "o": 0.38}
_PAN = {
    "hat": 0.22,
    "open_hat": 0.22,
    "ride": -0.3,
    "crash": -0.25,
    "shaker": 0.4,
    "tom_high": 0.3,
    "tom_low": -0.3,
}
_KEPT_WHEN_THIN = {"hat", "shaker", "ride", "rim", "brush"}

# Sixteen steps of a 4/4 bar; X accented, x plain, o ghosted.
GROOVES: dict[str, dict[str, str]] = {
    "pop": {"kick": "X.......x.x.....", "snare": "....X.......X...", "hat": "x.o.x.o.x.o.x.o."},
    "rock": {"kick": "X.....x.X.x.....", "snare": "....X.......X...", "hat": "X.x.X.x.X.x.X.x."},
    "metal": {"kick": "X.x.x.x.X.x.x.x.", "snare": "....X.......X...", "ride": "X...X...X...X..."},
    "lofi": {"kick": "X.....x..x......", "snare": "....x.......x..o", "hat": "x.o.x.o.x.oox.o."},
    "hiphop": {"kick": "X..x....x.x.....", "snare": "....X.......X..o", "hat": "x.x.x.x.x.x.x.xo"},
    "trap": {"kick": "X.....x...x.....", "clap": "........X.......", "hat": "x.x.x.x.x.x.xoxo"},
    "house": {
        "kick": "X...X...X...X...",
        "clap": "....X.......X...",
        "open_hat": "..x...x...x...x.",
        "shaker": "oooooooooooooooo",
    },
    "techno": {
        "kick": "X...X...X...X...",
        "clap": "....x.......x...",
        "hat": "..X...X...X...X.",
        "rim": "...o..o....o..o.",
    },
    "breaks": {"kick": "X.........x.....", "snare": "....X..o.o..X..o", "hat": "x.x.x.x.x.x.x.x."},
    "eighties": {"kick": "X.......X.......", "snare": "....X.......X...", "hat": "x.x.x.x.x.x.x.x."},
    "sparse": {"kick": "x...............", "shaker": "....o.......o..."},
    "jazz": {
        "ride": "X...x.o.x...x.o.",
        "hat": "....x.......x...",
        "kick": "o.......o.......",
        "brush": "......o.......o.",
    },
    "shuffle": {"kick": "X.......x.......", "snare": "....x.......x...", "ride": "x.o.x.o.x.o.x.o."},
    "cinematic": {
        "tom_low": "X.....x.x.......",
        "tom_high": "............x.xo",
        "shaker": "x.o.x.o.x.o.x.o.",
    },
    "folk": {"kick": "x.......x.......", "tambourine": "....x.......x...", "shaker": "o.o.o.o.o.o.o.o."},
    "train": {"kick": "X.......X.......", "brush": "oox.oox.oox.oox."},
    "reggae": {"kick": "........X.......", "rim": "........x.......", "hat": "x.x.x.x.x.x.x.x."},
    "funk": {"kick": "X..x......x..x..", "snare": "....X..o.o..X...", "hat": "xoxoxoxoxoxoxoxo"},
    "disco": {
        "kick": "X...X...X...X...",
        "snare": "....X.......X...",
        "open_hat": "..x...x...x...x.",
        "hat": "x...x...x...x...",
    },
    "soul": {"kick": "X......xX.......", "snare": "....x.......x...", "hat": "x.o.x.o.x.o.x.o."},
    "bossa": {"kick": "x..xx..xx..xx..x", "rim": "x..x..x...x..x..", "shaker": "oooooooooooooooo"},
}


class _Hit(msgspec.Struct, frozen=True):
    beat: float
    drum: str
    velocity: float


def drum(style: Style, sections: tuple[Section, ...], end_beat: float, seed: int) -> list[Note]:
    """The drums of the whole song; nothing when the style has none."""
    if not style.drums:
        return []
    hits: list[_Hit] = []
    for i, section in enumerate(sections):
        upcoming = sections[i + 1] if i + 1 < len(sections) else None
        hits += _section(style, section, upcoming, seed, first=i == 0)
    last = 0.35 + 0.5 * sections[-1].energy
    if style.genre.groove not in {"sparse", "jazz", "lofi"}:
        hits.append(_Hit(end_beat, "crash", last))
    hits.append(_Hit(end_beat, "kick", 1.1 * last))
    human = dice(seed, "drummer")
    return [_note(style, hit, human) for hit in hits]


def _note(style: Style, hit: _Hit, human: Dice) -> Note:
    late = float(human.normal(0.0, 0.6 * style.genre.loose_seconds)) + swing_seconds(style, hit.beat)
    if hit.drum in {"snare", "clap", "rim"} and style.genre.loose_seconds > 0.008:
        late += 0.008  # a laid-back backbeat
    return Note(
        part=Part.DRUMS,
        instrument=hit.drum,
        start_beat=hit.beat,
        beats=0.25,
        velocity=min(1.0, hit.velocity * float(human.uniform(0.88, 1.05))),
        pan=_PAN.get(hit.drum, 0.0),
        late_seconds=late,
    )


def _section(
    style: Style, section: Section, upcoming: Section | None, seed: int, *, first: bool
) -> list[_Hit]:
    thin = section.energy < 0.42
    if thin and (section.kind in {K.BREAK, K.INTRO} or section.energy < 0.25) and not style.genre.dance:
        return (
            []
            if section.kind is K.BREAK
            else _pattern(style, section, {"hat", "shaker", "ride"}, section.beats)
        )
    bar = float(style.beats_per_bar)
    fill = 0.0
    if upcoming is not None and section.beats >= 2 * bar:
        fill = bar / 2 if bar >= 2 else bar
    kept = (
        _KEPT_WHEN_THIN | ({"kick"} if style.genre.dance or section.kind is K.OUTRO else set())
        if thin
        else None
    )
    hits = _pattern(style, section, kept, section.beats - fill)
    if section.kind is K.BUILD:
        hits = [hit for hit in hits if hit.drum != "kick"] + _roll(style, section)
    elif fill:
        hits += _fill(style, section, fill, seed)
    if not first and section.energy >= 0.6 and style.genre.groove not in {"sparse", "bossa", "lofi"}:
        hits.append(_Hit(section.start_beat, "crash", 0.55 + 0.4 * section.energy))
    return hits


def _pattern(style: Style, section: Section, kept: set[str] | None, beats: float) -> list[_Hit]:
    """The genre's bar over and over for `beats`; loud sections ride, quiet ones leave most of it out."""
    bar = float(style.beats_per_bar)
    hits: list[_Hit] = []
    loudness = 0.62 + 0.38 * section.energy
    rows = _bar_rows(style, section)
    for i in range(-int(-beats // bar)):
        for name, steps in rows.items():
            if kept is None or name in kept:
                hits += [
                    _Hit(section.start_beat + i * bar + at, name, level * loudness)
                    for at, level in steps
                    if i * bar + at < beats - 1e-6
                ]
    return hits


def _bar_rows(style: Style, section: Section) -> dict[str, list[tuple[float, float]]]:
    """Onsets in beats and levels for one bar of any meter, thinned where the tempo makes steps too small."""
    rows = GROOVES[style.genre.groove]
    if (
        section.kind in {K.CHORUS, K.DROP}
        and "hat" in rows
        and style.genre.groove in {"rock", "pop", "eighties"}
    ):
        rows = {**rows, "open_hat": "..x...x...x...x."} if style.genre.groove != "rock" else _as_ride(rows)
    smallest = 0.105 / style.beat_seconds
    if style.time_signature != 4:
        return _odd_bar(style, rows)
    found: dict[str, list[tuple[float, float]]] = {}
    for name, text in rows.items():
        steps = [(i / 4, LEVELS[mark]) for i, mark in enumerate(text) if mark != "."]
        if smallest > 0.25:
            steps = [(at, level) for at, level in steps if at % 0.5 == 0]
        if smallest > 0.5:
            steps = [(at, level) for at, level in steps if at % 1 == 0]
        found[name] = steps
    return found


def _as_ride(rows: dict[str, str]) -> dict[str, str]:
    return {("ride" if name == "hat" else name): text for name, text in rows.items()}


def _odd_bar(style: Style, rows: dict[str, str]) -> dict[str, list[tuple[float, float]]]:
    """Two, three or six: low drum on one, answers on the other beats, time kept by the genre's own cymbal."""
    low = "tom_low" if "tom_low" in rows else "kick"
    answer = next(
        (name for name in ("snare", "clap", "tambourine", "rim", "brush") if name in rows), "shaker"
    )
    time = next((name for name in ("hat", "ride", "shaker", "open_hat") if name in rows), "hat")
    count = style.beats_per_bar
    step = 1 / 3 if style.time_signature == 6 else 0.5
    if step * style.beat_seconds < 0.12:
        step = 1.0
    ticks = [(i * step, 0.6 if (i * step) % 1 < 1e-6 else 0.36) for i in range(round(count / step))]
    answers = [(1.0, 0.8)] if count == 2 else [(1.0, 0.5), (2.0, 0.6)]
    return {low: [(0.0, 1.0)], answer: answers, time: ticks}


def _fill(style: Style, section: Section, beats: float, seed: int) -> list[_Hit]:
    """The last beats before a change: a run down the toms or a snare figure, drawn per section."""
    rng = dice(seed, f"fill {section.start_beat}")
    step = 0.25 if style.beat_seconds / 4 > 0.105 else 0.5
    if style.time_signature == 6:
        step = 1 / 3
    if section.energy < 0.42 or style.genre.groove in {"sparse", "bossa", "jazz", "trap", "lofi", "folk"}:
        step = max(step, 0.5) if style.time_signature != 6 else step
    voices = pick(
        rng, (("snare", "snare", "tom_high", "tom_low"), ("tom_high", "tom_high", "tom_low", "tom_low"))
    )
    if style.genre.groove in {"house", "techno", "trap", "lofi", "hiphop"}:
        voices = ("clap", "rim", "clap", "clap")
    if style.genre.groove in {"folk", "bossa", "jazz", "train", "sparse"}:
        voices = ("rim", "brush", "rim", "brush")
    count = max(1, round(beats / step))
    start = section.end_beat - beats
    hits = [_Hit(start, "kick", 0.7)]
    for i in range(count):
        if i == 0 or rng.random() < 0.8:
            velocity = (0.45 + 0.4 * i / count) * (0.6 + 0.4 * section.energy)
            hits.append(_Hit(start + i * step, voices[min(3, 4 * i // count)], velocity))
    return hits


def _roll(style: Style, section: Section) -> list[_Hit]:
    """A build: strokes that double twice and swell until the next section."""
    hits: list[_Hit] = []
    beat = 0.0
    while beat < section.beats - 1e-6:
        done = beat / section.beats
        step = 1.0 if done < 0.5 else 0.5 if done < 0.75 else 0.25
        step = max(step, 0.1 / style.beat_seconds)
        hits.append(_Hit(section.start_beat + beat, "snare", 0.3 + 0.55 * done))
        beat += step
    return hits
