"""Every field of a generation: what is taken, what it becomes, and how a refusal helps."""

from typing import Any

import pytest

from gateway.audio import AudioSettings
from gateway.dialects.native.validation import DRAWN_SEEDS
from gateway.generation import MAX_VARIATIONS
from tests.gateway.api.installation import Customer

MODELS = {
    "sandbox": (5, 600, 30),
    "ace-step-1.5-xl": (10, 240, 30),
    "ace-step-1.5-xl-base": (10, 600, 60),
    "ace-step-1.5-xl-sft": (10, 600, 60),
    "ace-step-1.5": (5, 600, 60),
    "ace-step-1.5-base": (10, 600, 60),
    "ace-step": (5, 240, 60),
}
"""Lowest, highest and default seconds."""
STEPS = {"ace-step-1.5-xl": (1, 20), "ace-step-1.5-xl-base": (1, 300), "ace-step-1.5": (1, 20)}
GUIDANCE = {"ace-step-1.5-xl": (0, 20), "ace-step-1.5-xl-sft": (0, 30), "ace-step-1.5-base": (0, 30)}


async def refusal(customer: Customer, **body: Any) -> dict[str, Any]:
    """The error of a submit with a test key, which must not become a job."""
    answer = await customer.submit(key=customer.test_key, **body)
    assert answer.status_code in {400, 404}, answer.text
    assert await customer.count_jobs() == 0
    return dict(answer.json()["error"])


async def accepted(customer: Customer, **body: Any) -> dict[str, Any]:
    return await customer.submitted(key=customer.test_key, **body)


@pytest.mark.parametrize("model", MODELS)
async def test_a_model_has_its_own_lengths(customer: Customer, model: str) -> None:
    low, high, default = MODELS[model]
    for seconds, expected in ((low, low), (high, high), (None, default), (low + 0.5, low + 0.5)):
        job = await accepted(customer, model=model, audio_duration=seconds)
        assert (await customer.stored(job)).frames == expected * 48_000
        assert (job["model"], job["test"]) == (model, True)


@pytest.mark.parametrize("model", MODELS)
async def test_a_length_out_of_range_names_the_nearest(customer: Customer, model: str) -> None:
    low, high, _ = MODELS[model]
    for seconds, nearest in ((low - 0.001, low), (0, low), (-5, low), (high + 0.001, high), (1e300, high)):
        error = await refusal(customer, model=model, audio_duration=seconds)
        assert (error["param"], error["suggestion"]) == ("audio_duration", str(nearest))
        assert error["message"] == f"audio_duration must be between {low} and {high}"


@pytest.mark.parametrize(
    ("alias", "name", "value", "other"),
    [
        ("input", "prompt", "a waltz", "a march"),
        ("duration", "audio_duration", 12.5, 13),
        ("steps", "num_inference_steps", 9, 10),
        ("cfg_scale", "guidance_scale", 2.5, 3),
        ("output_format", "format", "mp3", "wav"),
    ],
)
async def test_an_alias_means_its_field_and_may_not_contradict_it(
    customer: Customer, alias: str, name: str, value: Any, other: Any
) -> None:
    model = "ace-step-1.5-xl-base"
    error = await refusal(customer, model=model, **{"audio_duration": None, name: other, alias: value})
    assert (error["param"], error["suggestion"]) == (alias, name)
    stored = []
    for fields in ({alias: value, name: None}, {name: value}, {name: value, alias: value}):
        job = await accepted(customer, model=model, **{"audio_duration": None, **fields})
        stored.append((await customer.stored(job), job["warnings"]))
    plain = [(request.prompt, request.frames, request.num_inference_steps) for request, _ in stored]
    assert len(set(plain)) == 1
    assert {request.guidance_scale for request, _ in stored} == {value if name == "guidance_scale" else None}
    assert all(warnings == [] for _, warnings in stored)


