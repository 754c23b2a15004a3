"""ACE-Step behind the engine's seam: plan, prepare, denoise in one padded batch, decode each song, finish.

What goes wrong with one song is that song's alone. When memory runs out, the batch is halved, or chunks are,
and only a song that fits in no way fails.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final, Protocol

import msgspec
import torch

from engine.ace_step.bundle import HOP, Bundle
from engine.ace_step.conditioning import Conditioner
from engine.ace_step.dit import Denoiser, Dit
from engine.ace_step.finish import finish, settle
from engine.ace_step.landing import Landing
from engine.ace_step.memory import MIN_CHUNK_FRAMES, Shape, ran_out, release, shape_of
from engine.ace_step.planner.asks import (
    MIN_SECONDS,
    Plan,
    PlanAsk,
    PlanEvent,
    PlanFailed,
    Planned,
    Planning,
    Wishes,
)
from engine.ace_step.room import Room
from engine.ace_step.sampler import StepDone, denoise
from engine.ace_step.song import Song
from engine.ace_step.tasks import prepare
from engine.ace_step.vae import Vae
from engine.admission import check_knobs
from engine.errors import (
    EngineError,
    InvalidRequest,
    OutOfMemory,
    RenderFailed,
    TooLarge,
    without_frames,
)
from engine.models import ModelLimits
from engine.runner import Failed, Finished, Progress, RunnerEvent
from engine.scheduler import BatchLimits, pack
from engine.schema import SAMPLE_RATE, EngineRequest, Task
from engine.variants import Variant

BUCKET_FRAMES: Final = 256 * HOP
"""128 tokens of the transformer, 10.24 s."""
BATCH_SECONDS: Final = 480
"""Of a padded batch: above, a larger batch is no faster, and everybody in it waits for the longest."""

Wanted = Callable[[str], bool]


class SongPlanner(Protocol):
    """What the runner needs of a planner."""

    def plan(self, asks: Sequence[PlanAsk], *, wanted: Wanted) -> Iterator[PlanEvent]:
        """Plan songs side by side; yields between steps."""


class AceStepRunner:
    """Renders one model. `check` and `longest_seconds` may be called from any thread, the rest from one."""

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        *,
        planner: SongPlanner | None = None,
        dit: Denoiser[Any, Any] | None = None,
        vae: Vae | None = None,
        scores: bool | None = None,
        limits: ModelLimits = ModelLimits(),  # noqa: B008 - frozen
        threads: int | None = None,
    ) -> None:
        """`dit`, `vae`: faster ways through the same weights. `scores`: whether attention writes scores."""
        self._bundle, self._variant, self._planner = bundle, variant, planner
        self._dit: Denoiser[Any, Any] = Dit(bundle.dit) if dit is None else dit
        self._vae = Vae(bundle.vae) if vae is None else vae
        self._conditioner = Conditioner(bundle)
        if scores is None:
            # With a mask, and keys that several heads share, CUDA has no kernel that does not.
            scores = bundle.device.type == "cuda" and isinstance(self._dit, Dit)
        self._room = Room(
            shape_of(bundle, scores=scores),
            variant,
            bundle.device,
            most_bytes=limits.memory_bytes,
            kept=lambda: self.kept_bytes,
        )
        self._limits = limits
        self._threads = threads
        self._chunk_frames = limits.chunk_frames

    @property
    def models(self) -> frozenset[str]:
        return frozenset({self._bundle.name})

    @property
    def shape(self) -> Shape:
        """What the estimate of memory goes by."""
        return self._room.shape

    @property
    def reads_codes(self) -> bool:
        """Whether the checkpoint has the audio tokenizers that covers and plans need."""
        return self._bundle.audio_tokenizer is not None and self._bundle.audio_detokenizer is not None

    @property
    def kept_bytes(self) -> int:
        """What a faster transformer keeps between batches, and gives back when memory runs out."""
        return int(getattr(self._dit, "held_bytes", 0))

    def limits(self, model: str) -> BatchLimits:
        """Measures memory anew: to be called when nothing renders."""
        del model  # there is only one
        self._room.measure()
        return BatchLimits(
            requests=self._limits.requests,
            frames=BATCH_SECONDS * SAMPLE_RATE,
            bucket=BUCKET_FRAMES,
            fits=self._fits,
        )

    def check(self, request: EngineRequest) -> None:
        """Refuse what these weights cannot do, and what this device has no memory for."""
        check_knobs(request, self._variant, planner=self._planner is not None)
        if not self.reads_codes:
            if request.task is Task.COVER:
                raise InvalidRequest("task: cover needs the audio tokenizers that this checkpoint lacks")
            if request.thinking:
                raise InvalidRequest("thinking: this checkpoint lacks the audio tokenizers that read a plan")
        needed, capacity = self._room.needed_bytes([request]), self._room.bytes
        if needed > capacity:
            most = self._room.longest_seconds(rows=self._room.rows([request]))
            raise TooLarge(
                f"{request.frames / SAMPLE_RATE:.0f} s of {self._bundle.name} needs {needed / 1e9:.1f} GB, "
                f"this device has {capacity / 1e9:.1f} GB; at most {most:.0f} s"
            )

    def longest_seconds(self, model: str) -> float:
        """The longest song without anything that the variant's defaults do not ask for."""
        del model  # there is only one
        scale = self._variant.guidance_scale[2]
        rows = 2 if self._variant.guided and scale > 1 else 1
        return self._room.longest_seconds(rows=rows)

    @torch.inference_mode()
    def run(self, batch: Sequence[EngineRequest], wanted: Wanted) -> Iterator[RunnerEvent]:
        """Each song's result comes as soon as it is decoded, while others of the batch are under way."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # belongs to the thread that renders
        works = [_Work(request, self._shares(request)) for request in batch]
        thinking = [work for work in works if work.request.thinking and self._planner is not None]
        if thinking:
            yield from self._plan(thinking, wanted)
        self._chunk_frames = self._room.chunk_frames(batch, most=self._limits.chunk_frames)
        for work in works:
            if wanted(work.id) and not work.ended:
                yield from self._prepare(work)
        ready = [work for work in works if work.song is not None]
        limits = BatchLimits(requests=len(batch), frames=max(1, len(batch)) * _LONGEST, bucket=BUCKET_FRAMES)
        for group in pack([work.latent_frames * HOP for work in ready], limits):
            yield from self._denoise([ready[index] for index in group], wanted)

    def _plan(self, works: "list[_Work]", wanted: Wanted) -> Iterator[RunnerEvent]:
        """Let the planner write what the callers left open; halves the batch when memory runs out."""
        left = {work.id: work for work in works}
        asks = []
        for work in works:
            try:
                asks.append(_ask(work.request))
            except InvalidRequest as error:
                yield left.pop(work.id).fail(error)
        planner = self._planner
        if planner is None or not asks:
            return
        with closing(_Stream(planner.plan(asks, wanted=wanted))) as events:
            while event := events.next():
                match event:
                    case Planning():
                        yield left[event.id].advance("plan", event.fraction)
                    case Planned():
                        left.pop(event.id).take(event.plan, seconds=events.seconds)
                    case PlanFailed():
                        yield left.pop(event.id).fail(event.error)
        yield from self._again(events.error, left, self._plan, wanted)

    def _prepare(self, work: "_Work") -> Iterator[RunnerEvent]:
        """Encode words and sounds; again, and in the smallest chunks, when memory runs out."""
        yield work.advance("prepare", 0.0)
        began = time.monotonic()
        failure: EngineError | None = None
        for chunk in (self._chunk_frames, MIN_CHUNK_FRAMES):
            try:
                work.song = prepare(
                    self._bundle,
                    self._conditioner,
                    self._vae,
                    work.request,
                    codes=work.codes,
                    chunk_frames=chunk,
                )
            except _EXPECTED as error:
                failure = _translated(error)
            else:
                work.seconds["prepare"] += time.monotonic() - began
                return
            if not isinstance(failure, OutOfMemory):
                break
            self._release()
        if failure is not None:
            yield work.fail(failure)

    def _denoise(self, works: "list[_Work]", wanted: Wanted) -> Iterator[RunnerEvent]:
        """One padded batch, each song decoded when it is ready; halves the batch when memory runs out."""
        left = {work.id: work for work in works}
        songs = [work.song for work in works if work.song is not None]
        with closing(_Stream(denoise(self._dit, songs, wanted))) as events:
            while event := events.next():
                if isinstance(event, StepDone):
                    yield left[event.id].advance("denoise", event.step / event.steps)
                    continue
                self._wait_for_device()
                work = left.pop(event.id)
                work.seconds["denoise"] += events.seconds
                yield from self._decode(work, event.latents, wanted)
        yield from self._again(events.error, left, self._denoise, wanted)

    def _again(
        self,
        error: EngineError | None,
        left: "dict[str, _Work]",
        attempt: "Callable[[list[_Work], Wanted], Iterator[RunnerEvent]]",
        wanted: Wanted,
    ) -> Iterator[RunnerEvent]:
        """After an `error`: both halves of what is left; a song that fails twice alone has failed."""
        works = [work for work in left.values() if wanted(work.id)]
        if error is None or not works:
            return
        if not isinstance(error, OutOfMemory) and len(works) > 1:
            raise error
        self._release()
        if len(works) > 1:
            middle = (len(works) + 1) // 2
            yield from attempt(works[:middle], wanted)
            yield from attempt(works[middle:], wanted)
        elif isinstance(error, OutOfMemory) and not works[0].last_try:
            # Alone, and with everything given back that was kept for later.
            works[0].last_try = True
            yield from attempt(works, wanted)
        else:
            yield works[0].fail(error)

    def _decode(self, work: "_Work", latents: torch.Tensor, wanted: Wanted) -> Iterator[RunnerEvent]:
        """Decode and finish one song; halves the chunks when memory runs out."""
        chunk = min(self._chunk_frames, len(latents))
        landing: Landing | None = None
        while wanted(work.id):
            with closing(_Stream(self._landings(work.song, latents, chunk))) as landings:
                while wanted(work.id) and (step := landings.next()) is not None:
                    landing = step
                    yield work.advance("decode", step.share)
            work.seconds["decode"] += landings.seconds
            if landings.error is None:
                break
            landing = step = None
            self._release()
            if not isinstance(landings.error, OutOfMemory) or chunk <= MIN_CHUNK_FRAMES:
                yield work.fail(landings.error)
                return
            chunk = max(MIN_CHUNK_FRAMES, chunk // 2)
        if landing is not None and wanted(work.id):
            yield work.finish(landing)

    def _landings(self, song: Song | None, latents: torch.Tensor, chunk: int) -> Iterator[Landing]:
        """The buffer of the whole song, after each chunk that came into it."""
        if song is not None:
            latents = settle(song, latents)
        landing = Landing(len(latents) * HOP, self._bundle.device)
        for sound in self._vae.decode(latents, chunk_frames=chunk):
            landing.put(sound)
            del sound
            yield landing

    def _release(self) -> None:
        """Give back what is kept for later: recorded steps, and the allocator's reserve."""
        forget = getattr(self._dit, "forget", None)
        if forget is not None:
            forget()
        release(self._bundle.device)

    def _wait_for_device(self) -> None:
        """So that seconds are told of the phase that spent them."""
        if self._bundle.device.type == "cuda":
            torch.cuda.synchronize(self._bundle.device)

    def _fits(self, batch: Sequence[EngineRequest]) -> bool:
        # A planner takes far longer than all else: who does not think does not wait for those who do.
        return len({request.thinking for request in batch}) == 1 and self._room.fits(batch)

    def _shares(self, request: EngineRequest) -> dict[str, float]:
        """Each phase's share of the expected time."""
        steps = len(request.timesteps) or request.num_inference_steps or self._variant.steps[2]
        passes = steps * self._room.rows([request])
        total = _PREPARE_COST + passes + _DECODE_COST
        shares = {"prepare": _PREPARE_COST, "denoise": passes, "decode": _DECODE_COST}
        thinks = request.thinking and self._planner is not None
        rest = (1 - _PLAN_SHARE if thinks else 1.0) / total
        return {"plan": _PLAN_SHARE if thinks else 0.0} | {name: cost * rest for name, cost in shares.items()}


