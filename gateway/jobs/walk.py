"""The walk over a batch of submissions: who is admitted, in order of arrival, against locked numbers.

A pure function. The database only sees the result.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

import billing
from gateway.allowance import Allowance
from gateway.errors import (
    BudgetExceeded,
    ConcurrencyLimitExceeded,
    GatewayError,
    IdempotencyKeyReused,
    InsufficientCredits,
    LedgerHalted,
    PriceChanged,
    RateLimitExceeded,
)
from gateway.jobs.replay import IdempotencyScope, Repeats, RequestIdentity, retry_slot


class Submission(msgspec.Struct, kw_only=True):
    """One request, checked and priced, ready to be written; nothing of it changes but `turn`."""

    job_id: uuid.UUID
    organization_id: uuid.UUID
    project_id: uuid.UUID | None
    key_id: uuid.UUID
    test: bool
    model: str
    task: str
    queue: str
    routes: tuple[str, ...] = ()
    """Queues to fall back to, in order."""
    route_reason: str | None = None
    """Why it stands in its queue, for people."""
    length_ms: int
    turn: int | None = None
    """Its place in the fair order, given when it is written."""
    request_json: str
    metadata_json: str | None
    warnings_json: str
    request_hash: bytes
    idempotency_key: str | None
    is_retry: bool = False
    """The client says that it has sent this before; without an idempotency key, the request is looked up."""
    price: billing.Price
    hold_nano: int
    """The most that the job can cost; 0 for test keys."""
    max_cost_nano: int | None = None
    """The most that the client agrees to pay."""
    created_at: datetime
    cancel_at: datetime | None = None
    requests_per_minute: int | None = None
    max_open_jobs: int | None = None
    has_budget: bool = False

    @property
    def idempotency_scope(self) -> IdempotencyScope | None:
        """Within what the idempotency key must be unique."""
        if self.idempotency_key is None:
            return None
        return (self.organization_id, self.project_id, self.test, self.idempotency_key)

    @property
    def identity(self) -> RequestIdentity:
        """What a retry without an idempotency key has in common with its first try."""
        return (self.key_id, self.request_hash)

    @property
    def retry_slot(self) -> int | None:
        """Where a retry will look for this job; None if its idempotency key finds it."""
        if self.idempotency_key is not None:
            return None
        return retry_slot(self.key_id, self.request_hash, self.created_at)

    @property
    def budget_subjects(self) -> tuple[uuid.UUID, ...]:
        """Whose budgets it counts against: those of its key, its project and its organization."""
        if not self.has_budget or self.test:
            return ()
        owners = (self.key_id, self.project_id, self.organization_id)
        return tuple(owner for owner in owners if owner is not None)

    @property
    def is_metered(self) -> bool:
        """Whether the key has limits that are counted."""
        return self.requests_per_minute is not None or self.max_open_jobs is not None


class Admitted(msgspec.Struct, frozen=True):
    """The job exists and its money is held."""

    job_id: uuid.UUID
    allowance: Allowance | None = None


class Replayed(msgspec.Struct, frozen=True):
    """The job existed already; nothing was held again, nothing was counted."""

    job_id: uuid.UUID
    allowance: Allowance | None = None


Verdict = Admitted | Replayed | GatewayError


class Meter(msgspec.Struct, kw_only=True):
    """A key's counters under lock: requests of this minute, unfinished jobs."""

    key_id: uuid.UUID
    minute_count: int
    open_jobs: int
    seconds_left: int

    def allowance(self, submission: Submission) -> Allowance:
        """What is left to the key now."""
        max_requests, max_jobs = submission.requests_per_minute, submission.max_open_jobs
        return Allowance(
            max_requests=max_requests,
            requests_left=None if max_requests is None else max(max_requests - self.minute_count, 0),
            reset_seconds=self.seconds_left,
            max_jobs=max_jobs,
            jobs_left=None if max_jobs is None else max(max_jobs - self.open_jobs, 0),
        )


class Locked(msgspec.Struct, kw_only=True):
    """Everything that the walk may look at and change."""

    accounts: Mapping[uuid.UUID, billing.Account]
    meters: Mapping[uuid.UUID, Meter] = {}
    budgets: Mapping[uuid.UUID, list[billing.Budget]] = {}
    """By the subject that they cap."""
    repeats: Repeats = msgspec.field(default_factory=Repeats)
    present: frozenset[uuid.UUID] = frozenset()
    """Jobs of this batch that an earlier try has already written."""
    is_halted: bool = False
    """The books were found wrong: nothing new is held."""

    def budgets_of(self, submission: Submission) -> list[billing.Budget]:
        """All that the submission counts against."""
        if not submission.has_budget:
            return []
        return [b for owner in submission.budget_subjects for b in self.budgets.get(owner, ())]


def decide(batch: Iterable[Submission], locked: Locked) -> list[Verdict]:
    """Walk the batch in order of arrival; reservations of the admitted are left on `locked`.

    Whoever is refused changes nothing, so a large request never blocks a small one behind it.
    """
    return [_decide_one(submission, locked) for submission in batch]


