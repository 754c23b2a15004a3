"""Identifiers: UUIDv7, so that an index on ids is an index on time."""

import secrets
import time
import uuid
from datetime import datetime, timedelta


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = secrets.randbits(80)
    value = (milliseconds & (2**48 - 1)) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    return uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def first_id(moment: datetime, *, margin: timedelta = timedelta()) -> uuid.UUID:
    """Not above any id that is made from this moment on, or that long before it."""
    # In seconds: a datetime of the first minute that there is has none before it.
    seconds = moment.timestamp() - margin.total_seconds()
    return uuid.UUID(int=max(0, int(seconds * 1000)) << 80)


def parse_id(text: str) -> uuid.UUID | None:
    """The id in its public spelling (32 hexadecimal digits, dashes tolerated), or None."""
    try:
        return uuid.UUID(hex=text) if len(text) in {32, 36} else None
    except ValueError:
        return None
