"""Sound from a URL that a client named: fetched as a stranger would have to fetch it.

A host name is resolved once, all its addresses are judged, and the connection goes to an address that was
judged; each redirect is a new URL to which all of this applies again. What is said to the client names
neither addresses nor anything of an answer but its status.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from gateway.audio import InputTooLong, InputUnreadable, check_container
from gateway.audio.containers import HEAD_BYTES
from gateway.files.addresses import Address, is_any, is_public

MAX_FETCH_BYTES: Final = 100_000_000
MAX_URL_CHARACTERS: Final = 2_048
PORTS: Final = frozenset({80, 443, 8080, 8443})
"""Where audio is served from; other services that would mistake a request for their own are elsewhere."""

_REDIRECTS: Final = 5
_SECONDS: Final = 120
"""For all of it."""
_RESOLVE_SECONDS: Final = 10
_TIMEOUT: Final = httpx.Timeout(20, connect=10)
_ADDRESSES_TRIED: Final = 3
_BLOCK_BYTES: Final = 1 << 20
_PIECES: Final = 500
_LEAST_PIECE_BYTES: Final = 64
"""On average. To take a megabyte byte by byte keeps this process from all else, its leases included."""
_SCHEMES: Final = {"http": 80, "https": 443}
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"user-agent": "Antiphon", "accept": "audio/*, */*;q=0.5", "accept-encoding": "identity"}

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


async def resolve(host: str, port: int) -> Sequence[Address]:
    """As the system does it, which also takes `127.1` and `0x7f000001` for addresses. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A link-local address comes with its interface behind a percent sign.
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


class Fetcher:
    """Fetches files from URLs. `permits` says which addresses may be reached, `ports` which ports."""

    def __init__(
        self,
        *,
        permits: Callable[[Address], bool] = is_public,
        ports: frozenset[int] | None = PORTS,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        most_bytes: int = MAX_FETCH_BYTES,
        total_seconds: float = _SECONDS,
    ) -> None:
        """`ports` None: any. `tls` None: certificates of public authorities."""
        self._permits = permits
        self._ports = ports
        self._resolve = resolve
        # Once: to read the list of authorities takes longer than many a request.
        self._tls = tls or httpx.create_ssl_context(trust_env=False)
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
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, UnicodeError) as error:
            # httpx reads what an answer redirects to before we do; a name that is none is a UnicodeError.
            raise InputUnreadable(_reason(error)) from error

    async def _follow(self, url: str, path: Path) -> None:
        target = parse_source(url, ports=self._ports)
        for _ in range(_REDIRECTS + 1):
            addresses = await self._judged_addresses(target)
            async with self._ask(target, addresses) as answer:
                if answer.status_code not in _MOVED:
                    await self._save(answer, path)
                    return
                location = answer.headers.get("location", "")
            target = parse_source(_joined(target, location), ports=self._ports)
        raise InputUnreadable(f"the URL redirects more than {_REDIRECTS} times")

    async def _judged_addresses(self, target: httpx.URL) -> Sequence[Address]:
        """All of them are public, or none is used: a name that also leads inside is not to be trusted."""
        port = target.port or _SCHEMES[target.scheme]
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                addresses = await self._resolve(target.host, port)
        except TimeoutError:
            raise InputUnreadable("the URL's host name could not be looked up in time") from None
        except (OSError, UnicodeError, ValueError) as error:
            raise InputUnreadable("the URL's host name is not known") from error
        if not addresses or not all(self._permits(address) for address in addresses):
            raise InputUnreadable("the URL's host is not on the public internet")
        return addresses[:_ADDRESSES_TRIED]

    @contextlib.asynccontextmanager
    async def _ask(self, target: httpx.URL, addresses: Sequence[Address]) -> AsyncIterator[httpx.Response]:
        """The answer of the first address that takes a connection, with its body still to come."""
        transport = httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False)
        async with httpx.AsyncClient(transport=transport, timeout=_TIMEOUT, trust_env=False) as client:
            answer = await _first_answer(client, target, addresses)
            try:
                yield answer
            finally:
                await answer.aclose()

    async def _save(self, answer: httpx.Response, path: Path) -> None:
        if answer.status_code != httpx.codes.OK:
            raise InputUnreadable(f"the URL answers with status {answer.status_code}")
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
    """With the rules of an installation; for development everything that answers may be reached."""
    return Fetcher(permits=is_any, ports=None) if allow_private_hosts else Fetcher()


def parse_source(url: str, *, ports: frozenset[int] | None = PORTS) -> httpx.URL:
    """What can be said of a URL without asking anybody; raises InputUnreadable."""
    if len(url) > MAX_URL_CHARACTERS:
        raise InputUnreadable(f"the URL has more than {MAX_URL_CHARACTERS} characters")
    try:
        parsed = httpx.URL(url)
        is_http = parsed.scheme in _SCHEMES and bool(parsed.host)
        is_possible = parsed.port is None or 0 < parsed.port < 65_536
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise InputUnreadable("this is no URL") from error
    if not is_possible:
        raise InputUnreadable("this is no URL")
    if not is_http:
        raise InputUnreadable("only http and https URLs with a host name can be fetched")
    if parsed.userinfo:
        raise InputUnreadable("a URL with a user name or password is not fetched")
    if ports is not None and (parsed.port or _SCHEMES[parsed.scheme]) not in ports:
        raise InputUnreadable(f"only the ports {', '.join(map(str, sorted(ports)))} are fetched from")
    return parsed.copy_with(fragment=None)


def _joined(base: httpx.URL, location: str) -> str:
    try:
        return str(base.join(location))
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise InputUnreadable("the URL redirects to what is no URL") from error


async def _first_answer(
    client: httpx.AsyncClient, target: httpx.URL, addresses: Sequence[Address]
) -> httpx.Response:
    """To the address itself; the name stands in the Host header, and is what the certificate must say."""
    failure: httpx.HTTPError | None = None
    for address in addresses:
        request = client.build_request(
            "GET",
            target.copy_with(host=str(address)),
            headers={**_HEADERS, "host": target.netloc.decode("ascii")},
            extensions={"sni_hostname": target.raw_host.decode("ascii")},
        )
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = error
    assert failure is not None  # noqa: S101 - there is an address
    raise failure


async def _blocks(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Of a good size for a disk; only the last one may be shorter than what a file is known by."""
    kept, size, pieces = bytearray(), 0, 0
    async for chunk in answer.aiter_raw():
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


def _reason(error: Exception) -> str:
    """In words that tell nothing about addresses."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the URL's host has no valid certificate"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return "the URL did not answer in time"
    if isinstance(error, httpx.ConnectError):
        return "the URL's host takes no connection"
    return "the URL's answer broke off, or was no valid HTTP"
