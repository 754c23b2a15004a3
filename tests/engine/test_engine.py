"""The engine around its runners: queue, progress, cancellation, isolation, shutdown."""

import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np
import pytest

from engine import (
    BatchLimits,
    Canceled,
    Engine,
    EngineClosed,
    EngineError,
    EngineFull,
    EngineRequest,
    EngineResult,
    Failed,
    Finished,
    InvalidRequest,
    Loading,
    LoadState,
    ModelStatus,
    NotLoaded,
    OutOfMemory,
    Progress,
    RenderFailed,
    Runner,
    RunnerEvent,
    Sound,
    Ticket,
    TooLarge,
    UnknownModel,
    Watermark,
)
from engine.wear import Sounds

PATIENCE_S = 10.0


class StepRunner:
    """Steps a whole batch at a time, like a diffusion model; a prompt may ask for trouble at step 2."""

    def __init__(self, requests: int = 1) -> None:
        self.models = frozenset({"steps", "other"})
        self.batches: list[list[str]] = []
        self.started = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.on_step: Callable[[list[str]], object] = len
        self._requests = requests

    def limits(self, model: str) -> BatchLimits:
        return BatchLimits(requests=self._requests, frames=10_000 if model == "steps" else 1)

    def run(self, batch: Sequence[EngineRequest], wanted: Callable[[str], bool]) -> Iterator[RunnerEvent]:
        self.batches.append([request.id for request in batch])
        self.started.set()
        for step in range(1, 5):
            assert self.gate.wait(PATIENCE_S)
            self.on_step([request.id for request in batch])
            for request in batch:
                if wanted(request.id):
                    if step == 2:
                        _trouble(request)
                    yield Progress(request.id, step / 5)
        for request in batch:
            if request.prompt == "no result":
                continue
            if request.prompt == "says no":
                yield Failed(request.id, OutOfMemory("too long for this card"))
            else:
                yield Finished(request.id, _result(request))


def _trouble(request: EngineRequest) -> None:
    match request.prompt:
        case "crash":
            raise ZeroDivisionError("a bug")
        case "memory":
            raise MemoryError
        case "error":
            raise OutOfMemory("expected")
        case _:
            pass


def _result(request: EngineRequest) -> EngineResult:
    shape = (2, request.frames - 1 if request.prompt == "short" else request.frames)
    samples = np.full(shape, np.nan if request.prompt == "nan" else 0.1, np.float32)
    return EngineResult(samples=samples, seed=request.seed, deterministic=True)


def _ask(id_: str, prompt: str = "", *, model: str = "steps", frames: int = 100) -> EngineRequest:
    return EngineRequest(id=id_, model=model, prompt=prompt, lyrics="", frames=frames, seed=7)


def _error(ticket: Ticket) -> EngineError:
    error = ticket.future.exception(PATIENCE_S)
    assert isinstance(error, EngineError)
    return error


@pytest.fixture(name="runner")
def _runner() -> StepRunner:
    return StepRunner()


@pytest.fixture(name="engine")
def _engine(runner: StepRunner) -> Iterator[Engine]:
    with Engine([runner], max_waiting=3) as engine:
        yield engine
        runner.gate.set()


def test_a_song_comes_back_with_full_progress(engine: Engine) -> None:
    ticket = engine.submit(_ask("a"))
    result = ticket.future.result(PATIENCE_S)
    assert (ticket.id, ticket.progress) == ("a", 1.0)
    assert result.samples.shape == (2, 100)
    assert (result.sample_rate, result.seed) == (48_000, 7)


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("crash", RenderFailed),
        ("memory", OutOfMemory),
        ("error", OutOfMemory),
        ("says no", OutOfMemory),
        ("no result", RenderFailed),
        ("short", RenderFailed),
        ("nan", RenderFailed),
    ],
)
def test_a_failing_request_fails_alone(engine: Engine, prompt: str, kind: type[EngineError]) -> None:
    bad, good = engine.submit(_ask("bad", prompt)), engine.submit(_ask("good"))
    assert type(_error(bad)) is kind
    assert bad.progress < 1
    assert good.future.result(PATIENCE_S).seed == 7


def test_the_culprit_of_a_batch_is_found_by_trying_each_alone() -> None:
    runner = StepRunner(requests=4)
    runner.gate.clear()
    with Engine([runner]) as engine:
        first = engine.submit(_ask("first"))
        assert runner.started.wait(PATIENCE_S)
        tickets = [engine.submit(_ask(i, "crash" if i == "2" else "")) for i in "123"]
        runner.gate.set()
        assert isinstance(_error(tickets[1]), RenderFailed)
        assert isinstance(_error(tickets[1]).__cause__, ZeroDivisionError)
        for ticket in (first, tickets[0], tickets[2]):
            assert ticket.future.result(PATIENCE_S)
    assert runner.batches == [["first"], ["1", "2", "3"], ["1"], ["2"], ["3"]]


