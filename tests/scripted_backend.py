"""A backend that plays by the prompt: the double of the seam to everything that makes music."""

import asyncio
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

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
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.jobs.job import JobErrorCode

POLL_SECONDS: Final = 0.01


class Play(msgspec.Struct):
    """One task inside the backend."""

    task: RenderTask
    polls: int = 0
    canceled: bool = False


class ScriptedBackend:
    """Words in the prompt decide; without any it makes music after three polls.

    `hang`: until cancelled - `deaf`: does not hear that it was cancelled - `break`: fails for good -
    `stumble`: fails, another attempt may work - `stumble once`: only the first attempt does - `silent`:
    broken sound - `short`: 3 % less than was asked for - `half`: half of it - `double`: twice of it -
    `fewer`: one song less than was asked for - `sparse`: nine tenths are rests - `away`: takes nothing -
    `fetch`: is not done with submitting until that is cancelled.
    """

    name: Final = "scripted"
    queues: Final = ("sandbox",)
    resumable: Final = False

    def __init__(self) -> None:
        self.submitted: list[RenderTask] = []
        self.canceled: list[str] = []
        self._plays: dict[str, Play] = {}

    def intend(self, _: RenderTask) -> None:
        """Nothing outlives this process."""

    async def recover(self, _: RenderTask, __: RemoteTask, *, accepted: bool) -> RemoteTask:  # noqa: ARG002
        """Never asked for."""
        raise AssertionError

    async def submit(self, task: RenderTask, _: RemoteTask | None = None) -> RemoteTask:
        """Refuses when it is away."""
        self.submitted.append(task)
        if "away" in task.request.prompt:
            raise BackendUnavailable("gone for lunch")
        if "fetch" in task.request.prompt:
            await asyncio.Event().wait()
        ref = f"{task.job_id.hex}-{task.attempt}"
        self._plays[ref] = Play(task)
        return RemoteTask(backend=self.name, ref=ref)

    async def poll(self, task: RemoteTask) -> TaskState:
        """The next state of the script."""
        await asyncio.sleep(POLL_SECONDS)
        play = self._plays[task.ref]
        play.polls += 1
        return _state(play)

    async def cancel(self, task: RemoteTask) -> None:
        """Heard at the next poll."""
        self.canceled.append(task.ref)
        if (play := self._plays.get(task.ref)) is not None:
            play.canceled = True

    def forget(self, task: RemoteTask) -> None:
        """Nobody asks for it any more."""
        self._plays.pop(task.ref, None)


def _state(play: Play) -> TaskState:
    prompt, request = play.task.request.prompt, play.task.request
    if play.canceled and "deaf" not in prompt:
        return Failed(code=JobErrorCode.JOB_CANCELLED, message="the job was cancelled")
    if "hang" in prompt and not play.canceled:
        return Running(min(play.polls * 0.1, 0.9))
    if play.polls <= 3:
        return Running(play.polls / 4)
    if "break" in prompt:
        return Failed(code=JobErrorCode.CONTENT_POLICY_VIOLATION, message="not this")
    if "stumble" in prompt and not ("once" in prompt and play.task.attempt > 1):
        return Failed(code=JobErrorCode.OUT_OF_MEMORY, message="too little memory", retryable=True)
    songs = [_song(prompt, request, index) for index in range(request.n - ("fewer" in prompt))]
    return Succeeded(tuple(songs))


def _song(prompt: str, request: GenerationRequest, index: int) -> Recording:
    share = {"short": 0.97, "half": 0.5, "double": 2}
    wanted = next((value for word, value in share.items() if word in prompt), 1)
    seed = request.variation_seed(index)
    samples = make_music(round(request.frames * wanted), seed)
    if "silent" in prompt:
        samples = np.zeros_like(samples)
    if "sparse" in prompt:
        samples[:, samples.shape[1] // 10 :] = 0
    return Recording(samples=samples, sample_rate=SAMPLE_RATE, seed=seed, deterministic=True)


def make_music(frames: int, seed: int) -> NDArray[np.float32]:
    """A swelling chord, shape [2, frames], that passes every quality control."""
    time = np.arange(frames) / SAMPLE_RATE
    root = 110 * 2 ** (seed % 12 / 12)
    chord = sum(np.sin(2 * np.pi * root * ratio * time) for ratio in (1, 1.25, 1.5))
    swell = 0.1 + 0.05 * np.sin(2 * np.pi * 2 * time)
    return np.stack([chord * swell, chord * swell * 0.8]).astype(np.float32)
