"""A provider over the network, behind the Backend protocol."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import structlog

from gateway.audio import AudioError, InputUnreadable
from gateway.backends.base import (
    POLL_PATIENCE_SECONDS,
    BackendUnavailable,
    Failed,
    Piece,
    Reason,
    RemoteTask,
    Rendered,
    RenderTask,
    Running,
    SubmitAmbiguous,
    TaskState,
)
from gateway.backends.edits import edited_frames
from gateway.backends.remote.breaker import Breaker, Permit
from gateway.backends.remote.courier import Courier
from gateway.backends.remote.pace import Pace
from gateway.backends.remote.provider import Brought, Call, Provider, Refused
from gateway.backends.remote.standing import Standing
from gateway.backends.remote.tracking import Tracker
from gateway.backends.remote.work import Work, most_nano
from gateway.generation import AudioInput
from gateway.jobs.job import JobErrorCode
from gateway.routing import RouteHealth, remote_queue
from gateway.storage import StoreError

_LARGEST_PROGRESS: Final = 0.99
"""Of what is not finished."""
_NOT_BROUGHT: Final = "the source could not be read at the moment"

log = structlog.get_logger(__name__)


class BroughtFile(Protocol):
    """A file to be handed over to a provider."""

    @property
    def content(self) -> bytes: ...

    @property
    def content_type(self) -> str: ...

    @property
    def frames(self) -> int:
        """Its length at 48 kHz."""


class BringFile(Protocol):
    """Where the files come from that clients brought."""

    def __call__(
        self, wanted: AudioInput, *, organization_id: uuid.UUID, project_id: uuid.UUID | None
    ) -> AbstractAsyncContextManager[BroughtFile]:
        """The file, and a turn to have it in memory. Raises InputUnreadable."""


class RemoteBackend:
    """Makes music at one provider. Tasks outlive this process: what is stored is enough to find them."""

    resumable: Final = True

    def __init__(
        self,
        provider: Provider,
        *,
        models: Mapping[str, str],
        nano_per_second: Mapping[str, int] | None = None,
        brought: BringFile,
        capacity: int,
        pace: Pace | None = None,
    ) -> None:
        """`models` and prices by our names of models; `capacity`: tasks at the provider at once."""
        pace = pace or Pace()
        self.name: Final = provider.name
        self._provider = provider
        self._models = dict(models)
        self._prices = dict(nano_per_second or {})
        self._brought = brought
        self._capacity = capacity
        self._pace = pace
        self._standing = Standing(provider, models, pace)
        self._tracker = Tracker(provider, self._standing, pace)
        self._courier = Courier(provider, pace, price=self._price)

    @property
    def queues(self) -> tuple[str, ...]:
        """Of models that are worth a try, also while there is no room: their jobs wait for some."""
        return tuple(remote_queue(self.name, model) for model in self._standing.open_models())

    def intend(self, task: RenderTask) -> RemoteTask:
        """The parts, with ids where the provider takes ours."""
        most, wanted = self._provider.most_at_once, task.request.n
        pieces = tuple(
            Piece(first=first, count=min(most, wanted - first), ref=self._provider.new_ref())
            for first in range(0, wanted, most)
        )
        return RemoteTask(
            backend=self.name,
            ref=pieces[0].ref or f"{task.job_id.hex}-{task.attempt}",
            pieces=pieces,
            model=self._models.get(task.model, ""),
            sent_at=self._pace.now(),
            most_nano=most_nano(self.name, task.request, wanted, self._prices.get(task.model)),
        )

    async def submit(self, task: RenderTask, intent: RemoteTask | None) -> RemoteTask:
        """What cannot be read, and what the provider will never make, fails at the first poll."""
        if self._is_full():
            raise BackendUnavailable(
                f"{self.name} has enough to do", reason=Reason.FULL, retry_after_seconds=1.0
            )
        breaker, permit = self._standing.admit(task.model, task.organization_id)
        return await self._start(self._begin(task, intent or self.intend(task), breaker, permit), None)

    async def recover(self, task: RenderTask, stored: RemoteTask, *, accepted: bool) -> RemoteTask:
        """Look for what was sent, or send it again where that makes no second task."""
        breaker = self._standing.breaker(task.model)
        if breaker is None:
            message = f"{task.model} is made at {self.name} no more"
            raise SubmitAmbiguous(message, cost_nano=stored.most_nano)
        work = self._begin(task, stored, breaker, breaker.enter(task.organization_id))
        return await self._start(work, [piece.ref if accepted else None for piece in stored.pieces])

    async def poll(self, task: RemoteTask) -> TaskState:
        """Waits for a change, and asks nobody: one schedule does that for all tasks together."""
        work = self._tracker.find(task)
        if work is None:
            raise LookupError(f"{task.ref} was neither submitted nor recovered here")
        if work.outcome is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_PATIENCE_SECONDS):
                    await work.changed.wait()
            work.changed.clear()
            self._tracker.end_overdue(work)
        return work.outcome or Running(min(work.progress, _LARGEST_PROGRESS))

    async def cancel(self, task: RemoteTask) -> None:
        """Also while it is being submitted, by what was intended; then `submit` cleans up behind itself."""
        work = self._tracker.find(task)
        if work is not None:
            self._tracker.cancel(work)
        else:
            await asyncio.gather(*(self._provider.stop(piece.ref) for piece in task.pieces if piece.ref))

    def forget(self, task: RemoteTask) -> None:
        """It may go on at the provider: another process may look for it."""
        work = self._tracker.find(task)
        if work is None:
            return
        if isinstance(work.outcome, Rendered):
            work.breaker.succeeded(work.permit)
        else:
            work.breaker.released(work.permit)
        self._tracker.drop(work)

    def note_outcome(self, task: RemoteTask, code: JobErrorCode | None) -> None:
        """What became of a finished task's files; None: delivered, as it also counts if nobody says so."""
        work = self._tracker.find(task)
        if work is None:
            return
        if code is None:
            work.breaker.succeeded(work.permit)
        else:
            self._standing.count(work.breaker, work.permit, code)

    def hint(self, ref: str) -> None:
        """Somebody says that this task has changed: it is looked at now."""
        self._tracker.hint(ref)

    def health(self) -> list[RouteHealth]:
        """For each model, as this process sees it."""
        return self._standing.health(self._tracker.running, self._capacity)

    async def watch_account(self) -> None:
        """Endless: what the account holds, once a minute and when credit was refused."""
        await self._standing.watch_account()

    async def close(self) -> None:
        """Look at nothing any more."""
        await self._tracker.close()
        await self._provider.close()

    def _is_full(self) -> bool:
        return self._tracker.running.total() >= self._capacity

    def _price(self, call: Call) -> int:
        return max(
            (
                most_nano(self.name, call.request, call.count, nano)
                for model, nano in self._prices.items()
                if self._models.get(model) == call.model
            ),
            default=0,
        )

    def _begin(self, task: RenderTask, remote: RemoteTask, breaker: Breaker, permit: Permit) -> Work:
        now = self._pace.clock()
        age = (self._pace.now() - remote.sent_at).total_seconds() if remote.sent_at else 0.0
        work = Work(
            task=task,
            remote=remote,
            intended=remote.ref,
            breaker=breaker,
            permit=permit,
            nano_per_second=self._prices.get(task.model),
            sent=now - max(0.0, age),
            watched=now,
            heard=now,
        )
        self._tracker.add(work)
        return work

    async def _start(self, work: Work, known: list[str | None] | None) -> RemoteTask:
        """`known` None: it is new; otherwise the ids that the provider has given before."""
        try:
            refs = await self._refs(work, known)
            if refs is None:
                return work.remote
            self._standing.account.note_served()
            return self._tracker.watch(work, refs)
        except BaseException as error:
            self._standing.learn(work.breaker, work.permit, error)
            self._tracker.drop(work)
            raise

    async def _refs(self, work: Work, known: list[str | None] | None) -> list[str] | None:
        """The provider's ids of all parts; None where it has ended before it has begun."""
        if known is not None and all(known):
            return [ref for ref in known if ref is not None]
        since = work.remote.sent_at or self._pace.now()
        unsent_nano = 0 if known is None else None  # another process may have sent it
        try:
            async with self._source(work) as source:
                calls = _calls(work, source)
                if known is None:
                    return await self._courier.send(calls, since=since)
                return await self._courier.find(calls, since=since)
        except InputUnreadable as error:
            ended = Failed(code=JobErrorCode.INPUT_UNREADABLE, message=str(error), cost_nano=unsent_nano)
        except (AudioError, StoreError, OSError):
            log.exception("provider.source_not_brought", job=work.task.job_id.hex)
            ended = Failed(
                code=JobErrorCode.UPSTREAM_ERROR, message=_NOT_BROUGHT, retryable=True, cost_nano=unsent_nano
            )
        except Refused as refusal:
            ended = refusal.failed
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not work.is_cancelled or (current is not None and current.cancelling()):
                raise  # it is this process that leaves
            ended = Failed(
                code=JobErrorCode.JOB_CANCELLED, message="the job was cancelled", cost_nano=unsent_nano
            )
        self._tracker.refuse(work, ended)
        return None

    @contextlib.asynccontextmanager
    async def _source(self, work: Work) -> AsyncIterator[Brought | None]:
        request = work.task.request
        if request.source_audio is None:
            yield None
            return
        organization_id = work.task.organization_id
        bringing = self._brought(request.source_audio, organization_id=organization_id, project_id=None)
        async with contextlib.AsyncExitStack() as stack:
            fetching = asyncio.ensure_future(stack.enter_async_context(bringing))
            work.fetching = fetching
            try:
                file = await fetching
            finally:
                work.fetching = None
            edited_frames(request, file.frames)
            yield Brought(content=file.content, content_type=file.content_type, frames=file.frames)


def _calls(work: Work, source: Brought | None) -> list[Call]:
    return [
        Call(
            ref=piece.ref,
            model=work.remote.model,
            request=work.task.request,
            first=piece.first,
            count=piece.count,
            source=source,
        )
        for piece in work.remote.pieces
    ]
