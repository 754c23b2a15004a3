"""Which backend serves a model: today the built-in composer, tomorrow engines and providers."""

from typing import Final

from gateway.catalog import SANDBOX, Model
from gateway.errors import ModelUnavailable

COMPOSER: Final = "composer"


def queue_for(model: Model, *, test: bool) -> str:
    """The queue whose workers can serve this model; test keys are always served by the sandbox.

    Raises ModelUnavailable, saying what an operator has to configure.
    """
    if test or model.engine == COMPOSER:
        return SANDBOX
    routes = [name for name in ("engine", "wavespeed", "runware") if getattr(model, name)]
    raise ModelUnavailable(
        f"no backend of this installation serves {model.id} yet (it knows the routes {', '.join(routes)})",
        param="model",
        suggestion=SANDBOX,
    )


def can_serve(model: Model) -> bool:
    """Whether live keys can use the model on this installation."""
    return model.engine == COMPOSER
