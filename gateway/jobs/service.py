"""What a dialect does with jobs: submit, read, list, cancel. One object per process."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
import msgspec

import billing
from gateway.allowance import Allowance
from gateway.auth.principal import Principal, Scope
from gateway.catalog import SANDBOX, Model
from gateway.config_watch import ConfigWatch, RevisionCache
from gateway.database import DATABASE_ERRORS, Reader
from gateway.errors import (
    GatewayError,
    InternalError,
    InvalidRequest,
    JobNotFound,
    ModelUnavailable,
    RequestInProgress,
)
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.ids import new_id
from gateway.jobs.admission import admit
from gateway.jobs.crew import Crew
from gateway.jobs.job import Attempt, Job, JobStatus, UnreadableJob
from gateway.jobs.lane import Lane
from gateway.jobs.queue import CHANNEL
from gateway.jobs.reading import JobFilter, JobWish, list_jobs, read_attempts, read_jobs, request_cancel
from gateway.jobs.replay import IdempotencyScope, find_by_key, find_by_request
from gateway.jobs.walk import Replayed, Submission, Verdict
from gateway.routing import COMPOSER, REHEARSED, Choice, Known, Routes, route_request

READS_AT_ONCE: Final = 6
"""Of the pool's connections; the others are for admission, cancellation and keys."""
QUOTE_LIFETIME: Final = timedelta(minutes=10)
"""At most: it ends earlier if the price is about to change."""
IN_PROGRESS_SECONDS: Final = 2.0
"""A repeat waits this long for the decision on the first request: normally it takes milliseconds."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request, as a dialect hands it over."""

    model: Model
    request: GenerationRequest
    request_hash: bytes
    """Digest of route and body: what `the same request` means for idempotency."""
    warnings: tuple[str, ...] = ()
    metadata: dict[str, str] | None = None
    idempotency_key: str | None = None
    is_retry: bool = False
    """The client says that it has sent this before."""
    cancel_after: timedelta | None = None
    """Cancel the job then, unless it has ended."""
    max_cost_nano: int | None = None
    """The most that the client agrees to pay."""


