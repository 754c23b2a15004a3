"""What is sent to a client's URL, over real connections, and how little of the answer can do harm."""

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.outbound import Address, Guard, OutboundError, Sender, is_any, resolve
from gateway.outbound import sender as sending
from tests.gateway.files.web_server import moved, page, web_server
from tests.gateway.outbound.certificates import certificates

HERE = ipaddress.ip_address("127.0.0.1")
ELSEWHERE = ipaddress.ip_address("127.0.0.2")


async def both(_: str, __: int) -> Sequence[Address]:
    return [ELSEWHERE, HERE]


def local(*, tls: ssl.SSLContext | None = None) -> Sender:
    """One that may reach this machine, which every name leads to."""
    guard = Guard(permits=is_any, ports=None, resolve=both)
    return Sender(guard, tls=tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


async def post(url: str, *, seconds: float = 5.0, **changed: Any) -> sending.Answer:
    request: dict[str, Any] = {"content": b'{"a":1}', "headers": {}, **changed}
    return await local().send("POST", url, timeout=seconds, **request)


async def refusal(url: str, **options: Any) -> str:
    with pytest.raises(OutboundError) as raised:
        await post(url, **options)
    return str(raised.value)


async def test_a_request_arrives_as_it_was_made_and_its_answer_is_told() -> None:
    seen = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.put_nowait(head.lower() + await reader.readexactly(7))
        writer.write(page(b"thank you", status="202 Accepted"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        answer = await post(
            f"http://hooks.example:{port}/in?a=%20#part",
            headers={"content-type": "application/json", "webhook-id": "msg_1"},
        )
        arrived = seen.get_nowait().decode()
    assert (answer.status, answer.body_head) == (202, b"thank you")
    assert answer.latency_ms >= 0
    assert arrived.startswith("post /in?a=%20 http/1.1\r\n")
    assert arrived.endswith('\r\n\r\n{"a":1}')
    lines = set(arrived.split("\r\n"))
    assert {f"host: hooks.example:{port}", "webhook-id: msg_1", "user-agent: antiphon"} <= lines
    assert {"accept-encoding: identity", "content-length: 7", "content-type: application/json"} <= lines
    assert "cookie" not in arrived
    assert "authorization" not in arrived


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Same", "308 Same"])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: str) -> None:
    async with web_server({"/a": moved("/b", status), "/b": page(b"")}) as server:
        answer = await post(server.url("/a"))
        assert answer.status == int(status[:3])
        assert len(server.heads) == 1


async def test_every_status_is_an_answer() -> None:
    answers = {f"/{code}": page(b"x", status=f"{code} Text") for code in (200, 299, 400, 410, 429, 500, 599)}
    async with web_server(answers) as server:
        told = {path: (await post(server.url(path))).status for path in answers}
    assert told == {path: int(path[1:]) for path in answers}


async def test_only_the_first_kilobyte_of_an_answer_is_read() -> None:
    stopped = asyncio.Event()

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        finally:
            stopped.set()

    async with web_server({"/": endless}) as server:
        answer = await post(server.url("/"))
        assert (answer.status, answer.body_head) == (200, b"x" * 1024)
        await asyncio.wait_for(stopped.wait(), 5)


async def test_the_status_counts_though_the_body_never_ends_or_breaks_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never_ending(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
        await writer.drain()
        await asyncio.sleep(30)

    monkeypatch.setattr(sending, "_BODY_SECONDS", 0.05)
    async with web_server({"/slow": never_ending, "/cut": page(b"abcdef")[:-3]}) as server:
        slow, cut = await post(server.url("/slow")), await post(server.url("/cut"))
        late = await post(server.url("/slow"), seconds=0.04)
    assert [(answer.status, answer.body_head) for answer in (slow, cut, late)] == [
        (200, b"abc"),
        (200, b"abc"),
        (200, b""),
    ]


async def test_who_does_not_answer_is_not_waited_for() -> None:
    async def silent(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def dripping(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)

    async with web_server({"/silent": silent, "/dripping": dripping}) as server:
        told = {await refusal(server.url(path), seconds=0.1) for path in ("/silent", "/dripping")}
    assert told == {"the URL did not answer in time"}


async def test_who_falls_silent_is_not_waited_for_until_a_long_request_would_be_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(sending, "_STALL_SECONDS", 0.1)
    async with web_server({"/silent": silent}) as server, asyncio.timeout(10):
        assert await refusal(server.url("/silent"), seconds=300) == "the URL did not answer in time"


async def test_interim_answers_without_end_are_not_listened_to() -> None:
    async def flood(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 100 C\r\n\r\n" * 500)
            await writer.drain()

    few = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 9 + page(b"at last")
    async with web_server({"/flood": flood, "/few": few}) as server:
        told = await refusal(server.url("/flood"), seconds=30)
        assert (await post(server.url("/few"))).body_head == b"at last"
    assert told == "the URL's answer broke off, or was no valid HTTP"


async def test_failures_are_told_in_words_without_an_address() -> None:
    answers = {
        "/garbage": b"SSH-2.0-OpenSSH_9.6\r\n",
        "/nothing": b"",
        "/long": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    }
    async with web_server(answers) as server:
        told = {await refusal(server.url(path)) for path in answers}
        assert told == {"the URL's answer broke off, or was no valid HTTP"}
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        told_port = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        assert await refusal(told_port) == "the URL's host takes no connection"


async def test_a_stream_is_sent_with_its_length_once_a_connection_is_there() -> None:
    body = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body.put_nowait(head.lower())
        body.put_nowait(await reader.readexactly(300_000))
        writer.write(page(b""))
        await writer.drain()
        writer.close()

    async def blocks() -> AsyncIterator[bytes]:
        for letter in (b"a", b"b", b"c"):
            yield letter * 100_000

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        # The first address of the name takes no connection: nothing of the stream may be lost to it.
        url = f"http://files.example:{server.sockets[0].getsockname()[1]}/up"
        answer = await local().send(
            "PUT",
            url,
            content=blocks(),
            headers={"content-length": "300000", "content-type": "audio/flac"},
            timeout=5,
        )
    assert answer.status == 200
    head = body.get_nowait()
    assert head.startswith(b"put /up ")
    assert b"content-length: 300000\r\n" in head
    assert b"transfer-encoding" not in head
    assert body.get_nowait() == b"a" * 100_000 + b"b" * 100_000 + b"c" * 100_000


async def test_a_stream_of_another_length_than_it_was_said_to_have_is_a_failure() -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"def"

    async with web_server({"/up": page(b"")}) as server:
        for length in ("9", "4", "2"):
            told = await refusal(server.url("/up"), content=stream(), headers={"content-length": length})
            assert told == "the request could not be sent as it is"


async def test_a_header_with_a_line_break_is_not_sent() -> None:
    async with web_server({"/": page(b"")}) as server:
        told = await refusal(server.url("/"), headers={"x-name": "a\r\nhost: inside"})
        assert server.heads == []
    assert told == "the request could not be sent as it is"


async def test_the_certificate_must_be_for_the_name_in_the_url(tmp_path: Path) -> None:
    server_side, client_side = certificates(tmp_path, "hooks.example")
    sender = local(tls=client_side)
    async with web_server({"/": page(b"")}, tls=server_side) as server:
        for host in ("hooks.example", "hooks.example."):
            url = server.url("/", host=host, scheme="https")
            assert (await sender.send("POST", url, content=b"", headers={}, timeout=5)).status == 200
        with pytest.raises(OutboundError) as raised:
            await sender.send(
                "POST",
                server.url("/", host="other.example", scheme="https"),
                content=b"",
                headers={},
                timeout=5,
            )
    assert str(raised.value) == "the URL's host has no valid certificate"


async def test_names_are_looked_up_in_threads_that_nothing_else_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def getaddrinfo(*_: object, **__: object) -> list[tuple[Any, ...]]:
        asked.append(threading.current_thread().name)
        found = ("127.0.0.1", "::1", "fe80::1%eth0", "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = await resolve("hooks.example", 80)
    assert [str(address) for address in found] == ["127.0.0.1", "::1", "fe80::1"]
    assert [name.split("_")[0] for name in asked] == ["lookup"]


async def test_a_name_service_that_never_answers_is_not_waited_for() -> None:
    async def never(_: str, __: int) -> Sequence[Address]:
        await asyncio.sleep(30)
        return [HERE]

    sender = Sender(Guard(resolve=never), tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    with pytest.raises(OutboundError, match="did not answer in time"):
        await sender.send("POST", "http://hooks.example/", content=b"", headers={}, timeout=0.05)