@pytest.mark.parametrize("model", STEPS)
async def test_steps_have_the_range_of_the_model(customer: Customer, model: str) -> None:
    low, high = STEPS[model]
    for wrong, nearest in ((low - 1, low), (high + 1, high)):
        error = await refusal(customer, model=model, audio_duration=30, num_inference_steps=wrong)
        assert (error["param"], error["suggestion"]) == ("num_inference_steps", str(nearest))
    for steps in (low, high):
        job = await accepted(customer, model=model, audio_duration=30, num_inference_steps=steps)
        assert (await customer.stored(job)).num_inference_steps == steps


@pytest.mark.parametrize("model", GUIDANCE)
async def test_guidance_has_the_range_of_the_model(customer: Customer, model: str) -> None:
    low, high = GUIDANCE[model]
    for wrong, nearest in ((low - 0.1, low), (high + 0.1, high)):
        error = await refusal(customer, model=model, audio_duration=30, guidance_scale=wrong)
        assert (error["param"], error["suggestion"]) == ("guidance_scale", str(nearest))
    job = await accepted(customer, model=model, audio_duration=30, guidance_scale=high)
    told = ["guidance_scale has no effect on turbo models and was ignored"]
    is_heard = model != "ace-step-1.5-xl"
    assert (await customer.stored(job)).guidance_scale == (high if is_heard else None)
    assert job["warnings"] == ([] if is_heard else told)


async def test_a_knob_that_the_model_has_not_is_let_go_with_a_warning(customer: Customer) -> None:
    job = await accepted(customer, num_inference_steps=8, guidance_scale=3)
    assert job["warnings"] == [
        "guidance_scale has no effect on sandbox and was ignored",
        "num_inference_steps has no effect on sandbox and was ignored",
    ]
    assert (await customer.job(job["id"], key=customer.test_key))["warnings"] == job["warnings"]


@pytest.mark.parametrize(
    ("field", "value", "suggestion"),
    [
        ("bpm", 29, "30"),
        ("bpm", 301, "300"),
        ("shift", 0, "0.1"),
        ("shift", 10.5, "10"),
        ("seed", -2, "0"),
        ("seed", 2**32, "4294967295"),
        ("time_signature", 5, "4"),
        ("time_signature", 100, "6"),
        ("key_scale", "H major", "C major"),
        ("key_scale", "C lydian", "C major"),
        ("key_scale", "", "C major"),
        ("vocal_language", "english", "en"),
        ("vocal_language", "xx", "unknown"),
        ("vocal_language", "EN", "en"),
        ("format", "mp4", "mp3"),
        ("format", "aac", None),
        ("format", "FLAC", "flac"),
        ("response_format", "b64", "b64_json"),
        ("response_format", "uri", "url"),
        ("task", "text2musik", "text2music"),
        ("prompt", "", None),
        ("prompt", " \n\t", None),
        ("prompt", None, None),
        ("prompt", "x" * 4_001, None),
        ("lyrics", "x" * 10_001, None),
        ("negative_prompt", "x" * 4_001, None),
        ("ttl", 59, "60"),
        ("ttl", 7 * 24 * 3600 + 1, "604800"),
        ("webhook_url", "https://example.com/" + "x" * 2_048, None),
        ("webhook_url", "", None),
        ("webhook_url", "ftp://example.com/", None),
        ("webhook_url", "https://user:secret@example.com/", None),
        ("webhook_url", "http://127.0.0.1/", None),
        ("webhook_url", "https://example.com:22/", None),
        ("webhook_url", "http://[::ffff:169.254.169.254]/", None),
        ("upload_url", "http://localhost/", None),
        ("upload_url", "https://10.0.0.1/put", None),
        ("upload_url", "file:///etc/passwd", None),
    ],
)
async def test_a_value_out_of_range_is_answered_with_the_nearest(
    customer: Customer, field: str, value: Any, suggestion: str | None
) -> None:
    error = await refusal(customer, **{field: value})
    assert (error["code"], error["param"]) == ("invalid_request", field)
    assert error["message"].startswith(field)
    assert error["suggestion"]
    assert suggestion is None or error["suggestion"] == suggestion


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        ("bpm", 30, 30),
        ("bpm", 300, 300),
        ("seed", 0, 0),
        ("seed", 2**32 - 1, 2**32 - 1),
        ("time_signature", 3, 3),
        ("vocal_language", "yue", "yue"),
        ("vocal_language", "unknown", "unknown"),
        ("key_scale", "am", "A minor"),
        ("key_scale", "AM", "A major"),
        ("key_scale", "B♭ Major", "Bb major"),
        ("key_scale", "bb", "Bb major"),
        ("key_scale", "b", "B major"),
        ("key_scale", "f♯ moll", "F# minor"),
        ("key_scale", "  F#min ", "F# minor"),
        ("negative_prompt", "drums", "drums"),
        ("negative_prompt", "  ", None),
        ("lyrics", "[verse]\nla", "[verse]\nla"),
        ("prompt", "x" * 4_000, "x" * 4_000),
        ("prompt", "ピアノ 🎹", "ピアノ 🎹"),
        ("task", "text2music", "text2music"),
        ("return_base64", True, True),
        ("response_format", "b64_json", "b64_json"),
        ("response_format", "base64", "b64_json"),
        ("format", "ogg", "ogg"),
        ("ttl", 60, 60),
        ("ttl", 7 * 24 * 3600, 7 * 24 * 3600),
        ("webhook_url", "https://example.com:8443/hook?a=1", "https://example.com:8443/hook?a=1"),
        ("upload_url", "http://example.com/put", "http://example.com/put"),
    ],
)
async def test_a_value_arrives_as_it_was_meant(
    customer: Customer, field: str, value: Any, stored: Any
) -> None:
    job = await accepted(customer, **{field: value})
    assert getattr(await customer.stored(job), field) == stored


