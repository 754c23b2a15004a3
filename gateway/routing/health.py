"""How a route fares, as workers tell it: for the order of routes, for refusals, metrics and operators."""

from enum import StrEnum

import msgspec


class Circuit(StrEnum):
    """Whether a backend is tried for a model."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    """One job at a time tries whether it works again."""
    OPEN = "open"


class RouteHealth(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend and model, in the eyes of one worker."""

    backend: str
    model: str
    circuit: Circuit = Circuit.CLOSED
    why: str | None = None
    """A `backends.base.Reason` or error code, while the circuit is not closed."""
    open_seconds: float | None = None
    """Until it is tried again."""
    running: int = 0
    """Tasks under way."""
    capacity: int | None = None
    latency_seconds: float | None = None
    """From submit to music, lately, in the middle."""
    error_rate: float = 0.0
    """Share of the latest attempts that failed by the backend's fault."""
    balance_nano: int | None = None
    """What our account there holds."""
    no_credit: bool = False
    """The provider serves nothing until an operator pays."""
