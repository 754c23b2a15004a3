"""The seam to everything that can make music: our own engine, and later remote providers.

A worker writes the attempt, calls `submit`, stores the RemoteTask, and polls until the end. A task
that outlives its worker (`resumable`) is polled again by the next one instead of being paid twice.
"""

import uuid
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.generation import GenerationRequest
from gateway.jobs.job import JobErrorCode


class RenderTask(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one job."""

    job_id: uuid.UUID
    organization_id: uuid.UUID
    attempt: int
    model: str
    test: bool
    request: GenerationRequest


class RemoteTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend needs to find its work again; stored with the attempt."""

    backend: str
    ref: str
    """Unique per backend: the provider's id, or ours where the backend takes it."""


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """Finished sound: float32 samples, shape [channels, frames], full scale is 1."""

    samples: NDArray[np.float32]
    sample_rate: int
    seed: int
    deterministic: bool | str


class Running(msgspec.Struct, frozen=True):
    """Not finished; progress from 0 to 1."""

    progress: float


class Succeeded(msgspec.Struct, frozen=True):
    """The music is there."""

    recordings: tuple[Recording, ...]


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """No music. `retryable`: another attempt may work."""

    code: JobErrorCode
    message: str
    retryable: bool = False


TaskState = Running | Succeeded | Failed


class BackendUnavailable(Exception):
    """The backend took nothing: the same task may be submitted again, here or elsewhere."""


class Backend(Protocol):
    """One way to make music."""

    @property
    def name(self) -> str:
        """Stored with attempts and shown to customers."""

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that it can serve."""

    @property
    def resumable(self) -> bool:
        """Whether a stored RemoteTask can be polled by another process."""

    async def submit(self, task: RenderTask) -> RemoteTask:
        """Start the work. Raises BackendUnavailable if for certain nothing was started."""

    async def poll(self, task: RemoteTask) -> TaskState:
        """The state now; may wait a fraction of a second for a change."""

    async def cancel(self, task: RemoteTask) -> None:
        """Ask for an early end; the outcome still comes from `poll`."""

    def forget(self, task: RemoteTask) -> None:
        """This process will not poll it again: free what is kept for it. Twice does no harm."""
