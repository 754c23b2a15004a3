"""What strangers may send before a request begins."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import uvicorn

from gateway.cli.http_server import MAX_HEAD_BYTES, MAX_HEADERS, BoundedHttpProtocol, Server

HEAD = b"GET / HTTP/1.1\r\nhost: here\r\n"


async def application(scope: dict[str, object], receive: object, send: object) -> None:
    """Answers 200 to everything, after reading it."""
    assert scope["type"] == "http"
    assert callable(receive)
    assert callable(send)
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@pytest_asyncio.fixture(loop_scope="session")
async def port() -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, http=BoundedHttpProtocol, log_config=None, lifespan="off")  # type: ignore[arg-type]
    server = Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0)
    yield listener.getsockname()[1]
    server.should_exit = True
    await serving


async def answer(port: int, *parts: bytes) -> bytes:
    """The status line that comes back, or nothing if the connection was cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return (await asyncio.wait_for(reader.read(12), 10))[9:]
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_ordinary_heads_pass_one_after_another_on_a_connection(port: int) -> None:
    fields = b"".join(b"h%d: v\r\n" % n for n in range(MAX_HEADERS - 2))
    assert await answer(port, HEAD + fields + b"\r\n") == b"200"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):  # together more than one head may have
        writer.write(HEAD + b"a: " + b"x" * (MAX_HEAD_BYTES // 2) + b"\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def test_a_large_body_is_no_large_head(port: int) -> None:
    body = b"x" * (4 * MAX_HEAD_BYTES)
    head = b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert await answer(port, head + body) == b"200"


@pytest.mark.parametrize("count", [MAX_HEADERS, 5_000])
async def test_too_many_headers_are_refused(port: int, count: int) -> None:
    fields = b"".join(b"h%d: v\r\n" % n for n in range(count))
    assert await answer(port, HEAD + fields + b"\r\n") == b"431"


async def test_an_endless_header_is_cut_off(port: int) -> None:
    chunk = b"x" * 16_384
    assert await answer(port, HEAD + b"a: ", *[chunk] * 64) in {b"431", b""}
