"""Answers that no client should trust: JSON in the vendor's shape, and wrong."""

import uuid
from typing import Any

import msgspec

from tests.providers.runware.account import Json
from tests.providers.runware.faults import HostileKind

_DEPTH = 100_000
_HUGE = "9" * 400


def mangle(answer: Json, kind: HostileKind) -> bytes:
    """The answer's bytes, made hostile."""
    whole = {
        "deep": b'{"data":' + b"[" * _DEPTH + b"]" * _DEPTH + b"}",
        "not_object": b'[["data",{"errors":"none"}],null,3]',
        "no_data": b"{}",
    }
    if kind in whole:
        return whole[kind]
    if kind == "both":
        stranger = {"code": "inferenceError", "message": "of another task", "taskUUID": str(uuid.uuid4())}
        return msgspec.json.encode(answer | {"errors": [stranger, *answer.get("errors", [])]})
    changed = {
        name: _items(value, kind) if name in ("data", "errors") else value for name, value in answer.items()
    }
    return msgspec.json.encode(changed).replace(f'"{_HUGE}"'.encode(), _HUGE.encode())


def _items(items: list[Json], kind: HostileKind) -> list[Json]:
    if kind == "duplicates":
        return [*items, *reversed(items)]
    return [_item(item, kind) for item in items]


def _item(item: Json, kind: HostileKind) -> Json:
    kept = {"taskType", "taskUUID"} if len(item) > 2 else {"taskType"}
    if kind == "nulls":
        return {name: value if name in kept else None for name, value in item.items()}
    if kind == "wrong_types":
        return {name: value if name in kept else _wrong(value) for name, value in item.items()}
    if kind == "missing":
        return {name: value for name, value in item.items() if name == "taskType"}
    if kind == "foreign":
        return item | {"taskUUID": str(uuid.uuid4())}
    return item | {"cost": _HUGE, "seed": _HUGE, "progress": _HUGE}


def _wrong(value: Any) -> Any:
    if isinstance(value, str):
        return {"value": [value]}
    return "many" if isinstance(value, int | float) else 7
