"""What a worker needs of a job's inputs: samples, whether they were uploaded or stand behind a URL."""

import asyncio
import contextlib
import secrets
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
import numpy as np
import numpy.typing as npt

from gateway.audio import (
    CONTENT_TYPES,
    AudioFormat,
    AudioSettings,
    Decoder,
    Encoder,
    InputTooLong,
    InputUnreadable,
    check_container,
    resolve_encoding,
)
from gateway.audio.containers import HEAD_BYTES, Container
from gateway.database import Reader
from gateway.files import store as rows
from gateway.files.fetch import Fetcher
from gateway.generation import SAMPLE_RATE, AudioInput
from gateway.ids import parse_id
from gateway.storage import AudioStore, ObjectMissing

READS_AT_ONCE: Final = 2
"""Of the pool's connections."""
MAX_HANDED_BYTES: Final = 30_000_000
"""Of a file for somebody else: it travels inside a message, half as large again."""
HANDED_AT_ONCE: Final = 4
"""Such files in memory: each three times while it is put into its message."""
_COMMON: Final = frozenset({"wav", "flac", "mp3", "ogg"})
"""Kinds of files that everybody reads."""
_SMALLER: Final = resolve_encoding(AudioFormat.MP3, AudioSettings(bitrate=320))
"""Of a song of 600 s it makes 24 MB."""


class InputFile(msgspec.Struct, frozen=True, kw_only=True):
    """An input as bytes, to be handed over."""

    content: bytes
    content_type: str
    frames: int
    """Its length at 48 kHz."""


class AudioInputs:
    """Inputs of jobs, decoded anew for each that needs them: the same file gives the same samples."""

    def __init__(
        self,
        *,
        pool: "asyncpg.Pool[asyncpg.Record]",
        store: AudioStore,
        scratch: Path,
        fetcher: Fetcher,
        decoder: Decoder,
        encoder: Encoder | None = None,
    ) -> None:
        """`scratch` is where files lie while they are decoded; it must exist. `encoder` None: one is made."""
        self._reader = Reader(pool, at_once=READS_AT_ONCE)
        self._store = store
        self._scratch = scratch
        self._fetcher = fetcher
        self._decoder = decoder
        self._encoder = encoder
        self._handing = asyncio.Semaphore(HANDED_AT_ONCE)

    async def samples(
        self, wanted: AudioInput, *, organization_id: uuid.UUID, project_id: uuid.UUID | None
    ) -> npt.NDArray[np.float32]:
        """`[2, frames]` at 48 kHz.

        Raises:
            InputUnreadable: with a reason for the customer. The job fails with it; nothing is charged.
            DecodeFailed, StoreUnavailable: not the customer's fault; another attempt may succeed.
        """
        async with self._at_hand(wanted, organization_id, project_id) as path:
            return await self._decoder.decode(path)

    @contextlib.asynccontextmanager
    async def file(
        self, wanted: AudioInput, *, organization_id: uuid.UUID, project_id: uuid.UUID | None
    ) -> AsyncIterator[InputFile]:
        """The file as it came; of a rare kind or a large one, an MP3 of it.

        Few are in memory at once; a slow download waits on the disk, so nobody waits for it.
        Raises what `samples` raises, and EncodeFailed.
        """
        async with self._at_hand(wanted, organization_id, project_id) as path:
            frames = wanted.frames if wanted.url is None else None
            if frames is None:  # an upload was decoded when it came
                frames = (await self._decoder.measure(path)).frames
            async with self._handing:
                yield await self._handed(path, frames)

    async def _handed(self, path: Path, frames: int) -> InputFile:
        container, size = await asyncio.to_thread(_look_at, path)
        if container.name in _COMMON and size <= MAX_HANDED_BYTES:
            content = await asyncio.to_thread(path.read_bytes)
            return InputFile(content=content, content_type=container.content_type, frames=frames)
        content = await self._made_smaller(path)
        if len(content) > MAX_HANDED_BYTES:
            raise InputTooLong("the file is too large to be handed over")
        return InputFile(content=content, content_type=CONTENT_TYPES[_SMALLER.format], frames=frames)

    @contextlib.asynccontextmanager
    async def _at_hand(
        self, wanted: AudioInput, organization_id: uuid.UUID, project_id: uuid.UUID | None
    ) -> AsyncIterator[Path]:
        """In the scratch folder, for as long as it is needed."""
        path = self._scratch / f"input-{secrets.token_hex(8)}"
        try:
            if wanted.url is not None:
                await self._fetcher.fetch(wanted.url, path)
            else:
                await self._bring(wanted.file_id or "", organization_id, project_id, path)
            yield path
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _made_smaller(self, path: Path) -> bytes:
        made: list[Path] = []
        try:
            samples = await self._decoder.decode(path)
            self._encoder = self._encoder or Encoder()
            master = await self._encoder.write_master(samples, sample_rate=SAMPLE_RATE, folder=self._scratch)
            made.append(master.path)
            smaller = await self._encoder.encode(master, _SMALLER, folder=self._scratch)
            made.append(smaller.path)
            return await asyncio.to_thread(smaller.path.read_bytes)
        finally:
            for one in made:
                await asyncio.to_thread(one.unlink, missing_ok=True)

    async def _bring(
        self, file_id: str, organization_id: uuid.UUID, project_id: uuid.UUID | None, path: Path
    ) -> None:
        """From the store into the scratch folder."""
        known = parse_id(file_id) or uuid.UUID(int=0)
        stored = await self._reader.run(
            lambda conn: rows.find_kept(
                conn, organization_id=organization_id, project_id=project_id, file_id=known
            )
        )
        if stored is None:
            raise InputUnreadable("the uploaded file is not there any more")
        try:
            await _save(await self._store.open(stored.key), path)
        except ObjectMissing as error:
            raise InputUnreadable("the uploaded file is not there any more") from error


async def _save(chunks: AsyncIterator[bytes], path: Path) -> None:
    with path.open("wb") as file:
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk)


def _look_at(path: Path) -> tuple[Container, int]:
    with path.open("rb") as file:
        return check_container(file.read(HEAD_BYTES)), path.stat().st_size
