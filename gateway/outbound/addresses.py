"""Which hosts on behalf of a client may be reached: only what anybody on the internet could reach."""

import ipaddress
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 "
        "192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 "
        "203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"
    ).split()
)
"""RFC 6890 and its registry, with multicast and all that is reserved, and 168.63.129.16: a public address
by its number, at which every machine in Azure finds the service that configures it."""
_GLOBAL_6: Final = ipaddress.IPv6Network("2000::/3")
"""All that is handed out to anybody; the rest is loopback, link-local, private, multicast or nothing yet."""
_NOT_PUBLIC_6: Final = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
"""Inside it: Teredo and other protocols' own, documentation, 6to4."""
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""How an IPv6-only network reaches IPv4 (RFC 6052)."""
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The upper half of an interface that is the end of a tunnel to the IPv4 address below it (RFC 5214)."""


def is_public(address: Address) -> bool:
    """Judged by the IPv4 address where there is one inside: `ipaddress.is_global` does not look there."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    inside = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _MAPPED or address in _TRANSLATED:
        return is_public(inside)
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP and not is_public(inside):
        return False
    return address in _GLOBAL_6 and not any(address in network for network in _NOT_PUBLIC_6)


def is_any(_: Address) -> bool:
    """For development: whatever answers."""
    return True
