"""Money is an integer number of nano-USD (1e-9 USD); music is an integer number of milliseconds.

Both are exact: 0.00025 USD per second is 250,000 nano per second, 250 nano per millisecond.
"""

import re
from typing import Final

from billing.errors import MoneyFormatError

NANO_PER_USD: Final = 1_000_000_000
PPM: Final = 1_000_000
MAX_NANO: Final = 2**62
"""Largest amount the ledger takes: half of a bigint, so that two of them can be added."""

_USD = re.compile(r"([+-]?)(\d{1,10})(?:\.(\d{1,9}))?", re.ASCII)


def parse_usd(text: str) -> int:
    """'0.5' -> 500_000_000 nano. Raises MoneyFormatError for anything but a plain decimal."""
    match = _USD.fullmatch(text.strip())
    if match is None:
        raise MoneyFormatError(f"{text!r} is not an amount in USD: write a decimal such as 0.00025")
    sign, whole, fraction = match[1], match[2], (match[3] or "")
    nano = int(whole) * NANO_PER_USD + int(fraction.ljust(9, "0") or 0)
    if nano > MAX_NANO:
        raise MoneyFormatError(f"{text!r} is more than the ledger holds")
    return -nano if sign == "-" else nano


def format_usd(nano: int) -> str:
    """7_500_000 -> '0.007500000': always nine decimals, so that no reader needs floats."""
    sign = "-" if nano < 0 else ""
    whole, fraction = divmod(abs(nano), NANO_PER_USD)
    return f"{sign}{whole}.{fraction:09d}"


def ceil_div(numerator: int, denominator: int) -> int:
    """Smallest integer not below the exact quotient; the denominator is positive."""
    return -(-numerator // denominator)


def billed_ms(*, frames: int, sample_rate: int) -> int:
    """Milliseconds of delivered audio, from the frames of the stored file; rounded up."""
    return ceil_div(frames * 1000, sample_rate)


def cost_nano(*, duration_ms: int, nano_per_second: int, discount_ppm: int = 0) -> int:
    """ceil(ms x price x (1 - discount)), rounded up once per job."""
    return ceil_div(duration_ms * nano_per_second * (PPM - discount_ppm), 1000 * PPM)
