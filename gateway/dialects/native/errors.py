"""The error envelope of our own API, for every way in which a request can fail."""

from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response import Response as LitestarResponse

from gateway.database import DATABASE_ERRORS, is_lost_connection
from gateway.dialects.native.answers import rate_limit_headers
from gateway.dialects.native.methods import allowed_methods
from gateway.errors import (
    FileGone,
    Forbidden,
    GatewayError,
    InternalError,
    InvalidRequest,
    LinkRefused,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RangeNotSatisfiable,
    UnsupportedMediaType,
)
from gateway.storage import StoreUnavailable

DOC_PATH: Final = "/docs/errors"

log = structlog.get_logger("http")

AnyRequest = Request[Any, Any, Any]

_BY_STATUS: Final[dict[int, type[GatewayError]]] = {
    403: LinkRefused,
    404: NotFound,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    416: RangeNotSatisfiable,
    503: Overloaded,
}


class ErrorBody(msgspec.Struct, kw_only=True):
    """What went wrong, whose move it is, and that nothing was charged."""

    message: str
    type: str
    param: str | None
    code: str
    suggestion: str | None
    charged: bool
    retryable: bool
    request_id: str
    doc_url: str
    required_usd: str | msgspec.UnsetType = msgspec.UNSET
    available_usd: str | msgspec.UnsetType = msgspec.UNSET
    owed_usd: str | msgspec.UnsetType = msgspec.UNSET
    max_cost_usd: str | msgspec.UnsetType = msgspec.UNSET
    price_version: str | msgspec.UnsetType = msgspec.UNSET


class ErrorEnvelope(msgspec.Struct, kw_only=True):
    """Every error answer."""

    error: ErrorBody


def render_error(request: AnyRequest, error: GatewayError) -> Response[ErrorEnvelope]:
    """The envelope, and the headers that keep well-made clients from retrying in vain."""
    return LitestarResponse(
        error_envelope(error, request.scope["state"].get("request_id", "")),
        status_code=error.status,
        headers=error_headers(error),
    )


def error_headers(error: GatewayError) -> dict[str, str]:
    """What clients act on without reading the body."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    if not error.retryable:
        headers["x-should-retry"] = "false"
    headers.update((name.decode(), value.decode()) for name, value in rate_limit_headers(error.allowance))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers


def error_envelope(error: GatewayError, request_id: str) -> ErrorEnvelope:
    """The body of every error answer."""
    return ErrorEnvelope(
        error=ErrorBody(
            message=error.message,
            type=error.type,
            param=error.param,
            code=error.code,
            suggestion=error.suggestion,
            charged=False,
            retryable=error.retryable,
            request_id=request_id,
            doc_url=f"{DOC_PATH}#{error.code}",
            **error.details,
        )
    )


def handle_gateway_error(request: AnyRequest, error: GatewayError) -> Response[ErrorEnvelope]:
    """An expected refusal."""
    return render_error(request, error)


def handle_http_exception(request: AnyRequest, error: HTTPException) -> Response[ErrorEnvelope]:
    """Litestar's own refusals: unknown paths and methods, bad query parameters, sizes."""
    if error.status_code >= 500 and error.status_code != 503:
        return handle_unexpected(request, error)
    if error.status_code == 405:
        return _method_not_allowed(request)
    kind = _kind(error)
    answer = render_error(request, kind(_message(error, kind), param=_param(error)))
    answer.headers.update(error.headers or {})
    return answer


def handle_unexpected(request: AnyRequest, error: Exception) -> Response[ErrorEnvelope]:
    """A lost database is 503 and retryable; anything else is a defect, logged without being told."""
    request_id = request.scope["state"].get("request_id", "")
    if isinstance(error, DATABASE_ERRORS) and is_lost_connection(error):
        log.warning("http.database_lost", request_id=request_id, error=type(error).__name__)
        return render_error(request, Overloaded("the database cannot be reached", retry_after_seconds=2))
    if isinstance(error, StoreUnavailable):
        log.warning("http.store_lost", request_id=request_id, error=str(error))
        return render_error(request, Overloaded("the audio store cannot be reached", retry_after_seconds=2))
    log.error("http.unexpected", request_id=request_id, exc_info=error)
    return render_error(request, InternalError("an unexpected error; it was logged under this request id"))


def _method_not_allowed(request: AnyRequest) -> Response[ErrorEnvelope]:
    """With the methods that would do, as RFC 9110 demands."""
    allowed = ", ".join(allowed_methods(request.app, request.scope["path"]))
    answer = render_error(
        request, MethodNotAllowed(f"this path takes {allowed}, not {request.method[:20]}", suggestion=allowed)
    )
    answer.headers["allow"] = allowed
    return answer


def _kind(error: HTTPException) -> type[GatewayError]:
    if error.status_code == 404 and error.detail != HTTPStatus.NOT_FOUND.phrase:
        return FileGone  # the only 404 that is raised with words of its own
    return _BY_STATUS.get(error.status_code, InvalidRequest)


def _message(error: HTTPException, kind: type[GatewayError]) -> str:
    if kind is NotFound:
        return "there is nothing at this path"
    if issubclass(kind, Forbidden | FileGone | PayloadTooLarge | RangeNotSatisfiable | Overloaded):
        return error.detail
    problems = error.extra if isinstance(error.extra, list) else []
    described = [f"{p.get('key')}: {p.get('message')}" for p in problems if isinstance(p, dict)]
    return "; ".join(described) or error.detail


def _param(error: HTTPException) -> str | None:
    problems = error.extra if isinstance(error.extra, list) else []
    return next((str(p["key"]) for p in problems if isinstance(p, dict) and p.get("key")), None)
