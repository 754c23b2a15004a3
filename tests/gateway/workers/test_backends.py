"""What every backend promises, whether it is the engine, the rehearsal in front of it, or the double."""

import asyncio
import contextlib
import gc
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from engine import Task
from engine.engine import Engine
from engine.runtime import open_engine
from gateway.audio import InputUnreadable, check_quality
from gateway.backends.base import (
    Backend,
    BackendUnavailable,
    Failed,
    RemoteTask,
    Rendered,
    RenderTask,
    Running,
    Succeeded,
    TaskState,
)
from gateway.backends.engine import EngineBackend
from gateway.backends.rehearsal import RehearsalBackend, read_script
from gateway.generation import SAMPLE_RATE, AudioInput, GenerationRequest
from gateway.jobs.job import JobErrorCode
from gateway.routing import REMOTE, model_of
from tests.remote_backends import open_remote
from tests.scripted_backend import ScriptedBackend

BACKENDS = ("engine", "rehearsal", "scripted", *REMOTE)
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with open_engine(device="cpu") as opened:
        yield opened


class Bench(msgspec.Struct):
    """A backend, and what only a test can do to it."""

    backend: Backend
    hold: Callable[[], None] = lambda: None
    """Tasks do not end by themselves from now on, where no prompt can say so."""
    collected: Callable[[RenderTask, TaskState], Awaitable[TaskState]] | None = None
    """Fetches what was rendered elsewhere."""

    async def submit(self, task: RenderTask) -> RemoteTask:
        return await self.backend.submit(task, self.backend.intend(task))

    async def play(self, task: RenderTask) -> tuple[list[float], TaskState]:
        """From submit to the music: the progress on the way, and the outcome."""
        progress, state = await play(self.backend, await self.submit(task))
        return progress, state if self.collected is None else await self.collected(task, state)


