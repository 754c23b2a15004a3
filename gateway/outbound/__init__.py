"""URLs that clients named, reached as a stranger would have to reach them."""

from gateway.outbound.addresses import Address, is_any, is_public
from gateway.outbound.caller import Caller, Reply, public_authorities
from gateway.outbound.errors import BadUrl, OutboundError
from gateway.outbound.guard import MAX_URL_CHARACTERS, PORTS, Guard, check_url, open_guard, resolve
from gateway.outbound.sender import HEAD_BYTES, Answer, Sender, open_sender

__all__ = [
    "HEAD_BYTES",
    "MAX_URL_CHARACTERS",
    "PORTS",
    "Address",
    "Answer",
    "BadUrl",
    "Caller",
    "Guard",
    "OutboundError",
    "Reply",
    "Sender",
    "check_url",
    "is_any",
    "is_public",
    "open_guard",
    "open_sender",
    "public_authorities",
    "resolve",
]
