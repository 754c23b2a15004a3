"""What a worker needs of a job's inputs: samples, whether they were uploaded or stand behind a URL."""

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import asyncpg
import numpy as np
import numpy.typing as npt

from gateway.audio import Decoder, InputUnreadable
from gateway.database import Reader
from gateway.files import store as rows
from gateway.files.fetch import Fetcher
from gateway.generation import AudioInput
from gateway.ids import parse_id
from gateway.storage import AudioStore, ObjectMissing

READS_AT_ONCE: Final = 2
"""Of the pool's connections."""


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
    ) -> None:
        """`scratch` is where files lie while they are decoded; it must exist."""
        self._reader = Reader(pool, at_once=READS_AT_ONCE)
        self._store = store
        self._scratch = scratch
        self._fetcher = fetcher
        self._decoder = decoder

    async def samples(
        self, wanted: AudioInput, *, organization_id: uuid.UUID, project_id: uuid.UUID | None
    ) -> npt.NDArray[np.float32]:
        """`[2, frames]` at 48 kHz.

        Raises:
            InputUnreadable: with a reason for the customer. The job fails with it; nothing is charged.
            DecodeFailed, StoreUnavailable: not the customer's fault; another attempt may succeed.
        """
        path = self._scratch / f"input-{secrets.token_hex(8)}"
        try:
            if wanted.url is not None:
                await self._fetcher.fetch(wanted.url, path)
            else:
                await self._bring(wanted.file_id or "", organization_id, project_id, path)
            return await self._decoder.decode(path)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

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
