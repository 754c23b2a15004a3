"""One claimed job from its claim to its ending: render, check, store. No money moves here."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

import msgspec
import structlog

from gateway.audio import AudioError, QualityFailed
from gateway.backends.base import (
    Backend,
    Failed,
    Recording,
    RemoteTask,
    Rendered,
    RenderTask,
    Running,
    SubmitAmbiguous,
    Succeeded,
)
from gateway.jobs.job import JobError, JobErrorCode, JobResult
from gateway.jobs.moving import Closing
from gateway.jobs.queue import Claim
from gateway.jobs.settlement import Ending
from gateway.storage import StoreError
from gateway.workers.collection import CollectFailed
from gateway.workers.delivery import Delivery

TIMEOUT_SECONDS: Final = 1800.0
"""From the first progress on."""
WAITING_SECONDS: Final = 6 * 3600.0
"""Until then: inside a backend songs may wait for each other."""

_UNREADABLE: Final = "the audio could not be read or stored"

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """The job belongs to somebody else by now; whatever we have is thrown away."""


class AttemptFailed(Exception):
    """No music from this attempt."""

    def __init__(
        self,
        code: JobErrorCode,
        message: str,
        *,
        retryable: bool = False,
        elsewhere: bool = False,
        is_ambiguous: bool = False,
        cost_nano: int | None = 0,
    ) -> None:
        """`retryable`: another attempt may work; `elsewhere`: only one at another backend.

        `cost_nano` None: the provider did not say what it charges, if anything.
        """
        super().__init__(message)
        self.error = JobError(code=code, message=message)
        self.retryable = retryable
        self.elsewhere = elsewhere or retryable
        self.is_ambiguous = is_ambiguous
        self.cost_nano = cost_nano

    @property
    def closing(self) -> Closing:
        """What is kept of the attempt."""
        return Closing(
            code=self.error.code.value,
            message=self.error.message,
            is_ambiguous=self.is_ambiguous,
            cost_nano=self.cost_nano,
        )


class Active(msgspec.Struct, kw_only=True):
    """A claimed job in this process. The heartbeat tells it what others want of it."""

    claim: Claim
    task: asyncio.Task[None] | None = None
    progress: float = 0.0
    beaten_at: float = 0.0
    """When its lease was extended last, by the loop's clock."""
    cancel_wanted: bool = False
    lost: bool = False
    attention: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """Set when one of the two before is: whoever waits looks at them."""

    def tell(self, *, lost: bool, cancel_wanted: bool) -> None:
        """What the database says of the job."""
        self.lost, self.cancel_wanted = lost, cancel_wanted
        if lost or cancel_wanted:
            self.attention.set()

    @property
    def render_task(self) -> RenderTask:
        """The job in the backend's words."""
        claim = self.claim
        return RenderTask(
            job_id=claim.job_id,
            organization_id=claim.organization_id,
            attempt=claim.attempt,
            model=claim.model,
            test=claim.test,
            request=claim.request,
        )


Observe = Callable[[RemoteTask, JobErrorCode | None], None]


def _nobody(_: RemoteTask, __: JobErrorCode | None) -> None:
    """Hears nothing."""


class Notes(Protocol):
    """What is written down of an attempt while it is under way."""

    async def sent(self, claim: Claim, remote: RemoteTask) -> bool:
        """Durably, before anything is sent; False if the job is not ours any more."""

    async def accepted(self, claim: Claim, remote: RemoteTask) -> None:
        """Raises AttemptFailed if another attempt has this task."""


class Collects(Protocol):
    """Fetches and decodes what a provider has made; bounded, because songs are large in memory."""

    def collected(
        self, task: RenderTask, rendered: Rendered
    ) -> AbstractAsyncContextManager[tuple[Recording, ...]]:
        """The recordings, for whatever is done with them inside.

        Raises QualityFailed, CollectFailed with words for the customer, or another AudioError.
        """


