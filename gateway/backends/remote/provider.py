"""The seam below RemoteBackend: one vendor's wire, one call at a time, without memory of its own."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from gateway.backends.base import Failed, Output
from gateway.generation import GenerationRequest


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """The source of an edit, for a vendor that takes one."""

    content: bytes
    content_type: str
    frames: int
    """Its length at 48 kHz."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One task at the provider: `count` variations from index `first` on."""

    ref: str | None
    """Our id, where the provider takes it; see `new_ref`."""
    model: str
    """The provider's name of it."""
    request: GenerationRequest
    first: int
    count: int
    source: Brought | None = None


class Waiting(msgspec.Struct, frozen=True):
    """Accepted and not finished; progress from 0 to 1, 0 where the provider tells none."""

    progress: float = 0.0


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """Finished. `cost_nano`: as the provider told; None: it tells none."""

    outputs: tuple[Output, ...]
    asked_seed: int | None = None
    """Where the provider repeats the request: with another seed than ours it is somebody else's."""
    cost_nano: int | None = None


class Unknown(msgspec.Struct, frozen=True):
    """The provider knows no such task: not yet, or not any more."""


Sight = Waiting | Made | Unknown | Failed
"""What the provider says of one task."""


class Provider(Protocol):
    """One vendor. Knows its wire, its errors and its words; keeps nothing of tasks.

    Everything raises BackendUnavailable, with its Reason, when the vendor took or told nothing.
    """

    @property
    def name(self) -> str:
        """As in the catalog and in routes."""

    @property
    def most_at_once(self) -> int:
        """Variations in one call."""

    @property
    def can_resend(self) -> bool:
        """Whether a call with the same ref, sent again, is the same task."""

    @property
    def looks_at_once(self) -> int:
        """Refs in one `look`, at most."""

    def new_ref(self) -> str | None:
        """A fresh id of ours for one call; None where the provider gives the id."""

    async def send(self, call: Call) -> str:
        """Send once; the provider's id of the task.

        Raises:
            BackendUnavailable: nothing was started, for certain.
            SubmitAmbiguous: nobody knows.
            Refused: the provider will never make this.
        """

    async def find(self, call: Call, *, since: datetime) -> str | None:
        """The id of a call that was sent, perhaps: by its ref or by what was in it. None: not there.

        `since`: when it was sent, by our clock; what is clearly older is another task.
        """

    async def look(self, refs: Sequence[str]) -> Mapping[str, Sight]:
        """The states of up to `looks_at_once` tasks; what is missing in the answer is as before."""

    async def stop(self, ref: str) -> None:
        """Give the task up, as far as the provider can do that; never raises."""

    async def balance_nano(self) -> int:
        """What our account there holds, in nano-USD."""

    async def close(self) -> None:
        """Close the connections."""


class Refused(Exception):
    """The provider refuses the call for what is in it: content, or something that it cannot express."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed
