"""The engine: a bounded queue in front of one daemon thread that renders batch after batch."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self, assert_never

import msgspec

from engine.errors import (
    EngineClosed,
    EngineError,
    EngineFull,
    InvalidRequest,
    NotLoaded,
    OutOfMemory,
    RenderFailed,
    UnknownModel,
    without_frames,
)
from engine.models import LoadState, ModelStatus
from engine.runner import Failed, Finished, LimitedRunner, Progress, Runner, RunnerEvent
from engine.scheduler import next_batch
from engine.schema import SAMPLE_RATE, EngineRequest, result_fault
from engine.ticket import Ticket
from engine.wear import Sounds, Watermark


class Loading(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is to be loaded while the engine already renders others."""

    model: str
    load: Callable[[], Callable[[], Runner]]
    """Reads weights, in a thread of its own. What it returns is called on the engine's thread, where alone
    anything is computed, and makes the runner. Whatever either raises ends as this model's status."""
    warm_up: EngineRequest | None = None
    """Rendered once on the engine's thread before the model takes requests."""


class _Model:
    """What the engine keeps about one model; guarded by the engine's lock."""

    def __init__(self, runner: Runner | None) -> None:
        self.runner = runner
        self.state = LoadState.LOADING if runner is None else LoadState.READY
        self.warm = False
        self.load_seconds: float | None = None
        self.error: str | None = None
        self._audio_seconds = 0.0
        self._engine_seconds = 0.0

    @property
    def realtime_factor(self) -> float | None:
        return self._audio_seconds / self._engine_seconds if self._audio_seconds else None

    def fail(self, error: BaseException) -> None:
        """It will not be served."""
        without_frames(error)  # they hold the weights that were read so far
        self.state, self.runner = LoadState.FAILED, None
        self.error = str(error) or type(error).__name__

    def note(self, *, audio_seconds: float, engine_seconds: float) -> None:
        """One batch is done; older ones fade by a fifth with each."""
        self._audio_seconds = 0.8 * self._audio_seconds + audio_seconds
        self._engine_seconds = 0.8 * self._engine_seconds + max(engine_seconds, 1e-9)


