"""Which backends of this installation serve a model: the composer, the engine with weights, providers."""

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.catalog import SANDBOX, Catalog, CatalogError, Model
from gateway.errors import ModelUnavailable
from gateway.routing.route import ENGINE, REMOTE, RUNWARE, WAVESPEED, Route

COMPOSER: Final = "composer"
BACKENDS: Final = (ENGINE, *REMOTE)
"""All that a route can lead to, by the names that clients and operators use."""
_KEYS: Final = {RUNWARE: "ANTIPHON_RUNWARE_API_KEY", WAVESPEED: "ANTIPHON_WAVESPEED_API_KEY"}


class RoutingError(CatalogError):
    """What the operator configured does not go together with the catalog."""


class Routes(msgspec.Struct, frozen=True):
    """The routes that are configured here."""

    engine_models: frozenset[str] = frozenset()
    """Public ids of the models whose weights the engine was given."""
    planner: bool = False
    """Whether songs can be planned by a language model."""
    providers: frozenset[str] = frozenset()
    """Remote backends whose key is set."""
    models: tuple[Model, ...] = ()
    """All of the catalog: who is refused is told which of them can do it."""

    def of(self, model: Model) -> tuple[Route, ...]:
        """The ways to this model that are configured, in no order that means anything."""
        found = []
        if model.engine == COMPOSER or model.id in self.engine_models:
            found.append(Route(backend=ENGINE, model=model, nano_per_second=0))
        for backend in REMOTE:
            if backend in self.providers and (name := model.backends.get(backend)) is not None:
                price = model.provider_price(backend)
                found.append(Route(backend=backend, model=model, remote_model=name, nano_per_second=price))
        return tuple(found)

    def can_serve(self, model: Model) -> bool:
        """Whether live keys can use the model on this installation."""
        return bool(self.of(model))

    def can_plan(self, model: Model) -> bool:
        """Whether `thinking` means anything for this model here."""
        return self.planner and model.id in self.engine_models

    def unavailable(self, model: Model) -> ModelUnavailable:
        """What an operator has to configure before live keys can use the model."""
        ways = [f"ANTIPHON_ENGINE_MODELS={model.id}=<folder or repository>"] if model.engine else []
        ways += [_KEYS[backend] for backend in REMOTE if backend in model.backends]
        return ModelUnavailable(
            f"no backend of this installation serves {model.id} yet"
            + (f"; an operator can set {' or '.join(ways)}" if ways else ""),
            param="model",
            suggestion=SANDBOX,
        )


def open_routes(
    catalog: Catalog,
    *,
    engine_models: Iterable[tuple[str, str]],
    planner: str | None,
    providers: frozenset[str] = frozenset(),
) -> Routes:
    """Check the configured names against the catalog; raises RoutingError."""
    names: set[str] = set()
    for name, _ in engine_models:
        model = catalog.models.get(name)
        if model is None or model.engine in {None, COMPOSER}:
            able = [m.id for m in catalog.models.values() if m.engine not in {None, COMPOSER}]
            raise RoutingError(
                f"ANTIPHON_ENGINE_MODELS: the engine cannot serve {name!r}; it can serve {', '.join(able)}"
            )
        names.add(name)
    return Routes(
        engine_models=frozenset(names),
        planner=planner is not None,
        providers=providers,
        models=tuple(catalog.models.values()),
    )


def configured_providers(*, runware_api_key: str | None, wavespeed_api_key: str | None) -> frozenset[str]:
    """The remote backends that can be reached: those with a key."""
    keys = {RUNWARE: runware_api_key, WAVESPEED: wavespeed_api_key}
    return frozenset(backend for backend, key in keys.items() if key is not None)
