"""What the words of a prompt ask for: genre, mood, instruments, tempo, key. Explicit fields always win."""

import re

import msgspec

from engine.composer.dice import Dice, dice, pick
from engine.composer.genres import DEFAULT_GENRE, GENRES, Genre
from engine.composer.theory import LETTERS, Key
from engine.composer.vocabulary import GENRE_WORDS, INSTRUMENT_WORDS, MOODS, Mood
from engine.schema import EngineRequest

_ITEM = (
    r"(?:(?:electric|acoustic|heavy|distorted|live|lead|bass|hip|synth|double|male|female|backing) )?"
    r"[\w'-]+"
)
_NEGATION = re.compile(
    r"\b(?:no|without|not|minus|lacks?|zero|free of|instead of)\s+(?:any\s+|the\s+|an?\s+)?"
    rf"({_ITEM}(?:\s*,\s*{_ITEM}){{0,4}}\s*,?\s*n?or\s+{_ITEM}|{_ITEM}(?:\s*(?:\band\b|&|/)\s*{_ITEM}){{0,3}})",
)
_BPM = re.compile(r"\b(\d{2,3})\s*-?\s*bpm\b|\b(?:bpm|tempo)\s*(?:of|is|:|=)?\s*(\d{2,3})\b")
_KEY = re.compile(
    r"\b(?:(?:in|key of|key:|key is)\s+)?([A-G])\s?(#|b|♯|♭|-?sharp\b|-?flat\b)?"
    r"[\s-]?(major|minor|maj\b|min\b|m\b)",
    re.IGNORECASE,
)
_METERS = {"3/4": 3, "6/8": 6, "2/4": 2, "4/4": 4, "12/8": 6, "waltz": 3, "polka": 2}
_DRUM_WORDS = ("drums", "drum", "percussion", "beat", "beats", "drumless")
_SLOW = re.compile(r"\b(slow|ballad|lullaby|relaxed|gentle|calm|sleep)\b")
_FAST = re.compile(r"\b(fast|uptempo|up-tempo|upbeat|driving|quick|energetic)\b")


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that holds for the whole song."""

    genre: Genre
    bpm: int
    key: Key
    time_signature: int
    energy: float
    """Added to each section's energy, -0.25 to 0.25."""
    brightness: float
    """0.6 (dark) to 1.3, scales the tone controls."""
    drums: bool
    voice: bool
    lead: str
    chords: str
    pad: str
    bass: str
    """Empty: nobody plays it."""
    arp: str
    reverb: float
    """0 to 1."""
    male: bool
    lead_in_seconds: float = 0.06

    @property
    def beats_per_bar(self) -> int:
        """6/8 counts two dotted quarters."""
        return 2 if self.time_signature == 6 else self.time_signature

    @property
    def beat_seconds(self) -> float:
        return 60.0 / self.bpm

    @property
    def bar_seconds(self) -> float:
        return self.beats_per_bar * self.beat_seconds


def read_style(request: EngineRequest) -> Style:
    """Read the prompt; what it leaves open is drawn from the seed."""
    wanted, refused = split_negations(request.prompt.lower())
    genre = _genre(wanted, refused)
    moods = [mood for mood in MOODS if re.search(rf"\b(?:{mood.words})\b", wanted)]
    meter = request.time_signature or _meter(wanted) or genre.time_signature
    cast = _cast(genre, wanted, refused, dice(request.seed, "cast"))
    return Style(
        genre=genre,
        bpm=request.bpm
        or _bpm(wanted)
        or _draw_bpm(genre, wanted, sum(m.tempo for m in moods), request.seed),
        key=_key(request, moods, genre),
        time_signature=meter,
        energy=max(-0.25, min(0.25, sum(mood.energy for mood in moods))),
        brightness=max(0.6, min(1.3, genre.brightness + sum(mood.brightness for mood in moods))),
        drums=_drums(genre, wanted, refused),
        voice=_voice(request, wanted, refused),
        reverb=max(0.1, min(1.0, genre.reverb + sum(mood.reverb for mood in moods))),
        male=bool(re.search(r"\b(male|man|baritone|bass voice|tenor|boy)\b", wanted)),
        lead=cast["lead"],
        chords=cast["chords"],
        pad=cast["pad"],
        bass=cast["bass"],
        arp=cast["arp"],
    )


def split_negations(prompt: str) -> tuple[str, str]:
    """What is asked for and what is refused: `pop, no drums or bass` -> (`pop, ; `, `drums or bass`)."""
    refused: list[str] = []

    def take(match: re.Match[str]) -> str:
        refused.append(match[1])
        return " ; "

    wanted = re.sub(r"\bnon-stop\b|\bno\s+\d+\b", " ", prompt)
    wanted = _NEGATION.sub(take, wanted)
    refused.extend(re.findall(r"\b(\w+)less\b", wanted))  # drumless, bassless, wordless
    return wanted, " ".join(refused)