async def test_every_other_field_may_be_null_or_absent(customer: Customer) -> None:
    names = (
        "lyrics audio_duration num_inference_steps guidance_scale shift negative_prompt seed format "
        "response_format return_base64 audio_settings bpm key_scale time_signature vocal_language "
        "instrumental task metadata provider webhook_url upload_url ttl "
        "input duration steps cfg_scale output_format user stream raw "
        "disable_formatting "
        "passthrough raw_response"
    ).split()
    job = await accepted(customer, **dict.fromkeys(names))
    assert (await customer.stored(job)).frames == 30 * 48_000


async def test_no_seed_or_minus_one_is_a_random_one_that_every_backend_takes(customer: Customer) -> None:
    jobs = [await accepted(customer, n=8, **fields) for fields in ({}, {"seed": -1}, {"seed": None}, {})]
    seeds = {(await customer.stored(job)).seed for job in jobs}
    assert len(seeds) == 4
    assert all(seed in range(2**31 - 7) for seed in seeds)


def test_the_highest_drawn_seed_leaves_room_for_all_variations() -> None:
    room = 2**31 - DRAWN_SEEDS
    assert room == MAX_VARIATIONS


async def test_one_file_goes_to_an_upload_url(customer: Customer) -> None:
    error = await refusal(customer, upload_url="https://example.com/put", n=2)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "upload_url")
    await accepted(customer, upload_url="https://example.com/put", n=1)


async def test_without_lyrics_it_is_instrumental(customer: Customer) -> None:
    for fields, instrumental in (
        ({}, True),
        ({"lyrics": " "}, True),
        ({"lyrics": "la"}, False),
        ({"lyrics": "la", "instrumental": True}, True),
        ({"instrumental": False}, True),
    ):
        assert (await customer.stored(await accepted(customer, **fields))).instrumental is instrumental


async def test_clients_of_others_may_send_what_means_nothing_here(customer: Customer) -> None:
    ignored = {"user": "u-1", "stream": False, "disable_formatting": True, "raw": 1, "passthrough": {}}
    await accepted(customer, **ignored, raw_response=[])