class Performer:
    """Performs jobs on one backend."""

    def __init__(
        self,
        *,
        backend: Backend,
        delivery: Delivery,
        notes: Notes,
        collector: Collects | None = None,
        waiting_seconds: float = WAITING_SECONDS,
        observe: Observe | None = None,
    ) -> None:
        """`collector`: of backends whose music has to be fetched. `waiting_seconds`: for first progress.

        `observe` hears how good the music was: None, or why it could not be used.
        """
        self._waiting_seconds = waiting_seconds
        self._observe = observe or _nobody
        self._backend = backend
        self._delivery = delivery
        self._notes = notes
        self._collector = collector

    async def perform(self, active: Active) -> Ending:
        """The ending to settle.

        Raises AttemptFailed (for another attempt), LeaseLost, or BackendUnavailable if nothing was started.
        """
        claim = active.claim
        try:
            result, cost_nano = await self._make(active)
        except AttemptFailed as failure:
            if failure.elsewhere:
                raise
            return ending_of(claim, failure)
        return Ending(job_id=claim.job_id, fence=claim.fence, result=result, cost_nano=cost_nano)

    async def _make(self, active: Active) -> tuple[JobResult, int | None]:
        """The songs, and what the provider charges for them."""
        cost_nano: int | None = None  # nobody has told yet
        try:
            async with asyncio.timeout(self._waiting_seconds) as limit:
                remote = await self._begin(active)
                try:
                    state = await self._render(active, remote, limit)
                    cost_nano = 0 if isinstance(state, Succeeded) else state.cost_nano
                    limit.reschedule(_in(WAITING_SECONDS))  # our own time from here on: songs take turns
                    return await self._finish(active, remote, state), cost_nano
                finally:
                    self._backend.forget(remote)
        except TimeoutError as error:  # before OSError, which it is one of
            raise AttemptFailed(
                JobErrorCode.TIMEOUT, "rendering took too long", elsewhere=True, cost_nano=cost_nano
            ) from error
        except (AudioError, StoreError, OSError) as error:
            log.exception("job.delivery_failed", job=active.claim.job_id.hex)
            raise AttemptFailed(
                JobErrorCode.UPSTREAM_ERROR, _UNREADABLE, elsewhere=True, cost_nano=cost_nano
            ) from error

    async def _finish(
        self, active: Active, remote: RemoteTask, state: Succeeded | Rendered | Failed
    ) -> JobResult:
        """The songs listened to and stored."""
        if isinstance(state, Failed):
            raise AttemptFailed(
                state.code, state.message, retryable=state.retryable, cost_nano=state.cost_nano
            )
        cost_nano = state.cost_nano if isinstance(state, Rendered) else 0
        try:
            if isinstance(state, Succeeded):
                result = await self._deliver(active, state.recordings)
            else:
                result = await self._collect(active, state)
        except QualityFailed as error:
            code, message = JobErrorCode.QUALITY_FAILED, f"quality control: {error}"
            self._observe(remote, code)
            raise AttemptFailed(code, message, elsewhere=True, cost_nano=cost_nano) from error
        except AudioError as error:
            log.exception("job.delivery_failed", job=active.claim.job_id.hex)
            code = JobErrorCode.UPSTREAM_ERROR
            self._observe(remote, code)
            message = str(error) if isinstance(error, CollectFailed) else _UNREADABLE
            raise AttemptFailed(code, message, elsewhere=True, cost_nano=cost_nano) from error
        except TimeoutError:
            raise
        except (StoreError, OSError) as error:
            # What we cannot keep is not paid for a second time at another backend.
            log.exception("job.delivery_failed", job=active.claim.job_id.hex)
            raise AttemptFailed(JobErrorCode.UPSTREAM_ERROR, _UNREADABLE, cost_nano=cost_nano) from error
        self._observe(remote, None)
        return result

    async def _deliver(self, active: Active, recordings: tuple[Recording, ...]) -> JobResult:
        return await self._delivery.deliver(active.render_task, active.claim.organization_id, recordings)

    async def _collect(self, active: Active, rendered: Rendered) -> JobResult:
        if self._collector is None:
            raise AssertionError(f"{self._backend.name} renders elsewhere, and nobody fetches it")
        async with self._collector.collected(active.render_task, rendered) as recordings:
            return await self._deliver(active, recordings)

    async def _render(
        self, active: Active, remote: RemoteTask, limit: asyncio.Timeout
    ) -> Succeeded | Rendered | Failed:
        try:
            await self._notes.accepted(active.claim, remote)
            return await self._follow(active, remote, limit)
        except (LeaseLost, asyncio.CancelledError) as end:
            # A worker that only leaves lets a task run on, and so does one that was taken for dead if
            # another has found its task.
            if limit.expired() or (isinstance(end, LeaseLost) and not self._backend.resumable):
                await self._backend.cancel(remote)
            raise

    async def _begin(self, active: Active) -> RemoteTask:
        """Send the task, or find what another worker has sent."""
        claim, task = active.claim, active.render_task
        try:
            if claim.stored is not None:
                stored = _decode_task(claim.stored)
                recovering = self._backend.recover(task, stored, accepted=claim.accepted)
                return await self._watched(active, recovering, stored)
            intent = self._backend.intend(task)
            if intent is not None and not await self._notes.sent(claim, intent):
                raise LeaseLost
            return await self._watched(active, self._backend.submit(task, intent), intent)
        except SubmitAmbiguous as error:
            log.warning(
                "job.submit_ambiguous", job=claim.job_id.hex, attempt=claim.attempt, reason=str(error)
            )
            raise AttemptFailed(
                JobErrorCode.UPSTREAM_ERROR,
                "the provider did not say whether it took the job",
                elsewhere=True,
                is_ambiguous=True,
                cost_nano=None,
            ) from error
        except (AudioError, StoreError, OSError) as error:
            if claim.stored is not None:
                raise
            # What is sent is read before; whatever goes wrong from then on a backend has a word for.
            log.exception("job.submit_failed", job=claim.job_id.hex, attempt=claim.attempt)
            raise AttemptFailed(JobErrorCode.UPSTREAM_ERROR, _UNREADABLE, elsewhere=True) from error

    async def _watched(
        self, active: Active, begin: Coroutine[None, None, RemoteTask], intent: RemoteTask | None
    ) -> RemoteTask:
        """To fetch a client's sound can take minutes, which nobody waits for who has lost or cancelled it.

        What may have reached a provider is not broken off: it is asked to give it up, and tells how it ended.
        """
        submitting = asyncio.ensure_future(begin)
        try:
            await _either(submitting, active.attention)
            if not submitting.done() and active.lost:
                raise LeaseLost
            if not submitting.done() and intent is None:
                raise AttemptFailed(JobErrorCode.JOB_CANCELLED, "the job was cancelled")
            if not submitting.done() and intent is not None:
                await self._backend.cancel(intent)
            return await submitting
        finally:
            submitting.cancel()
            await asyncio.wait([submitting])

    async def _follow(
        self, active: Active, remote: RemoteTask, limit: asyncio.Timeout
    ) -> Succeeded | Rendered | Failed:
        cancel_sent = False
        while True:
            polling = asyncio.ensure_future(self._backend.poll(remote))
            try:
                if not cancel_sent:
                    await _either(polling, active.attention)
                    if active.lost:
                        raise LeaseLost
                    if active.cancel_wanted:
                        cancel_sent = True
                        await self._backend.cancel(remote)
                state = await polling
            finally:
                polling.cancel()
            if active.lost:
                raise LeaseLost
            if not isinstance(state, Running):
                return state
            if active.progress == 0.0 < state.progress:
                limit.reschedule(_in(min(TIMEOUT_SECONDS, self._waiting_seconds)))
            active.progress = max(active.progress, state.progress)


def ending_of(claim: Claim, failure: AttemptFailed) -> Ending:
    """Of a job whose last attempt this was."""
    return Ending(
        job_id=claim.job_id,
        fence=claim.fence,
        error=failure.error,
        cost_nano=failure.cost_nano,
        is_ambiguous=failure.is_ambiguous,
    )


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def _either(future: "asyncio.Future[Any]", event: asyncio.Event) -> None:
    """Until the future is done or the event is set, whatever comes first; neither is consumed."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([future, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _decode_task(stored: str) -> RemoteTask:
    try:
        return msgspec.json.decode(stored, type=RemoteTask)
    except msgspec.MsgspecError as error:
        raise SubmitAmbiguous("another version of this program has sent it") from error
