"""What the data themselves say about the server that writes them."""

import sys

from gateway.embedded.place import Place

STATE = slice(16, 20)
SHUT_DOWN, SHUTTING_DOWN = 1, 3
"""`DBState` of Postgres' catalog/pg_control.h, unchanged in all versions that we can run."""


def is_closing(place: Place) -> bool:
    """True once an orderly stop has come to its last checkpoint: it ends by itself, however slow the disk."""
    try:
        with (place.data / "global" / "pg_control").open("rb") as control:
            state = control.read(STATE.stop)[STATE]
    except OSError:
        return False
    return int.from_bytes(state, sys.byteorder) in {SHUT_DOWN, SHUTTING_DOWN}
