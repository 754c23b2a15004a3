"""Our own torch engine, in this process, behind the Backend protocol."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from engine import (
    Canceled,
    Engine,
    EngineError,
    EngineRequest,
    EngineResult,
    InferMethod,
    OutOfMemory,
    RequestError,
    Silent,
    Sound,
    Ticket,
    TooLarge,
    Unavailable,
)
from gateway.audio import InputUnreadable
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
from gateway.backends.edits import edited_frames
from gateway.catalog import SANDBOX
from gateway.generation import SAMPLE_RATE, AudioInput, GenerationRequest
from gateway.jobs.job import JobErrorCode

POLL_SECONDS: Final = 0.2
_FINAL: Final = (
    (Canceled, JobErrorCode.JOB_CANCELLED),
    (OutOfMemory, JobErrorCode.OUT_OF_MEMORY),
    (TooLarge, JobErrorCode.OUT_OF_MEMORY),
    (Silent, JobErrorCode.QUALITY_FAILED),
    (InputUnreadable, JobErrorCode.INPUT_UNREADABLE),
    (RequestError, JobErrorCode.UPSTREAM_ERROR),
)
"""What another attempt would not change, and what it is called in a job."""
_CANCELLED: Final = "the job was cancelled"
_COMPOSED_FRAMES: Final = 30 * SAMPLE_RATE
"""As long as the composer plays where a planner would decide."""

log = structlog.get_logger(__name__)


class SoundInputs(Protocol):
    """Where the sound comes from that clients brought."""

    async def samples(
        self, wanted: AudioInput, *, organization_id: uuid.UUID, project_id: uuid.UUID | None
    ) -> NDArray[np.float32]:
        """`[2, frames]` at 48 kHz; raises InputUnreadable."""


class Inputs(msgspec.Struct, frozen=True):
    """The sound of one job."""

    source: Sound | None = None
    reference: Sound | None = None


class _Songs(msgspec.Struct, frozen=True):
    """All variations of one job."""

    tickets: tuple[Ticket, ...]
    ended: "asyncio.Future[list[EngineResult]]"
    """In this loop: one for all polls, or each of them would leave one behind."""

    @property
    def progress(self) -> float:
        return sum(ticket.progress for ticket in self.tickets) / len(self.tickets)

    def cancel(self) -> None:
        for ticket in self.tickets:
            ticket.cancel()


class EngineBackend:
    """Renders in the engine's thread; a task dies with this process, so it is not resumable."""

    name: Final = "engine"
    resumable: Final = False

    def __init__(self, engine: Engine, inputs: SoundInputs) -> None:
        self._engine = engine
        self._inputs = inputs
        self._songs: dict[str, _Songs] = {}

    @property
    def queues(self) -> tuple[str, ...]:
        """One queue per model that the engine has loaded by now."""
        return tuple(sorted(self._engine.models))

    def intend(self, _: RenderTask) -> None:
        """Nothing: the song is never heard of again if this process dies."""

    async def recover(self, _: RenderTask, __: RemoteTask, *, accepted: bool) -> RemoteTask:  # noqa: ARG002
        """Never asked for: no other process could have left it here."""
        raise AssertionError("a song of another process cannot be found again")

    async def submit(self, task: RenderTask, _: RemoteTask | None) -> RemoteTask:
        """Fetch what the song needs and queue it; what cannot be read fails at the first poll."""
        remote = RemoteTask(backend=self.name, ref=f"{task.job_id.hex}-{task.attempt}")
        try:
            inputs = await self._load(task)
            requests = engine_requests(task, inputs)
        except (InputUnreadable, RequestError) as error:
            self._songs[remote.ref] = _Songs((), _failed(error))
            return remote
        tickets: list[Ticket] = []
        try:
            tickets.extend(self._engine.submit(request) for request in requests)
        except (Unavailable, RequestError) as error:
            for ticket in tickets:
                ticket.cancel()
            if isinstance(error, Unavailable):
                raise BackendUnavailable(str(error)) from error
            self._songs[remote.ref] = _Songs((), _failed(error))
            return remote
        ended = asyncio.ensure_future(_all(tickets))
        ended.add_done_callback(_note_seen)
        self._songs[remote.ref] = _Songs(tuple(tickets), ended)
        return remote

    async def poll(self, task: RemoteTask) -> TaskState:
        """The tickets' state, after at most POLL_SECONDS."""
        songs = self._songs[task.ref]
        await asyncio.wait([songs.ended], timeout=POLL_SECONDS)
        return _outcome(songs.ended) if songs.ended.done() else Running(songs.progress)

    async def cancel(self, task: RemoteTask) -> None:
        """Takes effect between two rendering steps."""
        if songs := self._songs.get(task.ref):
            songs.cancel()

    def forget(self, task: RemoteTask) -> None:
        """Songs that nobody will fetch are not rendered to their end."""
        if songs := self._songs.pop(task.ref, None):
            songs.cancel()

    async def _load(self, task: RenderTask) -> Inputs:
        request = task.request
        return Inputs(
            source=await self._sound(task, request.source_audio),
            reference=await self._sound(task, request.reference_audio),
        )

    async def _sound(self, task: RenderTask, wanted: AudioInput | None) -> Sound | None:
        if wanted is None:
            return None
        samples = await self._inputs.samples(wanted, organization_id=task.organization_id, project_id=None)
        return Sound(samples)


