"""Requests in Runware's words: exactly these members, and none that the vendor would refuse."""

from typing import Any

import pytest

from engine import GuidanceType, Task
from gateway.backends.base import Failed
from gateway.backends.remote.provider import Brought, Call, Refused
from gateway.backends.runware.tasks import inference_task, upload_task
from gateway.generation import SAMPLE_RATE, AudioInput, GenerationRequest
from gateway.jobs.job import JobErrorCode
from tests.gateway.routing.runware_requests import (
    BASE,
    COVER,
    EXPRESSED,
    LET_GO,
    REPAINT,
    SECONDS,
    TURBO,
    named,
    request,
)
from tests.providers.runware import rules

REF = "3c45aa70-03e4-41dd-9239-21a7f0c8d971"
ALWAYS = {
    "taskType": "audioInference",
    "taskUUID": REF,
    "deliveryMethod": "async",
    "outputType": "URL",
    "outputFormat": "FLAC",
    "includeCost": True,
    "ttl": 86_400,
}
PLAIN = {"model": BASE, "numberResults": 1, "positivePrompt": "calm piano", "seed": 7, "duration": 60.0}
SILENT = {"settings": {"vocalLanguage": "unknown"}}
SUNG = {"lyrics": "[Verse]\nhello there"}
SUNG_SETTINGS = {"lyrics": "[Verse]\nhello there"}


def mapped(
    asked: GenerationRequest,
    model: str = BASE,
    *,
    first: int = 0,
    count: int = 1,
    frames: int = 200 * SECONDS,
) -> dict[str, Any]:
    source = None
    if asked.source_audio is not None:
        source = Brought(content=b"a song", content_type="audio/flac", frames=frames)
    call = Call(ref=REF, model=model, request=asked, first=first, count=count, source=source)
    return inference_task(call, REF, media="a medium" if source else None, webhook_url=None)


def changed(asked: GenerationRequest, model: str = BASE) -> dict[str, Any]:
    """What differs from the plain song's task, without what all songs have."""
    plain = ALWAYS | PLAIN
    return {name: value for name, value in mapped(asked, model).items() if plain.get(name) != value}


def test_a_plain_song_has_these_members_and_no_others() -> None:
    assert mapped(request()) == ALWAYS | PLAIN | SILENT


WORDS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("seed", {"seed": 2**31 - 1}, {"seed": 2**31 - 1} | SILENT),
    ("prompt", {"prompt": "loud\ndrums"}, {"positivePrompt": "loud\ndrums"} | SILENT),
    ("lyrics", SUNG, {"settings": SUNG_SETTINGS}),
    ("short lyrics", {"lyrics": "la"}, {"settings": {"lyrics": "la" + "\n" * 8}}),
    ("blank lyrics", {"lyrics": " \n"}, SILENT),
    ("lyrics that nobody sings", SUNG | {"instrumental": True, "vocal_language": "de"}, SILENT),
    ("language", SUNG | {"vocal_language": "de"}, {"settings": SUNG_SETTINGS | {"vocalLanguage": "de"}}),
    (
        "music",
        SUNG | {"bpm": 90, "key_scale": "F# minor", "time_signature": 3},
        {"settings": SUNG_SETTINGS | {"bpm": 90, "keyScale": "F# minor", "timeSignature": 3}},
    ),
    ("steps", {"num_inference_steps": 70}, {"steps": 70} | SILENT),
    ("too many steps", {"num_inference_steps": 400}, {"steps": 300} | SILENT),
    ("scale", {"guidance_scale": 7.456}, {"CFGScale": 7.46} | SILENT),
    ("no scale", {"guidance_scale": 0.0}, {"CFGScale": 1.0} | SILENT),
    ("negative", {"negative_prompt": "drums"}, {"negativePrompt": "drums", "CFGScale": 10.0} | SILENT),
    (
        "negative and scale",
        {"negative_prompt": "drums", "guidance_scale": 3.0},
        {"negativePrompt": "drums", "CFGScale": 3.0} | SILENT,
    ),
    ("negative without scale", {"negative_prompt": "x", "guidance_scale": 1.0}, {"CFGScale": 1.0} | SILENT),
    ("hardly a scale", {"negative_prompt": "drums", "guidance_scale": 1.004}, {"CFGScale": 1.0} | SILENT),
    (
        "guidance",
        SUNG | {"guidance_type": GuidanceType.CFG, "cfg_interval_start": 0.25, "cfg_interval_end": 0.5},
        {"settings": SUNG_SETTINGS | {"guidanceType": "cfg", "cfgIntervalStart": 0.25,
                                      "cfgIntervalEnd": 0.5}},
    ),
    ("adg", {"guidance_type": GuidanceType.ADG}, SILENT),
    ("what it has not", {"shift": 3.0, "timesteps": (1.0, 0.5), "thinking": True}, SILENT),
    ("what is done here", {"webhook_url": "https://a.example/", "ttl": 60, "upload_url": "https://b.example/"},
     SILENT),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "members"), [case[1:] for case in WORDS], ids=[case[0] for case in WORDS])
def test_a_parameter_becomes_exactly_its_members(fields: dict[str, Any], members: dict[str, Any]) -> None:
    assert changed(request(**fields)) == members


