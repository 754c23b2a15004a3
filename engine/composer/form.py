"""The form: which sections a song has, how long and how full each is."""

import re

import msgspec

from engine.composer.lyrics import LyricPart, read_parts
from engine.composer.score import Section, SectionKind
from engine.composer.style import Style
from engine.schema import SAMPLE_RATE

K = SectionKind
ENERGY = {
    K.INTRO: 0.34,
    K.VERSE: 0.52,
    K.PRE_CHORUS: 0.62,
    K.CHORUS: 0.86,
    K.BRIDGE: 0.46,
    K.BUILD: 0.58,
    K.DROP: 0.95,
    K.BREAK: 0.3,
    K.INSTRUMENTAL: 0.7,
    K.OUTRO: 0.36,
}
_WEIGHT = {K.INTRO: 2.0, K.PRE_CHORUS: 2.0, K.BUILD: 2.0, K.BREAK: 2.0, K.OUTRO: 2.0}
_RANK = [K.CHORUS, K.VERSE, K.DROP, K.INTRO, K.OUTRO, K.BRIDGE]
_TAGS = (
    (K.INTRO, r"intro|opening|prelude"),
    (K.PRE_CHORUS, r"pre[- ]?(?:chorus|hook|drop)|lift"),
    (K.CHORUS, r"(?:post[- ]?)?chorus|hook|refrain|coro|estribillo"),
    (K.OUTRO, r"outro|ending|end|coda|fade ?out|finale"),
    (K.BRIDGE, r"bridge|middle ?8|c[- ]part"),
    (K.BUILD, r"build(?:[- ]?up)?|riser|tension"),
    (K.DROP, r"drop"),
    (K.BREAK, r"break(?:down)?|quiet"),
    (K.INSTRUMENTAL, r"instrumental|interlude|solo|inst|riff|theme"),
    (K.VERSE, r"verse|strophe|rap|spoken|couplet|part [a-z0-9]"),
)
_LOUDER = re.compile(r"\b(loud|big|powerful|energetic|explosive|high energy|epic|anthemic|full|final)\b")
_SOFTER = re.compile(r"\b(soft|quiet|gentle|whisper\w*|calm|low energy|stripped|acoustic|sparse|tender)\b")
_DIRECTION = re.compile(
    r"\b(vocals?|voice|male|female|singing|spoken|harmon\w+|ad[- ]?libs?|tempo|key|bpm)\b"
)
_SONG = (
    (10, "chorus"),
    (18, "verse chorus"),
    (34, "intro verse chorus outro"),
    (62, "intro verse chorus verse chorus outro"),
    (105, "intro verse pre-chorus chorus verse chorus outro"),
    (160, "intro verse pre-chorus chorus verse pre-chorus chorus bridge chorus outro"),
    (230, "intro verse pre-chorus chorus verse pre-chorus chorus instrumental bridge chorus chorus outro"),
)
_DANCE = (
    (10, "drop"),
    (18, "build drop"),
    (34, "intro build drop outro"),
    (62, "intro verse build drop break outro"),
    (105, "intro verse build drop break build drop outro"),
    (160, "intro verse build drop break verse build drop outro"),
    (230, "intro verse build drop verse break build drop instrumental drop outro"),
)
_SONG_CYCLE = "verse pre-chorus chorus instrumental verse chorus bridge chorus".split()
_DANCE_CYCLE = "verse build drop break instrumental build drop verse".split()
_LONG_SECTION_SECONDS = 22.0
RING_SECONDS = 2.6


class _Plan(msgspec.Struct):
    """A section before it has a place."""

    kind: SectionKind
    label: str
    lines: tuple[str, ...] = ()
    push: float = 0.0

    @property
    def weight(self) -> float:
        """Length relative to the others, in lines of lyrics."""
        base = _WEIGHT.get(self.kind, 4.0)
        return min(12.0, max(base * 0.6, float(len(self.lines)))) if self.lines else base


