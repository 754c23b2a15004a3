"""Where a job goes whose attempt brought no music. A pure function; every row is in docs/outcomes.md."""

import msgspec

from gateway.backends.base import BackendUnavailable, Reason
from gateway.jobs.queue import Claim
from gateway.routing import backend_of
from gateway.workers.performance import AttemptFailed


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Another attempt."""

    queue: str
    why: str
    """For people who look at the job."""
    come_back: bool = False
    """Nothing was started where it was: that may be tried again, too."""


def way_after(claim: Claim, failure: AttemptFailed) -> Way | None:
    """Elsewhere if there is another route, else here again if that can help; None: the job has failed."""
    backend, code = backend_of(claim.queue), failure.error.code.value
    if claim.routes and failure.elsewhere:
        what = "did not say whether it took the job" if failure.is_ambiguous else f"failed with {code}"
        return Way(queue=claim.routes[0], why=f"{backend} {what}")
    if failure.retryable and not failure.is_ambiguous:
        return Way(queue=claim.queue, why=f"again after {code}")
    return None


def way_around(claim: Claim, error: BackendUnavailable) -> Way | None:
    """Past a backend that took nothing; None: the job waits in front of it."""
    if not claim.routes or claim.accepted or error.reason is Reason.FULL:
        return None
    return Way(
        queue=claim.routes[0],
        why=f"{backend_of(claim.queue)} took nothing: {error.reason.value}",
        come_back=True,
    )