def test_a_turbo_model_gets_no_member_of_guidance() -> None:
    everything = request(
        guidance_scale=7.0,
        negative_prompt="drums",
        guidance_type=GuidanceType.CFG,
        cfg_interval_start=0.1,
        cfg_interval_end=0.9,
        num_inference_steps=50,
    )
    assert changed(everything, TURBO) == {"model": TURBO, "steps": 20} | SILENT


@pytest.mark.parametrize(
    ("frames", "seconds"),
    [
        (5 * SECONDS, 30.0),
        (30 * SECONDS, 30.0),
        (30 * SECONDS + 1, 30.1),
        (round(60.1 * SECONDS), 60.1),
        (round(60.1 * SECONDS) + 1, 60.2),
        (300 * SECONDS, 300.0),
    ],
)
def test_a_song_is_ordered_in_tenths_of_a_second_and_never_too_short(frames: int, seconds: float) -> None:
    assert mapped(request(frames=frames))["duration"] == seconds
    assert seconds * SAMPLE_RATE >= frames


def test_each_part_of_many_variations_has_its_own_first_seed() -> None:
    asked = request(n=7)
    parts = [mapped(asked, first=first, count=count) for first, count in [(0, 4), (4, 3)]]
    assert [(part["seed"], part["numberResults"]) for part in parts] == [(7, 4), (11, 3)]


EDITS: list[tuple[dict[str, Any], dict[str, Any], float | None]] = [
    (COVER, {"coverConditioningScale": 1.0}, None),
    (COVER | {"cover_strength": 0.0}, {"coverConditioningScale": 0.0}, None),
    (COVER | {"cover_strength": 0.4, "cover_noise_strength": 0.333}, {"coverConditioningScale": 0.4}, 0.33),
    (REPAINT, {"repaintingStart": 0.0, "repaintingEnd": 200.0}, None),
    (REPAINT | {"repainting_start": 10.5}, {"repaintingStart": 10.5, "repaintingEnd": 200.0}, None),
    (
        REPAINT | {"repainting_start": -5.0, "repainting_end": 12.3456},
        {"repaintingStart": -5.0, "repaintingEnd": 12.346},
        None,
    ),
    (
        REPAINT | {"repainting_start": 9.0001, "repainting_end": 9.0004},
        {"repaintingStart": 9.0, "repaintingEnd": 9.001},
        None,
    ),
    (
        REPAINT | {"repainting_start": 199.9999},
        {"repaintingStart": 200.0, "repaintingEnd": 200.001},
        None,
    ),
]


@pytest.mark.parametrize(("fields", "settings", "strength"), EDITS)
def test_an_edit_names_its_source_and_has_no_duration(
    fields: dict[str, Any], settings: dict[str, Any], strength: float | None
) -> None:
    task = mapped(request(**fields))
    assert task["settings"] == settings | SILENT["settings"]
    assert task["inputs"] == {"audio": "a medium"}
    assert (task.get("strength"), "duration" in task) == (strength, False)


def test_a_repaint_without_an_end_goes_to_the_end_of_the_source_and_not_beyond() -> None:
    task = mapped(request(**REPAINT), frames=100 * SECONDS + 47)
    assert task["settings"]["repaintingEnd"] == 100.0
    task = mapped(request(**REPAINT), frames=100 * SECONDS + 48)
    assert task["settings"]["repaintingEnd"] == 100.001


@pytest.mark.parametrize(
    ("fields", "frames"),
    [
        (COVER, 300 * SECONDS + 1),
        (REPAINT | {"repainting_start": -200.0}, 101 * SECONDS),
        (REPAINT | {"repainting_end": 301.0}, 10 * SECONDS),
    ],
)
def test_a_source_that_turns_out_too_long_is_refused_here_and_may_be_made_elsewhere(
    fields: dict[str, Any], frames: int
) -> None:
    with pytest.raises(Refused) as caught:
        mapped(request(**fields), frames=frames)
    failed = caught.value.failed
    assert (failed.code, failed.retryable) == (JobErrorCode.INPUT_UNREADABLE, True)
    assert "300 s" in failed.message


def test_a_task_that_it_has_not_is_never_sent_as_another() -> None:
    lego = request(task=Task.LEGO, source_audio=AudioInput(file_id="f", frames=9), track_name="drums")
    for asked in (lego, request(task=Task.COVER)):
        with pytest.raises(Refused) as caught:
            mapped(asked, frames=9)
        expected = Failed(
            code=JobErrorCode.UPSTREAM_ERROR, message="the provider refuses the request", retryable=True
        )
        assert caught.value.failed == expected


CASES = [*EXPRESSED, *LET_GO]


@pytest.mark.parametrize(("air", "fields"), CASES, ids=map(named, CASES))
def test_what_is_not_refused_beforehand_is_accepted_by_the_vendor(air: str, fields: dict[str, Any]) -> None:
    asked = request(**fields)
    for first in range(0, asked.n, 4):
        source = 200 * SECONDS if asked.source_audio is None else asked.source_audio.frames or SECONDS
        rules.check(mapped(asked, air, first=first, count=min(4, asked.n - first), frames=source))


def test_a_source_is_uploaded_as_plain_base64() -> None:
    task = upload_task(Brought(content=b"\x00song", content_type="audio/flac", frames=9), REF)
    assert task == {"taskType": "mediaStorage", "taskUUID": REF, "operation": "upload", "media": "AHNvbmc="}
