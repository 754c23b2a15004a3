"""Lyrics as the composer reads them: tagged parts, lines, and the syllables and vowels of each line."""

# ruff: noqa: RUF001 - vowels of several alphabets are the subject here

import re
import unicodedata

import msgspec

MAX_PARTS = 48
MAX_LINES = 400
MAX_SYLLABLES = 32
_TAG = re.compile(r"^\s*[\[【(]([^\]】)]{1,80})[\]】)]\s*(.*)$")
_VOWELS = re.compile(r"[aeiouyаеёиоуыэюяαεηιουωאוי]+")
_SILENT_E = re.compile(r"(?<=[^aeiouy\W])e$")
_SUNG = {
    "y": "i",
    "а": "a",
    "я": "a",
    "е": "e",
    "э": "e",
    "ё": "o",
    "о": "o",
    "и": "i",
    "ы": "i",
    "у": "u",
    "ю": "u",
}


class LyricPart(msgspec.Struct, frozen=True):
    """The lines under one tag; an empty tag means lines without one."""

    tag: str
    lines: tuple[str, ...]


def read_parts(lyrics: str) -> list[LyricPart]:
    """Split by tags; text without tags is split at blank lines. Bounded, whatever is sent."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    tagged = any(_is_tag(line) for line in lyrics.splitlines())
    for line in lyrics.splitlines()[:MAX_LINES]:
        match = _TAG.match(line) if _is_tag(line) else None
        if match:
            parts.append((match[1].strip(), [match[2].strip()] if match[2].strip() else []))
        elif line.strip():
            parts[-1][1].append(line.strip())
        elif parts[-1][1] and not tagged:
            parts.append(("", []))
    return [LyricPart(tag, tuple(lines)) for tag, lines in parts if tag or lines][:MAX_PARTS]


def _is_tag(line: str) -> bool:
    """Square brackets always are; round ones are a backing vocal and belong to the words."""
    match = _TAG.match(line)
    return match is not None and line.strip()[0] != "("


def sung_vowels(line: str) -> str:
    """One vowel (a, e, i, o, u) per syllable, at least one and at most MAX_SYLLABLES.

    Latin, Cyrillic and Greek count groups of vowels; each Han, kana or Hangul sign is a syllable; scripts
    without written vowels count two letters to the syllable.
    """
    vowels: list[str] = []
    for word in re.findall(r"[^\W\d_]+|\d", line.lower()):
        vowels.extend(_word_vowels(word))
    return "".join(vowels[:MAX_SYLLABLES]) or "a"


def _word_vowels(word: str) -> list[str]:
    if unicodedata.category(word[0]) == "Lo":
        if unicodedata.name(word[0], "").startswith(("CJK", "HIRAGANA", "KATAKANA", "HANGUL")):
            return ["aeiou"[ord(letter) % 5] for letter in word]
        return ["aeiou"[ord(letter) % 5] for letter in word[::2]]
    plain = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    groups = _VOWELS.findall(_SILENT_E.sub("", plain) if len(plain) > 3 else plain)
    return [_vowel(group) for group in groups] or ["a"]


def _vowel(group: str) -> str:
    """The sound of a group of vowel letters, roughly: the first letter that names one."""
    letter = _SUNG.get(group[0], group[0])
    return letter if letter in "aeiou" else "a"
