"""Everything that the gateway answers when it cannot do as asked, by who must act.

GatewayError
├── ClientError                   the caller changes the request
│   ├── InvalidRequest        400   UnknownParameter, UnsupportedParameter
│   ├── Unauthenticated       401   MissingApiKey, InvalidApiKey
│   ├── PaymentRequired       402   InsufficientCredits, BudgetExceeded
│   ├── Forbidden             403   ScopeDenied, ModelNotAllowed, LinkRefused
│   ├── NotFound              404   ModelNotFound, JobNotFound, FileGone
│   ├── MethodNotAllowed      405
│   ├── RequestTimeout        408
│   ├── Conflict              409   RequestInProgress, PriceChanged, JobAlreadyFinal, NoSavedCard,
│   │                               TooManyEndpoints, NotReplayable
│   ├── PayloadTooLarge       413
│   ├── UnsupportedMediaType  415
│   ├── RangeNotSatisfiable   416
│   ├── IdempotencyKeyReused  422
│   ├── TooManyRequests       429   RateLimitExceeded, ConcurrencyLimitExceeded
│   └── HeadTooLarge          431
└── OperatorError                 the operator, or time
    ├── InternalError         500
    └── Unavailable           503   ModelUnavailable, PaymentsUnavailable, Overloaded, LedgerHalted

A dialect renders them; nothing below a dialect knows HTTP.
"""

from typing import Any, ClassVar

from gateway.allowance import Allowance


class GatewayError(Exception):
    """Base. `code` is stable; `message` is for people and never carries secrets or prompts.

    Only classes that are raised have a code of their own; the others group them.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str]
    type: ClassVar[str] = "api_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        suggestion: str | None = None,
        retry_after_seconds: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.suggestion = suggestion
        self.retry_after_seconds = retry_after_seconds
        self.details = details or {}
        self.allowance: Allowance | None = None
        """What the key may still do, where that was looked up."""


class ClientError(GatewayError):
    """The caller must change something."""

    status = 400
    type = "invalid_request_error"


class InvalidRequest(ClientError):
    """A field or the body cannot be used; `param` names it, `suggestion` the nearest valid value."""

    code = "invalid_request"


class UnknownParameter(InvalidRequest):
    """There is no such field."""

    code = "unknown_parameter"


class UnsupportedParameter(InvalidRequest):
    """The field exists, but not for this model or format."""

    code = "unsupported_parameter"


class Unauthenticated(ClientError):
    """No usable key."""

    status = 401
    type = "authentication_error"


class MissingApiKey(Unauthenticated):
    """Neither `Authorization: Bearer` nor `x-api-key` was sent."""

    code = "missing_api_key"


class InvalidApiKey(Unauthenticated):
    """The key is unknown, revoked, expired, mistyped, or used from elsewhere than it may."""

    code = "invalid_api_key"


class PaymentRequired(ClientError):
    """Money is missing; nothing was reserved."""

    status = 402
    type = "billing_error"


class InsufficientCredits(PaymentRequired):
    """The organization's free balance is below the most that the job can cost."""

    code = "insufficient_credits"


class BudgetExceeded(PaymentRequired):
    """A cap on this key, project or organization would be passed."""

    code = "budget_exceeded"


class Forbidden(ClientError):
    """The key may not do this."""

    status = 403
    type = "permission_error"


class ScopeDenied(Forbidden):
    """The key lacks the scope."""

    code = "scope_denied"


class ModelNotAllowed(Forbidden):
    """The key is limited to other models."""

    code = "model_not_allowed"


class LinkRefused(Forbidden):
    """A signed link was changed or has expired."""

    code = "link_refused"


class NotFound(ClientError):
    """Nothing there, or nothing that this key may see."""

    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    """No such model."""

    code = "model_not_found"


class JobNotFound(NotFound):
    """No such job for this key."""

    code = "job_not_found"


class FileGone(NotFound):
    """No such file, or its retention is over."""

    code = "file_not_found"


class MethodNotAllowed(ClientError):
    """The path exists, with another method."""

    status = 405
    code = "method_not_allowed"


class RequestTimeout(ClientError):
    """The request did not arrive in time; nothing was done with it, and the connection is closed."""

    status = 408
    code = "request_timeout"
    retryable = True


class Conflict(ClientError):
    """The request does not fit the present state."""

    status = 409


class RequestInProgress(Conflict):
    """The first request with this idempotency key has not been decided yet; nothing was reserved."""

    code = "request_in_progress"
    retryable = True


class PriceChanged(Conflict):
    """The job can cost more than the `max_cost_usd` that was sent; nothing was reserved."""

    code = "price_changed"


class JobAlreadyFinal(Conflict):
    """A finished job cannot be cancelled."""

    code = "job_already_final"


class NoSavedCard(Conflict):
    """Automatic top-ups need a saved card."""

    code = "no_saved_card"


class TooManyEndpoints(Conflict):
    """The organization has as many webhook endpoints as it may have; delete one."""

    code = "too_many_endpoints"


class NotReplayable(Conflict):
    """The delivery was a test, or its webhook endpoint is disabled or deleted."""

    code = "not_replayable"


class PayloadTooLarge(ClientError):
    """The body is larger than the route takes; or an upload has too much sound in it."""

    status = 413
    code = "payload_too_large"


class UnsupportedMediaType(ClientError):
    """The body is not JSON; or an upload is no kind of audio file that is taken."""

    status = 415
    code = "unsupported_media_type"


class RangeNotSatisfiable(ClientError):
    """The asked byte range starts behind the end."""

    status = 416
    code = "range_not_satisfiable"


class IdempotencyKeyReused(ClientError):
    """The idempotency key was used with another body."""

    status = 422
    code = "idempotency_key_reused"


class TooManyRequests(ClientError):
    """A limit of this key."""

    status = 429
    type = "rate_limit_error"
    retryable = True


class RateLimitExceeded(TooManyRequests):
    """More generation requests in this minute than the key may make."""

    code = "rate_limit_exceeded"


class ConcurrencyLimitExceeded(TooManyRequests):
    """More unfinished jobs than the key may have."""

    code = "concurrency_limit_exceeded"


class HeadTooLarge(ClientError):
    """The request has too many header fields, or too long ones; the connection is closed."""

    status = 431
    code = "request_header_fields_too_large"


class OperatorError(GatewayError):
    """Nothing the caller could change."""


class InternalError(OperatorError):
    """A defect; details are in the log, under the request id."""

    code = "internal_error"


class Unavailable(OperatorError):
    """Not now."""

    status = 503
    retryable = True


class ModelUnavailable(Unavailable):
    """No configured backend serves this model."""

    code = "model_unavailable"
    retryable = False


class PaymentsUnavailable(Unavailable):
    """This installation takes no payments, or the payment provider does not accept its key."""

    code = "payments_unavailable"
    retryable = False


class Overloaded(Unavailable):
    """Too much waits already, or the database is away. Retry with the same Idempotency-Key."""

    code = "overloaded"


class LedgerHalted(Unavailable):
    """The books were found to be wrong: nothing new is accepted until the operator has settled it.

    What was accepted before is rendered and charged, and everything can be read.
    """

    code = "ledger_halted"


def raised_errors() -> list[type[GatewayError]]:
    """Every class with a code of its own, ordered as people look for them: by status, then code."""
    found, open_ = [], [GatewayError]
    while open_:
        kind = open_.pop()
        open_ += kind.__subclasses__()
        if "code" in vars(kind):
            found.append(kind)
    return sorted(found, key=lambda kind: (kind.status, kind.code))
