"""Answers held against Stripe's own description of its resources.

The resource classes of the `stripe` package are generated from Stripe's OpenAPI description: each field with
its type, its enumeration, and whether it may be null or absent.
"""

from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, ClassVar, ForwardRef, Literal, Union, get_args, get_origin

import stripe
from stripe import ErrorObject, ListObject, StripeObject
from stripe._object_classes import get_object_class
from stripe._stripe_object import UntypedStripeObject

LIST_FIELDS = {"object", "data", "has_more", "url"}
SCALARS = {int: int, str: str, bool: bool, float: float, Decimal: str}


def check(answer: dict[str, Any], path: str = "") -> None:
    """Raise AssertionError for a field that Stripe does not describe so."""
    kind = answer.get("object")
    path = path or str(kind)
    if kind == "list":
        assert set(answer) == LIST_FIELDS, path
        for place, item in enumerate(answer["data"]):
            check(item, f"{path}.data[{place}]")
    elif answer.get("deleted"):
        assert set(answer) == {"id", "object", "deleted"}, path
    else:
        described = get_object_class("V1", kind)
        assert described is not StripeObject, f"{path}: Stripe describes no object {kind!r}"
        check_fields(answer, described, path)


def check_error(error: dict[str, Any]) -> None:
    check_fields(error, ErrorObject, "error")


def check_fields(answer: dict[str, Any], described: type, path: str) -> None:
    fields = {
        name: hint for name, hint in described.__annotations__.items() if get_origin(hint) is not ClassVar
    }
    unknown = set(answer) - set(fields)
    assert not unknown, f"{path}: {described.__qualname__} has no {sorted(unknown)}"
    for name, hint in fields.items():
        if name in answer:
            _check_value(answer[name], hint, f"{path}.{name}")
        else:
            assert NoneType in _choices(hint), f"{path}.{name} is required"


def _choices(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, UnionType):
        return [inner for choice in get_args(hint) for inner in _choices(choice)]
    return [hint]


def _check_value(value: Any, hint: Any, path: str) -> None:
    choices = _choices(hint)
    words = [word for choice in choices if get_origin(choice) is Literal for word in get_args(choice)]
    if Any in choices:
        return
    if value is None:
        assert NoneType in choices, f"{path} is never null"
    elif isinstance(value, dict):
        _check_object(value, choices, path)
    elif isinstance(value, list):
        (inner,) = next(get_args(choice) for choice in choices if get_origin(choice) is list)
        for place, item in enumerate(value):
            _check_value(item, inner, f"{path}[{place}]")
    elif words:
        assert value in words, f"{path} is {value!r}, none of {words}"
    else:
        scalars = [SCALARS[choice] for choice in choices if choice in SCALARS]
        assert type(value) in scalars, f"{path} is {value!r}, not {hint}"


def _check_object(value: dict[str, Any], choices: list[Any], path: str) -> None:
    for choice in choices:
        origin = get_origin(choice)
        if origin is UntypedStripeObject:
            (inner,) = get_args(choice)
            for name, item in value.items():
                _check_value(item, inner, f"{path}.{name}")
            return
        if origin is ListObject or isinstance(choice, ForwardRef | str):
            check(value, path)
            return
        if isinstance(choice, type) and issubclass(choice, StripeObject):
            check_fields(value, choice, path)
            return
    raise AssertionError(f"{path} is no object")


def raw(answer: StripeObject) -> dict[str, Any]:
    """What came over the wire for it."""
    response = answer.last_response
    assert isinstance(response, stripe.StripeResponse)
    return response.data