@pytest.mark.parametrize(
    ("field", "value", "param", "suggestion"),
    [
        ("promt", "x", "promt", "prompt"),
        ("Prompt", "x", "Prompt", "prompt"),
        ("audio_lenght", 5, "audio_lenght", None),
        ("num_steps", 5, "num_steps", None),
        ("lyric", "la", "lyric", "lyrics"),
        ("qqqqqqqq", 1, "qqqqqqqq", None),
        ("", 1, None, None),
        ("audio_settings", {"bit_rate": 128}, "audio_settings.bit_rate", "bitrate"),
        ("audio_settings", {"samplerate": 48_000}, "audio_settings.samplerate", "sample_rate"),
    ],
)
async def test_an_unknown_name_is_answered_with_the_nearest(
    customer: Customer, field: str, value: Any, param: str | None, suggestion: str | None
) -> None:
    error = await refusal(customer, format="mp3", **{field: value})
    assert error["code"] == "unknown_parameter"
    assert (error["param"] or None) == param
    if suggestion is not None:
        assert error["suggestion"] == suggestion
        assert repr(suggestion) in error["message"]


@pytest.mark.parametrize(
    ("audio_format", "settings", "param", "suggestion"),
    [
        ("mp3", {"bitrate": 129}, "bitrate", "128 or 160"),
        ("mp3", {"bitrate": 31}, "bitrate", "32 or 40"),
        ("mp3", {"bitrate": 321}, "bitrate", "256 or 320"),
        ("mp3", {"bitrate": 10**30}, "bitrate", "256 or 320"),
        ("mp3", {"bitrate": 144, "sample_rate": 44_100}, "bitrate", "128 or 160"),
        ("mp3", {"bitrate": 161, "sample_rate": 24_000}, "bitrate", "144 or 160"),
        ("mp3", {"bitrate": 192, "sample_rate": 16_000, "channels": 1}, "bitrate", "144 or 160"),
        ("mp3", {"bitrate": 7, "sample_rate": 8_000}, "bitrate", "8 or 16"),
        ("mp3", {"bitrate": 80, "sample_rate": 11_025}, "bitrate", "56 or 64"),
        ("mp3", {"channels": 6}, "channels", "1 or 2"),
        ("mp3", {"channels": 0}, "channels", "1 or 2"),
        ("mp3", {"sample_rate": 44_000}, "sample_rate", "32000 or 44100"),
        ("mp3", {"sample_rate": 96_000}, "sample_rate", "44100 or 48000"),
        ("ogg", {"bitrate": 500}, "bitrate", "256"),
        ("ogg", {"bitrate": 47}, "bitrate", "48"),
        ("ogg", {"bitrate": 256, "channels": 1}, "bitrate", "224"),
        ("ogg", {"bitrate": 41, "channels": 1, "sample_rate": 8_000}, "bitrate", "40"),
        ("ogg", {"bitrate": 8, "sample_rate": 8_000}, "bitrate", "16"),
        ("ogg", {"sample_rate": 11_025}, "sample_rate", "8000 or 12000"),
        ("ogg", {"sample_rate": 22_050}, "sample_rate", "16000 or 24000"),
        ("ogg", {"sample_rate": 32_000}, "sample_rate", "24000 or 48000"),
        ("ogg", {"sample_rate": 44_100, "bitrate": 128}, "sample_rate", "24000 or 48000"),
    ],
)
async def test_a_file_that_cannot_be_made_is_answered_with_those_that_can(
    customer: Customer, audio_format: str, settings: dict[str, int], param: str, suggestion: str
) -> None:
    error = await refusal(customer, format=audio_format, audio_settings=settings)
    assert (error["code"], error["param"]) == ("invalid_request", f"audio_settings.{param}")
    assert error["suggestion"] == suggestion
    assert error["message"].startswith(f"audio_settings.{param}={settings[param]} is not offered")
    assert error["message"].endswith(f"Nearest: {suggestion}")


