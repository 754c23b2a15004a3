"""What WaveSpeed cannot express is known before money is held; what it would let go is told."""

from typing import Any

import pytest

from engine import GuidanceType, InferMethod, Task
from gateway.audio import AudioFormat
from gateway.backends.wavespeed.mapping import input_of
from gateway.generation import LANGUAGES, SAMPLE_RATE, AudioInput
from gateway.routing.wavespeed import judge
from tests.gateway.backends.wavespeed_account import MODEL, request


def judged(**fields: Any) -> Any:
    return judge(request(**{"format": AudioFormat.MP3} | fields), MODEL)


def test_a_plain_song_is_made_as_asked() -> None:
    for fields in ({}, {"lyrics": "la la"}, {"n": 8, "seed": 2**31 - 1}, {"strict": True}):
        found = judged(**fields)
        assert (found.objections, found.warnings) == ((), ())


@pytest.mark.parametrize(
    ("fields", "params", "suggestion"),
    [
        (
            {"task": Task.COVER, "source_audio": AudioInput(file_id="a")},
            ["task", "source_audio"],
            "text2music",
        ),
        ({"reference_audio": AudioInput(file_id="a")}, ["reference_audio"], "leave it out"),
        ({"frames": 5 * SAMPLE_RATE - 1}, ["audio_duration"], "5"),
        ({"frames": 240 * SAMPLE_RATE + 1}, ["audio_duration"], "240"),
        ({"frames": 600 * SAMPLE_RATE, "open_length": True, "thinking": True}, ["audio_duration"], "240"),
        ({"seed": 2**31}, ["seed"], "2147483647"),
        ({"prompt": " "}, ["prompt"], "lo-fi hip hop"),
    ],
)
def test_what_has_a_meaning_is_refused(fields: dict[str, Any], params: list[str], suggestion: str) -> None:
    found = judged(**fields)
    assert [one.param for one in found.objections] == params
    assert found.objections[0].suggestion == suggestion


@pytest.mark.parametrize("frames", [5 * SAMPLE_RATE, 240 * SAMPLE_RATE])
def test_both_ends_of_the_range_count(frames: int) -> None:
    assert judged(frames=frames).objections == ()


KNOBS = {
    "negative_prompt": "drums",
    "num_inference_steps": 8,
    "guidance_scale": 7.0,
    "shift": 3.0,
    "cfg_interval_start": 0.0,
    "cfg_interval_end": 0.9,
    "guidance_type": GuidanceType.APG,
    "infer_method": InferMethod.ODE,
    "timesteps": (1.0, 0.5),
    "thinking": True,
}
WORDS = {"bpm": 90, "key_scale": "C major", "time_signature": 3, "vocal_language": "fr"}


@pytest.mark.parametrize(("field", "value"), [*KNOBS.items(), *WORDS.items()])
def test_what_has_no_effect_or_only_as_words_is_told_and_refused_to_the_strict(
    field: str, value: Any
) -> None:
    fields = {field: value, "lyrics": "la la"}
    lenient, strict = judged(**fields), judged(**fields, strict=True)
    assert (len(lenient.objections), len(lenient.warnings)) == (0, 1)
    assert lenient.warnings[0].startswith(field)
    assert ([one.param for one in strict.objections], strict.warnings) == ([field], ())


def test_a_song_without_vocals_has_no_language() -> None:
    assert judged(vocal_language="fr").warnings == ()
    assert judged(vocal_language="unknown", lyrics="la la").warnings == ()


def test_a_lossless_file_of_lossy_music_is_told() -> None:
    assert len(judged(format=AudioFormat.FLAC).warnings) == 1


def test_every_language_has_a_name() -> None:
    for code in LANGUAGES - {"unknown"}:
        tags = input_of(request(lyrics="la la", vocal_language=code), 0).tags
        assert tags is not None
        assert tags.endswith(" vocals")
    assert input_of(request(lyrics="la la", vocal_language="unknown"), 0).tags == "calm piano"
