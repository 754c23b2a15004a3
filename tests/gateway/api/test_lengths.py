"""How long a result is, known or not when money is held: as asked, as its source, or at most that."""

from typing import Any, Final

import pytest

from engine import Knobs, objections
from gateway.catalog import read_catalog
from gateway.dialects.native.body import GenerationBody
from gateway.dialects.native.validation import Checked, check_body
from gateway.dialects.native.validation_audio import Context
from gateway.errors import FileGone, InvalidRequest
from gateway.generation import SAMPLE_RATE, AudioInput
from gateway.settings import DEFAULT_CATALOG

CATALOG: Final = read_catalog(DEFAULT_CATALOG)
URL: Final = "https://music.example/song.flac"


async def check(source_seconds: float | None = 30, *, planner: bool = True, **fields: Any) -> Checked:
    """With one file in the house, `a file`, of that many seconds."""

    async def find_file(file_id: str) -> AudioInput | None:
        if file_id != "a file" or source_seconds is None:
            return None
        return AudioInput(file_id="a file", frames=round(source_seconds * SAMPLE_RATE))

    body = GenerationBody(**{"model": "ace-step-1.5-xl-base", "prompt": "a song"} | fields)
    context = Context(planner=planner, ports=None, find_file=find_file)
    return await check_body(body, CATALOG.find(body.model), context)


@pytest.mark.parametrize(
    ("source", "fields", "seconds"),
    [
        (30, {"task": "cover"}, 30),
        (12.3456, {"task": "extract", "track_name": "vocals"}, 12.3456),
        (30, {"task": "repaint"}, 30),
        (30, {"task": "repaint", "repainting_start": 10, "repainting_end": 20}, 30),
        (30, {"task": "repaint", "repainting_start": -7.5, "repainting_end": 4}, 37.5),
        (30, {"task": "repaint", "repainting_start": 30, "repainting_end": 45}, 45),
        (30, {"task": "repaint", "repainting_start": -5, "repainting_end": 595}, 600),
        (3, {"task": "repaint", "repainting_end": 12}, 12),
        (3, {"task": "repaint", "repainting_start": -7}, 10),
        (600, {"task": "complete"}, 600),
    ],
)
async def test_the_length_of_an_edit_follows_from_its_source(
    source: float, fields: dict[str, Any], seconds: float
) -> None:
    request = (await check(source, source_audio="a file", **fields)).request
    assert (request.frames, request.open_length) == (round(seconds * SAMPLE_RATE), False)
    assert request.source_audio == AudioInput(file_id="a file", frames=round(source * SAMPLE_RATE))


@pytest.mark.parametrize(
    ("source", "fields", "param", "suggestion"),
    [
        (9.999, {"task": "cover"}, "source_audio", "10 to 600 s"),
        (600.001, {"task": "cover"}, "source_audio", "10 to 600 s"),
        (3, {"task": "repaint", "repainting_end": 2}, "source_audio", "10 to 600 s"),
        (590, {"task": "repaint", "repainting_start": -10.001}, "repainting_start", "-10"),
        (
            590,
            {"task": "repaint", "repainting_start": -9, "repainting_end": 592},
            "repainting_start",
            "-8",
        ),
        (
            590,
            {"task": "repaint", "repainting_start": -5, "repainting_end": 598},
            "repainting_end",
            "595",
        ),
        (30, {"task": "repaint", "repainting_start": 30}, "repainting_start", "0"),
        (30, {"task": "repaint", "repainting_start": 31, "repainting_end": 40}, "repainting_start", "30"),
        (30, {"task": "repaint", "repainting_start": 20, "repainting_end": 20}, "repainting_end", "21"),
        (30, {"task": "repaint", "repainting_start": 5, "repainting_end": 5.000001}, "repainting_end", "6"),
        (30, {"task": "repaint", "repainting_start": 29.999999}, "repainting_start", "0"),
    ],
)
async def test_a_result_that_is_too_short_or_too_long_names_what_can_mend_it(
    source: float, fields: dict[str, Any], param: str, suggestion: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await check(source, source_audio="a file", **fields)
    assert (caught.value.param, caught.value.suggestion) == (param, suggestion)
    if suggestion.lstrip("-").isdigit():
        mended = fields | {param: float(suggestion)}
        await check(source, source_audio="a file", **mended)


@pytest.mark.parametrize("name", ["source_audio", "reference_audio"])
async def test_a_file_that_is_not_there_is_named(name: str) -> None:
    fields = {"task": "cover", "source_audio": URL, name: "nothing"}
    with pytest.raises(FileGone) as caught:
        await check(**fields)
    assert (caught.value.param, caught.value.status) == (name, 404)


async def test_what_is_behind_a_url_is_held_for_at_the_most_of_the_model() -> None:
    for model, most in (("sandbox", 600), ("ace-step-1.5-xl", 240)):
        for fields in ({"task": "cover"}, {"task": "repaint", "repainting_end": 7}):
            request = (await check(model=model, source_audio=URL, **fields)).request
            assert (request.frames, request.open_length) == (most * SAMPLE_RATE, True)
            assert request.source_audio == AudioInput(url=URL)
    with pytest.raises(InvalidRequest) as caught:
        await check(task="repaint", source_audio=URL, repainting_start=-500, repainting_end=101)
    assert (caught.value.param, caught.value.suggestion) == ("repainting_start", "-499")


async def test_a_reference_says_nothing_of_the_length() -> None:
    for reference in (URL, "a file"):
        request = (await check(reference_audio=reference, audio_duration=20)).request
        assert (request.frames, request.open_length) == (20 * SAMPLE_RATE, False)


async def test_a_planner_decides_the_length_where_nobody_else_does() -> None:
    request = (await check(thinking=True)).request
    assert (request.frames, request.open_length, request.thinking) == (600 * SAMPLE_RATE, True, True)
    request = (await check(thinking=True, audio_duration=20)).request
    assert (request.frames, request.open_length, request.thinking) == (20 * SAMPLE_RATE, False, True)
    request = (await check(model="sandbox", thinking=True)).request
    assert (request.frames, request.open_length, request.thinking) == (30 * SAMPLE_RATE, False, False)
    with pytest.raises(InvalidRequest) as caught:
        await check(thinking=True, planner=False)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "thinking")


async def test_beside_a_source_a_length_is_told_to_have_no_effect() -> None:
    for source in ("a file", URL):
        checked = await check(task="cover", source_audio=source, audio_duration=100)
        assert checked.warnings == ("beside source_audio, audio_duration has no effect and was ignored",)
        with pytest.raises(InvalidRequest) as caught:
            await check(task="cover", source_audio=source, duration=100, strict=True)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "audio_duration")


async def test_who_says_nothing_hears_no_objection() -> None:
    for model in CATALOG.models.values():
        assert objections(model.variant, Knobs(), planner=False) == []
        checked = await check(model=model.id, planner=False, strict=True)
        assert (checked.warnings, checked.request.timesteps, checked.request.thinking) == ((), (), False)