def _decide_one(submission: Submission, locked: Locked) -> Verdict:
    meter = locked.meters.get(submission.key_id)
    if submission.job_id in locked.present:
        return Admitted(submission.job_id, _allowance(submission, meter))
    earlier = _find_earlier(submission, locked.repeats)
    if earlier is not None:
        if isinstance(earlier, GatewayError):
            return earlier
        return Replayed(earlier, _allowance(submission, meter))
    account = locked.accounts[submission.organization_id]
    budgets = locked.budgets_of(submission)
    refusal = (
        _check_halt(submission, locked)
        or _check_price(submission)
        or _check_meter(submission, meter)
        or _check_budgets(submission, budgets)
        or _check_credit(submission, account)
    )
    if refusal is not None:
        refusal.allowance = _allowance(submission, meter)
        return refusal
    _reserve(submission, account, meter, budgets)
    _remember(submission, locked.repeats)
    return Admitted(submission.job_id, _allowance(submission, meter))


def _find_earlier(submission: Submission, repeats: Repeats) -> uuid.UUID | IdempotencyKeyReused | None:
    scope = submission.idempotency_scope
    if scope is None:
        return repeats.by_request.get(submission.identity) if submission.is_retry else None
    job_id, request_hash = repeats.by_key.get(scope, (None, None))
    if job_id is None or request_hash == submission.request_hash:
        return job_id
    return IdempotencyKeyReused(
        "this Idempotency-Key was used with another body",
        param="Idempotency-Key",
        suggestion="send a new key for a new request",
    )


def _remember(submission: Submission, repeats: Repeats) -> None:
    """A repeat may follow in the same batch."""
    scope = submission.idempotency_scope
    if scope is None:
        repeats.by_request[submission.identity] = submission.job_id
    else:
        repeats.by_key[scope] = (submission.job_id, submission.request_hash)


def _allowance(submission: Submission, meter: Meter | None) -> Allowance | None:
    return None if meter is None else meter.allowance(submission)


def _check_halt(submission: Submission, locked: Locked) -> GatewayError | None:
    if not locked.is_halted or submission.test:
        return None
    return LedgerHalted("the books are being checked: new jobs are accepted again once that is done")


def _check_price(submission: Submission) -> GatewayError | None:
    """Also for test keys, so that a client can try how it takes the refusal."""
    most_nano = submission.price.cost_nano(submission.length_ms)
    if submission.max_cost_nano is None or most_nano <= submission.max_cost_nano:
        return None
    most, agreed = billing.format_usd(most_nano), billing.format_usd(submission.max_cost_nano)
    return PriceChanged(
        f"this request can cost up to {most} USD, more than the {agreed} USD of max_cost_usd",
        param="max_cost_usd",
        suggestion=most,
        details={"required_usd": most, "max_cost_usd": agreed, "price_version": submission.price.id.hex},
    )


def _check_meter(submission: Submission, meter: Meter | None) -> GatewayError | None:
    if meter is None:
        return None
    if submission.requests_per_minute is not None and meter.minute_count >= submission.requests_per_minute:
        return RateLimitExceeded(
            f"this key may make {submission.requests_per_minute} generation requests per minute",
            retry_after_seconds=meter.seconds_left,
        )
    if submission.max_open_jobs is not None and meter.open_jobs >= submission.max_open_jobs:
        return ConcurrencyLimitExceeded(
            f"this key may have {submission.max_open_jobs} unfinished jobs", retry_after_seconds=1
        )
    return None


def _check_budgets(submission: Submission, budgets: Sequence[billing.Budget]) -> GatewayError | None:
    for budget in budgets:
        if submission.hold_nano > budget.available_nano:
            return BudgetExceeded(
                f"the {budget.period} budget of this {budget.scope} would be passed",
                details=_amounts(submission.hold_nano, budget.available_nano),
            )
    return None


def _check_credit(submission: Submission, account: billing.Account) -> GatewayError | None:
    if submission.hold_nano <= account.available_nano:
        return None
    if account.owed_nano > 0:
        return InsufficientCredits(
            f"the organization owes {billing.format_usd(account.owed_nano)} USD of a payment that was taken "
            "back; jobs are accepted again once it is paid",
            details=_amounts(submission.hold_nano, 0) | {"owed_usd": billing.format_usd(account.owed_nano)},
        )
    required, available = (
        billing.format_usd(nano) for nano in (submission.hold_nano, account.available_nano)
    )
    return InsufficientCredits(
        f"this request can cost up to {required} USD and {available} USD are available",
        details=_amounts(submission.hold_nano, account.available_nano),
    )


def _amounts(required_nano: int, available_nano: int) -> dict[str, str]:
    return {
        "required_usd": billing.format_usd(required_nano),
        "available_usd": billing.format_usd(max(available_nano, 0)),
    }


def _reserve(
    submission: Submission, account: billing.Account, meter: Meter | None, budgets: Sequence[billing.Budget]
) -> None:
    account.reserve(submission.hold_nano)
    for budget in budgets:
        budget.reserve(submission.hold_nano)
    if meter is not None:
        meter.minute_count += 1
        meter.open_jobs += 1
