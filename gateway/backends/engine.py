"""Our own torch engine, in this process, behind the Backend protocol."""

import asyncio
from typing import Final

import msgspec

from engine import (
    Canceled,
    Engine,
    EngineError,
    EngineRequest,
    EngineResult,
    OutOfMemory,
    RequestError,
    Ticket,
    Unavailable,
)
from gateway.backends.base import (
    BackendUnavailable,
    Failed,
    Recording,
    RemoteTask,
    RenderTask,
    Running,
    Succeeded,
    TaskState,
)
from gateway.catalog import SANDBOX
from gateway.jobs.job import JobErrorCode

POLL_SECONDS: Final = 0.2


class _Song(msgspec.Struct, frozen=True):
    ticket: Ticket
    ended: "asyncio.Future[EngineResult]"
    """The ticket's future in this loop: one for all polls, or each of them would leave one behind."""


class EngineBackend:
    """Renders in the engine's thread; a task dies with this process, so it is not resumable."""

    name: Final = "engine"
    resumable: Final = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._songs: dict[str, _Song] = {}

    @property
    def queues(self) -> tuple[str, ...]:
        """One queue per model that the engine has loaded."""
        return tuple(sorted(self._engine.models))

    async def submit(self, task: RenderTask) -> RemoteTask:
        """Queue the song in the engine."""
        request = to_engine_request(task, model=SANDBOX)
        try:
            ticket = self._engine.submit(request)
        except Unavailable as error:
            raise BackendUnavailable(str(error)) from error
        ended = asyncio.wrap_future(ticket.future)
        ended.add_done_callback(_note_seen)
        self._songs[request.id] = _Song(ticket, ended)
        return RemoteTask(backend=self.name, ref=request.id)

    async def poll(self, task: RemoteTask) -> TaskState:
        """The ticket's state, after at most POLL_SECONDS."""
        song = self._songs[task.ref]
        await asyncio.wait([song.ended], timeout=POLL_SECONDS)
        return _outcome(song.ended) if song.ended.done() else Running(song.ticket.progress)

    async def cancel(self, task: RemoteTask) -> None:
        """Takes effect between two rendering steps."""
        if song := self._songs.get(task.ref):
            song.ticket.cancel()

    def forget(self, task: RemoteTask) -> None:
        """A song that nobody will fetch is not rendered to its end."""
        if song := self._songs.pop(task.ref, None):
            song.ticket.cancel()


def to_engine_request(task: RenderTask, *, model: str) -> EngineRequest:
    """The vendor-free request in the engine's words; what is not wanted is asked for in the negative."""
    request = task.request
    unwanted = [f"no {tag.strip()}" for tag in (request.negative_prompt or "").split(",") if tag.strip()]
    return EngineRequest(
        id=f"{task.job_id.hex}-{task.attempt}",
        model=model,
        prompt=", ".join([request.prompt, *unwanted]),
        lyrics=request.lyrics,
        frames=request.frames,
        seed=request.seed,
        bpm=request.bpm,
        key_scale=request.key_scale,
        time_signature=request.time_signature,
        vocal_language=request.vocal_language,
        instrumental=request.instrumental,
    )


def _note_seen(ended: "asyncio.Future[EngineResult]") -> None:
    """A failed song that was forgotten meanwhile is nobody's, and no reason for asyncio to complain."""
    if not ended.cancelled():
        ended.exception()


def _outcome(ended: "asyncio.Future[EngineResult]") -> TaskState:
    error = ended.exception()
    if error is None:
        return _succeeded(ended.result())
    match error:
        case Canceled():
            return Failed(code=JobErrorCode.JOB_CANCELLED, message="the job was cancelled")
        case OutOfMemory():
            return Failed(code=JobErrorCode.OUT_OF_MEMORY, message="the song did not fit into memory")
        case RequestError():
            return Failed(code=JobErrorCode.UPSTREAM_ERROR, message=str(error))
        case EngineError():
            return Failed(
                code=JobErrorCode.UPSTREAM_ERROR, message="the engine failed to render", retryable=True
            )
        case _:
            raise error


def _succeeded(result: EngineResult) -> Succeeded:
    recording = Recording(
        samples=result.samples,
        sample_rate=result.sample_rate,
        seed=result.seed,
        deterministic=result.deterministic,
    )
    return Succeeded((recording,))