class Engine:
    """Renders requests in fair order; one request's failure is that request's alone.

    One thread renders everything, so that device state has one owner; a second one loads weights and nothing
    else. Models that are loading, or could not be loaded, hold nobody else up.
    """

    def __init__(
        self,
        runners: Sequence[Runner],
        *,
        loading: Sequence[Loading] = (),
        max_waiting: int = 64,
        watermarks: Sequence[Watermark] = (),
        sounds: Sounds | None = None,
    ) -> None:
        """`sounds` is told of all sound that comes in and goes out."""
        self._models = {model: _Model(runner) for runner in runners for model in runner.models}
        self._models |= {item.model: _Model(None) for item in loading}
        self._max_waiting = max_waiting
        self._watermarks = tuple(watermarks)
        self._sounds = Sounds() if sounds is None else sounds
        self._changed = threading.Condition()
        self._waiting: list[Ticket] = []  # guarded by _changed, like the three below
        self._rendering: list[Ticket] = []
        self._loaded: list[_Loaded] = []
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()
        if loading:
            threading.Thread(target=self._load, args=(loading,), name="engine-loader", daemon=True).start()

    @property
    def models(self) -> frozenset[str]:
        """Those that take requests now; `status` also has those that are being loaded."""
        with self._changed:
            return frozenset(name for name, model in self._models.items() if model.state is LoadState.READY)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        with self._changed:
            return len(self._waiting)

    @property
    def worn_out(self) -> bool:
        """Whether a fresh process would do better: memory stays after batches, or nobody renders any more."""
        return not self._thread.is_alive() or any(watermark.worn_out for watermark in self._watermarks)

    def status(self) -> tuple[ModelStatus, ...]:
        """Every model, loaded or not, by name."""
        with self._changed:
            waiting = Counter(ticket.request.model for ticket in self._waiting)
            return tuple(
                ModelStatus(
                    model=name,
                    state=model.state,
                    warm=model.warm,
                    load_seconds=model.load_seconds,
                    realtime_factor=model.realtime_factor,
                    longest_seconds=_longest_seconds(name, model.runner),
                    reads_codes=bool(getattr(model.runner, "reads_codes", True)),
                    error=model.error,
                    waiting=waiting[name],
                )
                for name, model in sorted(self._models.items())
            )

    def submit(self, request: EngineRequest) -> Ticket:
        """Queue a request; raises a RequestError (it will never work) or Unavailable (not now)."""
        runner = self._runner(request.model)
        if isinstance(runner, LimitedRunner):
            runner.check(request)
        ticket = Ticket(request, self._withdraw)
        with self._changed:
            if self._closing:
                raise EngineClosed("the engine is shutting down")
            if any(other.id == request.id for other in (*self._waiting, *self._rendering)):
                raise InvalidRequest(f"id {request.id!r} is already in the engine")
            if len(self._waiting) >= self._max_waiting:
                raise EngineFull(f"{self._max_waiting} requests are waiting already")
            self._waiting.append(ticket)
            self._changed.notify_all()
        for sound in (request.source, request.reference):
            if sound is not None:
                self._sounds.note(sound.samples)
        return ticket

    def close(self, *, drain: bool = False, timeout_s: float | None = 30.0) -> bool:
        """Take nothing new, then finish (drain) or cancel what is inside; False: the thread still runs."""
        with self._changed:
            self._closing = True
            inside = [*self._waiting, *self._rendering]
            self._changed.notify_all()
        if not drain:
            for ticket in inside:
                ticket.cancel()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _withdraw(self, ticket: Ticket) -> None:
        """End a canceled ticket at once if it still waits; the thread ends one that renders."""
        with self._changed:
            if ticket not in self._waiting:
                return
            self._waiting.remove(ticket)
        ticket.end_as_canceled()

    def _runner(self, name: str) -> Runner:
        with self._changed:
            model = self._models.get(name)
            if model is None:
                raise UnknownModel(f"this engine has {', '.join(sorted(self._models))}; not {name!r}")
            if model.state is LoadState.FAILED:
                raise NotLoaded(f"{name} could not be loaded: {model.error}")
            if model.runner is None or model.state is LoadState.LOADING:
                raise NotLoaded(f"{name} is being loaded")
            return model.runner

    def _load(self, loading: Sequence[Loading]) -> None:
        """Load one model after the other, and hand each to the engine's thread."""
        for item in loading:
            began = time.monotonic()
            try:
                build = item.load()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken checkpoint must not stop others
                with self._changed:
                    self._models[item.model].fail(error)
                continue
            with self._changed:
                if self._closing:
                    return
                self._loaded.append(_Loaded(item, build, began))
                self._changed.notify_all()
            del build  # weights that turn out to be of no use must not stay while the next are read

    def _admit(self) -> None:
        """Warm up what was loaded, and take requests for it."""
        while True:
            with self._changed:
                if not self._loaded or self._closing:
                    return
                loaded = self._loaded.pop(0)
            try:
                runner = loaded.build()
                _warm_up(runner, loaded.item, lambda _: not self._closing)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a model that cannot render is no reason to end
                with self._changed:
                    self._models[loaded.item.model].fail(error)
                continue
            with self._changed:
                model = self._models[loaded.item.model]
                model.runner, model.state = runner, LoadState.READY
                model.warm = loaded.item.warm_up is not None
                model.load_seconds = time.monotonic() - loaded.began
                for name, other in self._models.items():
                    if other.runner is not None:
                        other.runner.limits(name)  # measures what the newcomer has left of memory
            for watermark in self._watermarks:
                watermark.rebase()

    def _serve(self) -> None:
        try:
            while batch := self._take():
                self._render(batch)
                with self._changed:
                    self._rendering = []
                del batch  # no song stays while the next one is waited for
                for watermark in self._watermarks:
                    watermark.look()
        finally:
            self._abandon()

    def _take(self) -> list[Ticket]:
        """Wait for work and move the next batch from waiting to rendering; empty: no more will come."""
        while True:
            self._admit()
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._loaded or self._closing)
                if not self._waiting and self._closing:
                    return []
                if self._waiting and (self._closing or not self._loaded):
                    return self._choose()

    def _choose(self) -> list[Ticket]:
        leader = self._waiting[0].request.model
        limits = self._runner(leader).limits(leader)
        batch = next_batch([ticket.request for ticket in self._waiting], limits)
        chosen = {request.id for request in batch}
        self._rendering = [ticket for ticket in self._waiting if ticket.id in chosen]
        self._waiting = [ticket for ticket in self._waiting if ticket.id not in chosen]
        return list(self._rendering)

    def _render(self, batch: list[Ticket]) -> None:
        """Run one batch to the end of every ticket in it."""
        error = self._run(batch)
        unfinished = [ticket for ticket in batch if not ticket.future.done()]
        if len(batch) > 1:
            # One of them may be the culprit: each is tried alone, so that only the culprit fails.
            for ticket in unfinished:
                self._render([ticket])
        else:
            for ticket in unfinished:
                ticket.fail(error)

    def _run(self, batch: list[Ticket]) -> EngineError:
        """Run one batch; what to tell the tickets that have no outcome afterwards."""
        model = self._models[batch[0].request.model]
        began = time.monotonic()
        try:
            return self._run_through(batch)
        finally:
            songs = [ticket.future.result(0).samples for ticket in batch if ticket.progress == 1]
            audio_seconds = sum(samples.shape[1] for samples in songs) / SAMPLE_RATE
            for samples in songs:
                self._sounds.note(samples)
            with self._changed:
                model.warm = model.warm or bool(songs)
                if songs:
                    model.note(audio_seconds=audio_seconds, engine_seconds=time.monotonic() - began)

    def _run_through(self, batch: list[Ticket]) -> EngineError:
        runner = self._runner(batch[0].request.model)
        live = {ticket.id: ticket for ticket in batch}
        try:
            events = runner.run([ticket.request for ticket in batch], lambda id_: id_ in live)
            _follow(events, live)
        except MemoryError as error:
            return _caused(OutOfMemory("the song did not fit into memory"), error)
        except EngineError as error:
            return without_frames(error)
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever one request provokes
            return _caused(RenderFailed(f"{type(error).__name__} while rendering"), error)
        return RenderFailed("the runner ended without a result")

    def _abandon(self) -> None:
        """The thread ends: nobody may wait for it any more."""
        with self._changed:
            self._closing = True
            left = [*self._waiting, *self._rendering]
            self._waiting, self._rendering = [], []
        for ticket in left:
            if not ticket.future.done():
                ticket.fail(EngineClosed("the engine has shut down"))


