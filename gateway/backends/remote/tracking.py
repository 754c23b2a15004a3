"""What is under way at a provider: from the ids of its parts to the outcome of the whole."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import msgspec
import structlog

from gateway.backends.base import Failed, RemoteTask, Rendered, SubmitAmbiguous
from gateway.backends.remote.pace import Pace
from gateway.backends.remote.polling import Poller
from gateway.backends.remote.provider import Made, Provider, Sight, Unknown, Waiting
from gateway.backends.remote.standing import Standing
from gateway.backends.remote.work import Part, Work
from gateway.jobs.job import JobErrorCode

_UNKNOWN_IN_A_ROW: Final = 2
"""One answer may come from a part of the provider that has not heard of it."""
_CANCELLED: Final = "the job was cancelled"
_LOST: Final = "the song was lost where it was made"
_FOREIGN: Final = "another song came than was ordered"
_FEWER: Final = "fewer songs came than were ordered"
_TOO_LONG: Final = "rendering took too long"
_STOP_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


class Tracker:
    """All tasks of one provider that this process follows."""

    def __init__(self, provider: Provider, standing: Standing, pace: Pace) -> None:
        self._provider = provider
        self._standing = standing
        self._pace = pace
        self._poller = Poller(provider, self._saw, pace)
        self._works: dict[str, Work] = {}
        self._by_ref: dict[str, Work] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self.running: Final[Counter[str]] = Counter()
        """Tasks at the provider, or on their way there, by our names of models."""

    def add(self, work: Work) -> None:
        """Known by what was intended, so that it can be cancelled before it has an id."""
        self._works[work.remote.ref] = work
        work.running = len(work.remote.pieces)
        self.running[work.task.model] += work.running

    def find(self, task: RemoteTask) -> Work | None:
        """As it was intended, or as it was accepted."""
        return self._works.get(task.ref)

    def watch(self, work: Work, refs: Sequence[str]) -> RemoteTask:
        """It was accepted under these ids."""
        if len(set(refs)) < len(refs) or any(ref in self._by_ref for ref in refs):
            message = f"{self._provider.name} gave one id to two tasks"
            raise SubmitAmbiguous(message, cost_nano=work.remote.most_nano)
        pieces = [
            msgspec.structs.replace(piece, ref=ref)
            for piece, ref in zip(work.remote.pieces, refs, strict=True)
        ]
        work.parts = {ref: Part(piece) for piece, ref in zip(pieces, refs, strict=True)}
        work.watched = work.heard = self._pace.clock()
        work.remote = msgspec.structs.replace(work.remote, ref=refs[0], pieces=tuple(pieces))
        self._works[work.remote.ref] = work
        for ref in refs:
            self._by_ref[ref] = work
            self._poller.watch(ref)
        if work.is_cancelled:
            self.cancel(work)
        return work.remote

    def cancel(self, work: Work) -> None:
        """What was accepted is given up; what is on its way will be when it arrives."""
        work.is_cancelled = True
        if work.fetching is not None:
            work.fetching.cancel()
        if work.parts and work.outcome is None:
            self.end(work, work.failed(JobErrorCode.JOB_CANCELLED, _CANCELLED))

    def refuse(self, work: Work, failed: Failed) -> None:
        """It has ended before it has begun, which says nothing of the backend."""
        work.outcome = failed
        work.changed.set()
        work.breaker.released(work.permit)
        self._uncount(work)

    def end(self, work: Work, outcome: Rendered | Failed) -> None:
        """Nothing of it is looked at any more; what is not finished is given up."""
        work.outcome = outcome
        work.changed.set()
        self._uncount(work)
        if isinstance(outcome, Failed):
            self._standing.count(work.breaker, work.permit, outcome.code)
        else:
            work.breaker.note_latency(self._pace.clock() - work.sent)
        for ref, part in work.parts.items():
            self._poller.drop(ref)
            if part.made is None:
                self._do_beside(self._provider.stop(ref))

    def end_overdue(self, work: Work) -> None:
        """A provider that has lost a task, or never ends it, must not keep a job from the next one."""
        now = self._pace.clock()
        if work.outcome is not None:
            return
        is_late = now - work.sent > self._pace.patience_seconds
        if is_late or now - work.heard > self._pace.silence_seconds:
            self.end(work, work.failed(JobErrorCode.TIMEOUT, _TOO_LONG, retryable=True))

    def drop(self, work: Work) -> None:
        """This process follows it no more."""
        self._uncount(work)
        for ref in work.parts:
            self._poller.drop(ref)
            if self._by_ref.get(ref) is work:
                del self._by_ref[ref]
        for key in (work.intended, work.remote.ref):
            if self._works.get(key) is work:
                del self._works[key]

    def hint(self, ref: str) -> None:
        """Look at it now."""
        self._poller.hint(ref)

    async def close(self) -> None:
        """Look at nothing any more."""
        await self._poller.close()
        if self._beside:
            await asyncio.wait(self._beside, timeout=_STOP_SECONDS)

    def _saw(self, ref: str, sight: Sight) -> None:
        work = self._by_ref.get(ref)
        if work is None or work.outcome is not None:
            self._poller.drop(ref)
            return
        part = work.parts[ref]
        if isinstance(sight, Unknown):
            self._missed(work, part)
            return
        work.heard = self._pace.clock()
        part.unknown = 0
        if isinstance(sight, Waiting):
            if sight.progress > part.progress:
                part.progress = min(sight.progress, 1.0)
                work.changed.set()
        elif isinstance(sight, Made):
            self._made(work, ref, sight)
        else:
            self.end(work, work.failed_by(ref, sight))

    def _made(self, work: Work, ref: str, made: Made) -> None:
        part = work.parts[ref]
        part.made = made
        self._poller.drop(ref)
        if made.asked_seed not in {None, work.task.request.variation_seed(part.piece.first)}:
            log.error("provider.song_of_another", provider=self._provider.name, ref=ref)
            self.end(work, work.failed(JobErrorCode.UPSTREAM_ERROR, _FOREIGN, retryable=True))
        elif len(made.outputs) < part.piece.count:
            log.warning("provider.fewer_songs", provider=self._provider.name, ref=ref)
            self.end(work, work.failed(JobErrorCode.UPSTREAM_ERROR, _FEWER, retryable=True))
        elif work.is_made:
            self.end(work, work.rendered())
        else:
            work.changed.set()

    def _missed(self, work: Work, part: Part) -> None:
        part.unknown += 1
        if self._pace.clock() - work.watched < self._pace.unknown_seconds:
            return
        if part.unknown >= _UNKNOWN_IN_A_ROW:
            log.warning("provider.task_lost", provider=self._provider.name, ref=part.piece.ref)
            self.end(work, work.failed(JobErrorCode.UPSTREAM_ERROR, _LOST, retryable=True))

    def _uncount(self, work: Work) -> None:
        self.running[work.task.model] -= work.running
        work.running = 0

    def _do_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Kept, or the loop might lose it."""
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
