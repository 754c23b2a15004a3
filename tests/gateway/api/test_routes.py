"""Routes to providers as customers meet them: who is refused before money, where jobs wait, what is shown."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from gateway.generation import ProviderChoice
from gateway.ids import new_id, parse_id
from gateway.jobs.workforce import note_alive, note_left
from gateway.routing import Circuit, RouteHealth
from tests.gateway.api.installation import Customer, Installation, running

URL: Final = "https://music.example/song.flac"
TURBO: Final = "ace-step-1.5"
BASE: Final = "ace-step-1.5-base"
KEYS: Final = {"ANTIPHON_RUNWARE_API_KEY": "r-key", "ANTIPHON_WAVESPEED_API_KEY": "w-key"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agency(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    """A gateway that has no weights, and keys of both providers."""
    home: Path = tmp_path_factory.mktemp("agency")
    async with running(installation.dsn, home, **KEYS) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def client(agency: Installation) -> Customer:
    return await agency.customer()


@pytest_asyncio.fixture(loop_scope="session")
async def tell(agency: Installation, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Say how routes fare, as a worker would; heard at once."""
    monkeypatch.setattr("gateway.jobs.crew.REFRESH_SECONDS", -1.0)
    workers: list[uuid.UUID] = []

    async def say(*health: RouteHealth) -> None:
        workers.append(new_id())
        async with agency.live.pool.acquire() as conn:
            await note_alive(conn, workers[-1], [], capacity=1, routes=health)

    yield say
    async with agency.live.pool.acquire() as conn:
        for worker_id in workers:
            await note_left(conn, worker_id)


def health(backend: str, model: str = TURBO, **facts: Any) -> RouteHealth:
    return RouteHealth(backend=backend, model=model, **facts)


async def waiting(client: Customer, job: dict[str, Any]) -> tuple[str, list[str] | None]:
    row = await client.live.pool.fetchrow("SELECT queue, routes FROM job WHERE id = $1", parse_id(job["id"]))
    return row["queue"], row["routes"]


async def balance(client: Customer) -> Any:
    return (await client.get("/v1/balance")).json()


async def refusal(client: Customer, status: int = 400, **body: Any) -> dict[str, Any]:
    """What is refused holds no money and makes no job."""
    before = await balance(client)
    answer = await client.submit(**body)
    assert answer.status_code == status, answer.text
    assert await balance(client) == before
    assert await client.count_jobs() == 0
    return dict(answer.json()["error"])


@pytest.mark.parametrize(
    ("body", "param", "named"),
    [
        ({"model": TURBO, "reference_audio": URL}, "reference_audio", "sandbox"),
        ({"model": TURBO, "audio_duration": 301}, "audio_duration", "sandbox"),
        ({"model": TURBO, "seed": 2**31}, "seed", "sandbox"),
        ({"model": BASE, "task": "extract", "source_audio": URL, "track_name": "drums"}, "task", "sandbox"),
        ({"model": "ace-step", "task": "cover", "source_audio": URL}, "task", TURBO),
        ({"model": "ace-step", "reference_audio": URL}, "reference_audio", "sandbox"),
        ({"model": TURBO, "task": "extract", "source_audio": URL, "track_name": "drums"}, "task", "sandbox"),
        ({"model": "ace-step", "bpm": 120, "strict": True}, "bpm", TURBO),
        ({"model": BASE, "prompt": "x" * 3_001, "audio_duration": 30}, "prompt", TURBO),
    ],
)
async def test_what_no_route_can_express_is_refused_before_money_with_the_models_that_can(
    client: Customer, body: dict[str, Any], param: str, named: str
) -> None:
    error = await refusal(client, **{"audio_duration": None} | body)
    assert error["param"] == param
    assert error["code"] in {"unsupported_parameter", "invalid_request"}
    able = error["message"].partition("models that can: ")[2].split(", ")
    assert named in able
    for model in able:
        wish = {"prompt": "a calm piano"} | body | {"model": model}
        quote = await client.http.post("/v1/audio/quotes", json=wish, headers=client.headers())
        assert quote.status_code == 200, quote.text
    assert error["suggestion"]
    assert error["charged"] is False


