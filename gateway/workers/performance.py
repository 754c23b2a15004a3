"""One claimed job from its claim to its ending: render, check, store. No money moves here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from gateway.audio import AudioError, QualityFailed
from gateway.backends.base import Backend, Failed, RemoteTask, RenderTask, Running, Succeeded
from gateway.jobs.job import JobError, JobErrorCode, JobResult
from gateway.jobs.queue import Claim
from gateway.jobs.settlement import Ending
from gateway.storage import StoreError
from gateway.workers.delivery import Delivery

TIMEOUT_SECONDS: Final = 1800.0
"""From the first progress on."""
WAITING_SECONDS: Final = 6 * 3600.0
"""Until then: inside a backend songs may wait for each other."""
LOOK_SECONDS: Final = 0.5
"""While a job is being submitted: whether anybody still wants it."""

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """The job belongs to somebody else by now; whatever we have is thrown away."""


class AttemptFailed(Exception):
    """No music from this attempt; `retryable`: another one may work."""

    def __init__(self, code: JobErrorCode, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.error = JobError(code=code, message=message)
        self.retryable = retryable


class Active(msgspec.Struct, kw_only=True):
    """A claimed job in this process. The heartbeat writes `lost` and `cancel_wanted`."""

    claim: Claim
    task: asyncio.Task[None] | None = None
    progress: float = 0.0
    cancel_wanted: bool = False
    lost: bool = False

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


class Performer:
    """Performs jobs on one backend."""

    def __init__(
        self,
        *,
        backend: Backend,
        delivery: Delivery,
        note_accepted: Callable[[Claim, RemoteTask], Awaitable[None]],
    ) -> None:
        self._backend = backend
        self._delivery = delivery
        self._note_accepted = note_accepted

    async def perform(self, active: Active) -> Ending:
        """The ending to settle.

        Raises AttemptFailed(retryable), LeaseLost, or BackendUnavailable if nothing was started.
        """
        claim = active.claim
        try:
            result = await self._make(active)
        except AttemptFailed as failure:
            if failure.retryable:
                raise
            return Ending(job_id=claim.job_id, fence=claim.fence, error=failure.error)
        return Ending(job_id=claim.job_id, fence=claim.fence, result=result)

    async def _make(self, active: Active) -> JobResult:
        try:
            async with asyncio.timeout(WAITING_SECONDS) as limit:
                state = await self._render(active, limit)
                if isinstance(state, Failed):
                    raise AttemptFailed(state.code, state.message, retryable=state.retryable)
                return await self._delivery.deliver(
                    active.render_task, active.claim.organization_id, state.recordings
                )
        except QualityFailed as error:
            raise AttemptFailed(JobErrorCode.QUALITY_FAILED, f"quality control: {error}") from error
        except TimeoutError as error:  # before OSError, which it is one of
            raise AttemptFailed(JobErrorCode.TIMEOUT, "rendering took too long") from error
        except (AudioError, StoreError, OSError) as error:
            log.exception("job.delivery_failed", job=active.claim.job_id.hex)
            raise AttemptFailed(
                JobErrorCode.UPSTREAM_ERROR, "the audio could not be read or stored"
            ) from error

    async def _render(self, active: Active, limit: asyncio.Timeout) -> Succeeded | Failed:
        remote = await self._submit(active)
        try:
            await self._note_accepted(active.claim, remote)
            return await self._follow(active, remote, limit)
        except (LeaseLost, asyncio.CancelledError) as end:
            # A worker that only leaves lets a task run on: another may resume it.
            if isinstance(end, LeaseLost) or limit.expired():
                await self._backend.cancel(remote)
            raise
        finally:
            self._backend.forget(remote)

    async def _submit(self, active: Active) -> RemoteTask:
        """To fetch a client's sound can take minutes, which nobody waits for who has lost or cancelled it."""
        submitting = asyncio.ensure_future(self._backend.submit(active.render_task, None))
        try:
            while not (await asyncio.wait([submitting], timeout=LOOK_SECONDS))[0]:
                if active.lost:
                    raise LeaseLost
                if active.cancel_wanted:
                    raise AttemptFailed(JobErrorCode.JOB_CANCELLED, "the job was cancelled")
            return submitting.result()
        finally:
            submitting.cancel()
            await asyncio.wait([submitting])

    async def _follow(self, active: Active, remote: RemoteTask, limit: asyncio.Timeout) -> Succeeded | Failed:
        cancel_sent = False
        while True:
            state = await self._backend.poll(remote)
            if active.lost:
                raise LeaseLost
            if not isinstance(state, Running):
                return state
            if active.progress == 0.0 < state.progress:
                limit.reschedule(asyncio.get_running_loop().time() + TIMEOUT_SECONDS)
            active.progress = max(active.progress, state.progress)
            if active.cancel_wanted and not cancel_sent:
                cancel_sent = True
                await self._backend.cancel(remote)
