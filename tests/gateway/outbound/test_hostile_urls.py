"""No URL of the corpus makes a connection, and each one's benign twin is delivered."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.audio import InputUnreadable
from gateway.files.fetch import Fetcher
from gateway.outbound import PORTS, Address, BadUrl, Caller, Guard, OutboundError, Sender, check_url, is_any
from tests.gateway.files.web_server import Answer, WebServer, moved, page, web_server
from tests.gateway.outbound.certificates import certificates
from tests.gateway.outbound.hostile_urls import CORPUS, FORMS, NAMED, NAMES, PLAIN, SPELLED

HOSTILE = [hostile for hostile, _ in CORPUS]
LEADING = [hostile for hostile, _ in (*PLAIN, *SPELLED, *NAMED)]
NOWHERE = {"http://silent.example/", "http://unknown.example/"}
BENIGN = sorted({benign for _, benign in CORPUS})


class Wire:
    """Everything that the process connects to. It ends at the listener, if there is one, else nowhere."""

    def __init__(self, connect: Callable[..., Awaitable[Any]]) -> None:
        self.asked: list[object] = []
        self.listener: WebServer | None = None
        self._connect = connect

    async def create_connection(self, factory: Any, host: str, port: int, **options: Any) -> Any:
        self.asked.append((host, port))
        if self.listener is None:
            raise ConnectionRefusedError
        return await self._connect(factory, "127.0.0.1", self.listener.port, **options)

    def connect(self, *arguments: object) -> None:
        self.asked.append(arguments)


class Everything(dict[str, Answer]):
    """The answers of a server that has a page at every path."""

    def get(self, _: str, __: Any = None) -> Answer:
        return page(b"thank you")


@pytest.fixture
async def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    loop = asyncio.get_running_loop()
    wire = Wire(loop.create_connection)
    monkeypatch.setattr(loop, "create_connection", wire.create_connection)
    return wire


@pytest.fixture
def no_sockets(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects beside the event loop is seen too."""
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, wire.connect)


def numeric(host: str) -> list[Address]:
    """As the system reads it without asking a name service; raises OSError."""
    found = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [ipaddress.ip_address(str(entry[4][0])) for entry in found]


def known(host: str) -> list[Address]:
    named = NAMES.get(host.lower().removesuffix("."))
    return numeric(host) if named is None else [ipaddress.ip_address(text) for text in named]


async def look_up(host: str, _: int) -> Sequence[Address]:
    return known(host)


def trusting_nobody() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def send(sender: Sender, url: str) -> int:
    answer = await sender.send("POST", url, content=b"{}", headers={}, timeout=5)
    return answer.status


def test_the_corpus_is_large_and_says_nothing_twice() -> None:
    assert len(HOSTILE) == len(set(HOSTILE)) >= 150
    assert not set(HOSTILE) & set(BENIGN)


@pytest.mark.usefixtures("no_sockets")
async def test_no_hostile_url_makes_a_connection(wire: Wire, tmp_path: Path) -> None:
    guard, tls = Guard(resolve=look_up), trusting_nobody()
    sender, fetcher = Sender(guard, tls=tls), Fetcher(Caller(guard, tls=tls))
    for url in HOSTILE:
        with pytest.raises(OutboundError):
            await send(sender, url)
        with pytest.raises(InputUnreadable):
            await fetcher.fetch(url, tmp_path / "fetched")
        assert (url, wire.asked) == (url, [])


@pytest.mark.usefixtures("no_sockets")
async def test_without_the_guard_they_would_connect(wire: Wire) -> None:
    sender = Sender(Guard(permits=is_any, ports=None, resolve=look_up), tls=trusting_nobody())
    quiet = []
    for url in LEADING:
        wire.asked.clear()
        with pytest.raises(OutboundError):
            await send(sender, url)
        if not wire.asked:
            quiet.append(url)
    assert set(quiet) == NOWHERE


async def test_no_redirect_to_a_hostile_url_makes_a_connection(wire: Wire, tmp_path: Path) -> None:
    targets = [url for url in LEADING if url.isascii()]
    fetcher = Fetcher(Caller(Guard(resolve=look_up), tls=trusting_nobody()))
    answers: dict[str, Answer] = {f"/{n}": moved(url) for n, url in enumerate(targets)}
    async with web_server(answers) as wire.listener:
        for n, url in enumerate(targets):
            wire.asked.clear()
            with pytest.raises(InputUnreadable):
                await fetcher.fetch(f"http://public.example/{n}", tmp_path / "fetched")
            assert (url, len(wire.listener.heads)) == (url, n + 1)
            assert (url, wire.asked) == (url, [("8.8.8.8", 80)])


async def test_each_benign_twin_is_delivered_to_the_address_it_names(wire: Wire, tmp_path: Path) -> None:
    server_side, client_side = certificates(tmp_path, "public.example", "8.8.8.8")
    sender = Sender(Guard(resolve=look_up), tls=client_side)
    async with web_server(Everything()) as plain, web_server(Everything(), tls=server_side) as secure:
        for url in BENIGN:
            wire.asked.clear()
            target = httpx.URL(url)
            wire.listener = secure if target.scheme == "https" else plain
            assert (url, await send(sender, url)) == (url, 200)
            host = target.raw_host.decode().removesuffix(".")
            port = target.port or {"http": 80, "https": 443}[target.scheme]
            assert (url, wire.asked) == (url, [(str(known(host)[0]), port)])
            assert f"host: {target.netloc.decode().lower()}\r\n" in wire.listener.heads[-1].lower()
    assert len(plain.heads) + len(secure.heads) == len(BENIGN)


def test_what_is_plainly_hostile_is_refused_when_it_is_named() -> None:
    for url, twin in (*PLAIN, *SPELLED, *FORMS):
        with pytest.raises(BadUrl):
            check_url(url, ports=PORTS)
        check_url(twin, ports=PORTS)
    for url in ("http://localhost/", "http://foo.localhost./", "http://a.local/", "http://a.internal/"):
        with pytest.raises(BadUrl, match="not on the public internet"):
            check_url(url, ports=PORTS)


def test_development_may_name_this_machine_but_nothing_that_is_no_url() -> None:
    for url in (
        "http://127.0.0.1:5000/hook",
        "http://localhost:3000/",
        "http://[::1]:9/",
        "http://10.0.0.1/",
    ):
        check_url(url, ports=None)
    for url in ("file:///etc/passwd", "http://a:b@c/", "http://%31/", "http://a\r\nb/", "http://a:0/"):
        with pytest.raises(BadUrl):
            check_url(url, ports=None)


async def test_a_name_that_is_rebound_between_judging_and_connecting_leads_where_it_was_judged(
    wire: Wire,
) -> None:
    answers = [[ipaddress.ip_address("8.8.8.8")], [ipaddress.ip_address("127.0.0.1")]]

    async def rebinding(_: str, __: int) -> Sequence[Address]:
        return answers.pop(0)

    sender = Sender(Guard(resolve=rebinding), tls=trusting_nobody())
    async with web_server(Everything()) as wire.listener:
        assert await send(sender, "http://rebound.example/") == 200
        assert wire.asked == [("8.8.8.8", 80)]
        with pytest.raises(OutboundError, match="not on the public internet"):
            await send(sender, "http://rebound.example/")
    assert wire.asked == [("8.8.8.8", 80)]