async def test_a_key_hears_only_of_models_that_it_may_use(client: Customer) -> None:
    key = await client.key(models=("ace-step",))
    for body in ({"task": "cover", "source_audio": URL}, {"bpm": 120, "strict": True}):
        error = await refusal(client, key=key, model="ace-step", audio_duration=None, **body)
        assert TURBO not in error["message"]


async def test_who_is_not_served_at_all_is_told_every_setting(customer: Customer) -> None:
    error = await refusal(customer, 503, model=TURBO, audio_duration=30)
    assert (error["code"], error["param"]) == ("model_unavailable", "model")
    for name in ("ANTIPHON_ENGINE_MODELS", *KEYS):
        assert name in error["message"]


async def test_a_job_waits_for_the_first_route_and_knows_the_others(client: Customer, tell: Any) -> None:
    await tell(health("runware"), health("wavespeed"))
    job = await client.submitted(model=TURBO, audio_duration=30)
    assert await waiting(client, job) == ("runware/ace-step-1.5", ["wavespeed/ace-step-1.5"])
    assert (job["route_reason"], job["backend"], job["warnings"]) == ("first by price", None, [])
    assert (await client.job(job["id"]))["route_reason"] == "first by price"
    sandbox = await client.submitted()
    assert await waiting(client, sandbox) == ("sandbox", None)


async def test_a_route_that_failed_too_often_comes_last_unless_another_worker_finds_it_well(
    client: Customer, tell: Any
) -> None:
    await tell(health("runware", circuit=Circuit.OPEN), health("wavespeed"))
    job = await client.submitted(model=TURBO, audio_duration=30, bpm=120)
    assert await waiting(client, job) == ("wavespeed/ace-step-1.5", ["runware/ace-step-1.5"])
    assert job["route_reason"] == "runware failed too often"
    assert any("bpm" in warning for warning in job["warnings"])
    # In the eyes of another worker it is well.
    await tell(health("runware"))
    job = await client.submitted(model=TURBO, audio_duration=30)
    assert (await waiting(client, job))[0] == "runware/ace-step-1.5"


async def test_where_no_provider_is_paid_no_money_is_held(client: Customer, tell: Any) -> None:
    await tell(health("runware", no_credit=True), health("wavespeed", no_credit=True))
    error = await refusal(client, 503, model=TURBO, audio_duration=30)
    assert error["code"] == "model_unavailable"


async def test_an_open_length_is_held_for_as_far_as_the_route_goes(client: Customer, tell: Any) -> None:
    await tell(health("runware"))
    body = {"model": TURBO, "task": "cover", "source_audio": URL, "audio_duration": None}
    job = await client.submitted(**body)
    assert job["cost"]["held_usd"] == "0.090000000"  # 300 s
    assert await waiting(client, job) == ("runware/ace-step-1.5", None)
    quote = await client.http.post(
        "/v1/audio/quotes", json=body | {"prompt": "a cover"}, headers=client.headers()
    )
    assert quote.json()["max_cost_usd"] == "0.090000000"


@pytest.mark.parametrize(
    ("asked", "stored", "queue"),
    [
        ("wavespeed", ProviderChoice(only=("wavespeed",)), "wavespeed"),
        (
            {"order": ["wavespeed", "wavespeed"], "allow_fallbacks": False},
            ProviderChoice(order=("wavespeed",), allow_fallbacks=False),
            "wavespeed",
        ),
        ({"ignore": ["runware"]}, ProviderChoice(ignore=("runware",)), "wavespeed"),
        ({"only": ["runware"], "order": None}, ProviderChoice(only=("runware",)), "runware"),
    ],
)
async def test_the_backends_of_provider_are_asked_and_no_others(
    client: Customer, tell: Any, asked: Any, stored: ProviderChoice, queue: str
) -> None:
    await tell(health("runware"), health("wavespeed"))
    job = await client.submitted(model=TURBO, audio_duration=30, provider=asked)
    assert await waiting(client, job) == (f"{queue}/ace-step-1.5", None)
    assert job["route_reason"] == "asked for by provider"
    assert (await client.stored(job)).provider == stored


