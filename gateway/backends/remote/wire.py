"""What providers send, decoded by somebody who trusts none of it."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Final, TypeVar

import msgspec

from billing import NANO_PER_USD

T = TypeVar("T")

MAX_BALANCE_DIGITS: Final = 9
"""Of whole dollars; a larger one would not fit into a bigint of nano-USD."""
_NANO: Final = 1 / Decimal(NANO_PER_USD)
_DECODE_ERRORS: Final = (ValueError, RecursionError, ArithmeticError)
"""At a document that is none, nests too deep or holds an absurd number; msgspec's own are ValueErrors."""


def decode(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T | None:
    """None for whatever is not of the decoder's type."""
    try:
        return decoder.decode(raw)
    except _DECODE_ERRORS:
        return None


def usd_to_nano(usd: Decimal, *, max_digits: int) -> int | None:
    """To the nearest nano-USD: what is finer is the noise of floats.

    None for what is no number, and for more than `max_digits` digits of whole dollars.
    """
    if not usd.is_finite() or usd.adjusted() >= max_digits:  # before any arithmetic on it
        return None
    return int(usd.quantize(_NANO, rounding=ROUND_HALF_UP).scaleb(9))
