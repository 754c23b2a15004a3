"""What Runware is judged to be able to, for every parameter that a request can have."""

from typing import Any, get_type_hints

import pytest

from gateway.generation import LANGUAGES, GenerationRequest
from gateway.routing.judgement import Judgement
from gateway.routing.runware import judge
from tests.gateway.routing.runware_requests import (
    BASE,
    COVER,
    EXPRESSED,
    LET_GO,
    REFUSED,
    REPAINT,
    SECONDS,
    TURBO,
    named,
    request,
)
from tests.providers.runware import tables


def refused(judgement: Judgement) -> list[str]:
    return [objection.param for objection in judgement.objections]


@pytest.mark.parametrize(("air", "fields"), EXPRESSED, ids=map(named, EXPRESSED))
@pytest.mark.parametrize("strict", [False, True])
def test_what_it_can_express_is_neither_refused_nor_warned_of(
    air: str, fields: dict[str, Any], *, strict: bool
) -> None:
    assert judge(request(**fields, strict=strict), air) == Judgement()


@pytest.mark.parametrize(("air", "fields"), LET_GO, ids=map(named, LET_GO))
def test_a_knob_that_it_has_not_is_warned_of_and_refused_to_the_strict(
    air: str, fields: dict[str, Any]
) -> None:
    judgement = judge(request(**fields), air)
    assert refused(judgement) == []
    [warning] = judgement.warnings
    [param] = [
        name for name in fields if name in warning and not (name == "guidance_scale" and fields[name] == 1)
    ]
    strict = judge(request(**fields, strict=True), air)
    assert (refused(strict), strict.warnings) == ([param], ())
    assert strict.objections[0].suggestion


@pytest.mark.parametrize(("param", "told", "fields"), REFUSED, ids=map(named, REFUSED))
def test_a_meaning_that_it_cannot_express_is_refused_naming_the_field(
    param: str, told: str, fields: dict[str, Any]
) -> None:
    judgement = judge(request(**fields), BASE)
    assert param in refused(judgement)
    [objection] = [objection for objection in judgement.objections if objection.param == param]
    assert told in objection.message
    assert objection.suggestion


@pytest.mark.parametrize(
    ("param", "nearest", "fields"),
    [
        ("prompt", "at least 2 characters", {"prompt": "a"}),
        ("prompt", "at most 3000 characters", {"prompt": "a" * 3001}),
        ("negative_prompt", "at least 2 characters", {"negative_prompt": "a"}),
        ("repainting_start", "-100", REPAINT | {"repainting_start": -150.0, "frames": 350 * SECONDS}),
        ("source_audio", "at most 300 s", COVER | {"frames": 301 * SECONDS}),
    ],
)
def test_a_refusal_suggests_the_nearest_that_it_takes(
    param: str, nearest: str, fields: dict[str, Any]
) -> None:
    (objection,) = judge(request(**fields), BASE).objections
    assert (objection.param, objection.suggestion) == (param, nearest)


def test_a_song_that_is_too_short_is_made_longer_and_cut_also_for_the_strict() -> None:
    for strict in (False, True):
        judgement = judge(request(frames=30 * SECONDS - 1, strict=strict), TURBO)
        assert judgement.objections == ()
        [warning] = judgement.warnings
        assert "cut to the asked length" in warning


def test_each_suggested_value_is_one_that_it_takes() -> None:
    seed = judge(request(seed=2**32 - 1, n=8), BASE).objections[0].suggestion
    duration = judge(request(frames=600 * SECONDS), BASE).objections[0].suggestion
    scale = judge(request(guidance_scale=0.0, strict=True), BASE).objections[0].suggestion
    mended = request(
        seed=int(seed or 0), n=8, frames=int(duration or 0) * SECONDS, guidance_scale=float(scale or 0)
    )
    assert judge(mended, BASE) == Judgement()


def test_no_parameter_of_a_request_is_forgotten_here() -> None:
    judged = {name for _, fields in [*EXPRESSED, *LET_GO] for name in fields}
    judged |= {name for *_, fields in REFUSED for name in fields}
    assert set(get_type_hints(GenerationRequest)) - judged == {"strict", "provider"}


def test_it_sings_in_every_language_that_can_be_asked_for() -> None:
    assert LANGUAGES == tables.LANGUAGES
