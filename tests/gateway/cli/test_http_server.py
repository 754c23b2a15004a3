"""What strangers may send, how slowly, and in which order they are answered."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from gateway.cli.http_server import Config, Limits, Server
from tests.gateway.api.installation import listening
from tests.raw_http import RawClient, connected

GET = b"GET / HTTP/1.1\r\nhost: here\r\n"
POST = b"POST / HTTP/1.1\r\nhost: here\r\n"
LONG = 4_000_000
LIMITS = Limits()
HASTY = Limits(
    head_seconds=0.3,
    body_seconds=0.3,
    idle_seconds=0.3,
    stalled_seconds=0.3,
    linger_seconds=0.3,
    linger_bytes=1_000_000,
    sweep_seconds=0.02,
)
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Application:
    """Reads and answers, or as the path says; keeps what it has read."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.header_names: list[list[bytes]] = []
        self.disconnects = 0
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/early":
            await self.answer(send, b"early")
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        self.header_names.append([name for name, _ in scope["headers"]])
        if scope["path"] == "/later":
            await self.may_answer.wait()
        await self.answer(send, b"x" * LONG if scope["path"] == "/long" else scope["path"].encode())

    async def answer(self, send: Send, content: bytes) -> None:
        headers = [(b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


class Place:
    """A server, its application, and a way to it."""

    def __init__(self, server: Server, application: Application, port: int) -> None:
        self.server = server
        self.application = application
        self._port = port

    async def empties(self) -> bool:
        """Within ten seconds no connection is left."""
        async with asyncio.timeout(10):
            while True:
                if not self.server.server_state.connections:
                    return True
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[RawClient]:
        async with connected("127.0.0.1", self._port) as client:
            yield client


@contextlib.asynccontextmanager
async def serving(limits: Limits) -> AsyncIterator[Place]:
    with listening() as listener:
        # So that an answer waits in our buffers, not in those of the kernel.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        application = Application()
        server = Server(Config(application, limits=limits, lifespan="off", timeout_graceful_shutdown=10))
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0)
        yield Place(server, application, listener.getsockname()[1])
        server.should_exit = True
        await task


@pytest_asyncio.fixture(loop_scope="session")
async def place() -> AsyncIterator[Place]:
    async with serving(LIMITS) as place:
        yield place


@pytest_asyncio.fixture(loop_scope="session")
async def hasty_place() -> AsyncIterator[Place]:
    async with serving(HASTY) as place:
        yield place


def check_refusal(answer: tuple[int, dict[str, str], bytes], status: int, code: str) -> None:
    """In the words of our API, and the last of the connection."""
    found, headers, body = answer
    assert found == status
    assert (headers["connection"], headers["content-type"]) == ("close", "application/json")
    error = json.loads(body)["error"]
    assert (error["code"], error["request_id"]) == (code, headers["x-request-id"])
    assert headers.get("x-should-retry") == (None if error["retryable"] else "false")


async def test_ordinary_heads_pass_one_after_another_on_a_connection(place: Place) -> None:
    fields = b"".join(b"h%d: v\r\n" % n for n in range(LIMITS.header_fields - 1))
    async with place.client() as client:
        await client.send(GET + fields + b"\r\n")
        assert await client.status() == 200
        for _ in range(3):  # together more than one head may have
            await client.send(GET + b"a: " + b"x" * (LIMITS.head_bytes // 2) + b"\r\n\r\n")
            assert await client.status() == 200


async def test_a_large_body_is_no_large_head(place: Place) -> None:
    body = b"x" * (4 * LIMITS.head_bytes)
    async with place.client() as client:
        await client.send(POST + b"content-length: %d\r\n\r\n" % len(body) + body + GET + b"\r\n")
        assert [await client.status() for _ in range(2)] == [200, 200]
    assert place.application.bodies == [body, b""]


@pytest.mark.parametrize("count", [LIMITS.header_fields, 5_000])
async def test_too_many_headers_are_refused(place: Place, count: int) -> None:
    async with place.client() as client:
        await client.send(GET + b"".join(b"h%d: v\r\n" % n for n in range(count)) + b"\r\n")
        check_refusal(await client.answer(), 431, "request_header_fields_too_large")
        assert await client.is_closed()
    assert place.application.bodies == []


async def test_a_head_may_be_as_long_as_the_limit_and_no_longer(place: Place) -> None:
    for padding, status in ((LIMITS.head_bytes - 13, 200), (LIMITS.head_bytes - 12, 431)):
        async with place.client() as client:
            await client.send(GET + b"name: " + b"x" * (padding + 4 - len("name")) + b"\r\n\r\n")
            assert await client.status() == status


@pytest.mark.parametrize("start", [GET + b"a: ", b"GET /", b"GET /?", GET + b"a"])
async def test_an_endless_head_is_cut_off(place: Place, start: bytes) -> None:
    async with place.client() as client:
        await client.send(start, *[b"x" * 16_384] * 64)
        check_refusal(await client.answer(), 431, "request_header_fields_too_large")
        assert await client.is_closed()


async def test_a_trickled_head_is_ended(hasty_place: Place) -> None:
    for start in (b"GET /", GET, GET + b"a: ", b"\r\n", POST + b"content-length: 3\r\n"):
        async with hasty_place.client() as client:
            trickling = asyncio.create_task(trickle(client, start, b"x" if start != b"\r\n" else start))
            check_refusal(await client.answer(), 408, "request_timeout")
            assert await client.is_closed()
            await trickling
    assert hasty_place.application.bodies == []


async def trickle(client: RawClient, start: bytes, drop: bytes) -> None:
    """A little at a time, until the server hangs up."""
    await client.send(start)
    while not client.reader.at_eof():
        await client.send(drop)
        await asyncio.sleep(0.05)


async def test_a_connection_that_says_nothing_is_closed_without_a_word(hasty_place: Place) -> None:
    async with hasty_place.client() as client:
        assert await client.is_closed()
    async with hasty_place.client() as client:
        await client.send(GET + b"\r\n")
        assert await client.status() == 200
        assert await client.is_closed()


@pytest.mark.parametrize(
    ("fields", "drop"),
    [(b"content-length: 1000\r\n", b"x"), (b"transfer-encoding: chunked\r\n", b"1\r\nx\r\n")],
)
async def test_a_slow_body_is_ended_and_comes_to_nothing(
    hasty_place: Place, fields: bytes, drop: bytes
) -> None:
    async with hasty_place.client() as client:
        trickling = asyncio.create_task(trickle(client, POST + fields + b"\r\n", drop))
        check_refusal(await client.answer(), 408, "request_timeout")
        assert await client.is_closed()
        await trickling
    assert (hasty_place.application.bodies, hasty_place.application.disconnects) == ([], 1)


async def test_a_body_that_keeps_coming_may_take_its_time() -> None:
    limits = Limits(body_seconds=0.3, body_bytes_per_second=1_000, sweep_seconds=0.02)
    async with serving(limits) as place, place.client() as client:
        await client.send(POST + b"content-length: 20000\r\n\r\n")
        for _ in range(20):  # far longer than body_seconds, far less than the 20 s that 20 kB may take
            await client.send(b"x" * 1_000)
            await asyncio.sleep(0.04)
        assert await client.status() == 200


async def test_what_takes_long_on_our_side_is_not_held_against_the_client(hasty_place: Place) -> None:
    async with hasty_place.client() as client:
        await client.send(GET.replace(b"/", b"/later", 1) + b"\r\n" + GET)
        await asyncio.sleep(4 * HASTY.head_seconds)
        hasty_place.application.may_answer.set()
        assert (await client.answer())[2] == b"/later"
        check_refusal(await client.answer(), 408, "request_timeout")


@pytest.mark.parametrize(
    "garbage", [b"\x00\x01\r\n\r\n", b"GET\r\n\r\n", POST + b"content-length: x\r\n\r\n"]
)
async def test_garbage_behind_a_request_is_answered_in_its_turn(place: Place, garbage: bytes) -> None:
    async with place.client() as client:
        await client.send(POST.replace(b"/", b"/later", 1) + b"content-length: 3\r\n\r\nabc" + garbage)
        await asyncio.sleep(0.05)
        await client.send(GET + b"\r\n")
        place.application.may_answer.set()
        status, _, body = await client.answer()
        assert (status, body) == (200, b"/later")
        check_refusal(await client.answer(), 400, "invalid_request")
        assert await client.is_closed()
    assert place.application.bodies == [b"abc"]


async def test_a_broken_request_behind_others_is_not_begun(place: Place) -> None:
    broken = POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz"
    async with place.client() as client:
        await client.send(GET.replace(b"/", b"/later", 1) + b"\r\n" + GET + b"\r\n" + broken)
        await asyncio.sleep(0.05)
        place.application.may_answer.set()
        assert [(await client.answer())[2] for _ in range(2)] == [b"/later", b"/"]
        check_refusal(await client.answer(), 400, "invalid_request")
        assert await client.is_closed()
    assert place.application.bodies == [b"", b""]


async def test_a_body_that_turns_into_garbage_is_refused(place: Place) -> None:
    async with place.client() as client:
        await client.send(POST + b"transfer-encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"garbage\r\n")
        check_refusal(await client.answer(), 400, "invalid_request")
        assert await client.is_closed()
    assert (place.application.bodies, place.application.disconnects) == ([], 1)


@pytest.mark.parametrize(
    "raw",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"content-length: -3\r\n\r\n",
        POST + b"content-length: 99999999999999999999999\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_request_are_refused(place: Place, raw: bytes) -> None:
    async with place.client() as client:
        await client.send(raw)
        check_refusal(await client.answer(), 400, "invalid_request")
        assert await client.is_closed()
    assert place.application.bodies == []


@pytest.mark.parametrize("stuffing", [b"x-trailer: y\r\n", b"x" * 1_000])
async def test_what_is_between_and_behind_chunks_is_bounded(place: Place, stuffing: bytes) -> None:
    for start in (b"3\r\nabc\r\n0\r\nx: ", b"3\r\nabc\r\n5;x="):
        async with place.client() as client:
            await client.send(POST + b"transfer-encoding: chunked\r\n\r\n" + start, *[stuffing * 20] * 2_000)
            assert await client.status() in {0, 400, 431}
            assert await client.is_closed()
    assert place.application.bodies == []


async def test_trailers_are_no_headers(place: Place) -> None:
    chunks = b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-api-key: stolen\r\n\r\n"
    async with place.client() as client:
        await client.send(POST + chunks + GET + b"\r\n")
        assert [await client.status() for _ in range(2)] == [200, 200]
    assert place.application.bodies == [b"abc", b""]
    assert place.application.header_names == [[b"host", b"transfer-encoding"], [b"host"]]


async def test_after_an_early_answer_the_connection_goes_on(place: Place) -> None:
    body = b"x" * 11_000_000
    early = POST.replace(b"/", b"/early", 1)
    chunks = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    async with place.client() as client:
        await client.send(early + b"content-length: %d\r\n\r\n" % len(body), body)
        await client.send(early + b"transfer-encoding: chunked\r\n\r\n", chunks)
        await client.send(GET + b"\r\n")
        assert [(await client.answer())[2] for _ in range(3)] == [b"early", b"early", b"/"]


@pytest.mark.parametrize("version", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nconnection: close\r\n"])
async def test_an_early_answer_reaches_clients_that_are_still_sending(place: Place, version: bytes) -> None:
    async with place.client() as client:
        await client.send(b"POST /early " + version + b"content-length: 11000000\r\n\r\n", b"x" * 11_000_000)
        _, headers, body = await client.answer()
        assert (headers["connection"], body) == ("close", b"early")
        assert await client.is_closed()


@pytest.mark.parametrize("fields", [b"", b"connection: close\r\n"])
async def test_nobody_may_send_for_ever_what_nobody_reads(hasty_place: Place, fields: bytes) -> None:
    async with hasty_place.client() as client:
        await client.send(POST.replace(b"/", b"/early", 1) + fields + b"content-length: 99999999999\r\n\r\n")
        flooding = asyncio.create_task(flood(client))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(flooding, 10)


async def flood(client: RawClient) -> None:
    while True:
        client.writer.write(b"x" * 100_000)
        await client.writer.drain()


async def test_a_client_that_was_told_to_go_is_not_waited_for(hasty_place: Place) -> None:
    async with hasty_place.client() as client:
        early = POST.replace(b"/", b"/early", 1) + b"connection: close\r\ncontent-length: 10\r\n\r\n"
        await client.send(early)
        assert await client.status() == 200
        assert await hasty_place.empties()


async def test_a_client_that_asks_before_sending_is_told(place: Place) -> None:
    fields = b"content-length: 3\r\nexpect: 100-continue\r\n\r\n"
    async with place.client() as client:
        await client.send(POST + fields)
        assert await client.status() == 100
        await client.send(b"abc")
        assert await client.status() == 200
    async with place.client() as client:
        await client.send(POST.replace(b"/", b"/early", 1) + fields)
        status, headers, _ = await client.answer()
        # What follows could be the body or the next request: nothing may follow.
        assert (status, headers["connection"]) == (200, "close")


async def test_a_client_that_does_not_read_its_answer_is_left(hasty_place: Place) -> None:
    async with hasty_place.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(GET.replace(b"/", b"/long", 1) + b"\r\n")
        while not hasty_place.application.bodies:
            assert not client.reader.at_eof()
            await asyncio.sleep(0.02)
        assert await hasty_place.empties()


async def test_a_client_that_reads_slowly_gets_its_answer(hasty_place: Place) -> None:
    async with hasty_place.client() as client:
        await client.send(GET.replace(b"/", b"/long", 1) + b"connection: close\r\n\r\n")
        received = 0
        while received < LONG:  # four times as long as it may do nothing at all
            received += len(await client.reader.readexactly(100_000))
            await asyncio.sleep(0.03)


async def test_there_are_only_so_many_connections() -> None:
    async with serving(Limits(connections=2)) as place:
        async with place.client() as first, place.client() as second, place.client() as third:
            for client in (first, second):
                await client.send(GET + b"\r\n")
                assert await client.status() == 200
            answer = await third.answer()
            check_refusal(answer, 503, "overloaded")
            assert answer[1]["retry-after"] == "1"
        assert await place.empties()
        async with place.client() as client:
            await client.send(GET + b"\r\n")
            assert await client.status() == 200


@pytest.mark.parametrize("offer", [b"h2c", b"websocket", b"TLS/1.0", b"nonsense"])
async def test_an_offer_to_speak_something_else_is_ignored(place: Place, offer: bytes) -> None:
    fields = b"connection: upgrade, http2-settings\r\nupgrade: " + offer + b"\r\nhttp2-settings: AAMAAABk\r\n"
    requests = [GET + fields + b"\r\n", POST + fields + b"content-length: 3\r\n\r\nabc", GET + b"\r\n"]
    async with place.client() as client:
        for request in requests:
            await client.send(request)
            assert await client.status() == 200
        await client.send(b"".join(requests))
        assert [await client.status() for _ in requests] == [200] * 3
    assert place.application.bodies == [b"", b"abc", b""] * 2


async def test_a_stop_ends_connections_of_every_kind() -> None:
    starts = (
        b"",
        b"G",
        POST + b"content-length: 3\r\n\r\n",
        GET + b"\r\n",
        GET.replace(b"/", b"/long", 1) + b"\r\n",
    )
    starts += (POST.replace(b"/", b"/early", 1) + b"content-length: 3\r\n\r\n",)
    async with contextlib.AsyncExitStack() as stack:
        place = await stack.enter_async_context(serving(HASTY))
        for start in starts:
            client = await stack.enter_async_context(place.client())
            await client.send(start)
        await asyncio.sleep(0.05)
        place.server.should_exit = True
        assert await place.empties()
