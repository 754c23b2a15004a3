"""Admission: job row, hold and idempotency record are one commit, and only then the answer leaves.

A batch is one transaction: lock what is contended (accounts, meters, budgets, each in id order),
walk the submissions in the order of their arrival against the locked numbers, write what was
admitted. The walk is a pure function; the database only sees the result.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec

import billing
from gateway.allowance import Allowance
from gateway.errors import (
    BudgetExceeded,
    ConcurrencyLimitExceeded,
    GatewayError,
    IdempotencyKeyReused,
    InsufficientCredits,
    RateLimitExceeded,
)
from gateway.jobs.replay import (
    IdempotencyScope,
    Repeats,
    RequestIdentity,
    find_by_key,
    find_by_request,
    retry_slot,
)

DEADLINE: Final = timedelta(hours=24)
"""A job that is not finished by then ends as `timeout`, uncharged."""


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

    def budgets_of(self, submission: Submission) -> list[billing.Budget]:
        """All that the submission counts against."""
        if not submission.has_budget:
            return []
        return [b for owner in submission.budget_subjects for b in self.budgets.get(owner, ())]


async def admit(
    pool: "asyncpg.Pool[asyncpg.Record]", batch: Sequence[Submission], *, retry: bool
) -> list[Verdict]:
    """Write one batch in one transaction; one verdict per submission, in order."""
    async with pool.acquire() as conn, conn.transaction():
        locked = await _lock(conn, batch, retry=retry)
        verdicts = decide(batch, locked)
        fresh = [
            submission
            for submission, verdict in zip(batch, verdicts, strict=True)
            if isinstance(verdict, Admitted) and submission.job_id not in locked.present
        ]
        if fresh:
            await _write(conn, fresh, locked)
    return verdicts


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
        _check_meter(submission, meter)
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


async def _lock(conn: billing.Connection, batch: Sequence[Submission], *, retry: bool) -> Locked:
    accounts = await billing.lock_accounts(conn, {s.organization_id for s in batch})
    metered = {s.key_id for s in batch if s.is_metered}
    budgeted = {owner for s in batch if s.has_budget for owner in s.budget_subjects}
    budgets: dict[uuid.UUID, list[billing.Budget]] = {}
    if budgeted:
        for budget in await billing.lock_budgets(conn, subjects=budgeted):
            budgets.setdefault(budget.subject, []).append(budget)
    return Locked(
        accounts=accounts,
        meters=await _lock_meters(conn, metered) if metered else {},
        budgets=budgets,
        repeats=await _find_repeats(conn, batch),
        present=await _find_present(conn, batch) if retry else frozenset(),
    )


async def _lock_meters(conn: billing.Connection, key_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Meter]:
    """The counters now. A minute later than ours has begun while we waited for the locks: it counts on."""
    rows = await conn.fetch(
        """
        SELECT key_id, open_jobs,
               CASE WHEN minute_start >= date_trunc('minute', now())
                    THEN minute_count ELSE 0 END AS minute_count,
               ceil(60 - extract(second FROM now()))::int AS seconds_left
          FROM key_meter WHERE key_id = ANY($1) ORDER BY key_id FOR UPDATE
        """,
        list(key_ids),
    )
    return {row["key_id"]: Meter(**dict(row)) for row in rows}


async def _find_repeats(conn: billing.Connection, batch: Sequence[Submission]) -> Repeats:
    """Earlier jobs of the same requests. Complete, because their accounts are locked by now."""
    return Repeats(
        by_key=await find_by_key(conn, {scope for s in batch if (scope := s.idempotency_scope)}),
        by_request=await find_by_request(
            conn,
            {s.identity for s in batch if s.is_retry and s.idempotency_key is None},
            now=batch[-1].created_at,
        ),
    )


async def _find_present(conn: billing.Connection, batch: Sequence[Submission]) -> frozenset[uuid.UUID]:
    rows = await conn.fetch("SELECT id FROM job WHERE id = ANY($1)", [s.job_id for s in batch])
    return frozenset(row["id"] for row in rows)


async def _write(conn: billing.Connection, fresh: Sequence[Submission], locked: Locked) -> None:
    await _take_turns(conn, fresh)
    await _insert_jobs(conn, fresh)
    paid = [s for s in fresh if not s.test]
    if paid:
        await billing.write_holds(
            conn,
            [_hold(s, locked) for s in paid],
            accounts=[locked.accounts[i] for i in {s.organization_id for s in paid}],
            budgets={b.id: b for s in paid for b in locked.budgets_of(s)}.values(),
        )
    if locked.meters:
        await _write_meters(conn, locked.meters.values())


def _hold(submission: Submission, locked: Locked) -> billing.Hold:
    return billing.Hold(
        reference=submission.job_id,
        account_id=submission.organization_id,
        price_version_id=submission.price.id,
        amount_nano=submission.hold_nano,
        deadline_at=submission.created_at + DEADLINE,
        budget_ids=tuple(budget.id for budget in locked.budgets_of(submission)),
    )


async def _take_turns(conn: billing.Connection, fresh: Sequence[Submission]) -> None:
    """Fair order (start-time fair queueing over milliseconds of audio).

    A job starts its turn where its organization's last job ends, finished or not, but not before the
    turn that was started last: an organization with one job comes next, however long the backlog of
    another is, and customers who send one job after another cannot keep that backlog waiting for ever.
    """
    pairs = sorted({(s.organization_id, s.queue) for s in fresh})
    rows = await conn.fetch(
        """
        SELECT p.organization_id, p.queue,
               (SELECT turn FROM job WHERE started_at IS NOT NULL AND queue = p.queue
                 ORDER BY started_at DESC, turn DESC LIMIT 1) AS front,
               (SELECT turn + length_ms FROM job
                 WHERE (status = 'queued' OR started_at IS NOT NULL)
                   AND organization_id = p.organization_id AND queue = p.queue
                 ORDER BY turn + length_ms DESC LIMIT 1) AS tail
          FROM unnest($1::uuid[], $2::text[]) AS p (organization_id, queue)
        """,
        [pair[0] for pair in pairs],
        [pair[1] for pair in pairs],
    )
    ends = {(row[0], row[1]): max(row["front"] or 0, row["tail"] or 0) for row in rows}
    for submission in fresh:
        pair = (submission.organization_id, submission.queue)
        submission.turn = ends[pair]
        ends[pair] += submission.length_ms


async def _insert_jobs(conn: billing.Connection, fresh: Sequence[Submission]) -> None:
    await conn.execute(
        """
        INSERT INTO job (id, organization_id, project_id, key_id, test, model, task, queue, turn, length_ms,
                         request, metadata, warnings, request_hash, idempotency_key, price_version_id,
                         nano_per_second, held_nano, created_at, run_at, deadline_at, cancel_at, retry_slot)
        SELECT id, o, p, k, test, model, task, queue, turn, length_ms, request::jsonb, metadata::jsonb,
               warnings::jsonb, hash, ikey, price, nano, held, created, now(), deadline, cancel, slot
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bool[], $6::text[], $7::text[],
                      $8::text[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::text[],
                      $14::bytea[], $15::text[], $16::uuid[], $17::bigint[], $18::bigint[],
                      $19::timestamptz[], $20::timestamptz[], $21::timestamptz[], $22::bigint[])
               AS t (id, o, p, k, test, model, task, queue, turn, length_ms, request, metadata, warnings,
                     hash, ikey, price, nano, held, created, deadline, cancel, slot)
        """,
        [s.job_id for s in fresh],
        [s.organization_id for s in fresh],
        [s.project_id for s in fresh],
        [s.key_id for s in fresh],
        [s.test for s in fresh],
        [s.model for s in fresh],
        [s.task for s in fresh],
        [s.queue for s in fresh],
        [s.turn for s in fresh],
        [s.length_ms for s in fresh],
        [s.request_json for s in fresh],
        [s.metadata_json for s in fresh],
        [s.warnings_json for s in fresh],
        [s.request_hash for s in fresh],
        [s.idempotency_key for s in fresh],
        [s.price.id for s in fresh],
        [s.price.nano_per_second for s in fresh],
        [s.hold_nano for s in fresh],
        [s.created_at for s in fresh],
        [s.created_at + DEADLINE for s in fresh],
        [s.cancel_at for s in fresh],
        [s.retry_slot for s in fresh],
    )


async def _write_meters(conn: billing.Connection, meters: Iterable[Meter]) -> None:
    changed = list(meters)
    await conn.execute(
        """
        UPDATE key_meter
           SET minute_start = greatest(minute_start, date_trunc('minute', now())),
               minute_count = t.count, open_jobs = t.open
          FROM unnest($1::uuid[], $2::int[], $3::int[]) AS t (key_id, count, open)
         WHERE key_meter.key_id = t.key_id
        """,
        [m.key_id for m in changed],
        [m.minute_count for m in changed],
        [m.open_jobs for m in changed],
    )
