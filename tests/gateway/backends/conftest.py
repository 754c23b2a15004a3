"""A scripted provider in a time that only the test moves, and our accounts at the vendors' stand-ins."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from gateway.backends.base import RenderTask, TaskState
from gateway.backends.remote.backend import RemoteBackend
from gateway.generation import SAMPLE_RATE, AudioInput, GenerationRequest
from tests.gateway.backends.runware_account import Desk, calling
from tests.gateway.backends.wavespeed_account import Account, open_account
from tests.providers import runware
from tests.scripted_provider import Clock, ScriptedProvider

MODEL = "ace-step-v1.5"
OTHER_MODEL = "ace-step-v1.5-turbo"
SECONDS = 60
NANO_PER_SECOND = 300_000
SONG_NANO = SECONDS * NANO_PER_SECOND


class File(msgspec.Struct, frozen=True):
    content: bytes = b"fLaC"
    content_type: str = "audio/flac"
    frames: int = 10 * SAMPLE_RATE


class Files:
    """What clients brought."""

    def __init__(self) -> None:
        self.fate: File | Exception = File()
        self.asked: list[AudioInput] = []
        self.waits: Any = None

    @contextlib.asynccontextmanager
    async def __call__(
        self, wanted: AudioInput, *, organization_id: uuid.UUID, project_id: Any
    ) -> AsyncIterator[File]:
        assert isinstance(organization_id, uuid.UUID)
        assert project_id is None
        self.asked.append(wanted)
        if self.waits is not None:
            await self.waits.wait()
        if isinstance(self.fate, Exception):
            raise self.fate
        yield self.fate


def task_of(*, model: str = MODEL, attempt: int = 1, seconds: float = SECONDS, **more: Any) -> RenderTask:
    return RenderTask(
        job_id=uuid.uuid4(),
        organization_id=uuid.uuid4(),
        attempt=attempt,
        model=model,
        test=False,
        request=GenerationRequest(prompt="a calm song", frames=round(seconds * SAMPLE_RATE), seed=7, **more),
    )


class Bench(msgspec.Struct):
    """Everything of one backend, and what tests do with it."""

    clock: Clock
    provider: ScriptedProvider
    files: Files
    backend: RemoteBackend

    async def submit(self, task: RenderTask | None = None) -> Any:
        task = task or task_of()
        return await self.backend.submit(task, self.backend.intend(task))

    async def state(self, remote: Any) -> TaskState:
        """After everything that is due was looked at."""
        await self.clock.settle()
        async with asyncio.timeout(5):
            return await self.backend.poll(remote)


Open = Callable[..., Bench]


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    opened: list[Bench] = []

    def open_one(*, capacity: int = 100, pace: dict[str, Any] | None = None, **provider: Any) -> Bench:
        clock, files = Clock(), Files()
        double = ScriptedProvider(**provider)
        backend = RemoteBackend(
            double,
            models={MODEL: "vendor/model", OTHER_MODEL: "vendor/turbo"},
            nano_per_second={MODEL: NANO_PER_SECOND, OTHER_MODEL: NANO_PER_SECOND},
            brought=files,
            capacity=capacity,
            pace=clock.pace(**(pace or {})),
        )
        opened.append(Bench(clock, double, files, backend))
        return opened[-1]

    yield open_one
    for bench in opened:
        await bench.backend.close()


@pytest.fixture
def bench(open_bench: Open) -> Bench:
    """A provider that takes our ids, and four songs at once."""
    return open_bench()


@pytest.fixture
def strict(open_bench: Open) -> Bench:
    """A provider that gives ids of its own, takes one song a call, and must not be sent a call twice."""
    return open_bench(name="wavespeed", most_at_once=1, can_resend=False)


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    """At WaveSpeed's stand-in; tasks there run until the test ends them."""
    async with open_account() as opened:
        yield opened


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """At Runware's."""
    async with runware.running() as vendor, calling(vendor.url, vendor.key) as provider:
        vendor.hold()
        vendor.processing_seconds = 1_000_000  # so that nothing moves by itself
        yield Desk(vendor, provider)