class _Loaded(NamedTuple):
    """A model between its loading and its first song."""

    item: Loading
    build: Callable[[], Runner]
    began: float


def _warm_up(runner: Runner, item: Loading, wanted: Callable[[str], bool]) -> None:
    """Render the first song; raises why it could not be."""
    if item.warm_up is None:
        return
    for event in runner.run([item.warm_up], wanted):
        if isinstance(event, Failed):
            raise event.error


def _longest_seconds(name: str, runner: Runner | None) -> float | None:
    return runner.longest_seconds(name) if isinstance(runner, LimitedRunner) else None


def _follow(events: Iterator[RunnerEvent], live: dict[str, Ticket]) -> None:
    """Pass events on to their tickets; `live` loses each ticket at its end, and an empty one ends the run."""
    _drop_canceled(live)
    while live and (event := next(events, None)) is not None:
        if event.id in live:
            _apply(event, live)
        _drop_canceled(live)
    close = getattr(events, "close", None)
    if close is not None:
        close()


def _apply(event: RunnerEvent, live: dict[str, Ticket]) -> None:
    match event:
        case Progress():
            live[event.id].advance(event.fraction)
        case Finished():
            ticket = live.pop(event.id)
            fault = result_fault(event.result, ticket.request)
            if fault is None:
                ticket.succeed(event.result)
            else:
                ticket.fail(RenderFailed(fault))
        case Failed():
            live.pop(event.id).fail(event.error)
        case _:
            assert_never(event)


def _drop_canceled(live: dict[str, Ticket]) -> None:
    for ticket in [ticket for ticket in live.values() if ticket.canceled]:
        del live[ticket.id]
        ticket.end_as_canceled()


def _caused(error: EngineError, cause: BaseException) -> EngineError:
    error.__cause__ = cause
    return without_frames(error)
