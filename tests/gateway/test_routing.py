"""Which backend of an installation serves which model, and what an operator is told otherwise."""

import pytest

from gateway.catalog import SANDBOX, Catalog, read_catalog
from gateway.errors import ModelUnavailable
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.routing import (
    ENGINE,
    Known,
    Routes,
    RoutingError,
    configured_providers,
    open_routes,
    route_request,
)
from gateway.settings import DEFAULT_CATALOG

REQUEST = GenerationRequest(prompt="a song", frames=30 * SAMPLE_RATE, seed=1)


@pytest.fixture(scope="module", name="catalog")
def _catalog() -> Catalog:
    return read_catalog(DEFAULT_CATALOG)


def test_only_configured_models_are_served_to_live_keys(catalog: Catalog) -> None:
    routes = open_routes(catalog, engine_models=[("ace-step-1.5", "/models/a")], planner=None)
    assert [m for m in catalog.models if routes.can_serve(catalog.models[m])] == [SANDBOX, "ace-step-1.5"]
    (route,) = routes.of(catalog.find("ace-step-1.5"))
    assert (route.backend, route.queue, route.nano_per_second) == (ENGINE, "ace-step-1.5", 0)


def test_a_provider_with_a_key_is_a_route_to_every_model_that_it_has(catalog: Catalog) -> None:
    providers = configured_providers(runware_api_key="r", wavespeed_api_key=None)
    routes = open_routes(catalog, engine_models=[], planner=None, providers=providers)
    by_runware = [m.id for m in catalog.models.values() if m.runware is not None]
    assert [m for m in catalog.models if routes.can_serve(catalog.models[m])] == [SANDBOX, *by_runware]
    both = configured_providers(runware_api_key="r", wavespeed_api_key="w")
    routes = open_routes(catalog, engine_models=[], planner=None, providers=both)
    found = routes.of(catalog.find("ace-step-1.5"))
    assert [(route.queue, route.remote_model, route.nano_per_second) for route in found] == [
        ("runware/ace-step-1.5", "runware:ace-step@v1.5-turbo", 100_000),
        ("wavespeed/ace-step-1.5", "wavespeed-ai/ace-step-1.5", 300_000),
    ]
    assert configured_providers(runware_api_key=None, wavespeed_api_key=None) == frozenset()


def test_who_cannot_be_served_is_told_every_setting_that_would_help(catalog: Catalog) -> None:
    told = str(Routes().unavailable(catalog.find("ace-step-1.5")))
    for setting in ("ENGINE_MODELS=ace-step-1.5=", "RUNWARE_API_KEY", "WAVESPEED_API_KEY"):
        assert f"ANTIPHON_{setting}" in told
    told = str(Routes().unavailable(catalog.find("ace-step")))
    assert "ANTIPHON_WAVESPEED_API_KEY" in told
    assert "ENGINE" not in told
    assert "RUNWARE" not in told
    with pytest.raises(ModelUnavailable, match="ANTIPHON_RUNWARE_API_KEY") as caught:
        route_request(Routes(), catalog.find("ace-step-1.5-xl"), REQUEST, Known(), allowed=None)
    assert (caught.value.param, caught.value.suggestion) == ("model", SANDBOX)


@pytest.mark.parametrize("name", ["nobody", SANDBOX, "ace-step"])
def test_a_name_that_the_engine_cannot_serve_ends_the_start(catalog: Catalog, name: str) -> None:
    with pytest.raises(RoutingError, match=name):
        open_routes(catalog, engine_models=[(name, "/models/a")], planner=None)


def test_only_models_of_the_engine_can_be_planned(catalog: Catalog) -> None:
    routes = open_routes(catalog, engine_models=[("ace-step-1.5", "/models/a")], planner="/models/lm")
    assert routes.can_plan(catalog.find("ace-step-1.5"))
    assert not routes.can_plan(catalog.find(SANDBOX))
    assert not open_routes(catalog, engine_models=[("ace-step-1.5", "/a")], planner=None).planner
