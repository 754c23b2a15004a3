"""`max_cost_usd`, as it was written: no float comes between the client and us."""

import re
from fractions import Fraction
from typing import Final

import msgspec

import billing
from gateway.errors import InvalidRequest

MAX_USD_CHARACTERS: Final = 64

_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
"""What JSON takes, with an exponent that can be written out."""


def read_max_cost(given: msgspec.Raw | msgspec.UnsetType) -> int | None:
    """Nano-USD of a text or a number, exactly. That it is JSON was checked when the body was decoded."""
    raw = b"null" if isinstance(given, msgspec.UnsetType) else bytes(given)
    if raw == b"null":
        return None
    text = _written_usd(raw) if len(raw) <= MAX_USD_CHARACTERS else None
    if text is None:
        raise InvalidRequest(
            "max_cost_usd must be an amount in USD: a decimal as text, or a number",
            param="max_cost_usd",
            suggestion="0.05",
        )
    nano = Fraction(text) * billing.NANO_PER_USD
    if nano < 0:
        raise InvalidRequest("max_cost_usd must not be negative", param="max_cost_usd", suggestion="0")
    if nano.denominator > 1:
        raise InvalidRequest(
            "max_cost_usd has more than nine decimals",
            param="max_cost_usd",
            suggestion=billing.format_usd(int(nano)),
        )
    return int(nano)


def _written_usd(raw: bytes) -> str | None:
    """The amount as the client wrote it; None for what is no decimal."""
    if raw.startswith(b'"'):
        text = msgspec.json.decode(raw, type=str)
        return text if _DECIMAL.fullmatch(text) else None
    text = raw.decode()
    return text if _NUMBER.fullmatch(text) else None
