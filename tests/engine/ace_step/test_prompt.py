"""The texts that the models read are the pipeline's to the letter, until something does not fit."""

from typing import Any

import pytest
from diffusers import AceStepPipeline

from engine.ace_step.prompt import (
    MAX_LYRIC_TOKENS,
    MAX_TEXT_TOKENS,
    instruction_of,
    language_of,
    negative_prompt_of,
    prompt_of,
)
from engine.errors import InvalidRequest
from engine.schema import EngineRequest, Task

TRACKS = {"track_name": "backing_vocals", "track_classes": ("drums", "bass")}


def a_request(**changes: Any) -> EngineRequest:
    values: dict[str, Any] = {
        "id": "song",
        "model": "tiny",
        "prompt": "upbeat indie pop {with braces}",
        "lyrics": "[Verse]\nthe night is long",
        "frames": 30 * 48_000,
        "seed": 1,
    }
    return EngineRequest(**(values | changes))


def words(text: str) -> int:
    """Stands for a tokenizer whose tokens are words."""
    return len(text.split())


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("tracks", [TRACKS, {}])
def test_every_task_has_the_pipelines_instruction(task: Task, tracks: dict[str, Any]) -> None:
    theirs = AceStepPipeline._get_task_instruction(
        task.value,
        track_name=tracks.get("track_name"),
        complete_track_classes=list(tracks.get("track_classes", ())),
    )
    assert instruction_of(task, **tracks) == theirs


@pytest.mark.parametrize(
    "metas",
    [
        {},
        {"bpm": 120, "key_scale": "F# minor", "time_signature": 6},
        {"bpm": 30, "frames": 48_000 * 10 + 1440},
        {"frames": 47_999},
    ],
)
def test_both_texts_are_the_pipelines(turbo: AceStepPipeline, metas: dict[str, Any]) -> None:
    request = a_request(**metas)
    ours = prompt_of(request, task=Task.TEXT2MUSIC, count_tokens=words)
    signature = request.time_signature
    theirs = turbo._format_prompt(
        request.prompt,
        request.lyrics,
        audio_duration=request.frames / 48_000,
        bpm=request.bpm,
        keyscale=request.key_scale,
        timesignature=None if signature is None else str(signature),
    )
    assert (ours.text, ours.lyrics) == theirs


def test_a_long_caption_never_pushes_the_metas_out(turbo: AceStepPipeline) -> None:
    """What the pipeline does instead: its tokenizer drops the tail, which is tempo, key and length."""
    caption = "slow piano ballad " * 130
    request = a_request(prompt=caption, bpm=93, key_scale="Bb major", time_signature=3)

    def count(text: str) -> int:
        return len(turbo.tokenizer(text).input_ids)

    text = prompt_of(request, task=Task.TEXT2MUSIC, count_tokens=count).text
    assert count(text) <= MAX_TEXT_TOKENS
    assert text.endswith(
        "- bpm: 93\n- timesignature: 3\n- keyscale: Bb major\n- duration: 30 seconds\n<|endoftext|>\n"
    )
    kept = text.split("# Caption\n")[1].split("\n\n# Metas")[0]
    assert caption.startswith(kept)
    assert kept.split()[-1] in {"slow", "piano", "ballad"}
    cut_by_tokenizer = turbo.tokenizer.decode(
        turbo.tokenizer(
            turbo._format_prompt(caption, bpm=93)[0], truncation=True, max_length=MAX_TEXT_TOKENS
        ).input_ids
    )
    assert "93" not in cut_by_tokenizer


def test_as_much_of_a_long_caption_stays_as_fits() -> None:
    caption = " ".join(f"w{place}" for place in range(400))
    text = prompt_of(a_request(prompt=caption), task=Task.TEXT2MUSIC, count_tokens=words).text
    assert words(text) == MAX_TEXT_TOKENS


def test_a_caption_without_spaces_is_cut_between_letters() -> None:
    text = prompt_of(a_request(prompt="音" * 400), task=Task.TEXT2MUSIC, count_tokens=len).text
    assert len(text) == MAX_TEXT_TOKENS


def test_an_instruction_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="track_classes"):
        prompt_of(a_request(), task=Task.COMPLETE, count_tokens=lambda text: len(text) * 10)


def test_lyrics_beyond_the_limit_are_refused_and_not_cut() -> None:
    around = "# Languages en # Lyric"
    fitting = "la " * (MAX_LYRIC_TOKENS - words(around) - 1) + "la"
    prompt_of(a_request(lyrics=fitting), task=Task.TEXT2MUSIC, count_tokens=words)
    with pytest.raises(InvalidRequest, match="lyrics: these are 2049 tokens and the model reads 2048"):
        prompt_of(a_request(lyrics=f"la {fitting}"), task=Task.TEXT2MUSIC, count_tokens=words)


@pytest.mark.parametrize("changes", [{"instrumental": True}, {"lyrics": " \n"}])
def test_an_instrumental_says_so_where_lyrics_would_stand(changes: dict[str, Any]) -> None:
    lyrics = prompt_of(a_request(**changes), task=Task.TEXT2MUSIC, count_tokens=words).lyrics
    assert lyrics == "# Languages\nunknown\n\n# Lyric\n[Instrumental]<|endoftext|>"


@pytest.mark.parametrize(
    ("changes", "language"),
    [
        ({}, "en"),
        ({"lyrics": "élan, señor, žluťoučký"}, "en"),
        ({"lyrics": "[Verse]\n夜は長い"}, "unknown"),
        ({"vocal_language": "ja", "lyrics": "yoru wa nagai"}, "ja"),
        ({"vocal_language": "de", "lyrics": ""}, "de"),
        ({"lyrics": ""}, "unknown"),
    ],
)
def test_the_language_is_the_given_one_or_a_careful_guess(changes: dict[str, Any], language: str) -> None:
    assert language_of(a_request(**changes)) == language


def test_a_negative_prompt_has_the_songs_length_and_nothing_else_of_it() -> None:
    request = a_request(negative_prompt="harsh noise", bpm=120, key_scale="C major", vocal_language="fr")
    negative = negative_prompt_of(request, task=Task.TEXT2MUSIC, count_tokens=words)
    assert "# Caption\nharsh noise\n" in negative.text
    assert "- bpm: N/A\n- timesignature: N/A\n- keyscale: N/A\n- duration: 30 seconds\n" in negative.text
    assert negative.lyrics == "# Languages\nunknown\n\n# Lyric\n[Instrumental]<|endoftext|>"
