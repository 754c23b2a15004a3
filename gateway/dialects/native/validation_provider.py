"""`provider`: which backends a client wants. Whether they serve the model here is asked when it is routed."""

from typing import Final

from gateway.dialects.native.body import ProviderBody
from gateway.dialects.native.validation_values import not_one_of
from gateway.errors import InvalidRequest
from gateway.generation import ProviderChoice
from gateway.routing import BACKENDS

MAX_NAMES: Final = 8


def read_provider(given: str | ProviderBody | None) -> ProviderChoice | None:
    """A name alone means: this one and no other. Raises InvalidRequest with the nearest name."""
    if given is None:
        return None
    if isinstance(given, str):
        return ProviderChoice(only=_names("provider", (given,)))
    return ProviderChoice(
        order=_names("provider.order", given.order),
        only=_names("provider.only", given.only),
        ignore=_names("provider.ignore", given.ignore),
        allow_fallbacks=given.allow_fallbacks is not False,
    )


def _names(param: str, given: tuple[str, ...] | None) -> tuple[str, ...]:
    names = given or ()
    if len(names) > MAX_NAMES:
        raise InvalidRequest(
            f"{param} has {len(names)} values; at most {MAX_NAMES} are taken",
            param=param,
            suggestion=f"at most {MAX_NAMES} values",
        )
    for name in names:
        if name not in BACKENDS:
            raise not_one_of(param, name, BACKENDS)
    return tuple(dict.fromkeys(names))
