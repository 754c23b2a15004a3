"""Which backend of this installation serves a model: the composer, or the engine with weights."""

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.catalog import SANDBOX, Catalog, CatalogError, Model
from gateway.errors import ModelUnavailable

COMPOSER: Final = "composer"


class RoutingError(CatalogError):
    """What the operator configured does not go together with the catalog."""


class Routes(msgspec.Struct, frozen=True):
    """The routes that are configured here."""

    engine_models: frozenset[str] = frozenset()
    """Public ids of the models whose weights the engine was given."""
    planner: bool = False
    """Whether songs can be planned by a language model."""

    def queue_for(self, model: Model, *, test: bool) -> str:
        """The queue whose workers can serve this model; test keys are always served by the sandbox.

        Raises ModelUnavailable, saying what an operator has to configure.
        """
        if test or model.engine == COMPOSER:
            return SANDBOX
        if model.id in self.engine_models:
            return model.id
        ways = [f"ANTIPHON_ENGINE_MODELS={model.id}=<folder or repository>"] if model.engine else []
        raise ModelUnavailable(
            f"no backend of this installation serves {model.id} yet"
            + (f"; an operator can set {' or '.join(ways)}" if ways else ""),
            param="model",
            suggestion=SANDBOX,
        )

    def can_serve(self, model: Model) -> bool:
        """Whether live keys can use the model on this installation."""
        return model.engine == COMPOSER or model.id in self.engine_models

    def can_plan(self, model: Model) -> bool:
        """Whether `thinking` means anything for this model here."""
        return self.planner and model.id in self.engine_models


def open_routes(catalog: Catalog, *, engine_models: Iterable[tuple[str, str]], planner: str | None) -> Routes:
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
    return Routes(engine_models=frozenset(names), planner=planner is not None)
