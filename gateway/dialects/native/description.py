"""The OpenAPI document, completed: what every answer carries in its head, and parameters as they are sent.

Litestar derives paths, bodies and answers from the handlers; of headers it knows those of successes alone.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import OpenAPI

from gateway.dialects.native.documents import ID, MONTH
from gateway.errors import raised_errors

Node = dict[str, Any]

_COUNT: Final = {"type": "integer", "minimum": 0}
_PATHS: Final[dict[str, Node]] = {
    "job_id": {"description": "`id` of a job.", "schema": {"type": "string", "pattern": ID}},
    "file_id": {"description": "`id` of a file.", "schema": {"type": "string", "pattern": ID}},
    "topup_id": {"description": "`id` of a top-up.", "schema": {"type": "string", "pattern": ID}},
    "endpoint_id": {
        "description": "`id` of a webhook endpoint.",
        "schema": {"type": "string", "pattern": ID},
    },
    "delivery_id": {"description": "`id` of a delivery.", "schema": {"type": "string", "pattern": ID}},
    "month": {
        "description": "A month by UTC, such as `2026-11`.",
        "schema": {"type": "string", "pattern": MONTH},
    },
    "model_id": {"description": "Id or alias of a model.", "schema": {"type": "string", "minLength": 1}},
}
_HEADERS: Final[dict[str, Node]] = {
    "x-request-id": {
        "description": "Names this answer in logs; tell it when you ask for help.",
        "required": True,
        "schema": {"type": "string", "pattern": "^req_[0-9a-f]{24}$"},
    },
    "x-should-retry": {
        "description": "`false`: the same request would be refused again. OpenAI's clients obey it.",
        "schema": {"type": "string", "enum": ["false"]},
    },
    "retry-after": {
        "description": "Seconds to wait before the request is sent again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "www-authenticate": {
        "description": "The scheme of keys.",
        "required": True,
        "schema": {"type": "string", "enum": ["Bearer"]},
    },
    "connection": {
        "description": "Nothing more is read from this connection.",
        "required": True,
        "schema": {"type": "string", "enum": ["close"]},
    },
    "location": {
        "description": "Where to ask for the job; relative to the origin.",
        "required": True,
        "schema": {"type": "string", "pattern": "^/v1/jobs/[0-9a-f]{32}$"},
    },
    "idempotent-replayed": {
        "description": "The job existed before: this request was sent earlier.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "x-ratelimit-limit-requests": {
        "description": "Generation requests per minute, for keys with such a limit.",
        "schema": _COUNT,
    },
    "x-ratelimit-remaining-requests": {"description": "How many are left.", "schema": _COUNT},
    "x-ratelimit-reset-requests": {
        "description": "When the minute is over.",
        "schema": {"type": "string", "pattern": "^[0-9]+s$"},
    },
    "x-ratelimit-limit-jobs": {
        "description": "Unfinished jobs at once, for keys with such a limit.",
        "schema": _COUNT,
    },
    "x-ratelimit-remaining-jobs": {"description": "How many more there may be.", "schema": _COUNT},
}
_RATE_LIMITS: Final = tuple(name for name in _HEADERS if name.startswith("x-ratelimit-"))
_OF_STATUS: Final[dict[str, tuple[str, ...]]] = {
    "401": ("www-authenticate",),
    "402": _RATE_LIMITS,
    "408": ("connection",),
    "429": ("retry-after", *_RATE_LIMITS),
    "431": ("connection",),
    "503": ("retry-after",),
}
_OF_SUBMIT: Final[dict[str, tuple[str, ...]]] = {
    "200": ("location", "idempotent-replayed", *_RATE_LIMITS),
    "202": ("location", "idempotent-replayed", *_RATE_LIMITS),
    "409": ("retry-after",),
}


class Description(OpenAPI):
    """The document of our own API."""

    def to_schema(self) -> Node:
        """As JSON has it."""
        document = super().to_schema()
        document.setdefault("components", {})["headers"] = {
            name: dict(node) for name, node in _HEADERS.items()
        }
        for operation in _operations(document):
            operation["parameters"] = [_parameter(node) for node in operation.get("parameters", ())]
            answers = operation["responses"]
            operation["responses"] = dict(sorted(answers.items()))
            for status, answer in answers.items():
                answer["headers"] = _headers(status, is_submit="202" in answers)
        return document


class DescribedConfig(OpenAPIConfig):
    """Litestar's, with our kind of document."""

    def to_openapi_schema(self) -> OpenAPI:
        """The frame that Litestar fills with paths and components."""
        frame = super().to_openapi_schema()
        return Description(**{field.name: getattr(frame, field.name) for field in fields(frame)})


def _operations(document: Node) -> Iterator[Node]:
    for path in document["paths"].values():
        yield from path.values()


def _parameter(node: Node) -> Node:
    if node["in"] == "path":
        node |= _PATHS.get(node["name"], {})
    schema = node["schema"]
    schema.pop("description", None)  # it stands beside the schema
    choices = [choice for choice in schema.get("oneOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:  # whatever is no body can be left out, but not be null
        del schema["oneOf"]
        schema |= choices[0]
    return node


def _headers(status: str, *, is_submit: bool) -> Node:
    names = ["x-request-id", *_OF_STATUS.get(status, ())]
    if is_submit:
        names += _OF_SUBMIT.get(status, ())
    headers: Node = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    repeats = {kind.retryable for kind in raised_errors() if str(kind.status) == status}
    if repeats == {False}:
        headers["x-should-retry"] = _HEADERS["x-should-retry"] | {"required": True}
    elif False in repeats:
        headers["x-should-retry"] = {"$ref": "#/components/headers/x-should-retry"}
    return headers
