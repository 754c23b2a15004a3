"""What a limited key may still do, as its last generation request found it."""

import msgspec


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a key and what is left of them; a limit that the key does not have is None."""

    max_requests: int | None
    """Generation requests per minute."""
    requests_left: int | None
    reset_seconds: int
    """Until the minute is over."""
    max_jobs: int | None
    """Unfinished jobs."""
    jobs_left: int | None