class Submitted(msgspec.Struct, frozen=True):
    """The job, whether it existed before, and what the key may still do, if it has limits."""

    job: Job
    replayed: bool
    allowance: Allowance | None


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What a request can cost at most at the price of now; nothing was written or held for it."""

    price: billing.Price
    length_ms: int
    """Of all its outputs together."""
    outputs: int
    most_nano: int
    expires_at: datetime
    available_nano: int
    test: bool
    warnings: tuple[str, ...] = ()
    """What the route that would serve it now would change."""


class Jobs:
    """Jobs of one gateway process: one admission lane, one price book, one wake-up call."""

    def __init__(
        self,
        *,
        pool: "asyncpg.Pool[asyncpg.Record]",
        watch: ConfigWatch,
        routes: Routes = Routes(),  # noqa: B008 - frozen
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self.routes: Final = routes
        self.crew: Final = Crew(pool)
        self._pool = pool
        self._reader = Reader(pool, at_once=READS_AT_ONCE)
        self._prices: RevisionCache[None, billing.PriceBook] = RevisionCache(watch, self._load_prices)
        self._lane: Lane[Submission, Verdict] = Lane(self._admit, name="admission", on_batch=on_batch)
        self._reads: Lane[JobWish, Job | UnreadableJob | None] = Lane(self._read_batch, name="reading")
        self._wake = Wake(pool)
        self._undecided: dict[IdempotencyScope, asyncio.Event] = {}

    async def submit(self, principal: Principal, order: Order) -> Submitted:
        """Reserve the money and write the job in one commit; the answer may leave only after it.

        Raises whatever forbids it, in the order: key, model, route, price, limits, budget, credit.
        """
        principal.check_scope(Scope.GENERATE)
        principal.check_model(order.model.id)
        try:
            choice = await self._choose(principal, order.model, order.request)
            order = msgspec.structs.replace(
                order, request=choice.request, warnings=(*order.warnings, *choice.warnings)
            )
            submission = await self._submission(principal, order, choice)
        except (ModelUnavailable, InvalidRequest):
            # What workers and prices allow changes; a repeat is told of the job that it made before.
            earlier = await self.find_repeat(
                principal,
                request_hash=order.request_hash,
                idempotency_key=order.idempotency_key,
                is_retry=order.is_retry,
            )
            if earlier is None:
                raise
            return Submitted(earlier, replayed=True, allowance=None)
        if (scope := submission.idempotency_scope) is None:
            verdict = await self._lane.submit(submission)
        else:
            async with self._in_turn(scope):
                verdict = await self._lane.submit(submission)
        if isinstance(verdict, GatewayError):
            raise verdict
        if isinstance(verdict, Replayed):
            job = await self.find(principal, verdict.job_id)
            return Submitted(job, replayed=True, allowance=verdict.allowance)
        self._wake.call()
        return Submitted(_fresh_job(submission, order), replayed=False, allowance=verdict.allowance)

    async def find_repeat(
        self, principal: Principal, *, request_hash: bytes, idempotency_key: str | None, is_retry: bool
    ) -> Job | None:
        """The job that the same request made before: it is told of even if it could not be made today."""
        scope = (principal.organization_id, principal.project_id, principal.test, idempotency_key or "")
        identity = (principal.key_id, request_hash)

        async def look(conn: billing.Connection) -> uuid.UUID | None:
            if idempotency_key is not None:
                job_id, digest = (await find_by_key(conn, {scope})).get(scope, (None, b""))
                return job_id if digest == request_hash else None
            found = await find_by_request(conn, {identity} if is_retry else (), now=datetime.now(UTC))
            return found.get(identity)

        job_id = await self._reader.run(look)
        return None if job_id is None else await self.find(principal, job_id)

    async def quote(self, principal: Principal, model: Model, request: GenerationRequest) -> Quote:
        """What a live key's submit of this would hold now; raises what it would, but for limits and money."""
        principal.check_scope(Scope.READ)
        principal.check_model(model.id)
        choice = await self._choose(principal, model, request)
        request = choice.request
        rate = await self.rate(model, principal.organization_id)
        if rate is None:
            raise _not_for_sale(model)
        length_ms = _length_ms(request)
        account = await self.balance(principal)
        latest = datetime.now(UTC) + QUOTE_LIFETIME
        return Quote(
            price=rate.price,
            length_ms=length_ms,
            outputs=request.n,
            most_nano=rate.price.cost_nano(length_ms),
            expires_at=latest if rate.changes_at is None else min(latest, rate.changes_at),
            available_nano=account.available_nano,
            test=principal.test,
            warnings=choice.warnings,
        )

    async def price(self, model: Model, organization_id: uuid.UUID) -> billing.Price | None:
        """The price in force for this organization; None if the operator never set one."""
        return (await self._prices.get(None)).find(model.id, organization_id, datetime.now(UTC))

    async def rate(self, model: Model, organization_id: uuid.UUID) -> billing.Rate | None:
        """The same, and what it is about to become."""
        return (await self._prices.get(None)).rate(model.id, organization_id, datetime.now(UTC))

    async def read(self, principal: Principal, job_id: uuid.UUID) -> Job:
        """Raises JobNotFound, for foreign ids as for unknown ones."""
        principal.check_scope(Scope.READ)
        return await self.find(principal, job_id)

    async def attempts(self, job: Job) -> Sequence[Attempt]:
        """All tries of a job that the caller was allowed to read."""
        return await self._reader.run(lambda conn: read_attempts(conn, job.id))

    async def list(self, principal: Principal, wanted: JobFilter) -> tuple[Sequence[Job], uuid.UUID | None]:
        """A page of jobs, newest first, and the cursor of the next one."""
        principal.check_scope(Scope.READ)
        return await self._reader.run(lambda conn: list_jobs(conn, principal, wanted))

    async def balance(self, principal: Principal) -> billing.Account:
        """The organization's account."""
        principal.check_scope(Scope.READ)
        owner = principal.organization_id
        return await self._reader.run(lambda conn: billing.read_account(conn, owner))

    async def cancel(self, principal: Principal, job_id: uuid.UUID) -> Job:
        """Raises JobNotFound or JobAlreadyFinal."""
        principal.check_scope(Scope.GENERATE)
        await request_cancel(self._pool, principal, job_id)
        return await self.find(principal, job_id)

    async def close(self) -> None:
        """Answer everything that was submitted."""
        await self._lane.drain()
        await self._wake.close()

    @contextlib.asynccontextmanager
    async def _in_turn(self, scope: IdempotencyScope) -> AsyncIterator[None]:
        """Let the first request with an idempotency key be decided before its repeats ask.

        Over several processes the account's lock does the same. Raises RequestInProgress.
        """
        if (first := self._undecided.get(scope)) is not None:
            try:
                await asyncio.wait_for(first.wait(), IN_PROGRESS_SECONDS)
            except TimeoutError:
                raise RequestInProgress(
                    "the first request with this Idempotency-Key has not been decided yet",
                    param="Idempotency-Key",
                    retry_after_seconds=1,
                ) from None
            yield
            return
        decided = self._undecided[scope] = asyncio.Event()
        try:
            yield
        finally:
            del self._undecided[scope]
            decided.set()

    async def _admit(self, batch: Sequence[Submission], retry: bool) -> Sequence[Verdict]:  # noqa: FBT001
        return await admit(self._pool, batch, retry=retry)

    async def find(self, principal: Principal, job_id: uuid.UUID) -> Job:
        """The job, for whoever may see it, whatever else the key may do. Raises JobNotFound.

        Many polls become one query: polling is what clients do most.
        """
        found = await self._reads.submit(JobWish(principal, job_id))
        if found is None:
            raise JobNotFound("there is no such job")
        if isinstance(found, UnreadableJob):
            raise InternalError("another version of this gateway wrote this job") from found
        return found

    async def _read_batch(self, wishes: Sequence[JobWish], _: bool) -> Sequence[Job | UnreadableJob | None]:  # noqa: FBT001
        async with self._pool.acquire() as conn:
            return await read_jobs(conn, wishes)

    async def _load_prices(self, _: None) -> billing.PriceBook:
        return await self._reader.run(billing.read_price_book)

    async def _choose(self, principal: Principal, model: Model, request: GenerationRequest) -> Choice:
        """Raises ModelUnavailable, UnsupportedParameter or InvalidRequest: whatever no route here can do."""
        if principal.test:
            return Choice(queues=(SANDBOX,), reason=REHEARSED, request=request)
        known = Known()
        if model.engine != COMPOSER:  # whose workers have nothing to tell
            told = await self.crew.workforce()
            known = Known(models=told.models, health=told.health)
        return route_request(self.routes, model, request, known, allowed=principal.models)

    async def _submission(self, principal: Principal, order: Order, choice: Choice) -> Submission:
        prices = await self._prices.get(None)
        now = datetime.now(UTC)
        price = prices.find(order.model.id, principal.organization_id, now)
        if price is None:
            raise _not_for_sale(order.model)
        length_ms = _length_ms(order.request)
        return Submission(
            job_id=new_id(),
            organization_id=principal.organization_id,
            project_id=principal.project_id,
            key_id=principal.key_id,
            test=principal.test,
            model=order.model.id,
            task=order.request.task.value,
            queue=choice.queues[0],
            routes=choice.queues[1:],
            route_reason=choice.reason,
            length_ms=length_ms,
            request_json=msgspec.json.encode(order.request).decode(),
            metadata_json=None if order.metadata is None else msgspec.json.encode(order.metadata).decode(),
            warnings_json=msgspec.json.encode(order.warnings).decode(),
            request_hash=order.request_hash,
            idempotency_key=order.idempotency_key,
            is_retry=order.is_retry,
            price=price,
            hold_nano=0 if principal.test else price.cost_nano(length_ms),
            max_cost_nano=order.max_cost_nano,
            created_at=now,
            cancel_at=None if order.cancel_after is None else now + order.cancel_after,
            requests_per_minute=principal.requests_per_minute,
            max_open_jobs=principal.max_open_jobs,
            has_budget=principal.has_budget,
        )


