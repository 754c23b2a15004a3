"""HTTP by hand, for what no client library would send."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def connected(host: str, port: int) -> AsyncIterator["RawClient"]:
    """A connection to that server."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()


class RawClient:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *parts: bytes) -> None:
        """All of it, unless the server hangs up."""
        with contextlib.suppress(ConnectionError):
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next one; status 0 if the connection ends before it."""
        try:
            async with asyncio.timeout(10):
                head = await self.reader.readuntil(b"\r\n\r\n")
                line, *fields = head.decode().split("\r\n")
                headers = dict(field.split(": ", 1) for field in fields if field)
                body = await self.reader.readexactly(int(headers.get("content-length", 0)))
                return int(line.split()[1]), headers, body
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, {}, b""

    async def status(self) -> int:
        return (await self.answer())[0]

    async def is_closed(self) -> bool:
        """It ends, within ten seconds, and nothing more is said."""
        try:
            async with asyncio.timeout(10):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True