@pytest.fixture(params=BACKENDS)
async def bench(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param not in REMOTE:
        yield Bench(_backend(request.param, engine))
        return
    async with open_remote(request.param, tmp_path) as remote:
        yield Bench(remote.backend, remote.hold, remote.collected)


@pytest.fixture
def backend(bench: Bench) -> Backend:
    return bench.backend


@pytest.fixture
def rehearsal() -> RehearsalBackend:
    return RehearsalBackend(ScriptedBackend())


def _backend(name: str, engine: Engine) -> Backend:
    match name:
        case "engine":
            return EngineBackend(engine, Nothing())
        case "rehearsal":
            return RehearsalBackend(EngineBackend(engine, Nothing()))
        case _:
            return ScriptedBackend()


class Nothing:
    """Inputs of clients that brought none, or brought something that is no sound."""

    async def samples(self, *_: object, **__: object) -> NDArray[np.float32]:
        raise InputUnreadable("there is no sound in it")


class Brought:
    """Inputs that were decoded before."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._samples = samples

    async def samples(self, *_: object, **__: object) -> NDArray[np.float32]:
        return self._samples


def task_of(
    *, seconds: float = 5, prompt: str = "a calm song", attempt: int = 1, test: bool = False, **more: Any
) -> RenderTask:
    return RenderTask(
        job_id=uuid.uuid4(),
        organization_id=uuid.uuid4(),
        attempt=attempt,
        model="sandbox",
        test=test,
        request=GenerationRequest(prompt=prompt, frames=round(seconds * SAMPLE_RATE), seed=7, **more),
    )


async def play(backend: Backend, task: RemoteTask) -> tuple[list[float], TaskState]:
    """Poll to the end: the progress on the way, and the outcome."""
    deadline, progress = time.monotonic() + PATIENCE_SECONDS, []
    while isinstance(state := await backend.poll(task), Running):
        progress.append(state.progress)
        assert time.monotonic() < deadline, "it never ended"
    return progress, state


async def outcome(backend: Backend, task: RenderTask) -> TaskState:
    return (await play(backend, await backend.submit(task, None)))[1]


async def test_it_says_who_it_is_and_what_it_serves(bench: Bench) -> None:
    backend = bench.backend
    assert backend.name.islower()
    assert [model_of(queue) for queue in backend.queues] == ["sandbox"]
    assert backend.resumable in {True, False}
    remote = await bench.submit(task_of())
    assert remote.backend == backend.name


async def test_what_is_needed_to_find_it_again_is_known_before_it_is_sent(bench: Bench) -> None:
    intent = bench.backend.intend(task_of())
    assert (intent is not None) == bench.backend.resumable
    if intent is not None:
        assert intent.backend == bench.backend.name
        assert intent.sent_at is not None
        assert intent.most_nano > 0


async def test_it_makes_sound_that_passes_quality_control(bench: Bench) -> None:
    task = task_of()
    progress, state = await bench.play(task)
    assert isinstance(state, Succeeded)
    (recording,) = state.recordings
    assert recording.samples.dtype == np.float32
    assert recording.samples.shape[1] == task.request.frames
    check_quality(recording.samples, sample_rate=recording.sample_rate, expected_frames=task.request.frames)
    assert recording.seed == task.request.seed
    assert progress == sorted(progress)
    assert all(0 <= share <= 1 for share in progress)


async def test_a_request_that_promises_the_same_sound_gives_it(bench: Bench) -> None:
    _, state = await bench.play(task_of())
    assert isinstance(state, Succeeded)
    first = state.recordings[0]
    assert first.deterministic in {True, False, "best_effort"}
    if first.deterministic is not True:
        return
    _, state = await bench.play(task_of())
    assert isinstance(state, Succeeded)
    assert np.array_equal(first.samples, state.recordings[0].samples)


async def test_every_attempt_has_a_name_of_its_own(bench: Bench) -> None:
    first = task_of()
    tasks = [first, msgspec.structs.replace(first, attempt=2), task_of()]
    remotes = [await bench.submit(task) for task in tasks]
    assert len({remote.ref for remote in remotes}) == 3
    for remote in remotes:
        assert isinstance((await play(bench.backend, remote))[1], Succeeded | Rendered)


@pytest.mark.parametrize("test", [False, True])
async def test_a_cancelled_task_ends_soon(bench: Bench, *, test: bool) -> None:
    bench.hold()
    backend = bench.backend
    remote = await bench.submit(task_of(seconds=200, prompt="hang on, slow:20", test=test))
    for _ in range(2):
        await backend.cancel(remote)
    started = time.monotonic()
    _, state = await play(backend, remote)
    assert isinstance(state, Failed)
    assert state.code is JobErrorCode.JOB_CANCELLED
    assert time.monotonic() - started < 15
    await backend.cancel(remote)


async def test_a_task_that_is_polled_cancelled_and_forgotten_leaves_no_complaint(bench: Bench) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    bench.hold()
    backend = bench.backend
    for polls in (1, 3):
        remote = await bench.submit(task_of(seconds=200, prompt="hang on, slow:20", test=True))
        for _ in range(polls):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await backend.poll(remote)
        await backend.cancel(remote)
        if polls > 1:
            await play(backend, remote)
        for _ in range(2):
            backend.forget(remote)
    await asyncio.sleep(0.5)
    gc.collect()
    assert complaints == []


async def test_cancelling_what_it_never_had_changes_nothing(backend: Backend) -> None:
    await backend.cancel(RemoteTask(backend=backend.name, ref="unheard-of"))


async def test_variations_are_songs_of_their_own_with_seeds_in_a_row(engine: Engine) -> None:
    state = await outcome(EngineBackend(engine, Nothing()), task_of(n=3))
    assert isinstance(state, Succeeded)
    assert [recording.seed for recording in state.recordings] == [7, 8, 9]
    first, second, third = (recording.samples for recording in state.recordings)
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    alone = await outcome(EngineBackend(engine, Nothing()), task_of())
    assert isinstance(alone, Succeeded)
    assert np.array_equal(alone.recordings[0].samples, first)


async def test_the_source_decides_the_length_up_to_what_was_held(engine: Engine) -> None:
    source = np.random.default_rng(1).standard_normal((2, 5 * SAMPLE_RATE)).astype(np.float32) * 0.1
    backend = EngineBackend(engine, Brought(source))
    brought: dict[str, Any] = {"task": Task.COVER, "source_audio": AudioInput(url="https://music.example/a")}
    state = await outcome(backend, task_of(seconds=600, open_length=True, **brought))
    assert isinstance(state, Succeeded)
    assert state.recordings[0].samples.shape == (2, 5 * SAMPLE_RATE)
    state = await outcome(backend, task_of(seconds=4, open_length=True, **brought))
    assert isinstance(state, Failed)
    assert (state.code, state.retryable) == (JobErrorCode.INPUT_UNREADABLE, False)


@pytest.mark.parametrize(
    ("start", "end", "seconds"), [(5, 6, 6), (5, None, None), (5.5, 6, None), (4.999999, None, None)]
)
async def test_a_repaint_from_the_end_of_its_source_on_lets_it_grow_and_nothing_else(
    engine: Engine, start: float, end: float | None, seconds: float | None
) -> None:
    source = np.random.default_rng(1).standard_normal((2, 5 * SAMPLE_RATE)).astype(np.float32) * 0.1
    window: dict[str, Any] = {"repainting_start": start, "repainting_end": end}
    task = task_of(
        seconds=seconds or 600,
        open_length=seconds is None,
        task=Task.REPAINT,
        source_audio=AudioInput(url="https://music.example/a"),
        **window,
    )
    state = await outcome(EngineBackend(engine, Brought(source)), task)
    if seconds is None:
        assert isinstance(state, Failed)
        assert state.code is JobErrorCode.INPUT_UNREADABLE
    else:
        assert isinstance(state, Succeeded)
        assert state.recordings[0].samples.shape[1] == seconds * SAMPLE_RATE


async def test_why_the_engine_failed_is_told_to_the_operator_and_not_to_the_customer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.composer.runner.perform", lambda _: [].pop())
    with capture_logs() as logs:
        state = await outcome(EngineBackend(engine, Nothing()), task_of())
    assert state == Failed(
        code=JobErrorCode.UPSTREAM_ERROR, message="the engine failed to render", retryable=True
    )
    (told,) = [entry for entry in logs if entry["event"] == "engine.render_failed"]
    assert isinstance(told["exc_info"].__cause__, IndexError)


async def test_an_input_that_is_no_sound_fails_the_job_for_good(engine: Engine) -> None:
    brought = {"task": Task.COVER, "source_audio": AudioInput(file_id="of nobody")}
    state = await outcome(EngineBackend(engine, Nothing()), task_of(**brought))
    assert state == Failed(code=JobErrorCode.INPUT_UNREADABLE, message="there is no sound in it")


async def test_what_the_engine_cannot_even_be_asked_fails_the_job_for_good(engine: Engine) -> None:
    state = await outcome(EngineBackend(engine, Nothing()), task_of(bpm=1000))
    assert isinstance(state, Failed)
    assert not state.retryable
    assert "bpm" in state.message


async def test_where_a_planner_would_decide_the_composer_plays_half_a_minute(engine: Engine) -> None:
    task = task_of(seconds=600, open_length=True, thinking=True, test=True)
    state = await outcome(EngineBackend(engine, Nothing()), task)
    assert isinstance(state, Succeeded)
    assert state.recordings[0].samples.shape[1] == 30 * SAMPLE_RATE


async def test_an_engine_that_closes_takes_nothing() -> None:
    engine = open_engine(device="cpu")
    engine.close()
    with pytest.raises(BackendUnavailable):
        await EngineBackend(engine, Nothing()).submit(task_of(), None)


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("fail:provider", JobErrorCode.UPSTREAM_ERROR),
        ("a song, fail:timeout please", JobErrorCode.TIMEOUT),
        ("slow:60 fail:provider", JobErrorCode.UPSTREAM_ERROR),
    ],
)
async def test_a_rehearsed_failure_comes_at_once_and_is_final(
    rehearsal: RehearsalBackend, prompt: str, code: JobErrorCode
) -> None:
    started = time.monotonic()
    state = await outcome(rehearsal, task_of(prompt=prompt, test=True))
    assert isinstance(state, Failed)
    assert (state.code, state.retryable) == (code, False)
    assert time.monotonic() - started < 5


async def test_rehearsed_bad_quality_is_sound_for_the_real_control_to_refuse(
    rehearsal: RehearsalBackend,
) -> None:
    state = await outcome(rehearsal, task_of(prompt="fail:quality slow:60", test=True))
    assert isinstance(state, Succeeded)
    assert not state.recordings[0].samples.any()


async def test_rehearsed_slowness_is_waited_out_with_progress(rehearsal: RehearsalBackend) -> None:
    started = time.monotonic()
    progress, state = await play(rehearsal, await rehearsal.submit(task_of(prompt="slow:1", test=True), None))
    assert isinstance(state, Succeeded)
    assert 1 <= time.monotonic() - started < 10
    assert len(progress) > 3


@pytest.mark.parametrize("prompt", ["fail:provider", "fail:quality", "slow:60"])
async def test_live_keys_are_never_rehearsed(rehearsal: RehearsalBackend, prompt: str) -> None:
    started = time.monotonic()
    state = await outcome(rehearsal, task_of(prompt=prompt))
    assert isinstance(state, Succeeded)
    assert state.recordings[0].samples.any()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("prompt", "failure", "slow_seconds"),
    [
        ("a song", None, 0),
        ("fail:everything", None, 0),
        ("failfail:provider", None, 0),
        ("(fail:timeout)", "timeout", 0),
        ("slow:7", None, 7),
        ("slow:7 fail:quality", "quality", 0),
        ("slow:99999", None, 600),
        ("slow:-1", None, 0),
        ("slow:x", None, 0),
    ],
)
def test_a_script_is_read_from_the_prompt(prompt: str, failure: str | None, slow_seconds: int) -> None:
    script = read_script(prompt)
    assert (script.failure, script.slow_seconds) == (failure, slow_seconds)
