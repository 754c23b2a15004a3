"""Chord progressions: four-bar loops per section, closed by a cadence where the form asks for one."""

from engine.composer.dice import dice, pick
from engine.composer.score import ChordSpan, Section, SectionKind
from engine.composer.style import Style
from engine.composer.theory import read_chord

K = SectionKind
_SHORTEST_CHORD_SECONDS = 1.25
_LONGEST_CHORD_SECONDS = 4.2

# Each row: loops of four chords in major, then in minor. They begin on the tonic, so that the key is heard,
# not only meant.
PROGRESSIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "pop": (
        ("I V vi IV", "I vi IV V", "I IV vi V", "I iii IV V", "I V IV V"),
        ("i VI III VII", "i iv VII i", "i VI iv V", "i VII VI V", "i v VI iv"),
    ),
    "rock": (
        ("I IV I V", "I bVII IV I", "I V vi IV"),
        ("i VI VII i", "i VII VI VII", "i iv VI V"),
    ),
    "dark": (
        ("I vi iii IV", "I IV vi V"),
        ("i i VI V", "i VI iv V", "i VII VI i", "i iv i V"),
    ),
    "jazz": (
        ("I vi7 ii7 V7", "I IVmaj7 ii7 V7", "Imaj7 vi7 ii7 V7", "I ii7 V7 Imaj7"),
        ("i iv7 VImaj7 V7", "i7 VImaj7 iv7 V7", "i9 iv7 i V7"),
    ),
    "dance": (
        ("I V vi IV", "I IV vi V", "I IV I V"),
        ("i VI III VII", "i VI iv VII", "i VII VI VII"),
    ),
    "drone": (("I I Isus4 I", "I I IV I"), ("i i i VII", "i i VI i", "i7 i7 iv7 i7")),
    "modal": (
        ("Imaj7 IVmaj7 I IVmaj7", "I IVmaj7 vi7 IV", "Isus2 IV I V"),
        ("i7 VImaj7 i VII", "i9 iv7 i VI", "isus2 VI i VII"),
    ),
    "classical": (
        ("I IV V I", "I V vi IV", "I vi ii V7", "I ii V7 I"),
        ("i iv V i", "i VI iv V7", "i V i V7", "i iv VII V"),
    ),
    "epic": (("I V vi IV", "I IV vi V"), ("i VI III VII", "i iv VI V", "i VI iv V", "i VII VI V")),
    "folk": (
        ("I IV I V", "I V I IV", "I IV V I", "I vi IV V"),
        ("i VII i v", "i VI VII i", "i iv i V"),
    ),
    "blues": (("I7 IV7 I7 V7", "I7 I7 IV7 I7"), ("i7 iv7 i7 V7", "i7 i7 iv7 i7")),
    "funk": (("I9 I9 IV9 I9", "I9 IV9 I9 V9"), ("i9 i9 iv9 i9", "i7 iv9 i7 V7")),
}
_BRIDGE = (("vi IV ii V", "IV iii ii V", "ii IV vi V"), ("VI VII i V", "iv VII VI V", "VI iv VII V"))
_RISE = (("ii IV V V", "IV V vi V"), ("iv VI VII V", "VI VII iv V"))
_LIKE = {
    K.INTRO: "verse",
    K.OUTRO: "verse",
    K.BREAK: "verse",
    K.DROP: "chorus",
    K.INSTRUMENTAL: "chorus",
    K.VERSE: "verse",
    K.CHORUS: "chorus",
}


def write_chords(
    style: Style, sections: tuple[Section, ...], end_beat: float, seed: int
) -> tuple[ChordSpan, ...]:
    """Chords for the whole song, one final tonic included; sections of one kind share their loop."""
    spans: list[ChordSpan] = []
    length = _chord_beats(style)
    for i, section in enumerate(sections):
        loop = _loop(style, section.kind, seed)
        numerals = _numerals(loop, section, length, last=i == len(sections) - 1, minor=style.key.minor)
        beat = section.start_beat
        for numeral in numerals:
            beats = min(length, section.end_beat - beat)
            spans.append(ChordSpan(start_beat=beat, beats=beats, chord=read_chord(numeral, style.key)))
            beat += beats
    final = "i" if style.key.minor else "I"
    spans.append(
        ChordSpan(start_beat=end_beat, beats=float(style.beats_per_bar), chord=read_chord(final, style.key))
    )
    return tuple(spans)


def _chord_beats(style: Style) -> float:
    """One bar, unless that would rush past the ear or stand still."""
    bar = style.bar_seconds
    if bar < _SHORTEST_CHORD_SECONDS:
        return 2.0 * style.beats_per_bar
    if bar > _LONGEST_CHORD_SECONDS and style.beats_per_bar % 2 == 0:
        return style.beats_per_bar / 2
    return float(style.beats_per_bar)


def _loop(style: Style, kind: SectionKind, seed: int) -> list[str]:
    mode = int(style.key.minor)
    if kind in {K.PRE_CHORUS, K.BUILD, K.BRIDGE}:
        if style.genre.harmony in {"drone", "blues", "funk", "modal"}:
            pool = PROGRESSIONS[style.genre.harmony][mode]
        else:
            pool = (_BRIDGE if kind is K.BRIDGE else _RISE)[mode]
        return pick(dice(seed, f"chords {kind}"), pool).split()
    pool = PROGRESSIONS[style.genre.harmony][mode]
    start = int(dice(seed, "chords").integers(len(pool)))
    step = 0 if _LIKE[kind] == "verse" else 1
    return pool[(start + step) % len(pool)].split()


def _numerals(loop: list[str], section: Section, length: float, *, last: bool, minor: bool) -> list[str]:
    """The loop repeated over the section; the dominant stands before a new section and before the end."""
    count = max(1, -int(-section.beats // length))
    numerals = [loop[i % len(loop)] for i in range(count)]
    if last and count >= 2:
        numerals[-1] = "V7"
    if last and count >= 4:
        numerals[-2] = "iv" if minor else "IV"
    elif section.kind in {K.PRE_CHORUS, K.BUILD} and count >= 2:
        numerals[-1] = "V"
    return numerals