def engine_requests(task: RenderTask, inputs: Inputs) -> list[EngineRequest]:
    """The vendor-free request in the engine's words, once for each variation.

    Raises InputUnreadable if the sources turn out to make a longer song than was paid for.
    """
    request = task.request
    model = SANDBOX if task.test else task.model
    frames, open_length = _length(request, inputs, plans=model != SANDBOX)
    common = EngineRequest(
        id=f"{task.job_id.hex}-{task.attempt}",
        model=model,
        prompt=_composer_prompt(request) if model == SANDBOX else request.prompt,
        lyrics=request.lyrics,
        frames=frames,
        open_length=open_length,
        seed=request.seed,
        plan_seed=request.seed,
        bpm=request.bpm,
        key_scale=request.key_scale,
        time_signature=request.time_signature,
        vocal_language=request.vocal_language,
        instrumental=request.instrumental,
        negative_prompt=request.negative_prompt,
        task=request.task,
        source=inputs.source,
        reference=inputs.reference,
        repainting_start=request.repainting_start,
        repainting_end=request.repainting_end,
        cover_strength=request.cover_strength,
        cover_noise_strength=request.cover_noise_strength,
        track_name=request.track_name,
        track_classes=request.track_classes,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        guidance_type=request.guidance_type,
        cfg_interval=(
            0.0 if request.cfg_interval_start is None else request.cfg_interval_start,
            1.0 if request.cfg_interval_end is None else request.cfg_interval_end,
        ),
        shift=request.shift,
        timesteps=request.timesteps,
        infer_method=request.infer_method or InferMethod.ODE,
        thinking=request.thinking and model != SANDBOX,
    )
    return [
        msgspec.structs.replace(common, id=f"{common.id}-{index}", seed=request.variation_seed(index))
        for index in range(request.n)
    ]


def _length(request: GenerationRequest, inputs: Inputs, *, plans: bool) -> tuple[int, bool]:
    """How long each result is, and whether only its most is known."""
    if inputs.source is None:
        if request.open_length and not plans:
            return min(request.frames, _COMPOSED_FRAMES), False
        return request.frames, request.open_length
    return edited_frames(request, inputs.source.frames), False


def _composer_prompt(request: GenerationRequest) -> str:
    """The composer reads words alone: what is not wanted is asked for in the negative."""
    unwanted = [f"no {tag.strip()}" for tag in (request.negative_prompt or "").split(",") if tag.strip()]
    return ", ".join([request.prompt, *unwanted])


async def _all(tickets: Sequence[Ticket]) -> list[EngineResult]:
    """Every variation, or the first failure: the others are then not rendered to their end."""
    try:
        return await asyncio.gather(*(asyncio.wrap_future(ticket.future) for ticket in tickets))
    except EngineError:
        for ticket in tickets:
            ticket.cancel()
        raise


def _failed(error: Exception) -> "asyncio.Future[list[EngineResult]]":
    ended: asyncio.Future[list[EngineResult]] = asyncio.get_running_loop().create_future()
    ended.set_exception(error)
    return ended


def _note_seen(ended: "asyncio.Future[list[EngineResult]]") -> None:
    """A failed song that was forgotten meanwhile is nobody's, and no reason for asyncio to complain."""
    if not ended.cancelled():
        ended.exception()


def _outcome(ended: "asyncio.Future[list[EngineResult]]") -> TaskState:
    error = ended.exception()
    if error is None:
        return Succeeded(tuple(_recording(result) for result in ended.result()))
    for kind, code in _FINAL:
        if isinstance(error, kind):
            return Failed(code=code, message=_CANCELLED if kind is Canceled else str(error))
    if not isinstance(error, EngineError):
        raise error
    log.error("engine.render_failed", exc_info=error)
    return Failed(code=JobErrorCode.UPSTREAM_ERROR, message="the engine failed to render", retryable=True)


def _recording(result: EngineResult) -> Recording:
    return Recording(
        samples=result.samples,
        sample_rate=result.sample_rate,
        seed=result.seed,
        # A batch of other songs may change the last bits.
        deterministic=True if result.deterministic else "best_effort",
    )
