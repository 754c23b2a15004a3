"""Reading and writing what was thought."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ace_step.planner.asks import KEYS, LANGUAGES, Wishes
from engine.ace_step.planner.metadata import (
    Metadata,
    as_yaml,
    complete,
    parse_codes,
    parse_lyrics,
    parse_thought,
)
from engine.errors import RenderFailed

WHOLE = Metadata(bpm=90, caption="a ballad", duration=30, keyscale="C major", language="en", timesignature=4)


@pytest.mark.parametrize(
    ("written", "caption"),
    [
        ("caption: one line", "one line"),
        ("caption: one: two # three", "one: two # three"),
        ("caption: A warm,\n  analog synth\n\n  and drums.\nduration: 30", "A warm, analog synth and drums."),
        ("caption: 'it''s late: very\n  late'", "it's late: very late"),
        ('caption: "caf\\u00e9 and\n  \\"rain\\""', 'café and "rain"'),
        ("caption: >-\n  folded\n  lines", "folded lines"),
        ('caption: "never closed', "never closed"),
        ("caption: rock 'n'", "rock 'n'"),
        ("caption: ", None),
        ("caption:", None),
        ("caption: half a \ufffdcharacter", "half a character"),
        ("no field at all", None),
    ],
)
def test_captions_are_read_over_lines_and_quotes(written: str, caption: str | None) -> None:
    assert parse_thought(f"<think>\nbpm: 90\n{written}\n</think>").caption == caption


@pytest.mark.parametrize(
    ("written", "beats"), [("4", 4), ("4/4", 4), ("6/8", 6), ("'3'", 3), ("N/A", None), ("", None)]
)
def test_time_signatures_are_read_with_and_without_denominator(written: str, beats: int | None) -> None:
    assert parse_thought(f"timesignature: {written}").timesignature == beats


def test_what_is_no_field_is_passed_over() -> None:
    thought = parse_thought("<think>\nbpm: 90\nmood: sad\n  and more\n bpm: 1\nkeyscale:A minor\n</think>")
    assert thought == Metadata(bpm=90)


def test_keys_come_out_in_ascii() -> None:
    assert parse_thought("keyscale: B♭ major").keyscale == "Bb major"


@given(
    metadata=st.builds(
        Metadata,
        bpm=st.none() | st.integers(30, 300),
        caption=st.none()
        | st.text(min_size=1).map(lambda text: " ".join(text.replace("\ufffd", "").split())),
        duration=st.none() | st.integers(1, 600),
        keyscale=st.none() | st.sampled_from([key for key in KEYS if key.isascii()]),
        language=st.none() | st.sampled_from(LANGUAGES),
        timesignature=st.none() | st.sampled_from((2, 3, 4, 6)),
    ).filter(lambda metadata: metadata.caption != "")
)
def test_what_is_written_as_yaml_is_read_back(metadata: Metadata) -> None:
    assert parse_thought(f"<think>\n{as_yaml(metadata)}\n</think>") == metadata


def test_yaml_has_sorted_keys_bare_numbers_and_any_script() -> None:
    assert as_yaml(Metadata(timesignature=3, bpm=90, caption="夜の歌")) == (
        "bpm: 90\ncaption: 夜の歌\ntimesignature: 3"
    )
    assert as_yaml(Metadata()) == ""


def test_lyrics_lose_their_heading() -> None:
    assert parse_lyrics("\n\n# Lyric\n[Verse]\nhi\n") == "[Verse]\nhi"
    assert parse_lyrics("\n\n[Verse]\n# Lyric of mine\n") == "[Verse]\n# Lyric of mine"
    assert parse_lyrics("\n # Lyrics") == ""


def test_codes_are_clamped_to_the_code_book() -> None:
    text = f"<|audio_code_7|> and <|audio_code_64000|><|audio_code_{'9' * 5000}|><|audio_code_|>"
    assert parse_codes(text) == (7, 63_999, 63_999)


def test_wishes_win_over_what_was_thought() -> None:
    wishes = Wishes(bpm=140, key_scale="F# minor", time_signature=3, vocal_language="de", duration_s=10.5)
    song = complete(WHOLE, wishes, caption="")
    assert (song.bpm, song.key_scale, song.time_signature) == (140, "F# minor", 3)
    assert (song.language, song.duration_s, song.frames) == ("de", 10.5, 504_000)


def test_an_incomplete_thought_is_refused() -> None:
    with pytest.raises(RenderFailed) as caught:
        complete(Metadata(bpm=90), Wishes(), caption="x")
    assert "not complete" in str(caught.value)
