"""Whether a URL that a client named may be reached, and at which addresses.

A host name is resolved once, all its addresses are judged, and only what was judged is handed on: a name
service that answers differently the next time is not asked a next time.
"""

import asyncio
import functools
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx

from gateway.outbound.addresses import Address, is_any, is_public
from gateway.outbound.errors import BadUrl, OutboundError

MAX_URL_CHARACTERS: Final = 2_048
PORTS: Final = frozenset({80, 443, 8080, 8443})
"""Where the web is served from; other services that would mistake a request for their own are elsewhere."""

_SCHEMES: Final = {"http": 80, "https": 443}
_ADDRESSES_TRIED: Final = 3
_RESOLVE_SECONDS: Final = 10
_LOOKUPS: Final = ThreadPoolExecutor(1_024, thread_name_prefix="lookup")
"""Their own threads: a name service that never answers must not keep those that everything else needs. A
thread waits on after its request has given up, so there are more of them than requests at once."""

_USER: Final = re.compile(r"[^/?#]*//[^/?#]*@")
"""Also an empty user name: what stands before the sign is where other readers look for the host."""
_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_NAME_CHARACTERS: Final = 254
_INSIDE: Final = ("localhost", "local", "internal", "home.arpa")
"""Names, and ends of names, that never lead to the internet (RFC 6761, RFC 6762, RFC 8375, ICANN)."""
_LOOPBACK: Final = ipaddress.IPv4Address("127.0.0.1")
_NOT_PUBLIC: Final = "the URL's host is not on the public internet"
_NOT_FOUND: Final = "the URL's host name is not known, or not on the public internet"
"""One answer to both: nobody learns from us which names there are inside."""

Permits = Callable[[Address], bool]
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


async def resolve(host: str, port: int) -> Sequence[Address]:
    """As the system does it. Raises OSError."""
    look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look_up)
    # A link-local address comes with its interface behind a percent sign.
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


class Guard:
    """Judges URLs. `permits` says which addresses may be reached, `ports` which ports; None: any."""

    def __init__(
        self,
        *,
        permits: Permits = is_public,
        ports: frozenset[int] | None = PORTS,
        resolve: Resolve = resolve,
    ) -> None:
        self._permits = permits
        self._ports = ports
        self._resolve = resolve

    def parse(self, url: str) -> httpx.URL:
        """What can be said of a URL without asking anybody; raises BadUrl."""
        return _parse(url, self._ports, self._permits)

    async def judge(self, target: httpx.URL) -> Sequence[Address]:
        """All of them are permitted, or none is used: a name that also leads inside is not to be trusted.

        Raises:
            OutboundError: none may be reached, or the name is not known.
        """
        addresses = await self._addresses(target)
        if not addresses or not all(self._permits(address) for address in addresses):
            raise OutboundError(_NOT_FOUND)
        return addresses[:_ADDRESSES_TRIED]

    async def _addresses(self, target: httpx.URL) -> Sequence[Address]:
        host = target.raw_host.decode("ascii")
        literal = _literal(host)
        if literal is not None:
            return [literal]
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                return await self._resolve(host, target.port or _SCHEMES[target.scheme])
        except TimeoutError:
            raise OutboundError("the URL's host name could not be looked up in time") from None
        except (OSError, UnicodeError, ValueError) as error:
            raise OutboundError(_NOT_FOUND) from error


def open_guard(*, allow_private_hosts: bool) -> Guard:
    """With the rules of an installation; for development everything that answers may be reached."""
    return Guard(permits=is_any, ports=None) if allow_private_hosts else Guard()


def check_url(url: str, *, ports: frozenset[int] | None) -> None:
    """What can be said of a URL without asking anybody; raises BadUrl.

    `ports` None: as in development, where any port of any host may be reached.
    """
    _parse(url, ports, is_any if ports is None else is_public)


def _parse(url: str, ports: frozenset[int] | None, permits: Permits) -> httpx.URL:
    if len(url) > MAX_URL_CHARACTERS:
        raise BadUrl(f"the URL has more than {MAX_URL_CHARACTERS} characters")
    try:
        parsed = httpx.URL(url)
        is_http = parsed.scheme in _SCHEMES and bool(parsed.host)
        is_possible = parsed.port is None or 0 < parsed.port < 65_536
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise BadUrl("this is no URL") from error
    if not is_possible:
        raise BadUrl("this is no URL")
    if not is_http:
        raise BadUrl("only http and https URLs with a host name can be used")
    if _USER.match(url):
        raise BadUrl("a URL with a user name or password cannot be used")
    if ports is not None and (parsed.port or _SCHEMES[parsed.scheme]) not in ports:
        raise BadUrl(f"only the ports {', '.join(map(str, sorted(ports)))} can be used")
    _check_host(parsed.raw_host.decode("ascii"), permits)
    return parsed.copy_with(fragment=None)


def _check_host(host: str, permits: Permits) -> None:
    """It is an address or a name, and none that plainly is inside."""
    literal = _literal(host)
    if literal is None:
        if not _NAME.fullmatch(host) or len(host) > _NAME_CHARACTERS:
            raise BadUrl("the URL's host is neither a name nor an address")
        name = "." + host.removesuffix(".")
        literal = _LOOPBACK if name.endswith(tuple(f".{end}" for end in _INSIDE)) else None
    if literal is not None and not permits(literal):
        raise BadUrl(_NOT_PUBLIC)


def _literal(host: str) -> Address | None:
    """Also `127.1`, `0x7f000001` and `2130706433`, which the system takes for addresses too."""
    try:
        if ":" in host:
            return None if "%" in host else ipaddress.IPv6Address(host)
        return ipaddress.IPv4Address(socket.inet_aton(host.removesuffix(".")))
    except (OSError, ValueError):
        return None
