"""What each kind of weights can be asked for: heard, let go with a warning, or refused before any hold."""

from typing import Any, Final

import pytest

from tests.gateway.api.installation import Customer

URL: Final = "https://music.example/song.flac"
MODELS: Final = {
    "composer": ("sandbox",),
    "turbo": ("ace-step-1.5", "ace-step-1.5-xl"),
    "sft": ("ace-step-1.5-xl-sft",),
    "base": ("ace-step-1.5-base", "ace-step-1.5-xl-base"),
    "foreign": ("ace-step",),
}
EVERY: Final = tuple(MODELS)
ENGINE: Final = ("turbo", "sft", "base")
GUIDED: Final = ("sft", "base")
UNGUIDED: Final = ("composer", "turbo", "foreign")
UNHEARD: Final = ("composer", "foreign")
COVER: Final = {"task": "cover", "source_audio": URL}
REPAINT: Final = {"task": "repaint", "source_audio": URL}
EXTRACT: Final = {"task": "extract", "source_audio": URL, "track_name": "vocals"}
LEGO: Final = {"task": "lego", "source_audio": URL, "track_name": "drums"}

HEARD: Final[list[tuple[dict[str, Any], tuple[str, ...]]]] = [
    ({"bpm": 90, "key_scale": "Am", "time_signature": 3, "vocal_language": "de"}, EVERY),
    ({"n": 8}, EVERY),
    ({"negative_prompt": "drums"}, (*GUIDED, "composer", "foreign")),
    ({"guidance_scale": 1}, EVERY),
    ({"guidance_scale": 4, "guidance_type": "cfg"}, GUIDED),
    ({"guidance_type": "adg"}, GUIDED),
    ({"cfg_interval_start": 0.2, "cfg_interval_end": 0.8}, GUIDED),
    ({"num_inference_steps": 20}, ENGINE),
    ({"num_inference_steps": 300}, GUIDED),
    ({"shift": 3.5}, ENGINE),
    ({"infer_method": "sde"}, ENGINE),
    ({"timesteps": [1, 0.5, 0.1]}, ENGINE),
    ({"timesteps": [1 - i / 300 for i in range(300)]}, GUIDED),
    ({"reference_audio": URL}, (*ENGINE, "composer")),
    ({**COVER, "cover_strength": 0.5, "cover_noise_strength": 0.1}, (*ENGINE, "composer")),
    ({**REPAINT, "repainting_start": -10, "repainting_end": 20.5}, (*ENGINE, "composer")),
    ({**REPAINT, "reference_audio": URL, "n": 2}, (*ENGINE, "composer")),
    (EXTRACT, ("base", "composer")),
    (LEGO, ("base", "composer")),
    ({"task": "complete", "source_audio": URL, "track_classes": ["bass", "drums"]}, ("base", "composer")),
    ({"task": "complete", "source_audio": URL}, ("base", "composer")),
]
IDLE: Final[list[tuple[dict[str, Any], tuple[str, ...]]]] = [
    ({"guidance_scale": 4}, UNGUIDED),
    ({"guidance_type": "apg"}, UNGUIDED),
    ({"cfg_interval_start": 0.1}, UNGUIDED),
    ({"cfg_interval_end": 0.9}, UNGUIDED),
    ({"negative_prompt": "drums"}, ("turbo",)),
    ({"num_inference_steps": 8}, UNHEARD),
    ({"shift": 3.5}, UNHEARD),
    ({"timesteps": [1, 0.5]}, UNHEARD),
    ({"infer_method": "ode"}, UNHEARD),
    ({"thinking": True}, UNHEARD),
]
REFUSED: Final[list[tuple[dict[str, Any], tuple[str, ...], str, str]]] = [
    ({"task": "cover"}, (*ENGINE, "composer"), "source_audio", "upload with POST /v1/files"),
    ({"source_audio": URL}, EVERY, "source_audio", "leave it out"),
    (COVER, ("foreign",), "task", "text2music"),
    (
        {"task": "extract", "source_audio": URL, "track_name": "vocals"},
        ("turbo", "sft"),
        "task",
        "text2music",
    ),
    (LEGO, ("turbo", "sft", "foreign"), "task", "text2music"),
    ({"task": "complete", "source_audio": URL}, ("turbo", "sft"), "task", "text2music"),
    ({"reference_audio": URL}, ("foreign",), "reference_audio", "leave it out"),
    ({"cover_strength": 0.5}, EVERY, "cover_strength", "leave it out"),
    ({**REPAINT, "cover_noise_strength": 0.5}, ENGINE, "cover_noise_strength", "leave it out"),
    ({**COVER, "cover_strength": 1.1}, ENGINE, "cover_strength", "1"),
    ({**COVER, "cover_noise_strength": -0.1}, ENGINE, "cover_noise_strength", "0"),
    ({"repainting_end": 5}, EVERY, "repainting_end", "leave it out"),
    ({**REPAINT, "repainting_start": 5, "repainting_end": 5}, ENGINE, "repainting_end", "6"),
    ({**REPAINT, "repainting_start": -601}, ENGINE, "repainting_start", "-600"),
    ({**REPAINT, "repainting_end": 1e308}, ENGINE, "repainting_end", "600"),
    ({**REPAINT, "repainting_end": -1}, ENGINE, "repainting_end", "0"),
    ({"task": "lego", "source_audio": URL}, ("base", "composer"), "track_name", "vocals"),
    ({**LEGO, "track_name": "drumz"}, ("base", "composer"), "track_name", "drums"),
    ({"track_name": "drums"}, EVERY, "track_name", "leave it out"),
    ({**LEGO, "track_classes": ["drums"]}, ("base", "composer"), "track_classes", "leave it out"),
    (
        {"task": "complete", "source_audio": URL, "track_classes": ["bas"]},
        ("base", "composer"),
        "track_classes",
        "bass",
    ),
    ({"track_classes": ["x"] * 30_000}, EVERY, "track_classes", "at most 12 values"),
    ({"num_inference_steps": 21}, ("turbo",), "num_inference_steps", "20"),
    ({"num_inference_steps": -1}, EVERY, "num_inference_steps", None),
    ({"guidance_scale": 31}, ENGINE, "guidance_scale", None),
    ({"guidance_type": "apgg"}, EVERY, "guidance_type", "apg"),
    ({"infer_method": "euler"}, EVERY, "infer_method", None),
    ({"cfg_interval_start": 0.8, "cfg_interval_end": 0.2}, EVERY, "cfg_interval_end", "0.8"),
    ({"cfg_interval_start": 2}, EVERY, "cfg_interval_start", "1"),
    ({"timesteps": [0.5, 0.5]}, ENGINE, "timesteps", None),
    ({"timesteps": [1.5, 0.5]}, EVERY, "timesteps", None),
    ({"timesteps": [0.5, 0]}, EVERY, "timesteps", None),
    ({"timesteps": []}, EVERY, "timesteps", None),
    ({"timesteps": [1 - i / 300 for i in range(300)]}, ("turbo",), "timesteps", None),
    ({"timesteps": [1 - i / 400 for i in range(301)]}, EVERY, "timesteps", "at most 300 values"),
    ({"timesteps": [1, 0.5], "num_inference_steps": 8}, ENGINE, "num_inference_steps", "leave it out"),
    ({"timesteps": [1, 0.5], "shift": 3}, ENGINE, "shift", "leave it out"),
    ({"shift": 10.5}, EVERY, "shift", "10"),
    ({"thinking": True}, ENGINE, "thinking", "false"),
    ({**COVER, "thinking": True}, ("composer",), "thinking", "false"),
    ({"n": 0}, EVERY, "n", "1"),
    ({"n": 9}, EVERY, "n", "8"),
    ({**COVER, "source_audio": " "}, ENGINE, "source_audio", "upload with POST /v1/files"),
    ({**COVER, "source_audio": "https://"}, ENGINE, "source_audio", "upload with POST /v1/files"),
    ({**COVER, "source_audio": "http://[::1"}, ENGINE, "source_audio", "upload with POST /v1/files"),
    ({**COVER, "source_audio": "https://a:22/b"}, ENGINE, "source_audio", "upload with POST /v1/files"),
    ({**COVER, "source_audio": "file:///etc/passwd"}, ENGINE, "source_audio", "upload with POST /v1/files"),
    ({"reference_audio": "https://u:p@a/b"}, ENGINE, "reference_audio", "upload with POST /v1/files"),
    ({**COVER, "source_audio": f"https://a/{'x' * 2048}"}, ENGINE, "source_audio", "at most 2048 characters"),
]


