"""WaveSpeed's answers in our words: who must act, whether another backend may try, what it cost."""

from typing import Final

import httpx
import msgspec
import structlog

from gateway.backends.base import BackendUnavailable, Failed, Output, Reason, SubmitAmbiguous
from gateway.backends.remote.connection import Response
from gateway.backends.remote.provider import Made, Refused, Sight, Waiting
from gateway.backends.wavespeed.wire import Garbage, Prediction, read_prediction, read_problem
from gateway.jobs.job import JobErrorCode

MAX_URL_CHARACTERS: Final = 2_000

_REASONS: Final = {
    401: Reason.MISCONFIGURED,
    402: Reason.NO_CREDIT,
    403: Reason.MISCONFIGURED,
    404: Reason.MISCONFIGURED,
    405: Reason.MISCONFIGURED,
    429: Reason.RATE_LIMITED,
    503: Reason.OUTAGE,
}
"""Refusals of a submit that have nothing to do with what is in it."""
_PERHAPS_DONE: Final = frozenset({408, 409, 425})
"""Answers of proxies, which know little of what the vendor did. So are all of 5xx but 503."""
_CONTENT: Final = range(1200, 1300)
_OUR_FAULTS: Final = frozenset({1400, 1401})
_MEDIA: Final = 1402
_TIMEOUT: Final = 5004
_FAILED: Final = frozenset({"failed", "cancelled", "canceled", "timeout", "deleted"})
_COMPLETED: Final = "completed"

_REFUSED: Final = Failed(
    code=JobErrorCode.CONTENT_POLICY_VIOLATION, message="the provider refused the content of the request"
)
_NOT_TAKEN: Final = Failed(
    code=JobErrorCode.UPSTREAM_ERROR, message="the provider did not take the request", retryable=True
)
_NOT_MADE: Final = Failed(
    code=JobErrorCode.UPSTREAM_ERROR,
    message="the provider could not make the music",
    retryable=True,
    cost_nano=0,
)

log = structlog.get_logger(__name__)


def unavailable(answer: Response) -> BackendUnavailable:
    """Why a question was not answered."""
    reason = Reason.MISCONFIGURED if 300 <= answer.status < 400 else _REASONS.get(answer.status)
    return BackendUnavailable(
        f"wavespeed answers with status {answer.status}",
        reason=reason or Reason.OUTAGE,
        retry_after_seconds=answer.retry_after_seconds,
    )


def no_answer() -> BackendUnavailable:
    """To a question that may be asked again."""
    return BackendUnavailable("wavespeed does not answer, or not as documented", reason=Reason.OUTAGE)


def submitted(answer: Response, *, most_nano: int) -> str:
    """The id of what a submit started. Raises what `Provider.send` raises."""
    if answer.is_success:
        try:
            return read_prediction(answer.body).id
        except Garbage as error:
            raise SubmitAmbiguous("wavespeed accepted, and named no task", cost_nano=most_nano) from error
    if answer.status in _REASONS or 300 <= answer.status < 400:
        raise unavailable(answer)
    if answer.status >= 500 or answer.status in _PERHAPS_DONE:
        raise SubmitAmbiguous(f"wavespeed answers with status {answer.status}", cost_nano=most_nano)
    raise Refused(_refusal(answer))


def sight(found: Prediction) -> Sight:
    """What the state of a task means."""
    if found.status == _COMPLETED:
        return _made(found)
    if found.status in _FAILED:
        return _failure(found)
    return Waiting()


def _refusal(answer: Response) -> Failed:
    """A 4xx: nothing was started."""
    code = read_problem(answer.body)
    if code in _CONTENT:
        return _REFUSED
    # Every request was judged before: what is refused now, our mapping got wrong. Others may take it.
    log.error("wavespeed.request_refused", status=answer.status, code=code)
    return _NOT_TAKEN


def _made(found: Prediction) -> Sight:
    """What it costs stands on the price card alone: WaveSpeed tells none."""
    url = found.outputs[0] if found.outputs else None
    if not isinstance(url, str) or not _is_url(url):
        log.warning("wavespeed.no_output", ref=found.id)
        return msgspec.structs.replace(_NOT_MADE, cost_nano=None)  # a task that completed is charged
    return Made(outputs=(Output(url=url),), asked_seed=found.asked.seed if found.asked else None)


def _failure(found: Prediction) -> Failed:
    """Free of charge: failed tasks are refunded."""
    code = found.code or 0
    if code in _CONTENT:
        return Failed(code=_REFUSED.code, message=_REFUSED.message, cost_nano=0)
    if code in _OUR_FAULTS:
        log.error("wavespeed.task_refused", ref=found.id, code=code)
    if code == _MEDIA:
        return Failed(
            code=JobErrorCode.INPUT_UNREADABLE,
            message="the provider could not read a file of the request",
            retryable=True,
            cost_nano=0,
        )
    if code == _TIMEOUT or found.status == "timeout":
        return Failed(
            code=JobErrorCode.TIMEOUT, message="the provider took too long", retryable=True, cost_nano=0
        )
    return _NOT_MADE


def _is_url(text: str) -> bool:
    """Where it leads is judged by whoever fetches it."""
    if len(text) > MAX_URL_CHARACTERS or not text.isascii() or not text.isprintable():
        return False
    try:
        parsed = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in {"http", "https"} and bool(parsed.host)
