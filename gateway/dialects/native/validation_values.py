"""Single values of a request: in range or refused, under their public name and with the nearest valid one."""

import difflib
from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from gateway.errors import InvalidRequest, UnsupportedParameter

Number = TypeVar("Number", int, float)
Choice = TypeVar("Choice", bound=StrEnum)


class Notes:
    """What has no effect on a request: worth a warning, or a refusal to those who are strict."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self.warnings: list[str] = []

    def add(self, field: str, message: str, *, suggestion: str = "leave it out") -> None:
        """Raises UnsupportedParameter if the client wants nothing to be let go."""
        if self._strict:
            raise UnsupportedParameter(message, param=field, suggestion=suggestion)
        self.warnings.append(f"{message} and was ignored")


def checked_text(name: str, value: str, most: int) -> str:
    """As it is, if it is not too long."""
    if len(value) > most:
        raise InvalidRequest(
            f"{name} has {len(value)} characters; at most {most} are taken",
            param=name,
            suggestion=f"at most {most} characters",
        )
    return value


def optional_text(name: str, value: str | None, most: int) -> str | None:
    """The same; blank is as good as absent."""
    return checked_text(name, value, most) if value and value.strip() else None


def within(name: str, value: Number | None, low: Number, high: Number) -> Number | None:
    """The value, if it lies in the range; both ends count."""
    if value is None or low <= value <= high:  # exact for integers of any size; false for NaN
        return value
    raise InvalidRequest(
        f"{name} must be between {plain(low)} and {plain(high)}",
        param=name,
        suggestion=plain(low if value < low else high),
    )


def those_that_can(models: Iterable[str]) -> str:
    """The end of a refusal by one model."""
    names = ", ".join(models)
    return f"; models that can: {names}" if names else ""


def plain(number: float) -> str:
    """All digits, and no decimal point where nothing follows it."""
    return str(int(number)) if number == int(number) else str(number)


def choice(name: str, value: str | None, choices: type[Choice], default: Choice) -> Choice:
    """The member of that name; the default where nothing was said."""
    return default if value is None else _member(name, value, choices)


def optional_choice(name: str, value: str | None, choices: type[Choice]) -> Choice | None:
    """The member of that name, or None where nothing was said."""
    return None if value is None else _member(name, value, choices)


def _member(name: str, value: str, choices: type[Choice]) -> Choice:
    try:
        return choices(value)
    except ValueError:
        raise not_one_of(name, value, choices) from None


def not_one_of(name: str, value: object, choices: Iterable[object]) -> InvalidRequest:
    """With all that there are, and the nearest."""
    names = [str(one) for one in choices]
    near = difflib.get_close_matches(str(value)[:100].lower(), names, n=1, cutoff=0.0)
    return InvalidRequest(
        f"{name} must be one of {', '.join(names)}", param=name, suggestion=near[0] if near else names[0]
    )
