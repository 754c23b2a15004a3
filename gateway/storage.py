"""Where audio files live: a folder or an S3 bucket, behind one class.

StoreError
    ObjectMissing      there is no object of that name: 404
    StoreUnavailable   full, down, forbidden or misconfigured: retry, operator

Objects are written once under a name of their own and never changed, so readers need no lock. A folder keeps
no content types: there a file's name must tell.
"""

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import msgspec
import obstore
from obstore.exceptions import BaseError as ObstoreError
from obstore.store import LocalStore, S3Store

_KEY = re.compile(r"[a-z0-9_-][a-z0-9._-]*(?:/[a-z0-9_-][a-z0-9._-]*)*")
_KEY_CHARACTERS = 512
_CHUNK_BYTES = 256 * 1024
_UPLOAD_PARTS_AT_ONCE = 4
"""Parts of 5 MiB held in memory by one upload."""
_RETRIES = 3
_RETRY_SECONDS = 20
_CONNECT_SECONDS = 5
_REQUEST_SECONDS = 120
PRESIGN_MAX_SECONDS = 7 * 24 * 3600
"""S3's own limit."""


class StoreError(Exception):
    """Root of what a store raises on purpose."""


class ObjectMissing(StoreError):
    """There is no such object."""


class StoreUnavailable(StoreError):
    """The store cannot do it now; the message is for the operator's log, not for clients."""


class ObjectHead(msgspec.Struct, frozen=True, kw_only=True):
    """An object's size and a strong entity tag with its quotes, new whenever the bytes are written anew."""

    size_bytes: int
    etag: str


class AudioStore:
    """Every method raises StoreUnavailable, and ValueError for a key with more than `[a-z0-9._/-]` in it."""

    def __init__(self, storage_url: str) -> None:
        """`file:///folder` (made when missing) or `s3://bucket/prefix`.

        S3 credentials, region and endpoint (also plain http) come from the standard AWS_* environment,
        which obstore reads.
        """
        self._folder: Path | None = None
        self._store: LocalStore | S3Store
        with _translated(storage_url):
            if storage_url.startswith("file://"):
                self._folder = Path(unquote(urlsplit(storage_url).path))
                # Empty job folders go with their last file.
                self._store = LocalStore(self._folder, mkdir=True, automatic_cleanup=True)
            else:
                self._store = S3Store.from_url(
                    storage_url,
                    client_options={
                        "allow_http": True,
                        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                        "timeout": timedelta(seconds=_REQUEST_SECONDS),
                    },
                    retry_config={
                        "max_retries": _RETRIES,
                        "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
                    },
                )

    async def put_file(
        self, key: str, path: Path, content_type: str, *, disposition: str | None = None
    ) -> ObjectHead:
        """Copy a file into the store, whole or not at all; on return it survives a power cut.

        `disposition` is the Content-Disposition that S3 will answer with. FileNotFoundError: no such `path`.
        """
        size = (await asyncio.to_thread(path.stat)).st_size
        with _translated(_checked(key)):
            if self._folder is None:
                attributes = {"Content-Type": content_type}
                if disposition is not None:
                    attributes["Content-Disposition"] = disposition
                await obstore.put_async(
                    self._store, key, path, attributes=attributes, max_concurrency=_UPLOAD_PARTS_AT_ONCE
                )
            else:
                await obstore.put_async(self._store, key, path)
                await asyncio.to_thread(_sync, self._folder, self._folder / key)
        head = await self.head(key)
        if head.size_bytes != size:
            raise StoreUnavailable(f"{key} has {head.size_bytes} bytes in the store instead of {size}")
        return head

    async def head(self, key: str) -> ObjectHead:
        """ObjectMissing when there is none."""
        with _translated(_checked(key)):
            meta = await obstore.head_async(self._store, key)
        # The store's own tag would tell a folder's inode numbers.
        mark = f"{key}\n{meta['e_tag']}\n{meta['size']}"
        return ObjectHead(size_bytes=meta["size"], etag=f'"{hashlib.sha256(mark.encode()).hexdigest()[:32]}"')

    async def open(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Bytes from `start` on, at most `length`, in chunks; `start + length` may not pass the end.

        ObjectMissing comes from this call, before any chunk; StoreUnavailable may also come while reading.
        """
        _checked(key)
        if length == 0:
            await self.head(key)
            return _chunks(key, None)
        with _translated(key):
            if length is None:
                result = await obstore.get_async(self._store, key, options={"range": {"offset": start}})
            else:
                result = await obstore.get_async(self._store, key, options={"range": (start, start + length)})
            return _chunks(key, result.stream(min_chunk_size=_CHUNK_BYTES))

    async def delete(self, key: str) -> None:
        """Afterwards there is no such object, whether or not there was one."""
        try:
            with _translated(_checked(key)):
                await obstore.delete_async(self._store, key)
        except ObjectMissing:
            return

    async def delete_below(self, folder: str) -> int:
        """Delete every object whose key starts with `folder/`; returns how many there were."""
        deleted = 0
        with _translated(_checked(folder)):
            async for page in obstore.list(self._store, prefix=f"{folder}/"):
                for found in page:
                    await self.delete(found["path"])
                    deleted += 1
        return deleted

    async def presign(
        self, key: str, *, expires_seconds: int, method: Literal["GET", "HEAD"] = "GET"
    ) -> str | None:
        """A URL that fetches the object from S3 itself, valid for that method only; None for a folder."""
        _checked(key)
        if not isinstance(self._store, S3Store):
            return None
        lifetime = timedelta(seconds=min(max(expires_seconds, 1), PRESIGN_MAX_SECONDS))
        with _translated(key):
            return await obstore.sign_async(self._store, method, key, lifetime)

    async def probe(self) -> None:
        """Write, read and delete a small object; returns when the store does all three."""
        key, content = f"probe/{secrets.token_hex(8)}", secrets.token_bytes(16)
        with _translated(key):
            await obstore.put_async(self._store, key, content)
            result = await obstore.get_async(self._store, key)
            found = bytes(await result.bytes_async())
            await obstore.delete_async(self._store, key)
        if found != content:
            raise StoreUnavailable("the store gave back other bytes than were written")


def _checked(key: str) -> str:
    if len(key) > _KEY_CHARACTERS or not _KEY.fullmatch(key):
        raise ValueError(f"no storage key: {key!r}")
    return key


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """The seam: obstore raises OSErrors and a tree of its own; only their first line is for people."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissing(name) from error
    except (ObstoreError, OSError) as error:
        raise StoreUnavailable(f"{name}: {str(error).partition(chr(10))[0]}") from error


async def _chunks(key: str, stream: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    if stream is not None:
        with _translated(key):
            async for chunk in stream:
                yield bytes(chunk)


def _sync(root: Path, path: Path) -> None:
    """Force a file and the folders that name it onto the disk: obstore renames into place but never syncs."""
    while True:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path == root:
            return
        path = path.parent
