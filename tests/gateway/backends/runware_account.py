"""Runware's stand-in, and our side of it, as the tests of both halves use them."""

import contextlib
import math
import struct
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from gateway.backends.remote.connection import Timeouts
from gateway.backends.remote.provider import Brought, Call
from gateway.backends.runware import Runware
from tests.gateway.routing.runware_requests import BASE, request
from tests.providers.runware import RunwareStandIn
from tests.remote_backends import TLS

SOON = Timeouts(connect=2, read=5, query=5, submit=5, upload=5)


class Desk(msgspec.Struct, frozen=True):
    """A vendor, and a provider that calls it."""

    vendor: RunwareStandIn
    runware: Runware

    @property
    def asked(self) -> list[str]:
        """The task type of each request so far."""
        return [str(one.task_types[0]) for one in self.vendor.requests]

    async def accepted(self, **fields: Any) -> str:
        """The id of a new task."""
        return await self.runware.send(a_call(**fields))

    async def made(self, **fields: Any) -> str:
        """The id of a task that has ended."""
        ref = await self.accepted(**fields)
        await self.vendor.finish(ref)
        return ref


@contextlib.asynccontextmanager
async def calling(
    url: str, key: str = "a key", *, timeouts: Timeouts = SOON, **options: Any
) -> AsyncIterator[Runware]:
    usual = {"tls": TLS, "resend_seconds": 0.0}
    runware = Runware(api_key=key, base_url=url, timeouts=timeouts, **usual | options)
    try:
        yield runware
    finally:
        await runware.close()


def a_call(*, count: int = 1, model: str = BASE, source: Brought | None = None, **fields: Any) -> Call:
    return Call(
        ref=str(uuid.uuid4()),
        model=model,
        request=request(**fields),
        first=0,
        count=count,
        source=source,
    )


def a_source(seconds: int) -> Brought:
    """A tone, as WAV of 8000 Hz: small, and as long as it says."""
    samples = [round(9_000 * math.sin(place / 5)) for place in range(800)] * (seconds * 10)
    sound = struct.pack(f"<{len(samples)}h", *samples)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(sound), b"WAVE", b"fmt ", 16, 1, 1, 8_000,
                       16_000, 2, 16, b"data", len(sound))  # fmt: skip
    return Brought(content=head + sound, content_type="audio/wav", frames=seconds * 48_000)
