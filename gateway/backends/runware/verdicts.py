"""What an error of Runware's means to us: by its code, else by the HTTP status."""

from enum import Enum, auto
from typing import Final

from gateway.backends.base import Failed, Reason
from gateway.jobs.job import JobErrorCode


class Verdict(Enum):
    """Who or what is at fault, and what is to be done."""

    ALREADY_THERE = auto()
    """A task of this UUID exists: ours, sent before."""
    NOT_THERE = auto()
    """No task of this UUID exists, or it has expired."""
    MISCONFIGURED = auto()
    NO_CREDIT = auto()
    RATE_LIMITED = auto()
    OUTAGE = auto()
    """The vendor's own fault."""
    CONTENT = auto()
    """Refused for what it says; nobody is asked again."""
    INPUT = auto()
    """The source is none that it reads."""
    NOT_EXPRESSED = auto()
    """It refuses a field or a value: what we made of the request is wrong."""
    LATE = auto()
    """The task ran and took too long."""
    FAILED = auto()
    """The task ran and failed."""


REASONS: Final = {
    Verdict.MISCONFIGURED: Reason.MISCONFIGURED,
    Verdict.NO_CREDIT: Reason.NO_CREDIT,
    Verdict.RATE_LIMITED: Reason.RATE_LIMITED,
    Verdict.OUTAGE: Reason.OUTAGE,
}
"""Of a request that the vendor did not take."""

_CODES: Final = {
    "conflictTaskUUID": Verdict.ALREADY_THERE,
    "taskNotFound": Verdict.NOT_THERE,
    "taskFailedOrNotFound": Verdict.NOT_THERE,
    "missingApiKey": Verdict.MISCONFIGURED,
    "invalidApiKey": Verdict.MISCONFIGURED,
    # The catalog names a model that is not there: no request to it can work.
    "invalidModel": Verdict.MISCONFIGURED,
    "insufficientCredits": Verdict.NO_CREDIT,
    "rateLimitExceeded": Verdict.RATE_LIMITED,
    "contentPolicyViolation": Verdict.CONTENT,
    "invalidInputsAudio": Verdict.INPUT,
    "inferenceError": Verdict.FAILED,
    "taskFailed": Verdict.FAILED,
    "taskCancelled": Verdict.FAILED,
    "timeoutProvider": Verdict.LATE,
    "providerError": Verdict.OUTAGE,
    "serviceUnavailable": Verdict.OUTAGE,
    "internalServerError": Verdict.OUTAGE,
}
# New codes follow these patterns; the first that fits counts.
_PARTS: Final = (
    ("credits", Verdict.NO_CREDIT),
    ("balance", Verdict.NO_CREDIT),
    ("ratelimit", Verdict.RATE_LIMITED),
    ("apikey", Verdict.MISCONFIGURED),
    ("unauthorized", Verdict.MISCONFIGURED),
    ("forbidden", Verdict.MISCONFIGURED),
    ("contentpolicy", Verdict.CONTENT),
    ("moderation", Verdict.CONTENT),
    ("timeout", Verdict.LATE),
)
_BEGINNINGS: Final = (
    ("missing", Verdict.NOT_EXPRESSED),
    ("invalid", Verdict.NOT_EXPRESSED),
    ("unsupported", Verdict.NOT_EXPRESSED),
    ("provider", Verdict.OUTAGE),
    ("noavailable", Verdict.OUTAGE),
    ("modelunavailable", Verdict.OUTAGE),
)
_STATUSES: Final = {
    401: Verdict.MISCONFIGURED,
    402: Verdict.NO_CREDIT,
    403: Verdict.MISCONFIGURED,
    413: Verdict.INPUT,
    429: Verdict.RATE_LIMITED,
}
"""Whatever stands in the body: proxies in between answer, too."""
_ELSEWHERE: Final = frozenset({301, 302, 303, 307, 308, 404, 405})
"""Without the vendor's own words: another server than it stands at the address."""

_FAILURES: Final = {
    Verdict.CONTENT: (JobErrorCode.CONTENT_POLICY_VIOLATION, "the provider refuses the content", False),
    Verdict.INPUT: (JobErrorCode.INPUT_UNREADABLE, "the provider cannot read the source", True),
    Verdict.NOT_EXPRESSED: (JobErrorCode.UPSTREAM_ERROR, "the provider refuses the request", True),
    Verdict.LATE: (JobErrorCode.TIMEOUT, "rendering took too long at the provider", True),
}
_FAILURE: Final = (JobErrorCode.UPSTREAM_ERROR, "the provider failed to render", True)


def verdict_of(code: str, status: int) -> Verdict:
    """On a whole request, or on a task: then `status` is that of a request which was answered."""
    if status in _STATUSES:
        return _STATUSES[status]
    if status >= 500:
        return Verdict.OUTAGE
    if not code:
        return Verdict.MISCONFIGURED if status in _ELSEWHERE else Verdict.OUTAGE
    return _CODES.get(code) or _by_pattern(code.lower())


def _by_pattern(code: str) -> Verdict:
    fitting = [verdict for part, verdict in _PARTS if part in code]
    fitting += [verdict for beginning, verdict in _BEGINNINGS if code.startswith(beginning)]
    return fitting[0] if fitting else Verdict.FAILED


def failure_of(verdict: Verdict, *, cost_nano: int | None = 0) -> Failed:
    """What a task that ends like this is to the job."""
    code, message, retryable = _FAILURES.get(verdict, _FAILURE)
    return Failed(code=code, message=message, retryable=retryable, cost_nano=cost_nano)