def test_a_waiting_engine_keeps_no_song(engine: Engine) -> None:
    ticket = engine.submit(_ask("a"))
    assert ticket.future.result(PATIENCE_S)
    kept = weakref.ref(ticket)
    del ticket
    waited = threading.Event()
    for _ in range(1000):
        if kept() is None:
            return
        waited.wait(PATIENCE_S / 1000)
    raise AssertionError("the last song is still there")


@pytest.mark.parametrize("prompt", ["crash", "memory", "error"])
def test_a_failure_holds_nothing_of_the_frames_it_passed(engine: Engine, prompt: str) -> None:
    error: BaseException | None = _error(engine.submit(_ask("a", prompt)))
    while error is not None:
        held = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
        assert not any(held)
        error = error.__cause__


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_whose_thread_has_ended_is_worn_out_and_leaves_nobody_waiting(runner: StepRunner) -> None:
    runner.limits = lambda _: 1 // 0  # type: ignore[assignment,method-assign]
    with Engine([runner]) as engine:
        assert not engine.worn_out
        assert isinstance(_error(engine.submit(_ask("a"))), EngineClosed)
        assert engine.close(timeout_s=PATIENCE_S)
        assert engine.worn_out


def test_a_full_engine_says_so_and_recovers(engine: Engine, runner: StepRunner) -> None:
    runner.gate.clear()
    tickets = [engine.submit(_ask("0"))]
    assert runner.started.wait(PATIENCE_S)
    tickets += [engine.submit(_ask(i)) for i in "123"]
    assert engine.waiting == 3
    with pytest.raises(EngineFull):
        engine.submit(_ask("4"))
    tickets.pop(1).cancel()
    tickets.append(engine.submit(_ask("4")))
    runner.gate.set()
    assert [ticket.future.result(PATIENCE_S).seed for ticket in tickets] == [7] * 4


def test_a_waiting_request_is_canceled_at_once(engine: Engine, runner: StepRunner) -> None:
    runner.gate.clear()
    engine.submit(_ask("a"))
    assert runner.started.wait(PATIENCE_S)
    waiting = engine.submit(_ask("b"))
    waiting.cancel()
    assert isinstance(waiting.future.exception(0), Canceled)
    assert ["b"] not in runner.batches


def test_a_rendering_request_is_canceled_between_steps(engine: Engine, runner: StepRunner) -> None:
    runner.gate.clear()
    ticket = engine.submit(_ask("a"))
    assert runner.started.wait(PATIENCE_S)
    ticket.cancel()
    ticket.cancel()
    assert not ticket.future.done()
    runner.gate.set()
    assert isinstance(_error(ticket), Canceled)
    assert ticket.progress == pytest.approx(0.2)


def test_canceling_one_of_a_batch_spares_the_others() -> None:
    runner = StepRunner(requests=2)
    runner.gate.clear()
    with Engine([runner]) as engine:
        first = engine.submit(_ask("first"))
        assert runner.started.wait(PATIENCE_S)
        gone, kept = engine.submit(_ask("gone")), engine.submit(_ask("kept"))
        runner.on_step = lambda batch: gone.cancel() if "gone" in batch else None
        runner.gate.set()
        assert kept.future.result(PATIENCE_S)
        assert first.future.result(PATIENCE_S)
        assert isinstance(_error(gone), Canceled)
    assert runner.batches == [["first"], ["gone", "kept"]]
    assert gone.progress <= 0.2


def test_canceling_after_the_end_changes_nothing(engine: Engine) -> None:
    ticket = engine.submit(_ask("a"))
    result = ticket.future.result(PATIENCE_S)
    ticket.cancel()
    assert ticket.future.result(0) is result


def test_an_unknown_model_is_refused(engine: Engine) -> None:
    with pytest.raises(UnknownModel, match="steps"):
        engine.submit(_ask("a", model="nope"))


def test_an_id_is_in_the_engine_once_at_a_time(engine: Engine, runner: StepRunner) -> None:
    runner.gate.clear()
    ticket = engine.submit(_ask("a"))
    with pytest.raises(InvalidRequest, match="'a'"):
        engine.submit(_ask("a"))
    runner.gate.set()
    ticket.future.result(PATIENCE_S)


