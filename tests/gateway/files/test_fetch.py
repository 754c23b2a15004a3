"""Sound from URLs, over real connections: what is fetched, what is not, and that nobody gets inside."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.audio import InputTooLong, InputUnreadable, UnknownContainer
from gateway.files.fetch import Fetcher, open_fetcher
from gateway.outbound import Address, Caller, Guard, is_any
from tests.gateway.files.web_server import moved, page, web_server
from tests.gateway.outbound.certificates import certificates

SONG = b"fLaC" + bytes(range(256)) * 600
HERE = ipaddress.ip_address("127.0.0.1")
ELSEWHERE = ipaddress.ip_address("127.0.0.2")
NOT_FOUND = "the URL's host name is not known, or not on the public internet"

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


def fetcher_with(*, tls: ssl.SSLContext | None = None, guard: Guard | None = None, **limits: Any) -> Fetcher:
    """One that trusts no authority: to read the list of them takes longer than most of these tests."""
    caller = Caller(guard or Guard(), tls=tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    return Fetcher(caller, **limits)


def local(*, tls: ssl.SSLContext | None = None, resolve: Resolve | None = None, **limits: Any) -> Fetcher:
    """One that may reach this machine."""
    names = {} if resolve is None else {"resolve": resolve}
    return fetcher_with(tls=tls, guard=Guard(permits=is_any, ports=None, **names), **limits)


class Names:
    """A name service whose answers change from question to question."""

    def __init__(self, *answers: Sequence[Address]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, _: int) -> Sequence[Address]:
        self.asked.append(host)
        return self.answers.pop(0)


async def refusal(fetcher: Fetcher, url: str, path: Path) -> str:
    with pytest.raises(InputUnreadable) as raised:
        await fetcher.fetch(url, path / "fetched")
    return str(raised.value)


async def test_a_song_is_fetched_as_it_is_whatever_the_server_calls_it(tmp_path: Path) -> None:
    async with web_server({"/song?v=1": page(SONG, content_type="text/html")}) as server:
        await local().fetch(server.url("/song?v=1#part"), tmp_path / "song")
    assert (tmp_path / "song").read_bytes() == SONG
    head = server.heads[0].lower()
    assert f"host: 127.0.0.1:{server.port}" in head
    assert "accept-encoding: identity" in head
    assert "authorization" not in head


async def test_development_may_reach_this_machine_and_others_may_not(tmp_path: Path) -> None:
    async with web_server({"/song": page(SONG)}) as server:
        await open_fetcher(allow_private_hosts=True).fetch(server.url(), tmp_path / "song")
        told = await refusal(open_fetcher(allow_private_hosts=False), server.url(), tmp_path)
        assert told == "only the ports 80, 443, 8080, 8443 can be used"
    assert len(server.heads) == 1


async def test_a_name_that_also_leads_inside_is_not_used(tmp_path: Path) -> None:
    public = ipaddress.ip_address("93.184.216.34")
    for answers in ([public, HERE], [HERE, public], []):
        fetcher = fetcher_with(guard=Guard(resolve=Names(answers)))
        told = await refusal(fetcher, "http://music.example/song", tmp_path)
        assert told == NOT_FOUND


async def test_the_address_that_was_judged_is_the_one_that_is_connected_to(tmp_path: Path) -> None:
    # A name service that says something else the second time (rebinding) is not asked a second time.
    names = Names([HERE], [ELSEWHERE])
    async with web_server({"/song": page(SONG)}) as server:
        await local(resolve=names).fetch(server.url(host="music.example"), tmp_path / "song")
    assert names.asked == ["music.example"]
    assert f"host: music.example:{server.port}" in server.heads[0].lower()


async def test_the_next_address_is_tried_when_one_takes_no_connection(tmp_path: Path) -> None:
    async with web_server({"/song": page(SONG)}) as server:
        names = Names([ELSEWHERE, HERE])
        await local(resolve=names).fetch(server.url(host="music.example"), tmp_path / "song")
    assert (tmp_path / "song").read_bytes() == SONG


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Same", "308 Same"])
async def test_redirects_are_followed(tmp_path: Path, status: str) -> None:
    answers = {"/a": moved("/b?x=1", status), "/b?x=1": moved("song", status), "/song": page(SONG)}
    async with web_server(answers) as server:
        await local().fetch(server.url("/a"), tmp_path / "song")
    assert (tmp_path / "song").read_bytes() == SONG


async def test_redirects_end_after_five(tmp_path: Path) -> None:
    async with web_server({"/a": moved("/a")}) as server:
        assert await refusal(local(), server.url("/a"), tmp_path) == "the URL redirects more than 5 times"
    assert len(server.heads) == 6


async def test_a_redirect_to_the_inside_is_judged_like_any_url(tmp_path: Path) -> None:
    async with web_server({"/song": page(SONG)}, host=str(ELSEWHERE)) as inside:
        async with web_server({"/a": moved(inside.url(host=str(ELSEWHERE)))}) as server:
            fetcher = fetcher_with(guard=Guard(permits=lambda address: address == HERE, ports=None))
            told = await refusal(fetcher, server.url("/a"), tmp_path)
        assert told == "the URL's host is not on the public internet"
        assert inside.heads == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://a/b", "gopher://x", "//u:p@h/"])
async def test_a_redirect_to_what_is_no_web_page_is_refused(tmp_path: Path, location: str) -> None:
    async with web_server({"/a": moved(location)}) as server:
        told = await refusal(local(), server.url("/a"), tmp_path)
    assert told in {
        "only http and https URLs with a host name can be used",
        "a URL with a user name or password cannot be used",
    }
    assert len(server.heads) == 1


async def test_an_unknown_name_is_not_told_from_one_that_leads_inside(tmp_path: Path) -> None:
    async def unknown(*_: object) -> Sequence[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "it is not known")

    told = await refusal(fetcher_with(guard=Guard(resolve=unknown)), "http://music.example/", tmp_path)
    assert told == NOT_FOUND


async def test_what_is_no_audio_is_not_kept_and_not_told(tmp_path: Path) -> None:
    async with web_server({"/song": page(b"root:x:0:0:secret" * 9, content_type="audio/flac")}) as server:
        with pytest.raises(UnknownContainer) as raised:
            await local().fetch(server.url(), tmp_path / "song")
    assert "secret" not in str(raised.value)


async def test_answers_without_a_file_are_refused_by_their_status_alone(tmp_path: Path) -> None:
    answers = {
        "/gone": page(b"a secret", status="410 Gone"),
        "/empty": page(b""),
        "/packed": page(SONG, content_encoding="gzip"),
        "/garbage": b"SSH-2.0-OpenSSH_9.6\r\n",
        "/cut": page(SONG)[:-1_000],
    }
    async with web_server(answers) as server:
        told = {path: await refusal(local(), server.url(path), tmp_path) for path in (*answers, "/none")}
    assert told == {
        "/gone": "the URL answers with status 410",
        "/none": "the URL answers with status 404",
        "/empty": "the URL answers with an empty file",
        "/packed": "the URL answers with a compressed body",
        "/garbage": "the URL's answer broke off, or was no valid HTTP",
        "/cut": "the URL's answer broke off, or was no valid HTTP",
    }


@pytest.mark.parametrize("location", ["http://xn--/", "http://xn--a.b/", "http://[::1", "http://a:99999/"])
async def test_a_redirect_to_what_is_no_url_is_refused(tmp_path: Path, location: str) -> None:
    async with web_server({"/a": moved(location)}) as server:
        await refusal(local(), server.url("/a"), tmp_path)
    assert len(server.heads) == 1


async def test_a_file_ends_where_it_is_too_large(tmp_path: Path) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + SONG)
        while True:
            writer.write(bytes(65_536))
            await writer.drain()

    async with web_server({"/told": page(SONG + bytes(3_000_000)), "/song": endless}) as server:
        for path in ("/told", "/song"):
            with pytest.raises(InputTooLong, match="larger than 2 MB"):
                await local(most_bytes=2_000_000).fetch(server.url(path), tmp_path / "song")
    assert (tmp_path / "song").stat().st_size <= 2_000_000


async def test_a_file_in_a_million_pieces_is_not_put_together(tmp_path: Path) -> None:
    def chunked(size: int, count: int) -> bytes:
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        pieces = b"%x\r\n%b\r\n" % (size, b"a" * size) * count
        return head + b"4\r\nfLaC\r\n" + pieces + b"0\r\n\r\n"

    async with web_server({"/song": chunked(1, 5_000), "/fine": chunked(100, 1_000)}) as server:
        told = await refusal(local(), server.url(), tmp_path)
        await local().fetch(server.url("/fine"), tmp_path / "song")
    assert told == "the URL delivers the file in too many small pieces"
    assert (tmp_path / "song").stat().st_size == 100_004


async def test_who_delivers_too_slowly_is_not_waited_for(tmp_path: Path) -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + SONG)
        await writer.drain()
        await asyncio.sleep(30)

    async with web_server({"/song": slow}) as server:
        told = await refusal(local(total_seconds=0.3), server.url(), tmp_path)
    assert told == "the URL did not deliver the file in time"


async def test_nobody_listening_is_told_without_an_address(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        told = await refusal(local(), f"http://127.0.0.1:{port}/", tmp_path)
    assert told == "the URL's host takes no connection"


async def test_the_certificate_must_be_for_the_name_in_the_url(tmp_path: Path) -> None:
    server_side, client_side = certificates(tmp_path, "music.example")
    async with web_server({"/song": page(SONG)}, tls=server_side) as server:
        names = Names([HERE], [HERE])
        fetcher = local(resolve=names, tls=client_side)
        await fetcher.fetch(server.url(host="music.example", scheme="https"), tmp_path / "song")
        told = await refusal(fetcher, server.url(host="other.example", scheme="https"), tmp_path)
    assert (tmp_path / "song").read_bytes() == SONG
    assert told == "the URL's host has no valid certificate"
