"""What a provider has made becomes recordings: fetched as from a stranger, decoded, cut to length."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import structlog
from numpy.typing import NDArray

from gateway.audio import (
    AudioError,
    Decoder,
    InputTooLong,
    InputUnreadable,
    QualityBounds,
    QualityFailed,
    QualityReason,
    UnknownContainer,
)
from gateway.backends.base import Output, Recording, Rendered, RenderTask
from gateway.files.fetch import Fetcher
from gateway.generation import SAMPLE_RATE
from gateway.outbound import Address, Caller, Guard, open_guard
from gateway.settings import Settings

COLLECTIONS_AT_ONCE: Final = 2
"""Songs in memory: 240 s of one are 92 MB, and encoding takes a core."""
DOWNLOADS_AT_ONCE: Final = 8
ON_DISK_AT_ONCE: Final = 64
"""Jobs whose songs are fetched and not stored yet: ten thousand that end together would fill any disk."""
DOWNLOAD_DELAYS: Final = (1.0, 3.0, 8.0)
"""Before each further try: a file may lag behind the word that it is there."""
LEAST_ORDERED_FRAMES: Final = 30 * SAMPLE_RATE
"""What a provider makes at least; who ordered less gets its beginning."""
FADE_SECONDS: Final = 0.03
_ROUNDING_FRAMES: Final = SAMPLE_RATE
"""By so much more than ordered, and a tenth of it, a song may come."""
_TOLERANCE: Final = QualityBounds().length_tolerance

Samples = NDArray[np.float32]

log = structlog.get_logger(__name__)


class CollectFailed(AudioError):
    """What the provider calls finished cannot be fetched or is no sound; another route may do better."""


class Collector:
    """Fetches and decodes the music of providers; one for all of a process, because songs are large.

    Its recordings are as long as what was ordered, or shorter by no more than quality control allows.
    """

    def __init__(
        self,
        *,
        fetcher: Fetcher,
        decoder: Decoder,
        scratch: Path,
        at_once: int = COLLECTIONS_AT_ONCE,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`at_once`: songs from decoding to the end of storing."""
        self._fetcher = fetcher
        self._decoder = decoder
        self._scratch = scratch
        self._turns = asyncio.Semaphore(at_once)
        self._downloads = asyncio.Semaphore(DOWNLOADS_AT_ONCE)
        self._room = asyncio.Semaphore(ON_DISK_AT_ONCE)
        self._sleep = sleep

    @contextlib.asynccontextmanager
    async def collected(self, task: RenderTask, rendered: Rendered) -> AsyncIterator[tuple[Recording, ...]]:
        """The recordings, and a turn for whatever is done with them: they are large in memory.

        A slow download takes none: nobody else waits for it.

        Raises:
            QualityFailed: it is shorter than ordered, or far longer.
            CollectFailed: the reason, in words for the customer.
            DecodeFailed: no decoder could be run.
        """
        async with self._room, self._downloaded(rendered.outputs) as paths, self._turns:
            yield await self._recordings(task, rendered.outputs, paths)

    @contextlib.asynccontextmanager
    async def _downloaded(self, outputs: Sequence[Output]) -> AsyncIterator[list[Path]]:
        stem = secrets.token_hex(8)
        paths = [self._scratch / f"output-{stem}-{index}" for index in range(len(outputs))]
        try:
            await _all(self._download(output.url, path) for output, path in zip(outputs, paths, strict=True))
            yield paths
        finally:
            for path in paths:
                await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _download(self, url: str, path: Path) -> None:
        """With a few further tries; the URL itself is a secret, and is told to nobody."""
        for delay in (*DOWNLOAD_DELAYS, None):
            try:
                async with self._downloads:
                    await self._fetcher.fetch(url, path)
            except (UnknownContainer, InputTooLong) as error:
                raise CollectFailed("what the provider made is no audio file of a usable kind") from error
            except InputUnreadable as error:
                log.warning("provider.download_failed", reason=str(error), again_seconds=delay)
                if delay is None:
                    raise CollectFailed("what the provider made could not be fetched") from error
                await self._sleep(delay)
            else:
                return

    async def _recordings(
        self, task: RenderTask, outputs: Sequence[Output], paths: Sequence[Path]
    ) -> tuple[Recording, ...]:
        made = []
        for index, (output, path) in enumerate(zip(outputs, paths, strict=True)):
            try:
                samples = await self._decoder.decode(path)
            except InputUnreadable as error:
                raise CollectFailed("what the provider made is no sound") from error
            await asyncio.to_thread(path.unlink, missing_ok=True)
            samples = await asyncio.to_thread(
                fitted, samples, task.request.frames, open_length=task.request.open_length
            )
            seed = task.request.variation_seed(index) if output.seed is None else output.seed
            made.append(Recording(samples=samples, sample_rate=SAMPLE_RATE, seed=seed, deterministic=False))
        return tuple(made)


def fitted(samples: Samples, frames: int, *, open_length: bool = False) -> Samples:
    """At most `frames` of them, faded out where more came; with `open_length` fewer will do.

    Raises:
        QualityFailed: it is another song than was ordered, by its length.
    """
    came = samples.shape[1]
    most = max(frames, LEAST_ORDERED_FRAMES)
    is_short = came < frames * (1 - _TOLERANCE) and not open_length
    if is_short or came > most * 1.1 + _ROUNDING_FRAMES:
        message = f"{came / SAMPLE_RATE:.3f} s of audio instead of {frames / SAMPLE_RATE:.3f} s"
        raise QualityFailed(QualityReason.LENGTH, message)
    if came <= frames:
        return samples
    cut = samples[:, :frames].copy()  # a view would keep all of it in memory
    fade = min(round(FADE_SECONDS * SAMPLE_RATE), frames)
    cut[:, frames - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return cut


def open_collector(settings: Settings, scratch: Path) -> Collector:
    """For all providers that there are keys for."""
    providers = [
        base_url
        for key, base_url in (
            (settings.runware_api_key, settings.runware_base_url),
            (settings.wavespeed_api_key, settings.wavespeed_base_url),
        )
        if key is not None
    ]
    caller = Caller(output_guard(providers, allow_private_hosts=settings.allow_private_hosts))
    return Collector(fetcher=Fetcher(caller), decoder=Decoder(), scratch=scratch)


def output_guard(base_urls: Sequence[str], *, allow_private_hosts: bool) -> Guard:
    """What providers made lies on the public internet, or on the very hosts that we were told to call.

    Those may be anywhere, because an operator named them; what else they point to may not.
    """
    if allow_private_hosts:
        return open_guard(allow_private_hosts=True)
    return _ProviderGuard([httpx.URL(base_url) for base_url in base_urls])


class _ProviderGuard(Guard):
    """The guard for strangers' URLs, with a few hosts and ports that are trusted."""

    def __init__(self, providers: Sequence[httpx.URL]) -> None:
        super().__init__()
        self._providers = frozenset((provider.host, _port(provider)) for provider in providers)
        self._trusting = open_guard(allow_private_hosts=True)

    def parse(self, url: str) -> httpx.URL:
        """Raises BadUrl."""
        parsed = self._trusting.parse(url)
        return parsed if self._is_provider(parsed) else super().parse(url)

    async def judge(self, target: httpx.URL) -> Sequence[Address]:
        """Raises OutboundError."""
        return await (self._trusting.judge(target) if self._is_provider(target) else super().judge(target))

    def _is_provider(self, target: httpx.URL) -> bool:
        return (target.host, _port(target)) in self._providers


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


async def _all(downloads: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Or the first failure; none runs on."""
    tasks = [asyncio.ensure_future(download) for download in downloads]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
