"""Query parameters that many reads have: moments, limits, ids, models, and the choice of CSV."""

import uuid
from datetime import UTC, datetime
from typing import Final

from litestar.openapi.spec import OpenAPIType

from gateway.catalog import Catalog
from gateway.dialects.native.documents import query
from gateway.dialects.native.guarding import GatewayRequest
from gateway.errors import InvalidRequest, ModelNotFound
from gateway.ids import parse_id
from gateway.jobs.reading import MAX_PAGE

FORMATS: Final = ("json", "csv")
FORMAT: Final = query(
    "`csv`: everything as a table, whatever `limit` and `cursor` say; so does `Accept: text/csv`.",
    name="format",
    type=OpenAPIType.STRING,
    enum=[*FORMATS],
)


def read_limit(value: int) -> int:
    """Raises InvalidRequest with the nearest limit that there is."""
    if not 1 <= value <= MAX_PAGE:
        raise InvalidRequest(
            f"limit must be between 1 and {MAX_PAGE}",
            param="limit",
            suggestion=str(min(max(value, 1), MAX_PAGE)),
        )
    return value


def read_cursor(text: str | None, param: str = "cursor") -> uuid.UUID | None:
    """The id after which a page begins. Raises InvalidRequest."""
    if text is None:
        return None
    cursor = parse_id(text)
    if cursor is None:
        raise InvalidRequest(f"{param} must be the next_cursor of an earlier page", param=param)
    return cursor


def read_id(text: str | None, param: str) -> uuid.UUID | None:
    """Of a thing that is filtered by; one that there is not selects nothing. Raises InvalidRequest."""
    if text is None:
        return None
    found = parse_id(text)
    if found is None:
        raise InvalidRequest(f"{param} must be an id: 32 hexadecimal digits", param=param)
    return found


def read_moment(value: str | None, param: str) -> datetime | None:
    """ISO 8601 or Unix seconds. Raises InvalidRequest."""
    if value is None:
        return None
    try:
        if value.isdecimal():
            return datetime.fromtimestamp(int(value), UTC)
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            f"{param} must be a time", param=param, suggestion="2026-01-31T00:00:00Z"
        ) from None


def read_choice(value: str, choices: tuple[str, ...], param: str) -> str:
    """One of these words. Raises InvalidRequest."""
    if value not in choices:
        raise InvalidRequest(
            f"{param} must be one of {', '.join(choices)}", param=param, suggestion=choices[0]
        )
    return value


def read_model_name(value: str | None, catalog: Catalog) -> str | None:
    """An alias counts as its model; a model that left the catalog may still have jobs."""
    if value is None:
        return None
    if "\x00" in value:
        raise InvalidRequest("model contains a NUL character", param="model")
    try:
        return catalog.find(value).id
    except ModelNotFound:
        return value


def wants_csv(request: GatewayRequest, chosen: str | None) -> bool:
    """`format` if it is given, else what `Accept` names. Raises InvalidRequest."""
    if chosen is not None:
        return read_choice(chosen, FORMATS, "format") == "csv"
    accepted = (request.header(b"accept") or "").split(",")
    return any(part.partition(";")[0].strip().lower() == "text/csv" for part in accepted)