@pytest.mark.parametrize(
    ("audio_format", "settings"),
    [
        ("mp3", {"bitrate": 32}),
        ("mp3", {"bitrate": 320, "channels": 1}),
        ("mp3", {"bitrate": 8, "channels": 1, "sample_rate": 8_000}),
        ("mp3", {"sample_rate": 44_100}),
        ("ogg", {"bitrate": 48}),
        ("ogg", {"bitrate": 256}),
        ("ogg", {"bitrate": 32, "channels": 1}),
        ("ogg", {"sample_rate": 8_000, "channels": 1}),
    ],
)
async def test_a_file_that_can_be_made_is_ordered_as_wished(
    customer: Customer, audio_format: str, settings: dict[str, int]
) -> None:
    job = await accepted(customer, format=audio_format, audio_settings=settings)
    stored = await customer.stored(job)
    assert (stored.format, stored.audio_settings) == (audio_format, AudioSettings(**settings))


async def test_lossless_files_have_no_settings(customer: Customer) -> None:
    for audio_format in ("flac", "wav", None):  # FLAC if nothing is said
        for settings in ({"bitrate": 128}, {"channels": 2}, {"sample_rate": 48_000}):
            error = await refusal(customer, format=audio_format, audio_settings=settings)
            assert (error["code"], error["param"]) == ("unsupported_parameter", "audio_settings")
            assert error["suggestion"] == "format mp3 or ogg"
    await accepted(customer, format="wav", audio_settings={})
    await accepted(customer, format="flac", audio_settings={"bitrate": None})


async def test_metadata_comes_back_and_is_bounded(customer: Customer) -> None:
    for metadata in (
        {f"k{number}": "v" for number in range(17)},
        {"k" * 65: "v"},
        {"k": "v" * 513},
    ):
        assert (await refusal(customer, metadata=metadata))["param"].startswith("metadata")
    metadata = {f"k{number}": "" for number in range(14)} | {"k" * 64: "v" * 512, "ключ": "значение 🎵"}
    job = await accepted(customer, metadata=metadata)
    assert job["metadata"] == metadata
    assert (await customer.job(job["id"]))["metadata"] == metadata


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("ace-step-1.5-x", "ace-step-1.5-xl"),
        ("ACE-Step-1.5-XL", None),
        ("sandbx", "sandbox"),
        ("suno-v5", None),
        ("", None),
        ("ace-step-1.5-xl ", "ace-step-1.5-xl"),
    ],
)
async def test_an_unknown_model_is_answered_with_the_nearest(
    customer: Customer, name: str, suggestion: str | None
) -> None:
    error = await refusal(customer, model=name)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert error["suggestion"] in MODELS
    assert suggestion is None or error["suggestion"] == suggestion


async def test_a_model_may_be_spelled_with_a_hyphen(customer: Customer) -> None:
    job = await accepted(customer, model="ace-step-1-5-xl", audio_duration=240)
    assert job["model"] == "ace-step-1.5-xl"
    assert (await customer.get("/v1/models/ace-step-1-5-xl")).json()["id"] == "ace-step-1.5-xl"


async def test_the_list_of_models_tells_the_same_ranges(customer: Customer) -> None:
    answer = (await customer.get("/v1/models")).json()
    assert answer["object"] == "list"
    found = {model["id"]: model for model in answer["data"]}
    assert set(found) == set(MODELS)
    for name, (low, high, default) in MODELS.items():
        model, duration = found[name], found[name]["parameters"]["audio_duration"]
        assert (duration["minimum"], duration["maximum"], duration["default"]) == (low, high, default)
        assert (model["object"], model["owned_by"], type(model["created"])) == ("model", "antiphon", int)
        assert model["available"] is (name == "sandbox")
        assert model["tasks"][0] == "text2music"
        assert (await customer.get(f"/v1/models/{name}")).json() == model
    for name, (low, high) in STEPS.items():
        steps = found[name]["parameters"]["num_inference_steps"]
        assert (steps["minimum"], steps["maximum"]) == (low, high)
    assert "num_inference_steps" not in found["sandbox"]["parameters"]
