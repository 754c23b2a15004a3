"""The seam to everything that can make music: our own engine, and remote providers.

A worker writes the attempt, stores what `intend` says, calls `submit`, stores the RemoteTask, and polls
until the end. A task that outlives its worker (`resumable`) is found again by the next one (`recover`)
instead of being paid twice.
"""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.generation import GenerationRequest
from gateway.jobs.job import JobErrorCode

POLL_PATIENCE_SECONDS: Final = 30.0
"""The longest that one `poll` waits: ten thousand of them at once must cost next to nothing."""


class RenderTask(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of one job."""

    job_id: uuid.UUID
    organization_id: uuid.UUID
    attempt: int
    model: str
    test: bool
    request: GenerationRequest


class Piece(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a task that is one task at its provider: some of the variations."""

    first: int
    """Index of its first variation."""
    count: int
    ref: str | None = None
    """The provider's id, or ours where the provider takes it; None while nobody knows it."""


class RemoteTask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a backend needs to find its work again; stored with the attempt."""

    backend: str
    ref: str
    """Unique per backend: the provider's id of the first piece, or ours."""
    pieces: tuple[Piece, ...] = ()
    """Empty where the work lives in this process alone."""
    model: str = ""
    """The provider's name of the model."""
    sent_at: datetime | None = None
    """Before the first call: what was made earlier is not ours."""
    most_nano: int = 0
    """What it may cost us if nobody ever tells, in nano-USD: by the provider's price card."""


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


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file at a provider."""

    url: str
    seed: int | None = None
    """None: the provider tells none; the seed that was asked for holds."""


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """The music is at the provider, still to be fetched and listened to."""

    outputs: tuple[Output, ...]
    cost_nano: int | None = None
    """What the provider charges us, in nano-USD."""


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """No music. `retryable`: another attempt, here or at another backend, may work."""

    code: JobErrorCode
    message: str
    """In words for the customer: never a provider's own."""
    retryable: bool = False
    cost_nano: int | None = 0
    """What the provider charges us all the same; None: nobody told, it may be all of it."""


TaskState = Running | Rendered | Succeeded | Failed


class Reason(StrEnum):
    """Why a backend took nothing."""

    OUTAGE = "outage"
    """Not reached, or it answered with a fault of its own."""
    RATE_LIMITED = "rate_limited"
    MISCONFIGURED = "misconfigured"
    """Our key or our request is refused: an operator must act."""
    NO_CREDIT = "no_credit"
    """Our account there is empty: an operator must act."""
    BUSY = "busy"
    """We hold back by ourselves: its circuit is open, or somebody is just trying it."""
    FULL = "full"
    """We have enough under way there: the job's turn comes."""


class BackendUnavailable(Exception):
    """The backend took nothing, for certain: the same task may be submitted again, here or elsewhere."""

    def __init__(
        self, message: str, *, reason: Reason = Reason.BUSY, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class SubmitAmbiguous(Exception):
    """Nobody can tell whether the backend took it, and it must not be sent again: it may cost us twice."""

    def __init__(self, message: str, *, cost_nano: int = 0) -> None:
        super().__init__(message)
        self.cost_nano = cost_nano
        """The most that the lost task may cost us, in nano-USD."""


class Backend(Protocol):
    """One way to make music."""

    @property
    def name(self) -> str:
        """Stored with attempts and shown to customers."""

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that it serves at this moment."""

    @property
    def resumable(self) -> bool:
        """Whether a stored RemoteTask can be polled by another process."""

    def intend(self, task: RenderTask, /) -> RemoteTask | None:
        """What must be stored, durably, before anything is sent; None where nothing outlives this process."""

    async def submit(self, task: RenderTask, intent: RemoteTask | None, /) -> RemoteTask:
        """Start the work.

        Raises BackendUnavailable if for certain nothing was started, or SubmitAmbiguous.
        """

    async def recover(self, task: RenderTask, stored: RemoteTask, /, *, accepted: bool) -> RemoteTask:
        """The task that another worker has sent (`accepted`: and knew to be taken), to be polled here.

        Raises BackendUnavailable if for certain nothing was started, or SubmitAmbiguous.
        """

    async def poll(self, task: RemoteTask) -> TaskState:
        """The state now; may wait for a change, for as long as POLL_PATIENCE_SECONDS."""

    async def cancel(self, task: RemoteTask) -> None:
        """Ask for an early end; the outcome still comes from `poll`."""

    def forget(self, task: RemoteTask) -> None:
        """This process will not poll it again: free what is kept for it. Twice does no harm."""
