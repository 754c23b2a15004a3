"""What a dialect does with files: take one in, find, list, delete. One object per HTTP process."""

import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
import structlog

from gateway.audio import (
    DecodeFailed,
    Decoder,
    InputTooLong,
    InputUnreadable,
    UnknownContainer,
    check_container,
)
from gateway.audio.containers import CONTAINERS
from gateway.auth.principal import Principal, Scope
from gateway.database import Reader
from gateway.errors import (
    ConcurrencyLimitExceeded,
    FileGone,
    GatewayError,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from gateway.files import store as rows
from gateway.files.store import NewFile, StoredFile
from gateway.generation import AudioInput
from gateway.ids import new_id, parse_id
from gateway.signed_urls import content_disposition
from gateway.storage import AudioStore

MAX_FILE_BYTES: Final = 100_000_000
MAX_FILES: Final = 10_000
"""Of an organization."""
MAX_TOTAL_BYTES: Final = 20_000_000_000
"""Of all files of an organization."""
UPLOADS_AT_ONCE: Final = 32
"""In a process: what is being received lies in its scratch folder."""
UPLOADS_AT_ONCE_EACH: Final = 8
"""Of an organization, so that nobody takes all places."""
READS_AT_ONCE: Final = 2
"""Of the pool's connections."""

log = structlog.get_logger(__name__)


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A file that has been received, whole."""

    path: Path
    filename: str
    size_bytes: int
    sha256: bytes
    purpose: str | None = None
    retention: timedelta = rows.RETENTION


class Files:
    """Uploaded files of one gateway process. What the caller may not see does not exist: FileGone."""

    def __init__(
        self, *, pool: "asyncpg.Pool[asyncpg.Record]", store: AudioStore, scratch: Path, decoder: Decoder
    ) -> None:
        """`scratch` is where files lie while they are received; it must exist."""
        self.scratch: Final = scratch
        self._pool = pool
        self._reader = Reader(pool, at_once=READS_AT_ONCE)
        self._store = store
        self._decoder = decoder
        self._receiving: Counter[uuid.UUID] = Counter()

    @contextlib.contextmanager
    def receiving(self, principal: Principal) -> Iterator[None]:
        """A place for one upload, from its first byte. Raises Overloaded or ConcurrencyLimitExceeded."""
        owner = principal.organization_id
        if self._receiving.total() >= UPLOADS_AT_ONCE:
            raise Overloaded("too many files are being uploaded at once", retry_after_seconds=2)
        if self._receiving[owner] >= UPLOADS_AT_ONCE_EACH:
            raise ConcurrencyLimitExceeded(
                f"at most {UPLOADS_AT_ONCE_EACH} files can be uploaded at once", retry_after_seconds=2
            )
        self._receiving[owner] += 1
        try:
            yield
        finally:
            self._receiving[owner] -= 1
            self._receiving += Counter()  # without those at 0

    async def check_room(self, principal: Principal, size_bytes: int = 0) -> None:
        """Raises PayloadTooLarge if the organization keeps too much already."""
        owner = principal.organization_id
        kept = await self._reader.run(lambda conn: rows.measure_possession(conn, owner))
        if kept.files >= MAX_FILES or kept.size_bytes + size_bytes > MAX_TOTAL_BYTES:
            raise PayloadTooLarge(
                f"your files take {kept.size_bytes / 1e9:.1f} of {MAX_TOTAL_BYTES / 1e9:.0f} GB, and there "
                f"are {kept.files} of at most {MAX_FILES}; delete some of them",
                param="file",
            )

    async def keep(self, principal: Principal, upload: Upload) -> StoredFile:
        """Decode it once, to know its length and that it can be decoded, and store its original bytes.

        Raises UnsupportedMediaType, InvalidRequest, PayloadTooLarge or Overloaded; StoreUnavailable.
        """
        principal.check_scope(Scope.GENERATE)
        await self.check_room(principal, upload.size_bytes)
        try:
            facts = await self._decoder.measure(upload.path)
        except InputUnreadable as error:
            raise refusal(error) from error
        except DecodeFailed as error:
            log.exception("files.decoder_failed")
            raise Overloaded("the file cannot be decoded now", retry_after_seconds=5) from error
        new = NewFile(
            id=new_id(),
            filename=upload.filename,
            purpose=upload.purpose,
            container=facts.container.name,
            size_bytes=upload.size_bytes,
            sha256=upload.sha256,
            frames=facts.frames,
            sample_rate=facts.sample_rate,
            channels=facts.channels,
        )
        async with self._pool.acquire() as conn:
            await rows.announce(conn, principal, new)
        key = rows.file_key(principal.organization_id, new.id, new.container)
        await self._store.put_file(
            key,
            upload.path,
            facts.container.content_type,
            disposition=content_disposition(upload.filename),  # S3 answers downloads itself
        )
        async with self._pool.acquire() as conn:
            stored = await rows.complete(conn, new.id, upload.retention)
        if stored is None:
            raise Overloaded("storing the file took too long", retry_after_seconds=30)
        log.info("files.stored", file=new.id.hex, bytes=new.size_bytes, frames=new.frames, kind=new.container)
        return stored

    async def find(self, principal: Principal, file_id: str) -> StoredFile:
        """Raises FileGone, for foreign ids as for unknown ones."""
        principal.check_scope(Scope.READ)
        found = await self._find(principal, file_id)
        if found is None:
            raise FileGone("there is no such file, or it has expired")
        return found

    async def find_input(self, principal: Principal, file_id: str) -> AudioInput | None:
        """For a request that names a file: it, with its length; None if the caller may see no such file.

        Whoever submits a job with it now may rely on it: it stays until the job has ended.
        """
        found = await self._find(principal, file_id)
        return None if found is None else AudioInput(file_id=found.id.hex, frames=found.frames)

    async def list(
        self, principal: Principal, *, limit: int, before: uuid.UUID | None, purpose: str | None
    ) -> tuple[Sequence[StoredFile], bool]:
        """A page, newest first, and whether there are more."""
        principal.check_scope(Scope.READ)
        page = await self._reader.run(
            lambda conn: rows.list_page(conn, principal, limit=limit + 1, before=before, purpose=purpose)
        )
        return page[:limit], len(page) > limit

    async def delete(self, principal: Principal, file_id: str) -> uuid.UUID:
        """From now on there is no such file; jobs that were submitted with it still find it.

        Raises FileGone.
        """
        principal.check_scope(Scope.GENERATE)
        known = parse_id(file_id)
        if known is not None:
            async with self._pool.acquire() as conn:
                if await rows.expire_now(conn, principal, known):
                    return known
        raise FileGone("there is no such file, or it has expired")

    async def _find(self, principal: Principal, file_id: str) -> StoredFile | None:
        known = parse_id(file_id)
        if known is None:
            return None
        return await self._reader.run(lambda conn: rows.find(conn, principal, known))


def check_head(head: bytes) -> None:
    """Raises UnsupportedMediaType unless a file that begins like this is of a kind that is taken."""
    try:
        check_container(head)
    except UnknownContainer as error:
        raise refusal(error) from error


def content_type_of(stored: StoredFile) -> str:
    """By what the file is, not by what its sender called it."""
    return CONTAINERS[stored.container].content_type


def refusal(error: InputUnreadable) -> GatewayError:
    """The answer to whoever brought such a file."""
    match error:
        case UnknownContainer():
            return UnsupportedMediaType(str(error), param="file")
        case InputTooLong():
            return PayloadTooLarge(str(error), param="file")
        case _:
            return InvalidRequest(str(error), param="file")
