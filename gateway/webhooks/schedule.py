"""When it is tried again: each delay counts from the attempt before."""

from enum import StrEnum
from typing import Final

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE


class Kind(StrEnum):
    """What is brought: a message about an event, or the bytes of a song."""

    WEBHOOK = "webhook"
    UPLOAD = "upload"


DELAYS_SECONDS: Final[dict[Kind, tuple[int, ...]]] = {
    Kind.WEBHOOK: (
        0,
        5,
        5 * MINUTE,
        30 * MINUTE,
        2 * HOUR,
        5 * HOUR,
        10 * HOUR,
        14 * HOUR,
        20 * HOUR,
        24 * HOUR,
    ),
    Kind.UPLOAD: (0, 5, 30, 2 * MINUTE, 10 * MINUTE),
}
JITTER: Final = 0.1
"""Up to this share is added, so that what failed together does not come back together."""


def delay_after(kind: Kind, attempts: int) -> int | None:
    """Seconds to wait after so many attempts; None: that was the last."""
    delays = DELAYS_SECONDS[kind]
    return delays[attempts] if attempts < len(delays) else None
