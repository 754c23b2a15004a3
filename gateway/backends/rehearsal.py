"""Magic prompts of test keys: make failures and slowness happen on purpose, after acceptance.

`fail:provider`, `fail:timeout` and `fail:quality` end the job that way; `slow:N` makes it take at
least N seconds. Failure wins over slow. Live keys' prompts are never looked at.
"""

import asyncio
import re
import time
from typing import Final

import msgspec
import numpy as np

from gateway.backends.base import (
    Backend,
    Failed,
    RemoteTask,
    RenderTask,
    Running,
    Succeeded,
    TaskState,
)
from gateway.jobs.job import JobErrorCode

MAX_SLOW_SECONDS: Final = 600
_POLL_SECONDS: Final = 0.2
_FAIL: Final = re.compile(r"\bfail:(provider|timeout|quality)\b")
_SLOW: Final = re.compile(r"\bslow:(\d{1,5})\b")
_FAILURES: Final = {
    "provider": Failed(code=JobErrorCode.UPSTREAM_ERROR, message="asked for by fail:provider"),
    "timeout": Failed(code=JobErrorCode.TIMEOUT, message="asked for by fail:timeout"),
}


class Script(msgspec.Struct, frozen=True):
    """What a test prompt asks to happen."""

    failure: str | None
    slow_seconds: int


def read_script(prompt: str) -> Script:
    """The triggers in a prompt; unknown ones are music."""
    failure, slow = _FAIL.search(prompt), _SLOW.search(prompt)
    return Script(
        failure=failure[1] if failure else None,
        slow_seconds=min(int(slow[1]), MAX_SLOW_SECONDS) if slow and not failure else 0,
    )


class _Play(msgspec.Struct):
    script: Script
    started: float
    canceled: bool = False
    outcome: TaskState | None = None


class RehearsalBackend:
    """Another backend, with the triggers of test keys in front of it."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self._plays: dict[str, _Play] = {}
        self.name: Final = inner.name
        self.resumable: Final = inner.resumable

    @property
    def queues(self) -> tuple[str, ...]:
        """The inner backend's, which change while models are loaded."""
        return self._inner.queues

    def intend(self, task: RenderTask) -> RemoteTask | None:
        """As the inner backend: what is played here is not worth finding again."""
        return self._inner.intend(task)

    async def recover(self, task: RenderTask, stored: RemoteTask, *, accepted: bool) -> RemoteTask:
        """As the inner backend; without the script, which was this process' own."""
        return await self._inner.recover(task, stored, accepted=accepted)

    async def submit(self, task: RenderTask, intent: RemoteTask | None) -> RemoteTask:
        """Start the real work, unless it is to fail without any."""
        script = read_script(task.request.prompt) if task.test else Script(None, 0)
        if script.failure in _FAILURES:
            remote = RemoteTask(backend=self.name, ref=f"{task.job_id.hex}-{task.attempt}")
        else:
            remote = await self._inner.submit(task, intent)
        if script.failure is not None or script.slow_seconds:
            self._plays[remote.ref] = _Play(script, time.monotonic())
        return remote

    async def poll(self, task: RemoteTask) -> TaskState:
        """The inner state, made to fail or held back as the script says."""
        play = self._plays.get(task.ref)
        if play is None:
            return await self._inner.poll(task)
        if play.script.failure in _FAILURES:
            return _FAILURES[play.script.failure]
        if play.outcome is None:
            state = await self._inner.poll(task)
            if isinstance(state, Running):
                return state
            play.outcome = _silenced(state) if play.script.failure == "quality" else state
        return await _hold_back(play, play.outcome)

    async def cancel(self, task: RemoteTask) -> None:
        """Also ends the waiting of a slow job."""
        if (play := self._plays.get(task.ref)) is not None:
            play.canceled = True
        await self._inner.cancel(task)

    def forget(self, task: RemoteTask) -> None:
        """The script is over."""
        self._plays.pop(task.ref, None)
        self._inner.forget(task)


async def _hold_back(play: _Play, outcome: TaskState) -> TaskState:
    left = play.started + play.script.slow_seconds - time.monotonic()
    if left > 0 and not play.canceled:
        await asyncio.sleep(min(left, _POLL_SECONDS))
        return Running(max(0.0, min(0.999, 1 - left / play.script.slow_seconds)))
    if play.canceled:
        return Failed(code=JobErrorCode.JOB_CANCELLED, message="the job was cancelled")
    return outcome


def _silenced(state: TaskState) -> TaskState:
    """Broken sound, so that the real quality control has something to find."""
    if not isinstance(state, Succeeded):
        return state
    return Succeeded(
        tuple(msgspec.structs.replace(r, samples=np.zeros_like(r.samples)) for r in state.recordings)
    )
