"""Sound from a URL that a client named: fetched as a stranger would have to fetch it.

Each redirect is a new URL, which is judged like the first one. What is said to the client names neither
addresses nor anything of an answer but its status.
"""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from gateway.audio import InputTooLong, InputUnreadable, check_container
from gateway.audio.containers import HEAD_BYTES
from gateway.outbound import Caller, OutboundError, Reply, open_guard

MAX_FETCH_BYTES: Final = 100_000_000

_REDIRECTS: Final = 5
_SECONDS: Final = 120
"""For all of it."""
_LIMITS: Final = httpx.Timeout(20, connect=10)
_BLOCK_BYTES: Final = 1 << 20
_PIECES: Final = 500
_LEAST_PIECE_BYTES: Final = 64
"""On average. To take a megabyte byte by byte keeps this process from all else, its leases included."""
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"accept": "audio/*, */*;q=0.5"}


class Fetcher:
    """Fetches files from URLs."""

    def __init__(
        self, caller: Caller, *, most_bytes: int = MAX_FETCH_BYTES, total_seconds: float = _SECONDS
    ) -> None:
        self._caller = caller
        self._most_bytes = most_bytes
        self._total_seconds = total_seconds

    async def fetch(self, url: str, path: Path) -> None:
        """Write what the URL holds to `path`.

        Raises:
            InputUnreadable: with the reason, for the client; the file may be there in part.
        """
        try:
            async with asyncio.timeout(self._total_seconds):
                await self._follow(url, path)
        except TimeoutError:
            raise InputUnreadable("the URL did not deliver the file in time") from None
        except OutboundError as error:
            raise InputUnreadable(str(error)) from error

    async def _follow(self, url: str, path: Path) -> None:
        target = self._caller.guard.parse(url)
        for _ in range(_REDIRECTS + 1):
            async with self._caller.ask("GET", target, headers=_HEADERS, limits=_LIMITS) as answer:
                if answer.status not in _MOVED:
                    await self._save(answer, path)
                    return
                location = answer.headers.get("location", "")
            target = self._caller.guard.parse(_joined(target, location))
        raise InputUnreadable(f"the URL redirects more than {_REDIRECTS} times")

    async def _save(self, answer: Reply, path: Path) -> None:
        if answer.status != HTTPStatus.OK:
            raise InputUnreadable(f"the URL answers with status {answer.status}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise InputUnreadable("the URL answers with a compressed body")
        if int(answer.headers.get("content-length", "0")) > self._most_bytes:  # h11 lets only digits pass
            raise self._too_large()
        size, is_known = 0, False
        with path.open("wb") as file:
            async for block in _blocks(answer):
                if not is_known:
                    check_container(block[:HEAD_BYTES])
                    is_known = True
                size += len(block)
                if size > self._most_bytes:
                    raise self._too_large()
                await asyncio.to_thread(_write, file, block)
        if not is_known:
            raise InputUnreadable("the URL answers with an empty file")

    def _too_large(self) -> InputTooLong:
        return InputTooLong(f"the URL's file is larger than {self._most_bytes // 1_000_000} MB")


def open_fetcher(*, allow_private_hosts: bool) -> Fetcher:
    """With the rules of an installation."""
    return Fetcher(Caller(open_guard(allow_private_hosts=allow_private_hosts)))


def _joined(base: httpx.URL, location: str) -> str:
    try:
        return str(base.join(location))
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise InputUnreadable("the URL redirects to what is no URL") from error


async def _blocks(answer: Reply) -> AsyncIterator[bytes]:
    """Of a good size for a disk; only the last one may be shorter than what a file is known by."""
    kept, size, pieces = bytearray(), 0, 0
    async for chunk in answer.blocks:
        kept += chunk
        size += len(chunk)
        pieces += 1
        if pieces % _PIECES == 0:
            if size < pieces * _LEAST_PIECE_BYTES:
                raise InputUnreadable("the URL delivers the file in too many small pieces")
            await asyncio.sleep(0)
        if len(kept) >= _BLOCK_BYTES:
            yield bytes(kept)
            kept.clear()
    if kept:
        yield bytes(kept)


def _write(file: BinaryIO, block: bytes) -> None:
    file.write(block)
