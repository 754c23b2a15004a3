"""Remote backends with the real adapters, each in front of its vendor's stand-in."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from gateway.audio import Decoder
from gateway.backends.base import Rendered, RenderTask, Succeeded, TaskState
from gateway.backends.remote.backend import RemoteBackend
from gateway.backends.remote.connection import Timeouts
from gateway.backends.remote.pace import Pace
from gateway.backends.remote.provider import Provider
from gateway.backends.runware import Runware
from gateway.backends.wavespeed import WaveSpeed
from gateway.files.fetch import Fetcher
from gateway.outbound import Caller
from gateway.workers.collection import Collector, output_guard
from tests.providers import runware, wavespeed

MODEL = "sandbox"
"""As the composer's, so that one suite serves all backends."""
NAMES = {"runware": "runware:ace-step@v1.5-turbo", "wavespeed": "wavespeed-ai/ace-step-1.5"}
NANO_PER_SECOND = {"runware": 100_000, "wavespeed": 300_000}
PACE = Pace(
    first_look_seconds=0.05,
    longest_look_seconds=0.2,
    gather_seconds=0.0,
    looks_per_second=100,
    find_delays=(0.05, 0.1, 0.2),
    again_delays=(0.05, 0.05),
)
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: to read the list of authorities takes longer than most tests."""


class NoFiles:
    """Clients that bring nothing."""

    def __call__(self, *_: object, **__: object) -> Any:
        raise AssertionError


class Remote(msgspec.Struct, kw_only=True):
    """One vendor, one worker's backend in front of it, and what another worker would open."""

    vendor: Any
    backend: RemoteBackend
    open_another: Callable[[], RemoteBackend]
    collector: Collector
    hold: Callable[[], None]
    """Tasks run and do not end, from now on."""

    async def collected(self, task: RenderTask, state: TaskState) -> TaskState:
        """With the music in it, if it was rendered."""
        if not isinstance(state, Rendered):
            return state
        async with self.collector.collected(task, state) as recordings:
            return Succeeded(recordings)


@contextlib.asynccontextmanager
async def open_remote(name: str, scratch: Path, *, brought: Any = None) -> AsyncIterator[Remote]:
    """`name` of the provider."""
    opened: list[RemoteBackend] = []
    async with _vendor(name) as (vendor, provider, hold):

        def open_another() -> RemoteBackend:
            opened.append(
                RemoteBackend(
                    provider(),
                    models={MODEL: NAMES[name]},
                    nano_per_second={MODEL: NANO_PER_SECOND[name]},
                    brought=brought or NoFiles(),
                    capacity=100,
                    pace=PACE,
                )
            )
            return opened[-1]

        caller = Caller(output_guard([vendor.url], allow_private_hosts=False), tls=TLS)
        collector = Collector(fetcher=Fetcher(caller), decoder=Decoder(concurrency=1), scratch=scratch)
        try:
            yield Remote(
                vendor=vendor,
                backend=open_another(),
                open_another=open_another,
                collector=collector,
                hold=hold,
            )
        finally:
            for backend in opened:
                await backend.close()


@contextlib.asynccontextmanager
async def _vendor(name: str) -> AsyncIterator[tuple[Any, Callable[[], Provider], Callable[[], None]]]:
    if name == "runware":
        async with runware.running() as vendor:
            vendor.processing_seconds = 0.1
            timeouts = Timeouts(connect=2, read=2, query=4, submit=4, upload=4)

            def open_runware() -> Provider:
                return Runware(
                    api_key=vendor.key, base_url=vendor.url, timeouts=timeouts, resend_seconds=0.05, tls=TLS
                )

            yield vendor, open_runware, vendor.hold
        return
    async with wavespeed.running() as stand_in:
        stand_in.processing_seconds = 0.1

        def hold() -> None:
            stand_in.processing_seconds = None

        def open_wavespeed() -> Provider:
            prices = {NAMES[name]: NANO_PER_SECOND[name]}
            return WaveSpeed(
                api_key=stand_in.key, base_url=stand_in.url, price_nano_per_second=prices, tls=TLS
            )

        yield stand_in, open_wavespeed, hold
