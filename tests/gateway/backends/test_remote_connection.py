"""The connection to a provider: how long, how much of a response, and whether anything had left."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from gateway.backends.remote import connection
from gateway.backends.remote.connection import Connection, NoResponse, NotSent, Timeouts
from tests.gateway.files.web_server import WebServer, page, web_server
from tests.remote_backends import TLS

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


@contextlib.asynccontextmanager
async def connected(to: WebServer | str, **timeouts: float) -> AsyncIterator[Connection]:
    url = to if isinstance(to, str) else to.url("")
    opened = Connection(base_url=url, api_key="a key", timeouts=Timeouts(**timeouts), tls=TLS)
    try:
        yield opened
    finally:
        await opened.close()


async def test_each_request_has_our_key_and_wants_plain_json() -> None:
    async with web_server({"/v1/a?b=c": page(b"{}")}) as server, connected(server) as to:
        response = await to.post("/v1/a", b"[1]", params={"b": "c"}, max_bytes=9, seconds=5)
    assert (response.status, response.body, response.is_success) == (200, b"{}", True)
    [head] = server.heads
    headers = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if line)
    expected = {
        "authorization": "bearer a key",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": "3",
        "user-agent": "antiphon",
    }
    assert expected.items() <= headers.items()


async def test_a_response_is_read_up_to_its_bound_and_not_beyond() -> None:
    async with web_server({"/a": page(b"1234")}) as server, connected(server) as to:
        assert (await to.get("/a", max_bytes=4)).body == b"1234"
        with pytest.raises(NoResponse):
            await to.get("/a", max_bytes=3)


async def test_a_response_in_crumbs_is_not_read_to_its_end() -> None:
    def chunked(size: int, count: int) -> bytes:
        return HEAD + f"{size:x}\r\n{' ' * size}\r\n".encode() * count + END

    answers: Any = {"/crumbs": chunked(1, 5_000), "/pieces": chunked(100, 1_000)}
    async with web_server(answers) as server, connected(server) as to:
        assert len((await to.get("/pieces", max_bytes=1_000_000)).body) == 100_000
        with pytest.raises(NoResponse) as caught:
            await to.get("/crumbs", max_bytes=1_000_000)
    assert not caught.value.timed_out


async def test_a_compressed_response_is_never_unfolded() -> None:
    packed = page(b"{}", content_encoding="gzip")
    async with web_server({"/a": packed}) as server, connected(server) as to:
        with pytest.raises(NoResponse):
            await to.get("/a", max_bytes=99)


async def test_a_response_without_end_ends_at_the_deadline() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(b"1\r\n \r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with web_server({"/a": endless}) as server, connected(server, query=0.1) as to:
        with pytest.raises(NoResponse) as caught:
            await to.get("/a", max_bytes=1_000_000)
    assert caught.value.timed_out


async def test_what_takes_no_connection_was_sent_nothing() -> None:
    async with web_server({}) as server:
        pass
    async with connected(server) as to:
        with pytest.raises(NotSent) as caught:
            await to.get("/a", max_bytes=9)
    assert (str(caught.value), caught.value.timed_out) == ("ConnectError", False)


@pytest.mark.parametrize("rest", [b"", b"{", b"\xff" * 50])
async def test_a_refusal_counts_by_its_status_however_its_body_ends(rest: bytes) -> None:
    answer = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-length: 100\r\n\r\n" + rest
    async with web_server({"/a": answer}) as server, connected(server) as to:
        response = await to.get("/a", max_bytes=99)
    assert (response.status, response.body, response.retry_after_seconds) == (429, b"", 2.0)
    assert not response.is_success


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("999999", 3600.0),
        ("9" * 40, 3600.0),
        ("9" * 41, None),
        ("Wed, 21 Oct 2065 07:28:00 GMT", 3600.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed Oct 21 07:28:00 2065", 3600.0),
        ("Wed, 21 Oct 2015 99:99:99 GMT", None),
        ("soon", None),
        ("nan", None),
        ("1e999", None),
        ("-5", None),
        ("", None),
    ],
)
async def test_a_time_to_come_again_is_understood_and_nonsense_is_not(
    value: str, seconds: float | None
) -> None:
    answer = page(b"", status="429 Too Many Requests", retry_after=value)
    async with web_server({"/a": answer}) as server, connected(server) as to:
        assert (await to.get("/a", max_bytes=9)).retry_after_seconds == seconds


async def test_a_date_without_a_zone_is_utc() -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=30)).replace(tzinfo=None)
    answer = page(b"", status="429 Too Many Requests", retry_after=format_datetime(soon))
    async with web_server({"/a": answer}) as server, connected(server) as to:
        seconds = (await to.get("/a", max_bytes=9)).retry_after_seconds
    assert seconds is not None
    assert 1_700 < seconds <= 1_800


async def test_the_public_authorities_are_read_once_for_all_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[ssl.SSLContext] = []

    def reading() -> ssl.SSLContext:
        read.append(ssl.create_default_context())
        return read[-1]

    monkeypatch.setattr(connection, "public_authorities", reading)
    opened = [Connection(base_url="", api_key="", timeouts=Timeouts()) for _ in range(3)]
    assert len(read) <= 1  # none, where another test was the first
    for one in opened:
        await one.close()
