"""API keys: `aph_live_` or `aph_test_`, 43 random base-62 characters, 6 of checksum.

The checksum refuses typing errors before the database is asked. Stored is an HMAC with a pepper
that the database never sees: a stolen table can neither be used nor checked against.
"""

import hashlib
import hmac
import secrets
import string
import zlib
from typing import Final

import msgspec

PREFIXES: Final = {"live": "aph_live_", "test": "aph_test_"}
RANDOM_CHARACTERS: Final = 43
"""43 base-62 characters carry 256 bits."""
CHECKSUM_CHARACTERS: Final = 6
KEY_CHARACTERS: Final = len(PREFIXES["live"]) + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS
SHOWN_CHARACTERS: Final = len(PREFIXES["live"]) + 4

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase


class Pepper(msgspec.Struct, frozen=True):
    """The secret half of every stored digest, and a public name for it, so that it can be rotated."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Pepper(id={self.id})"


def derive_pepper(secret_key: str) -> Pepper:
    """The pepper that belongs to a server secret."""
    secret = hmac.digest(secret_key.encode(), b"antiphon api key pepper v1", "sha256")
    return Pepper(id=hashlib.sha256(b"id" + secret).hexdigest()[:12], secret=secret)


def generate_key(mode: str) -> str:
    """A new key for mode 'live' or 'test'."""
    body = PREFIXES[mode] + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))
    return body + checksum(body)


def is_well_formed(key: str) -> bool:
    """Whether prefix, length and checksum fit; says nothing about whether the key exists."""
    if len(key) != KEY_CHARACTERS or not key.isascii() or not key.startswith(tuple(PREFIXES.values())):
        return False
    return hmac.compare_digest(checksum(key[:-CHECKSUM_CHARACTERS]), key[-CHECKSUM_CHARACTERS:])


def checksum(body: str) -> str:
    """CRC-32 of everything before it, in base 62, six characters."""
    value = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def digest(key: str, pepper: Pepper) -> bytes:
    """What is stored instead of the key."""
    return hmac.digest(pepper.secret, key.encode(), "sha256")