def test_closing_cancels_what_is_inside(runner: StepRunner) -> None:
    engine = Engine([runner])
    runner.gate.clear()
    tickets = [engine.submit(_ask(i)) for i in "ab"]
    assert runner.started.wait(PATIENCE_S)
    assert not engine.close(timeout_s=0.01)
    runner.gate.set()
    assert all(isinstance(_error(ticket), Canceled) for ticket in tickets)
    assert engine.close(timeout_s=PATIENCE_S)
    with pytest.raises(EngineClosed):
        engine.submit(_ask("c"))


def test_draining_finishes_what_is_inside(runner: StepRunner) -> None:
    engine = Engine([runner])
    tickets = [engine.submit(_ask(i)) for i in "abc"]
    assert engine.close(drain=True, timeout_s=PATIENCE_S)
    assert all(ticket.future.result(0) for ticket in tickets)


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": 0},
        {"frames": 600 * 48_000 + 1},
        {"bpm": 29},
        {"bpm": 301},
        {"time_signature": 5},
        {"key_scale": "H major"},
        {"key_scale": "c major"},
        {"prompt": "x" * 70_000},
    ],
)
def test_values_out_of_range_are_refused_by_name(
    fields: dict[str, object], ask: Callable[..., EngineRequest]
) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(fields))):
        ask(**fields)


class BoundedRunner(StepRunner):
    """Has room for 200 frames."""

    def __init__(self) -> None:
        super().__init__()
        self.models = frozenset({"bounded"})

    def check(self, request: EngineRequest) -> None:
        if request.frames > 200:
            raise TooLarge(f"{request.frames} frames need more than there is; at most 200")

    def longest_seconds(self, model: str) -> float:
        assert model == "bounded"
        return 200 / 48_000


def _status(engine: Engine, model: str) -> ModelStatus:
    return next(status for status in engine.status() if status.model == model)


def _eventually(engine: Engine, model: str, state: LoadState) -> ModelStatus:
    """The status once loading has come to an end."""
    waited = threading.Event()
    for _ in range(1000):
        if (status := _status(engine, model)).state is state:
            return status
        waited.wait(PATIENCE_S / 1000)
    raise AssertionError(f"{model} is {_status(engine, model)}")


def test_what_a_runner_has_no_room_for_is_refused_before_it_waits() -> None:
    with Engine([BoundedRunner()]) as engine:
        with pytest.raises(TooLarge, match="at most 200"):
            engine.submit(_ask("a", model="bounded", frames=201))
        assert engine.waiting == 0
        assert engine.submit(_ask("a", model="bounded", frames=200)).future.result(PATIENCE_S)
        assert _status(engine, "bounded").longest_seconds == pytest.approx(200 / 48_000)


def test_a_model_that_is_being_loaded_holds_nobody_up(runner: StepRunner) -> None:
    gate = threading.Event()

    def load() -> Callable[[], Runner]:
        assert gate.wait(PATIENCE_S)
        return BoundedRunner

    warm_up = _ask("warm-up", model="bounded")
    with Engine([runner], loading=[Loading(model="bounded", load=load, warm_up=warm_up)]) as engine:
        assert engine.submit(_ask("a")).future.result(PATIENCE_S)
        with pytest.raises(NotLoaded, match="is being loaded"):
            engine.submit(_ask("b", model="bounded"))
        assert "bounded" not in engine.models
        assert _status(engine, "bounded") == ModelStatus(model="bounded", state=LoadState.LOADING, warm=False)
        gate.set()
        status = _eventually(engine, "bounded", LoadState.READY)
        assert status.warm
        assert status.load_seconds is not None
        assert engine.submit(_ask("b", model="bounded")).future.result(PATIENCE_S)


def test_a_newcomer_makes_the_others_measure_their_memory_again(runner: StepRunner) -> None:
    measured: list[str] = []
    limits = runner.limits
    runner.limits = lambda model: measured.append(model) or limits(model)  # type: ignore[func-returns-value,method-assign]
    with Engine([runner], loading=[Loading(model="bounded", load=lambda: BoundedRunner)]) as engine:
        _eventually(engine, "bounded", LoadState.READY)
    assert sorted(measured) == ["other", "steps"]


@pytest.mark.parametrize("prompt", ["crash", "says no"])
def test_a_model_that_fails_its_first_song_is_not_served(runner: StepRunner, prompt: str) -> None:
    warm_up = _ask("warm-up", prompt, model="bounded")
    loading = Loading(model="bounded", load=lambda: BoundedRunner, warm_up=warm_up)
    with Engine([runner], loading=[loading]) as engine:
        status = _eventually(engine, "bounded", LoadState.FAILED)
        assert status.error in {"a bug", "too long for this card"}
        assert engine.submit(_ask("a")).future.result(PATIENCE_S)