def models_of(kinds: tuple[str, ...]) -> list[str]:
    return [model for kind in kinds for model in MODELS[kind]]


async def refusal(customer: Customer, status: int, **body: Any) -> dict[str, Any]:
    """The error of a submit with the live key, which must leave neither job nor hold."""
    answer = await customer.submit(**body)
    assert answer.status_code == status, answer.text
    assert await customer.count_jobs() == 0
    held = await customer.live.pool.fetchval(
        "SELECT count(*) FROM hold WHERE account_id = $1", customer.organization_id
    )
    assert held == 0
    return dict(answer.json()["error"])


async def made(customer: Customer, **body: Any) -> tuple[Any, list[str]]:
    """What the worker will read, and the warnings, with a test key; strict or not, the same is stored."""
    job = await customer.submitted(key=customer.test_key, **{"audio_duration": None, **body})
    return await customer.stored(job), job["warnings"]


def ids(cases: list[Any]) -> list[str]:
    return [" ".join(f"{name}={str(value)[:20]}" for name, value in case[0].items()) for case in cases]


@pytest.mark.parametrize(("fields", "kinds"), HEARD, ids=ids(HEARD))
async def test_what_has_an_effect_is_stored_as_it_was_said(
    customer: Customer, fields: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    for model in models_of(kinds):
        request, warnings = await made(customer, model=model, strict=True, **fields)
        assert warnings == []
        for name, value in fields.items():
            found = getattr(request, name)
            if name.endswith("_audio"):
                found = found.url
            expected = "A minor" if value == "Am" else value
            assert (list(found) if isinstance(found, tuple) else found) == expected


@pytest.mark.parametrize(("fields", "kinds"), IDLE, ids=ids(IDLE))
async def test_what_has_no_effect_is_told_and_refused_to_the_strict(
    customer: Customer, fields: dict[str, Any], kinds: tuple[str, ...]
) -> None:
    (name,) = fields
    for model in models_of(kinds):
        error = await refusal(customer, 400, model=model, audio_duration=None, strict=True, **fields)
        assert (error["code"], error["param"]) == ("unsupported_parameter", name)
        assert error["message"].startswith(f"{name} has no effect")
    for model in models_of(kinds):
        request, warnings = await made(customer, model=model, **fields)
        (told,) = warnings
        assert told.startswith(f"{name} has no effect")
        assert told.endswith("and was ignored")
        assert not getattr(request, name)


@pytest.mark.parametrize(("fields", "kinds", "param", "suggestion"), REFUSED, ids=ids(REFUSED))
async def test_what_cannot_be_honoured_is_refused_before_money(
    customer: Customer,
    fields: dict[str, Any],
    kinds: tuple[str, ...],
    param: str,
    suggestion: str | None,
) -> None:
    for model in models_of(kinds):
        error = await refusal(customer, 400, model=model, **{"audio_duration": None, **fields})
        assert error["code"] in {"invalid_request", "unsupported_parameter"}
        assert error["param"] == param
        assert error["suggestion"] if suggestion is None else error["suggestion"] == suggestion


async def test_every_model_tells_its_tasks_and_what_has_an_effect_on_it(customer: Customer) -> None:
    listed = {model["id"]: model for model in (await customer.get("/v1/models")).json()["data"]}
    for fields, kinds in HEARD:
        for model in models_of(kinds):
            assert fields.get("task", "text2music") in listed[model]["tasks"]
            known = listed[model]["parameters"]
            for name in fields.keys() - {"task"}:
                if (name, fields[name]) != ("guidance_scale", 1):
                    assert known[name].get("has_effect", True)
                    assert fields.get("task", "text2music") in known[name].get(
                        "tasks", listed[model]["tasks"]
                    )
    for fields, kinds in IDLE:
        (name,) = fields
        for model in models_of(kinds):
            assert listed[model]["parameters"].get(name, {"has_effect": False})["has_effect"] is False
