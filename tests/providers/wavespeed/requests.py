"""What came in, and what goes out."""

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from tests.providers.wavespeed.models import INVALID, Refusal

KINDS: Final = tuple(
    (method, re.compile(pattern), kind, action)
    for method, pattern, kind, action in (
        ("POST", r"/api/v[23]/predictions", "list", "listed"),
        ("POST", r"/api/v[23]/predictions/delete", "delete", "delete"),
        ("GET", r"/api/v[23]/predictions/([^/]+)(?:/result)?", "poll", "result"),
        ("POST", r"/api/v[23]/media/uploads", "upload", "ticket"),
        ("POST", r"/api/v[23]/(?:media/upload/binary|upload)", "upload", "upload"),
        ("GET", r"/api/v[23]/(?:account/)?balance", "balance", "balance"),
        ("POST", r"/api/v[23]/model/pricing", "pricing", "pricing"),
        ("GET", r"/api/v[23]/models", "models", "models"),
        ("GET", r"/api/v[23]/webhook/secret", "secret", "secret"),
        ("POST", r"/api/v[23]/(.+)", "submit", "submit"),
        ("PUT", r"/upload-slot/([^/]+)", "put", "put"),
        ("GET", r"/outputs/([^/]+)", "download", "output"),
        ("GET", r"/files/([^/]+)", "download", "file"),
    )
)
"""Method, path, the kind by which faults are addressed, and what does it; fixed paths come before models."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request as it came; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    kind: str = ""
    action: str = ""
    named: str = ""
    """What the path names: a model, an id, a file."""

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass(slots=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


def recorded(scope: dict[str, Any], body: bytes) -> Recorded:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    method, path = scope["method"], scope["path"]
    found = (method, path, {name: values[-1] for name, values in query.items()}, headers, body)
    for wanted, pattern, kind, action in KINDS:
        match = pattern.fullmatch(path) if wanted == method else None
        if match:
            return Recorded(*found, kind, action, next(iter(match.groups()), ""))
    return Recorded(*found)


def success(data: Any) -> Reply:
    return Reply(200, msgspec.json.encode({"code": 200, "message": "success", "data": data}))


def json_of(request: Recorded, *, empty: Any = None) -> Any:
    if not request.body and empty is not None:
        return empty
    try:
        return request.json()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Refusal(400, "the request body is not valid JSON", code=INVALID) from None


def whole_number(members: dict[str, Any], field: str, least: int, most: int, *, default: int | None) -> int:
    value = members.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Refusal(400, f"property {field} must be an integer between {least} and {most}", code=INVALID)
    return value