def test_a_model_that_cannot_be_loaded_says_why_and_stops_no_other(runner: StepRunner) -> None:
    def broken() -> Callable[[], Runner]:
        raise ValueError("no weights in that folder")

    loading = [Loading(model="broken", load=broken), Loading(model="bounded", load=lambda: BoundedRunner)]
    with Engine([runner], loading=loading) as engine:
        assert _eventually(engine, "broken", LoadState.FAILED).error == "no weights in that folder"
        with pytest.raises(NotLoaded, match="no weights in that folder"):
            engine.submit(_ask("a", model="broken"))
        assert not _eventually(engine, "bounded", LoadState.READY).warm
        assert engine.models == {"steps", "other", "bounded"}


def test_closing_does_not_wait_for_a_model_that_is_being_loaded(runner: StepRunner) -> None:
    gate = threading.Event()
    built: list[int] = []

    def load() -> Callable[[], Runner]:
        gate.wait(PATIENCE_S)
        return lambda: built.append(1) or runner  # type: ignore[func-returns-value]

    engine = Engine([runner], loading=[Loading(model="late", load=load)])
    assert engine.close(timeout_s=PATIENCE_S)
    gate.set()
    assert not built


def test_the_status_tells_speed_warmth_and_who_waits(engine: Engine, runner: StepRunner) -> None:
    assert not _status(engine, "steps").warm
    assert _status(engine, "steps").realtime_factor is None
    engine.submit(_ask("a")).future.result(PATIENCE_S)
    runner.started.clear()
    runner.gate.clear()
    engine.submit(_ask("b"))
    assert runner.started.wait(PATIENCE_S)
    status = _status(engine, "steps")
    assert status.warm
    assert (status.realtime_factor or 0) > 0
    engine.submit(_ask("c"))
    engine.submit(_ask("d", model="other"))
    assert [(status.model, status.waiting) for status in engine.status()] == [("other", 1), ("steps", 1)]
    runner.gate.set()


def test_a_leaking_worker_is_worn_out_and_still_renders(runner: StepRunner) -> None:
    kept: list[bytes] = []
    runner.on_step = lambda _: kept.append(bytes(1000))
    watermark = Watermark(lambda: sum(map(len, kept)), allowance_bytes=10_000, patience=3)
    with Engine([runner], watermarks=[watermark]) as engine:
        worn = []
        for index in range(8):
            engine.submit(_ask(str(index))).future.result(PATIENCE_S)
            worn.append(engine.worn_out)
    # 4 kB a batch: the fourth is 12 kB above the first, and the sixth the third one in a row.
    assert not any(worn[:5])
    assert worn[-1]


@pytest.mark.parametrize(
    ("readings", "worn"),
    [
        ([10, 10, 10, 10, 10], False),
        ([10, 99, 99, 10, 99, 99, 10], False),
        ([10, 99, 99, 99], True),
        ([99, 99, 99, 99], False),
    ],
)
def test_only_memory_that_stays_counts_as_worn(readings: list[int], *, worn: bool) -> None:
    ahead = iter(readings)
    watermark = Watermark(lambda: next(ahead), allowance_bytes=50, patience=3)
    for _ in readings:
        watermark.look()
    assert watermark.worn_out is worn


def test_sound_that_somebody_holds_is_no_leak(runner: StepRunner) -> None:
    sounds = Sounds()
    source = Sound(np.zeros((2, 100), np.float32))
    with Engine([runner], sounds=sounds) as engine:
        asks = [msgspec.structs.replace(_ask(i), reference=source) for i in "ab"]
        held = [engine.submit(ask).future.result(PATIENCE_S).samples for ask in asks]
        assert engine.submit(_ask("c")).future.result(PATIENCE_S)  # nobody holds this one
    engine.close()
    assert sounds.bytes == sum(samples.nbytes for samples in held) + source.samples.nbytes
    del held
    assert sounds.bytes == source.samples.nbytes


def test_a_newly_loaded_model_is_no_leak() -> None:
    held = [100]
    watermark = Watermark(lambda: held[0], allowance_bytes=50, patience=1)
    watermark.look()
    held[0] = 1000
    watermark.rebase()
    watermark.look()
    assert not watermark.worn_out
    held[0] = 1051
    watermark.look()
    assert watermark.worn_out


def test_the_front_door_does_not_import_torch() -> None:
    code = "import sys, engine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