class Wake:
    """One coalesced NOTIFY after commits, never inside them: workers also poll, so it may get lost."""

    _TIMEOUT_SECONDS: Final = 2

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    def call(self) -> None:
        """Wake the workers soon; many calls become one notification."""
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._notify())

    async def close(self) -> None:
        """Let a notification under way go out."""
        if self._task is not None:
            await self._task

    async def _notify(self) -> None:
        while self._wanted:
            self._wanted = False
            try:
                async with self._pool.acquire(timeout=self._TIMEOUT_SECONDS) as conn:
                    # No fsync for the notification: losing it costs a second, not a job.
                    await conn.execute(
                        "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, '')", CHANNEL
                    )
            except DATABASE_ERRORS:
                return


def _length_ms(request: GenerationRequest) -> int:
    """The most that it can deliver, and so the most that it is charged for.

    Of all variations together, rounded up once, as the settlement does it: rounding each of them would
    hold up to a millisecond more for each than is charged.
    """
    return billing.billed_ms(frames=request.n * request.frames, sample_rate=SAMPLE_RATE)


def _not_for_sale(model: Model) -> ModelUnavailable:
    return ModelUnavailable(f"{model.id} has no price yet", param="model")


def _fresh_job(submission: Submission, order: Order) -> Job:
    """The row that was just committed, without reading it back."""
    return Job(
        id=submission.job_id,
        status=JobStatus.QUEUED,
        progress=0.0,
        fence=0,
        queue=submission.queue,
        turn=submission.turn,
        length_ms=submission.length_ms,
        started_at=None,
        organization_id=submission.organization_id,
        project_id=submission.project_id,
        test=submission.test,
        model=submission.model,
        task=submission.task,
        request=order.request,
        metadata=order.metadata,
        cancel_requested_at=None,
        created_at=submission.created_at,
        completed_at=None,
        expires_at=None,
        nano_per_second=submission.price.net_nano_per_second,
        held_nano=submission.hold_nano,
        charged_nano=None,
        billed_ms=None,
        backend=None,
        route_reason=submission.route_reason,
        result=None,
        error=None,
        warnings=order.warnings,
        request_hash=submission.request_hash,
    )
