"""Which backend of an installation serves which model, and what an operator is told otherwise."""

import pytest

from gateway.catalog import SANDBOX, Catalog, read_catalog
from gateway.errors import ModelUnavailable
from gateway.routing import Routes, RoutingError, open_routes
from gateway.settings import DEFAULT_CATALOG


@pytest.fixture(scope="module", name="catalog")
def _catalog() -> Catalog:
    return read_catalog(DEFAULT_CATALOG)


def test_only_configured_models_are_served_to_live_keys(catalog: Catalog) -> None:
    routes = open_routes(catalog, engine_models=[("ace-step-1.5", "/models/a")], planner=None)
    assert routes.queue_for(catalog.find("ace-step-1.5"), test=False) == "ace-step-1.5"
    assert routes.queue_for(catalog.find(SANDBOX), test=False) == SANDBOX
    with pytest.raises(ModelUnavailable, match=r"ANTIPHON_ENGINE_MODELS=ace-step-1\.5-xl=") as caught:
        routes.queue_for(catalog.find("ace-step-1.5-xl"), test=False)
    assert caught.value.param == "model"
    assert [m for m in catalog.models if routes.can_serve(catalog.models[m])] == [SANDBOX, "ace-step-1.5"]


def test_the_sandbox_serves_every_test_key(catalog: Catalog) -> None:
    assert {Routes().queue_for(model, test=True) for model in catalog.models.values()} == {SANDBOX}


@pytest.mark.parametrize("name", ["nobody", SANDBOX, "ace-step"])
def test_a_name_that_the_engine_cannot_serve_ends_the_start(catalog: Catalog, name: str) -> None:
    with pytest.raises(RoutingError, match=name):
        open_routes(catalog, engine_models=[(name, "/models/a")], planner=None)


def test_only_models_of_the_engine_can_be_planned(catalog: Catalog) -> None:
    routes = open_routes(catalog, engine_models=[("ace-step-1.5", "/models/a")], planner="/models/lm")
    assert routes.can_plan(catalog.find("ace-step-1.5"))
    assert not routes.can_plan(catalog.find(SANDBOX))
    assert not open_routes(catalog, engine_models=[("ace-step-1.5", "/a")], planner=None).planner
