"""The planner's thought: six metadata fields, as the YAML that it was trained to write. Free of torch."""

import re
from typing import Final

import msgspec
import yaml  # type: ignore[import-untyped]

from engine.ace_step.planner.asks import AUDIO_CODES, Song, Wishes
from engine.errors import RenderFailed

FIELDS: Final = ("bpm", "caption", "duration", "keyscale", "language", "timesignature")
"""In the order in which they are written, which is the alphabet's."""

_FIELD: Final = re.compile(rf"({'|'.join(FIELDS)}):(?: (.*)|)")
_CODE: Final = re.compile(r"<\|audio_code_(\d+)\|>")
_LYRIC_HEADING: Final = re.compile(r"\A\s*# *Lyrics?[ \t]*(?:\n|\Z)", re.IGNORECASE)
_NOT_PLAIN: Final = ("'", '"', "|", ">")
_ASCII_ACCIDENTALS: Final = str.maketrans({"♯": "#", "♭": "b"})


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the fields say; None: the text does not have the field, or not in a form that can be read."""

    bpm: int | None = None
    caption: str | None = None
    duration: int | None = None
    """Seconds."""
    keyscale: str | None = None
    language: str | None = None
    timesignature: int | None = None


def as_yaml(metadata: Metadata) -> str:
    """The body of a thought: keys sorted, numbers bare, any script, no line feed at the end."""
    known = {name: value for name in FIELDS if (value := getattr(metadata, name)) is not None}
    return yaml.dump(known, allow_unicode=True, sort_keys=True).strip() if known else ""


def parse_thought(text: str) -> Metadata:
    """Read a thought; its tags and whatever else is no field are passed over.

    Line by line, not as YAML: a caption may well contain `: `, which YAML would refuse.
    """
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n"):
        if field := _FIELD.fullmatch(line):
            lines = [field[2] or ""]
            found[field[1]] = lines
        elif line[:1].isspace() or not line:
            lines.append(line)
        else:
            lines = []
    return Metadata(
        bpm=_number(found, "bpm"),
        caption=_prose(found["caption"]) or None if "caption" in found else None,
        duration=_number(found, "duration"),
        keyscale=ascii_key(_word(found, "keyscale")) or None,
        language=_word(found, "language") or None,
        timesignature=_number(found, "timesignature"),
    )


def complete(metadata: Metadata, wishes: Wishes, *, caption: str) -> Song:
    """The song that was thought of; wishes win. `caption`: what holds where none was written.

    Raises RenderFailed if a field is missing, which the constraints on what is written rule out.
    """
    try:
        return msgspec.convert(
            {
                "bpm": wishes.bpm or metadata.bpm,
                "key_scale": ascii_key(wishes.key_scale or metadata.keyscale or ""),
                "time_signature": wishes.time_signature or metadata.timesignature,
                "language": wishes.language or metadata.language,
                "caption": metadata.caption or caption,
                "duration_s": duration_s(metadata, wishes),
            },
            Song,
        )
    except msgspec.ValidationError as error:
        raise RenderFailed(f"the planner's metadata is not complete: {error}") from error


def duration_s(metadata: Metadata, wishes: Wishes) -> float | None:
    """Wished for, or thought of."""
    return metadata.duration if wishes.duration_s is None else wishes.duration_s


def parse_lyrics(text: str) -> str:
    """What follows a thought, without the heading."""
    return _LYRIC_HEADING.sub("", text.replace("�", "")).strip()


def parse_codes(text: str) -> tuple[int, ...]:
    """Every `<|audio_code_N|>` of the text, clamped to the code book."""
    # More than a handful of digits is beyond the book in any case, and costly to read as a number.
    return tuple(min(int(digits[:9]), AUDIO_CODES - 1) for digits in _CODE.findall(text))


def code_text(codes: tuple[int, ...]) -> str:
    """The other way round."""
    return "".join(f"<|audio_code_{min(max(code, 0), AUDIO_CODES - 1)}|>" for code in codes)


def ascii_key(name: str) -> str:
    """`B♭ major` is `Bb major`."""
    return name.translate(_ASCII_ACCIDENTALS)


def _word(found: dict[str, list[str]], name: str) -> str:
    return found.get(name, [""])[0].strip().strip("'\"")


def _number(found: dict[str, list[str]], name: str) -> int | None:
    """`4/4` is 4: the denominator carries no meaning of its own here."""
    digits = _word(found, name).partition("/")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else None


def _prose(lines: list[str]) -> str:
    """A YAML scalar, plain, quoted or folded; read as plain text where the quoting is broken."""
    plain = _tidy(" ".join(lines))
    if not plain.startswith(_NOT_PLAIN):
        return plain
    try:
        value = yaml.safe_load("\n".join(["caption: " + lines[0], *lines[1:]]))["caption"]
    except yaml.YAMLError:
        value = None
    return _tidy(value) if isinstance(value, str) else plain.lstrip("'\"|>- ")


def _tidy(text: str) -> str:
    """One line; without what is left of characters that were cut in half."""
    return " ".join(text.replace("�", "").split())