@pytest.mark.parametrize(
    ("asked", "param", "suggestion"),
    [
        ("runwear", "provider", "runware"),
        ({"order": ["engin"]}, "provider.order", "engine"),
        ({"only": ["wave"]}, "provider.only", "wavespeed"),
        ({"ignore": [""]}, "provider.ignore", None),
        ({"ordre": ["engine"]}, "provider.ordre", "order"),
        ({"order": ["engine"] * 9}, "provider.order", None),
        ({"only": ["engine"]}, "provider", None),
        ({"ignore": ["runware", "wavespeed"]}, "provider", None),
        ({"order": "engine"}, "provider.order", None),
        (["engine"], "provider", None),
    ],
)
async def test_a_provider_that_there_is_not_is_answered_with_the_nearest(
    client: Customer, asked: Any, param: str, suggestion: str | None
) -> None:
    error = await refusal(client, model=TURBO, audio_duration=30, provider=asked)
    assert error["param"] == param
    assert suggestion is None or error["suggestion"] == suggestion


async def test_a_test_key_is_rehearsed_whatever_the_routes(client: Customer, tell: Any) -> None:
    await tell(health("runware", no_credit=True))
    body = {"model": TURBO, "reference_audio": URL, "seed": 2**32 - 1, "provider": "engine"}
    job = await client.submitted(key=client.test_key, audio_duration=400, **body)
    assert await waiting(client, job) == ("sandbox", None)
    assert job["route_reason"] == "test keys are served by the sandbox"
    assert job["warnings"] == []


async def test_a_quote_tells_what_the_first_route_would_change(client: Customer, tell: Any) -> None:
    await tell(health("runware"))
    answer = await client.http.post(
        "/v1/audio/quotes",
        json={"model": TURBO, "prompt": "a song", "audio_duration": 30, "shift": 2},
        headers=client.headers(),
    )
    (warning,) = answer.json()["warnings"]
    assert "shift" in warning
    assert "runware" in warning


async def test_models_show_every_route_and_how_it_fares_and_no_cost_of_ours(
    client: Customer, tell: Any
) -> None:
    await tell(
        health("runware", latency_seconds=7.5, balance_nano=123_456_789, error_rate=0.25),
        health("wavespeed", circuit=Circuit.HALF_OPEN),
        health("runware", BASE, no_credit=True),
    )
    answer = await client.get("/v1/models")
    listed = {model["id"]: model for model in answer.json()["data"]}
    routes = {route["backend"]: route for route in listed[TURBO]["routes"]}
    assert set(routes) == {"runware", "wavespeed"}
    assert routes["runware"] == {
        "backend": "runware",
        "state": "ready",
        "warm": True,
        "load_seconds": None,
        "realtime_factor": None,
        "latency_seconds": 7.5,
        "longest_seconds": 300,
    }
    states = {name: [route["state"] for route in listed[name]["routes"]] for name in listed}
    assert states[TURBO] == ["ready", "half_open"]
    assert (states[BASE], states["ace-step"], states["sandbox"]) == (["no_credit"], ["absent"], [])
    assert all(model["available"] for model in listed.values())
    for secret in ("balance", "123456789", "0.123456789", "error_rate", "provider_cost", "r-key", "w-key"):
        assert secret not in answer.text


async def test_models_offer_what_at_least_one_route_takes(client: Customer, customer: Customer) -> None:
    listed = {model["id"]: model for model in (await client.get("/v1/models")).json()["data"]}
    for name, tasks, longest in (
        (TURBO, ["text2music", "cover", "repaint"], 300),
        (BASE, ["text2music", "cover", "repaint"], 300),
        ("ace-step-1.5-xl", ["text2music", "cover", "repaint"], 240),
        ("ace-step", ["text2music"], 240),
    ):
        model = listed[name]
        assert model["tasks"] == tasks
        assert model["parameters"]["audio_duration"]["maximum"] == longest
        assert model["parameters"]["seed"]["maximum"] == 2**31 - 1
        unheard = {"reference_audio", "track_name", "thinking", "timesteps", "shift"}
        assert not unheard & model["parameters"].keys()
    assert {"num_inference_steps", "source_audio", "bpm"} <= listed[TURBO]["parameters"].keys()
    # Without any route it is the catalog's: test keys have all of it.
    known = (await customer.get(f"/v1/models/{BASE}")).json()
    assert (known["available"], known["routes"]) == (False, [])
    assert "extract" in known["tasks"]
    assert "reference_audio" in known["parameters"]
