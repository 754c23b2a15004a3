"""What a route says of a request before any money is held: what it cannot express, what it would change."""

import msgspec


class Objection(msgspec.Struct, frozen=True, kw_only=True):
    """Something with a meaning that the route cannot express; it is never dropped silently."""

    param: str
    message: str
    """`... takes no reference_audio`: a clause that reads well behind the route's name."""
    suggestion: str | None = None
    """The nearest value that the route takes."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing in either: the route makes exactly what was asked for."""

    objections: tuple[Objection, ...] = ()
    warnings: tuple[str, ...] = ()
    """Knobs of quality that are clamped or have no effect there, in words for the customer."""
