"""Requests as Stripe reads them: bracketed forms, held against Stripe's own description of the parameters.

The description is the one from which the `stripe` package is generated: its parameter types name every
parameter of an operation, its type and its enumerations.
"""

import typing
from collections.abc import Iterable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin
from urllib.parse import parse_qsl

from stripe._request_options import RequestOptions
from tests.providers.stripe.refusals import (
    Refusal,
    missing_parameter,
    not_implemented,
    unknown_parameter,
)

CLIENT_OPTIONS = frozenset(RequestOptions.__annotations__)
OPTION_TYPES = {"Mapping": Mapping, "StripeContext": object}  # not importable from where the options are used
ALWAYS_ACTED_ON = ("expand", "limit", "starting_after", "ending_before", "created")
UNIONS = (Union, UnionType)
BOOLEANS = {"true": True, "false": False}
Tree = dict[str, Any]


def decode(form: str) -> Tree:
    """`a[b][0]=c` as {"a": {"b": ["c"]}}."""
    root: Tree = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        first, *inner = name.replace("]", "").split("[")
        node = root
        for part, following in zip([first, *inner], inner, strict=False):
            child = node.setdefault(part or str(len(node)), {})
            if not isinstance(child, dict):
                raise Refusal(f"Invalid {name}: a value and a hash at once", param=following)
            node = child
        last = inner[-1] if inner else first
        node[last or str(len(node))] = value
    return {name: _with_lists(value) for name, value in root.items()}


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(name.isdecimal() for name in value):
        return [_with_lists(value[name]) for name in sorted(value, key=int)]
    return {name: _with_lists(inner) for name, inner in value.items()}


def read(form: Tree, description: type, acts_on: Iterable[str]) -> Tree:
    """The parameters with their types; refused where Stripe refuses them, or where we would ignore them."""
    params = _read_fields(form, description, "")
    supported = (*acts_on, *ALWAYS_ACTED_ON)
    for path in (leaf for name, value in params.items() for leaf in _leaves(value, name)):
        if not any(path == known or path.startswith(f"{known}.") for known in supported):
            raise not_implemented(path)
    return params


def _leaves(value: Any, path: str) -> Iterable[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _leaves(inner, path)
    else:
        yield path


@cache
def fields(description: type) -> tuple[Mapping[str, Any], frozenset[str]]:
    """Names and types of the parameters that go over the wire, and which of them are required."""
    hints = typing.get_type_hints(description, localns=OPTION_TYPES)
    wire = {name: hint for name, hint in hints.items() if name not in CLIENT_OPTIONS}
    return wire, frozenset(description.__required_keys__) - CLIENT_OPTIONS  # type: ignore[attr-defined]


def _read_fields(form: Tree, description: type, path: str) -> Tree:
    known, required = fields(description)
    for name in form:
        if name not in known:
            raise unknown_parameter(_inside(path, name))
    for name in sorted(required):
        if name not in form:
            raise missing_parameter(_inside(path, name))
    return {name: _read(value, known[name], _inside(path, name)) for name, value in form.items()}


def _inside(path: str, name: str | int) -> str:
    return f"{path}[{name}]" if path else str(name)


def _read(value: Any, hint: Any, path: str) -> Any:
    choices = [choice for choice in _choices(hint) if choice is not NoneType]
    literals = [word for choice in choices if get_origin(choice) is Literal for word in get_args(choice)]
    if value == "":
        return _unset(literals, path)
    if isinstance(value, dict):
        return _read_hash(value, choices, path)
    if isinstance(value, list):
        return _read_list(value, choices, path)
    return _read_scalar(value, choices, [word for word in literals if word], path)


def _choices(hint: Any) -> list[Any]:
    origin = get_origin(hint)
    if origin in UNIONS:
        return [inner for choice in get_args(hint) for inner in _choices(choice)]
    if origin is not None and getattr(origin, "_name", None) in ("NotRequired", "Required"):
        return _choices(get_args(hint)[0])
    return [hint]


def _unset(literals: list[str], path: str) -> None:
    if "" not in literals:
        raise Refusal(
            f"You passed an empty string for '{path}'. We assume empty values are an attempt to unset a"
            f" parameter; however '{path}' cannot be unset. You should remove '{path}' from your request"
            " or supply a non-empty value.",
            code="parameter_invalid_empty",
            param=path,
        )


def _read_hash(value: Tree, choices: list[Any], path: str) -> Tree:
    for choice in choices:
        if typing.is_typeddict(choice) or hasattr(choice, "__required_keys__"):
            return _read_fields(value, choice, path)
        if get_origin(choice) is dict:
            inner = get_args(choice)[1]
            return {name: _read_entry(item, inner, _inside(path, name)) for name, item in value.items()}
    raise Refusal(f"Invalid {_kind(choices)}: {path} is a hash", param=path)


def _read_entry(value: Any, hint: Any, path: str) -> Any:
    """A key of metadata is removed by an empty value."""
    return "" if value == "" else _read(value, hint, path)


def _read_list(value: list[Any], choices: list[Any], path: str) -> list[Any]:
    for choice in choices:
        if get_origin(choice) is list:
            (inner,) = get_args(choice)
            return [_read(item, inner, _inside(path, index)) for index, item in enumerate(value)]
    raise Refusal(f"Invalid {_kind(choices)}: {path} is an array", param=path)


def _read_scalar(value: str, choices: list[Any], words: list[str], path: str) -> Any:
    if value in words:
        return value
    if bool in choices and value in BOOLEANS:
        return BOOLEANS[value]
    if int in choices:
        try:
            return int(value)
        except ValueError:
            pass
    if words:
        raise Refusal(f"Invalid {path}: must be one of {', '.join(words)}", param=path)
    if str in choices:
        return value
    kind = _kind(choices)
    code = "parameter_invalid_integer" if kind == "integer" else None
    raise Refusal(f"Invalid {kind}: {value}", code=code, param=path)


def _kind(choices: list[Any]) -> str:
    for choice, name in ((int, "integer"), (bool, "boolean"), (str, "string")):
        if choice in choices:
            return name
    return "array" if any(get_origin(choice) is list for choice in choices) else "object"
