"""The guides to lyrics and captions: true of the composer, and printed by the installed client."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine.composer.form import plan_form
from engine.composer.genres import GENRES
from engine.composer.score import Section, SectionKind
from engine.composer.style import Style, read_style
from engine.composer.theory import Key
from engine.composer.vocabulary import INSTRUMENT_WORDS, MOODS, Mood
from engine.schema import SAMPLE_RATE, EngineRequest

ROOT = Path(__file__).resolve().parent.parent.parent
LYRICS = (ROOT / "docs" / "lyrics.md").read_text()
CAPTIONS = (ROOT / "docs" / "captions.md").read_text()
SONG = re.compile(
    r"(?P<seconds>\d+) seconds[^*]*caption: \*(?P<caption>[^*]+)\*.*?\n\n(?P<text>(?:    .*\n|\n)+)"
)
ROLES = {"chords": "chords", "lead": "lead", "pad": "pad", "bass": "bass", "arpeggio": "arp"}
SIZE = 0.07
"""Of an effect that is worth a word."""


def style_of(prompt: str, lyrics: str = "[Verse]\nla la la") -> Style:
    return read_style(request_of(prompt, lyrics))


def request_of(prompt: str, lyrics: str, seconds: int = 60) -> EngineRequest:
    return EngineRequest(
        id="1", model="sandbox", prompt=prompt, lyrics=lyrics, frames=seconds * SAMPLE_RATE, seed=1
    )


def sections_of(lyrics: str, *, caption: str = "pop", seconds: int = 60) -> tuple[Section, ...]:
    request = request_of(caption, lyrics, seconds)
    return plan_form(read_style(request), lyrics, request.frames)[0]


def rows(page: str, *head: str) -> list[list[str]]:
    """Cells of the table with these first columns."""
    begin = re.search(r"^\| " + r" +\| ".join(map(re.escape, head)) + r" +\|", page, re.MULTILINE)
    assert begin is not None, head
    table = page[begin.start() :].split("\n\n", maxsplit=1)[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def words_of(cell: str) -> list[str]:
    return [re.sub(r" and kinds of it \((.+)\)", r", \1", word) for word in cell.split(", ")]


def effects_of(mood: Mood) -> set[str]:
    sizes = {
        "major": -mood.minor / 7,
        "minor": mood.minor / 7,
        "slower": -mood.tempo,
        "faster": mood.tempo,
        "thinner": -mood.energy,
        "fuller": mood.energy,
        "duller": -mood.brightness,
        "brighter": mood.brightness,
        "more space": mood.reverb,
    }
    return {name for name, size in sizes.items() if size > SIZE}


def letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def test_every_tag_of_the_guide_begins_the_section_it_is_listed_for() -> None:
    listed = [re.findall(r"`\[([^\]]+)\]`", row[0]) for row in rows(LYRICS, "tag")]
    assert len(listed) == len(SectionKind)
    for kind, tags in zip(SectionKind, listed, strict=True):
        assert tags
        for tag in tags:
            assert sections_of(f"[{tag}]\nla la la\n[Verse]\nla la")[0].kind is kind, tag


def test_every_word_after_a_dash_makes_a_section_louder_or_softer_as_the_guide_says() -> None:
    text = " ".join(LYRICS.split())
    sentence = text[text.index("The sandbox knows `loud`") :].split(".")[0]
    louder, softer = (re.findall(r"`(\w+)`", part) for part in sentence.split(" and "))
    assert min(len(louder), len(softer)) > 5
    plain = sections_of("[Verse]\nla")[0].energy
    assert [word for word in louder if sections_of(f"[Verse - {word}]\nla")[0].energy <= plain] == []
    assert [word for word in softer if sections_of(f"[Verse - {word}]\nla")[0].energy >= plain] == []


def test_every_song_of_the_guide_keeps_all_its_sections_at_its_length() -> None:
    songs = list(SONG.finditer(LYRICS[LYRICS.index("## Examples") :]))
    assert len(songs) == 5
    for song in songs:
        text = re.sub(r"^    ", "", song["text"], flags=re.MULTILINE).strip()
        seconds = int(song["seconds"])
        found = sections_of(text, caption=" ".join(song["caption"].split()), seconds=seconds)
        assert [section.label for section in found] == re.findall(r"\[([^\]]+)\]", text)
        assert sum(len(section.lines) for section in found) <= seconds / 4


def test_the_shaped_instrumental_has_the_form_of_its_tags() -> None:
    after = LYRICS[LYRICS.index("## Instrumental music") :]
    tags = re.findall(r"^    \[([^\]]+)\]", after.split("##")[1], re.MULTILINE)
    lyrics = "\n".join(f"[{tag}]" for tag in tags)
    assert [section.label for section in sections_of(lyrics, caption="trance")] == tags


def test_every_genre_is_listed_with_its_tempo_and_words_that_mean_it() -> None:
    listed = rows(CAPTIONS, "genre", "bpm", "words")
    assert {letters(row[0]) for row in listed} == {letters(name) for name in GENRES}
    for name, bpm, words in listed:
        for word in words_of(words):
            genre = style_of(word.lower()).genre
            assert letters(genre.name) == letters(name), word
            assert bpm == f"{genre.bpm[0]}-{genre.bpm[1]}"


def test_the_typical_tempos_are_the_genres_own() -> None:
    sentence = CAPTIONS[CAPTIONS.index("Typical tempos:") :].split("\n\n")[0]
    pairs = re.findall(r"([a-z][a-z -]+[a-z]) (\d+)-(\d+)", " ".join(sentence.split()))
    assert len(pairs) > 5
    for name, low, high in pairs:
        assert style_of(name).genre.bpm == (int(low), int(high)), name


def test_every_mood_is_listed_with_words_that_mean_it_and_its_effects() -> None:
    listed = rows(CAPTIONS, "words", "effect")
    assert len(listed) == len(MOODS)
    for mood, (words, effects) in zip(MOODS, listed, strict=True):
        assert [word for word in words_of(words) if not re.search(rf"\b(?:{mood.words})\b", word)] == []
        assert set(effects.split(", ")) == effects_of(mood), words


def test_every_instrument_is_listed_with_its_words_and_roles() -> None:
    listed = rows(CAPTIONS, "words", "roles")
    assert len(listed) == len(INSTRUMENT_WORDS)
    for words, roles in listed:
        meant = set(INSTRUMENT_WORDS)
        for word in words_of(words):
            meant &= {
                n for n, found in INSTRUMENT_WORDS.items() if re.search(rf"\b(?:{found.words})\b", word)
            }
        (name,) = meant
        assert tuple(ROLES[role] for role in roles.split(", ")) == INSTRUMENT_WORDS[name].roles, words


def test_every_caption_of_the_guide_gives_what_stands_beside_it() -> None:
    listed = rows(CAPTIONS, "caption")
    assert len(listed) == 10
    for caption, claim in listed:
        style = style_of(caption.strip("`"))
        assert letters(style.genre.name) == letters(re.split(r",| without| \d", claim)[0]), caption
        if bpm := re.search(r"(\d+) bpm", claim):
            assert style.bpm == int(bpm[1])
        if key := re.search(r"[A-G][#b]? (major|minor)", claim):
            assert style.key == Key.parse(key[0])
        assert style.voice is ("nobody sings" not in claim)
        assert style.male is ("low voice" in claim)
        assert (style.time_signature == 3) is ("3 beats" in claim)
        if "without drums" in claim:
            assert not style.drums
        if "alone" in claim:
            assert (style.lead, style.chords, style.pad, style.bass) == ("piano", "piano", "", "")


def test_what_the_guide_says_of_refusals_is_so() -> None:
    assert not style_of("no drums or bass, rock").drums
    assert style_of("no drums or bass, rock").bass == ""
    assert not style_of("drumless folk").drums
    assert style_of("folk, no banjo").chords != "acoustic_guitar"
    assert style_of("slow pop").bpm < style_of("pop").bpm < style_of("fast pop").bpm


@pytest.mark.parametrize(("switch", "page"), [("lyrics", LYRICS), ("caption", CAPTIONS)])
def test_the_client_of_an_installed_wheel_prints_the_guide(switch: str, page: str, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "gateway.cli", "generate", f"--show-{switch}-help"],
        env=os.environ | {"PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == page.strip()