def _genre(wanted: str, refused: str) -> Genre:
    """The genre named first; longer names count before their parts (`hip hop` before `hop`).

    Where two patterns match the same letters the table's order decides: `britpop` is rock, not a kind of pop.
    """
    hits = [
        (match.start(), -len(match[0]), rank, name)
        for rank, (name, words) in enumerate(GENRE_WORDS.items())
        for match in re.finditer(rf"\b(?:{words})\b", wanted)
    ]
    names = [name for *_, name in sorted(hits)]
    allowed = [name for name in names if not re.search(rf"\b(?:{GENRE_WORDS[name]})\b", refused)]
    return GENRES[allowed[0]] if allowed else GENRES[DEFAULT_GENRE]


def _bpm(wanted: str) -> int | None:
    match = _BPM.search(wanted)
    value = int(match[1] or match[2]) if match else 0
    return value if 30 <= value <= 300 else None


def _draw_bpm(genre: Genre, wanted: str, push: float, seed: int) -> int:
    low, high = genre.bpm
    push += 0.35 * bool(_FAST.search(wanted)) - 0.35 * bool(_SLOW.search(wanted))
    place = max(-0.4, min(1.4, float(dice(seed, "bpm").uniform(0.2, 0.8)) + push))
    return max(40, min(220, round(low + place * (high - low))))


def _key(request: EngineRequest, moods: list[Mood], genre: Genre) -> Key:
    if request.key_scale is not None:
        return Key.parse(request.key_scale)
    match = next((m for m in _KEY.finditer(request.prompt) if _is_key(m)), None)
    if match:
        accidental = (match[2] or "").lower().lstrip("-")
        shift = {"#": 1, "♯": 1, "sharp": 1, "": 0}.get(accidental, -1)
        return Key((LETTERS[match[1].upper()] + shift) % 12, match[3].lower() in {"minor", "min", "m"})
    rng = dice(request.seed, "key")
    leaning = genre.minor + sum(mood.minor for mood in moods)
    return Key(pick(rng, (0, 2, 4, 5, 7, 9, 10, 3)), bool(rng.random() < leaning))


def _is_key(match: re.Match[str]) -> bool:
    """`a minor change` is no key, `A minor` and `in a minor` are; a bare `Am` must be a capital and tight."""
    if match[3].lower() == "m":
        return match[1].isupper() and match[3] == "m" and " " not in match[0].strip().removeprefix("in ")
    return match[1].isupper() or match[0].lower().startswith(("in ", "key")) or bool(match[2])


def _meter(wanted: str) -> int | None:
    return next(
        (meter for word, meter in _METERS.items() if re.search(rf"(?<!\d){word}(?!\d)", wanted)), None
    )


def _drums(genre: Genre, wanted: str, refused: str) -> bool:
    if any(re.search(rf"\b{word}\b", refused) for word in _DRUM_WORDS):
        return False
    if re.search(
        r"\b(a ?cappella|solo (piano|guitar|violin|harp|flute|organ)|(piano|guitar) solo|drone)\b", wanted
    ):
        return bool(re.search(r"\bdrums?\b", wanted))
    return genre.drums or bool(re.search(r"\b(drums?|drumming|percussion|breakbeat|beats)\b", wanted))


def _voice(request: EngineRequest, wanted: str, refused: str) -> bool:
    if request.instrumental or not request.lyrics.strip():
        return False
    return (
        not re.search(r"\b(vocals?|voice|singing|singer|lyrics)\b", refused) and "instrumental" not in wanted
    )


def _cast(genre: Genre, wanted: str, refused: str, rng: Dice) -> dict[str, str]:
    """Who plays each role: asked instruments first, then the genre's, never a refused one."""
    banned = {
        name for name, words in INSTRUMENT_WORDS.items() if re.search(rf"\b(?:{words.words})\b", refused)
    }
    asked = [name for name, words in INSTRUMENT_WORDS.items() if re.search(rf"\b(?:{words.words})\b", wanted)]
    asked = [name for name in asked if name not in banned]
    asked.sort(key=lambda name: _first(INSTRUMENT_WORDS[name].words, wanted))
    cast: dict[str, str] = {}
    for role in ("chords", "lead", "pad", "bass", "arp"):
        own = [name for name in getattr(genre, role) if name not in banned]
        own = [name for name in own if name not in cast.values()] or own
        fit = [name for name in asked if role in INSTRUMENT_WORDS[name].roles and name not in cast.values()]
        cast[role] = fit[0] if fit else (pick(rng, own) if own else "")
    if re.search(r"\bbass\b", refused):
        cast["bass"] = ""
    if re.search(r"\bsolo (piano|guitar|harp|organ)\b|\b(piano|guitar|harp|organ) solo\b", wanted):
        cast |= {"lead": cast["chords"], "pad": "", "bass": "", "arp": ""}
    if not cast["lead"]:
        cast["lead"] = cast["chords"] or "flute"
    return cast


def _first(words: str, wanted: str) -> int:
    match = re.search(rf"\b(?:{words})\b", wanted)
    return match.start() if match else len(wanted)