_EXPECTED: Final = (EngineError, RuntimeError, ValueError, MemoryError)
"""What one song's computation may end with; anything else is a defect, and loud."""
_LONGEST: Final = 2 * BATCH_SECONDS * SAMPLE_RATE
_PLAN_SHARE: Final = 0.85
"""1,200 tokens one after the other for 240 s, against a handful of large steps."""
_PREPARE_COST: Final = 0.3
_DECODE_COST: Final = 4.0
"""In forward passes of the transformer, by the released sizes: half of the eight of a turbo model."""


class _Work:
    """One request on its way: what is known of it so far, and how far it is."""

    def __init__(self, request: EngineRequest, shares: dict[str, float]) -> None:
        self.request = request
        self.song: Song | None = None
        self.codes: tuple[int, ...] | None = None
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.ended = False
        self.last_try = False
        self._shares = shares
        self._fraction = 0.0

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def latent_frames(self) -> int:
        return self.song.frames if self.song is not None else 0

    def advance(self, phase: str, fraction: float) -> Progress:
        """`fraction` of `phase` is done; never falls, also where a phase is tried again."""
        names = list(self._shares)
        before = sum(self._shares[name] for name in names[: names.index(phase)])
        self._fraction = max(self._fraction, min(before + self._shares[phase] * fraction, 1.0))
        return Progress(self.id, self._fraction)

    def take(self, plan: Plan, *, seconds: float) -> None:
        """The planner has spoken; it kept what the caller insisted on."""
        frames = min(plan.frames, self.request.frames) if self.request.open_length else self.request.frames
        self.request = msgspec.structs.replace(
            self.request,
            prompt=plan.caption or self.request.prompt,
            bpm=plan.bpm,
            key_scale=plan.key_scale,
            time_signature=plan.time_signature,
            vocal_language=plan.language,
            frames=max(1, frames),
        )
        self.codes = plan.codes
        self.seconds["plan"] += seconds

    def finish(self, landing: Landing) -> RunnerEvent:
        """The result, or why there is none."""
        began = time.monotonic()
        try:
            result = finish(self.request, landing.samples())
        except EngineError as error:
            return self.fail(error)
        except MemoryError as error:
            return self.fail(_translated(error))
        self.ended = True
        self.seconds["decode"] += time.monotonic() - began
        return Finished(self.id, msgspec.structs.replace(result, phases=dict(self.seconds)))

    def fail(self, error: EngineError) -> Failed:
        self.ended, self.song = True, None
        return Failed(self.id, error)


