"""Which route serves a request, and what is said where none can: facts about a pure function."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import pytest

from engine import Task
from gateway.catalog import Catalog, Model, read_catalog
from gateway.errors import GatewayError, InvalidRequest, ModelUnavailable, UnsupportedParameter
from gateway.generation import SAMPLE_RATE, AudioInput, GenerationRequest, ProviderChoice
from gateway.jobs.workforce import LoadedModel
from gateway.routing import Choice, Circuit, Known, RouteHealth, Routes, open_routes, route_request
from gateway.settings import DEFAULT_CATALOG

CATALOG: Final[Catalog] = read_catalog(DEFAULT_CATALOG)
TURBO: Final = CATALOG.find("ace-step-1.5")
BASE: Final = CATALOG.find("ace-step-1.5-base")
BOTH: Final = frozenset({"runware", "wavespeed"})
ALL: Final = open_routes(
    CATALOG,
    engine_models=[(TURBO.id, "/a"), (BASE.id, "/b")],
    planner="/lm",
    providers=BOTH,
)
REMOTE_ONLY: Final = open_routes(CATALOG, engine_models=[], planner=None, providers=BOTH)
SOURCE: Final = AudioInput(file_id="f", frames=60 * SAMPLE_RATE)
URL: Final = AudioInput(url="https://music.example/a")
READY: Final = LoadedModel(model=TURBO.id, state="ready", longest_seconds=600.0)


def wish(seconds: float = 60, **fields: Any) -> GenerationRequest:
    return GenerationRequest(
        **{"prompt": "a song", "frames": round(seconds * SAMPLE_RATE), "seed": 1} | fields
    )


def told(backend: str, model: Model = TURBO, **facts: Any) -> dict[tuple[str, str], RouteHealth]:
    return {(backend, model.id): RouteHealth(backend=backend, model=model.id, **facts)}


def known(loaded: LoadedModel | None = READY, **facts: Mapping[str, Any]) -> Known:
    """All routes to TURBO are well, but for these facts of `runware` and `wavespeed`."""
    health = told("runware", **facts.get("runware", {})) | told("wavespeed", **facts.get("wavespeed", {}))
    return Known(models={} if loaded is None else {loaded.model: loaded}, health=health)


def chosen(
    request: GenerationRequest | None = None,
    facts: Known | None = None,
    *,
    routes: Routes = ALL,
    model: Model = TURBO,
    allowed: frozenset[str] | None = None,
) -> Choice:
    return route_request(routes, model, request or wish(), facts or known(), allowed=allowed)


def backends(choice: Choice) -> str:
    return " ".join(queue.split("/")[0] if "/" in queue else "engine" for queue in choice.queues)


def refused(request: GenerationRequest, **options: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        chosen(request, **options)
    return caught.value


def ordered(*names: str) -> Model:
    return msgspec.structs.replace(TURBO, routes=names)


OPEN: Final = {"circuit": Circuit.OPEN}
HALF: Final = {"circuit": Circuit.HALF_OPEN}


@pytest.mark.parametrize(
    ("facts", "order", "reason"),
    [
        (known(), "engine runware wavespeed", "first by price"),
        (known(None), "runware wavespeed engine", "engine has no worker"),
        (
            known(LoadedModel(model=TURBO.id, state="loading")),
            "runware wavespeed engine",
            "engine is loading the model",
        ),
        (known(None, runware=OPEN), "wavespeed engine runware", "engine has no worker"),
        (known(None, runware=HALF), "wavespeed runware engine", "engine has no worker"),
        (known(runware={"no_credit": True}), "engine wavespeed runware", "first by price"),
        (
            known(None, runware=OPEN, wavespeed=OPEN),
            "engine runware wavespeed",
            "first by price, though engine has no worker",
        ),
        (
            known(LoadedModel(model=TURBO.id, state="failed")),
            "runware wavespeed",
            "first by price",
        ),
        (
            known(LoadedModel(model=TURBO.id, state="failed"), runware={"no_credit": True}),
            "wavespeed runware",
            "runware has no credit",
        ),
        (Known(), "engine runware wavespeed", "first by price, though engine has no worker"),
    ],
)
def test_what_is_well_comes_before_what_is_not_then_what_is_cheap(
    facts: Known, order: str, reason: str
) -> None:
    choice = chosen(facts=facts)
    assert (backends(choice), choice.reason) == (order, reason)


def test_the_operators_order_comes_before_the_price_and_not_before_an_open_circuit() -> None:
    model = ordered("wavespeed", "engine")
    choice = chosen(model=model)
    assert (backends(choice), choice.reason) == (
        "wavespeed engine runware",
        "first in the operator's order",
    )
    choice = chosen(model=model, facts=known(wavespeed=OPEN))
    assert (backends(choice), choice.reason) == ("engine runware wavespeed", "wavespeed failed too often")


@pytest.mark.parametrize(("seconds", "order"), [(5, "wavespeed runware"), (11, "runware wavespeed")])
def test_the_price_is_that_of_what_is_made_which_may_be_more_than_is_asked(seconds: int, order: str) -> None:
    choice = chosen(wish(seconds), routes=REMOTE_ONLY)
    assert (backends(choice), choice.reason) == (order, "first by price")


def test_at_one_price_the_faster_one_is_first_and_one_that_nobody_has_timed_is_last() -> None:
    model = msgspec.structs.replace(TURBO, runware_usd_per_second="0.0003", engine=None)
    for runware, wavespeed, order, reason in (
        (9.0, 4.0, "wavespeed runware", "first by latency"),
        (None, 4.0, "wavespeed runware", "first by latency"),
        (4.0, 4.0, "runware wavespeed", "first by name"),
    ):
        facts = known(runware={"latency_seconds": runware}, wavespeed={"latency_seconds": wavespeed})
        choice = chosen(facts=facts, model=model, routes=REMOTE_ONLY)
        assert (backends(choice), choice.reason) == (order, reason)


@pytest.mark.parametrize(
    ("asked", "order", "reason"),
    [
        ({"only": ("wavespeed",)}, "wavespeed", "asked for by provider"),
        ({"only": ("wavespeed", "runware")}, "runware wavespeed", "first by price"),
        ({"order": ("wavespeed",)}, "wavespeed engine runware", "asked for by provider"),
        ({"order": ("wavespeed", "runware")}, "wavespeed runware engine", "asked for by provider"),
        ({"order": ("wavespeed",), "allow_fallbacks": False}, "wavespeed", "asked for by provider"),
        ({"allow_fallbacks": False}, "engine", "first by price"),
        ({"ignore": ("engine",)}, "runware wavespeed", "first by price"),
        ({"ignore": ("engine", "runware")}, "wavespeed", "asked for by provider"),
        ({"only": ("engine", "runware"), "ignore": ("engine",)}, "runware", "asked for by provider"),
    ],
)
def test_the_client_says_which_backends_it_wants(asked: dict[str, Any], order: str, reason: str) -> None:
    choice = chosen(wish(provider=ProviderChoice(**asked)))
    assert (backends(choice), choice.reason) == (order, reason)


def test_whoever_wants_no_fallback_waits_for_the_first_choice_and_is_not_sent_elsewhere() -> None:
    asked = ProviderChoice(order=("runware", "engine"), allow_fallbacks=False)
    choice = chosen(wish(provider=asked), known(runware=OPEN))
    assert (backends(choice), choice.reason) == (
        "runware",
        "asked for by provider, though runware failed too often",
    )
    # It could be made elsewhere, and that is not asked for.
    error = refused(wish(provider=asked, reference_audio=URL))
    assert (type(error), error.param) == (UnsupportedParameter, "reference_audio")


def test_a_provider_that_does_not_serve_the_model_is_named_with_those_that_do() -> None:
    for asked in ({"only": ("wavespeed",)}, {"order": ("wavespeed",), "allow_fallbacks": False}):
        error = refused(wish(provider=ProviderChoice(**asked)), model=BASE)
        assert (type(error), error.param) == (InvalidRequest, "provider")
        assert "engine, runware" in error.message
        assert error.suggestion in {"engine", "runware"}
    request = wish(provider=ProviderChoice(order=("wavespeed", "runware")))
    choice = chosen(request, model=BASE)
    assert backends(choice) == "runware engine"
    assert choice.warnings[0] == f"provider: wavespeed does not serve {BASE.id} here and was ignored"
    strictly = refused(msgspec.structs.replace(request, strict=True), model=BASE)
    assert strictly.param == "provider"
    assert strictly.message.startswith(f"provider: wavespeed does not serve {BASE.id} here; ")


def test_who_is_refused_because_of_provider_is_told_which_routes_it_rules_out() -> None:
    request = wish(270, provider=ProviderChoice(only=("wavespeed",)))
    message = refused(request).message
    assert "; engine and runware can, but provider rules that out; models that can: " in message
    assert "rules that out" not in refused(request, facts=known(None, runware=OPEN)).message


def test_no_route_is_taken_that_cannot_express_the_request() -> None:
    for fields, order in (
        ({"reference_audio": URL}, "engine"),
        ({"thinking": True}, "engine"),
        ({"seed": 2**31}, "engine"),
        ({"seed": 2**31 - 1}, "engine runware wavespeed"),
        ({"seed": 2**31 - 1, "n": 2}, "engine"),
        ({"seed": 2**31 - 2, "n": 2}, "engine runware wavespeed"),
        ({"task": Task.COVER, "source_audio": SOURCE}, "engine runware"),
        ({"frames": 241 * SAMPLE_RATE}, "engine runware"),
        ({"frames": 301 * SAMPLE_RATE}, "engine"),
    ):
        choice = chosen(wish(**fields))
        assert backends(choice) == order
        if order == "engine":
            assert choice.reason == "the only route that can make it"


def test_a_song_that_fits_no_device_goes_where_it_fits() -> None:
    facts = known(LoadedModel(model=TURBO.id, state="ready", longest_seconds=100.7))
    assert backends(chosen(wish(100), facts)) == "engine runware wavespeed"
    assert backends(chosen(wish(101), facts)) == "runware wavespeed"
    error = refused(wish(301), facts=facts)
    assert (type(error), error.param, error.suggestion) == (InvalidRequest, "audio_duration", "100")


def test_an_open_length_ends_where_the_longest_of_its_routes_ends() -> None:
    request = wish(600, task=Task.COVER, source_audio=URL, open_length=True)
    for longest, routes, seconds in (
        (600.0, ALL, 600),
        (100.5, ALL, 300),
        (600.0, REMOTE_ONLY, 300),
    ):
        facts = known(LoadedModel(model=TURBO.id, state="ready", longest_seconds=longest))
        choice = chosen(request, facts, routes=routes)
        assert choice.request.frames == seconds * SAMPLE_RATE
        assert choice.request.open_length
    only = msgspec.structs.replace(request, provider=ProviderChoice(only=("engine",)))
    facts = known(LoadedModel(model=TURBO.id, state="ready", longest_seconds=100.5))
    assert chosen(only, facts).request.frames == 100 * SAMPLE_RATE


def test_warnings_are_those_of_the_route_that_comes_first() -> None:
    request = wish(shift=2.0)
    assert chosen(request).warnings == ()
    (warning,) = chosen(request, known(None)).warnings
    assert "shift" in warning
    assert "runware" in warning


@pytest.mark.parametrize(
    ("fields", "param", "able"),
    [
        ({"reference_audio": URL}, "reference_audio", "ace-step-1.5-base, sandbox"),
        ({"task": Task.EXTRACT, "source_audio": SOURCE, "track_name": "drums"}, "task", None),
        ({"seed": 2**32 - 1}, "seed", "ace-step-1.5-base, sandbox"),
        ({"frames": 400 * SAMPLE_RATE}, "audio_duration", "ace-step-1.5-base, sandbox"),
        ({"frames": 400 * SAMPLE_RATE, "guidance_scale": 31.0}, "audio_duration", "sandbox"),
        ({"frames": 400 * SAMPLE_RATE, "num_inference_steps": 300}, "audio_duration", None),
    ],
)
def test_who_is_refused_is_told_of_the_models_that_can(
    fields: dict[str, Any], param: str, able: str | None
) -> None:
    routes = open_routes(CATALOG, engine_models=[(BASE.id, "/b")], planner=None, providers=BOTH)
    error = refused(wish(**fields), routes=routes)
    assert isinstance(error, InvalidRequest)
    assert error.param == param
    assert error.suggestion
    assert "runware" in error.message
    named = error.message.partition("; models that can: ")[2]
    assert named == able if able is not None else BASE.id in named
    without = refused(wish(**fields), routes=routes, allowed=frozenset({TURBO.id}))
    assert without.message.endswith("no other model here can")


def test_a_model_whose_worker_failed_or_whose_provider_is_not_paid_is_not_named() -> None:
    routes = open_routes(CATALOG, engine_models=[(BASE.id, "/b")], planner=None, providers=BOTH)
    failed = Known(models={BASE.id: LoadedModel(model=BASE.id, state="failed")}, health=known().health)
    assert refused(wish(reference_audio=URL), routes=routes, facts=failed).message.endswith(
        "; models that can: sandbox"
    )
    request = wish(270, provider=ProviderChoice(only=("wavespeed",)))
    unpaid = known(None)
    assert BASE.id in refused(request, routes=REMOTE_ONLY, facts=unpaid).message
    unpaid = Known(health={**unpaid.health, **told("runware", BASE, no_credit=True)})
    assert BASE.id + "," not in refused(request, routes=REMOTE_ONLY, facts=unpaid).message


def test_where_only_an_operator_can_help_no_money_is_held() -> None:
    unpaid = {"no_credit": True}
    facts = known(runware=unpaid, wavespeed=unpaid)
    error = refused(wish(), facts=facts, routes=REMOTE_ONLY)
    assert (type(error), error.param) == (ModelUnavailable, "model")
    assert "runware and wavespeed" in error.message
    one = known(runware=unpaid)
    choice = chosen(facts=one, routes=REMOTE_ONLY)
    assert (backends(choice), choice.reason) == ("wavespeed runware", "runware has no credit")
    asked = ProviderChoice(only=("runware",))
    assert isinstance(refused(wish(provider=asked), facts=one), ModelUnavailable)
    # An open circuit closes by itself.
    facts = known(runware=OPEN, wavespeed=OPEN)
    assert backends(chosen(facts=facts, routes=REMOTE_ONLY)) == "runware wavespeed"


def test_the_sandbox_is_always_its_own_only_route() -> None:
    choice = chosen(model=CATALOG.find("sandbox"), facts=Known())
    assert (choice.queues, choice.reason) == (("sandbox",), "the only route")