def plan_form(style: Style, lyrics: str, frames: int) -> tuple[tuple[Section, ...], float]:
    """The sections in order, and the beat of the last chord, which rings until the end."""
    seconds = frames / SAMPLE_RATE
    end_beat = _end_beat(style, seconds)
    plans = _from_lyrics(read_parts(lyrics)) or _default(style, seconds)
    beats_per_bar = style.beats_per_bar
    bars = max(1, int(end_beat // beats_per_bar))
    plans = _fit(plans, bars)
    lengths = [float(n * beats_per_bar) for n in _share(bars, [plan.weight for plan in plans])]
    lengths[-1] += end_beat - sum(lengths)
    return _place(plans, lengths, style), end_beat


def _end_beat(style: Style, seconds: float) -> float:
    """On a bar line if that makes the ring at most two seconds longer (less in short songs)."""
    ring = min(RING_SECONDS + style.reverb, 0.22 * seconds + 0.4)
    beats = max(1, int((seconds - style.lead_in_seconds - ring) / style.beat_seconds))
    slack = beats % style.beats_per_bar
    if beats - slack > 0 and slack * style.beat_seconds <= min(2.0, 0.1 * seconds):
        beats -= slack
    return float(beats)


def _from_lyrics(parts: list[LyricPart]) -> list[_Plan]:
    """The form the lyrics ask for; nothing when they hold no more than a lone `[Instrumental]`."""
    plans: list[_Plan] = []
    stanzas = [part.lines for part in parts]
    for part in parts:
        kind = _kind(part.tag) if part.tag else _stanza_kind(part.lines, stanzas, plans)
        push = 0.12 * bool(_LOUDER.search(part.tag.lower())) - 0.14 * bool(_SOFTER.search(part.tag.lower()))
        if kind is not None:
            plans.append(_Plan(kind, part.tag or kind.value, part.lines, push))
        elif plans and (_DIRECTION.search(part.tag.lower()) or push or not part.lines):
            plans[-1].lines += part.lines
            plans[-1].push += push
        elif part.lines:
            plans.append(_Plan(K.VERSE, part.tag, part.lines, push))
    if len(plans) == 1 and not plans[0].lines and plans[0].kind is K.INSTRUMENTAL:
        return []
    return plans


def _kind(tag: str) -> SectionKind | None:
    text = tag.lower()
    return next((kind for kind, words in _TAGS if re.search(rf"\b(?:{words})(?:\b|\d)", text)), None)


def _stanza_kind(lines: tuple[str, ...], stanzas: list[tuple[str, ...]], before: list[_Plan]) -> SectionKind:
    """A stanza that comes back word for word is the chorus; without one, every second stanza is."""
    if any(stanzas.count(stanza) > 1 for stanza in stanzas if stanza):
        return K.CHORUS if stanzas.count(lines) > 1 else K.VERSE
    return K.CHORUS if len(before) % 2 else K.VERSE


def _default(style: Style, seconds: float) -> list[_Plan]:
    table, cycle = (_DANCE, _DANCE_CYCLE) if style.genre.dance else (_SONG, _SONG_CYCLE)
    for limit, kinds in table:
        if seconds <= limit:
            return [_Plan(SectionKind(kind), kind) for kind in kinds.split()]
    count = max(10, round(seconds / _LONG_SECTION_SECONDS)) - 2
    kinds_long = ["intro", *(cycle[i % len(cycle)] for i in range(count)), "outro"]
    return [_Plan(SectionKind(kind), kind) for kind in kinds_long]


def _fit(plans: list[_Plan], bars: int) -> list[_Plan]:
    """Drop the least important sections until each can have a bar."""
    kept = list(plans)
    while len(kept) > bars:
        ranks = [_RANK.index(plan.kind) if plan.kind in _RANK else len(_RANK) for plan in kept]
        repeats = [sum(other.kind is plan.kind for other in kept[:i]) for i, plan in enumerate(kept)]
        worst = max(range(len(kept)), key=lambda i: (repeats[i] > 0, ranks[i], i))
        kept.pop(worst)
    return kept


def _share(bars: int, weights: list[float]) -> list[int]:
    """Whole bars for each section, in fours when the song is long enough, else in twos or ones."""
    per_section = bars / len(weights)
    unit = 4 if per_section >= 7 else 2 if per_section >= 3 else 1
    units = bars // unit
    ideal = [units * weight / sum(weights) for weight in weights]
    shares = [max(1, int(share)) for share in ideal]
    while sum(shares) > units:
        longer = [i for i, share in enumerate(shares) if share > 1]
        shares[max(longer, key=lambda i: shares[i] - ideal[i])] -= 1
    while sum(shares) < units:
        shares[max(range(len(shares)), key=lambda i: ideal[i] - shares[i])] += 1
    lengths = [share * unit for share in shares]
    lengths[max(range(len(lengths)), key=lambda i: (weights[i], -i))] += bars - units * unit
    return lengths


def _place(plans: list[_Plan], lengths: list[float], style: Style) -> tuple[Section, ...]:
    sections: list[Section] = []
    beat = 0.0
    for plan, beats in zip(plans, lengths, strict=True):
        turn = sum(section.kind is plan.kind for section in sections)
        energy = ENERGY[plan.kind] + 0.04 * min(turn, 2) + plan.push + 0.6 * style.energy
        sections.append(
            Section(
                kind=plan.kind,
                label=plan.label,
                turn=turn,
                start_beat=beat,
                beats=beats,
                energy=max(0.15, min(1.0, energy)),
                lines=plan.lines,
            )
        )
        beat += beats
    return tuple(sections)