class _Stream:
    """An iterator whose failures become a value, so that no traceback keeps tensors alive."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events: Iterator[Any] | None = events
        self.error: EngineError | None = None
        self.seconds = 0.0
        """Spent in the iterator."""

    def next(self) -> Any:
        """The next item; None: there are no more, or `error` says why."""
        began = time.monotonic()
        try:
            return next(self._events, None) if self._events is not None else None
        except _EXPECTED as error:
            self.error = _translated(error)
        finally:
            self.seconds += time.monotonic() - began
        return None

    def close(self) -> None:
        """Let go of everything that the iterator holds."""
        events, self._events = self._events, None
        close = getattr(events, "close", None)
        if close is not None:
            close()


def _translated(error: BaseException) -> EngineError:
    """What to tell of it, without the tensors in its frames."""
    without_frames(error)
    if isinstance(error, EngineError):
        return error
    if ran_out(error):
        return OutOfMemory("the song did not fit into memory")
    failure = RenderFailed(f"{type(error).__name__} while rendering")
    failure.__cause__ = error
    return failure


def _ask(request: EngineRequest) -> PlanAsk:
    """The planner's question; with an open length, the request's is the longest that it may choose."""
    seconds = request.frames / SAMPLE_RATE
    most = max(1, int(seconds))
    return PlanAsk(
        id=request.id,
        caption=request.prompt,
        lyrics=request.lyrics,
        instrumental=request.instrumental,
        wishes=Wishes(
            bpm=request.bpm,
            key_scale=request.key_scale,
            time_signature=request.time_signature,
            vocal_language=request.vocal_language,
            duration_s=None if request.open_length else max(1.0, seconds),
        ),
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        plan_seed=request.plan_seed,
        min_seconds=min(MIN_SECONDS, most),
        max_seconds=most,
    )
