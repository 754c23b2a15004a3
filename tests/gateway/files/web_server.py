"""A small web server on the loopback that answers as a test wants, and remembers what it was asked."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


class WebServer(msgspec.Struct, kw_only=True):
    """`answers` by path, without anything around them; `heads` are the requests that came."""

    port: int
    answers: dict[str, Answer]
    heads: list[str]

    def url(self, path: str = "/song", *, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


def page(body: bytes, *, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; `content_type` becomes `content-type`."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def moved(location: str, status: str = "302 Found") -> bytes:
    return page(b"", status=status, location=location)


@contextlib.asynccontextmanager
async def web_server(
    answers: dict[str, Answer], *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebServer]:
    heads: list[str] = []
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            heads.append(head)
            answer = answers.get(head.split(" ")[1], page(b"nothing here", status="404 Not Found"))
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    async with server:
        yield WebServer(port=server.sockets[0].getsockname()[1], answers=answers, heads=heads)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
