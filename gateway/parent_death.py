"""Children that end when their parent does, also when the parent is killed with SIGKILL."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def end_with_parent(number: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn` that asks Linux to send `number` to the child when its parent is gone.

    Linux means the *thread* that forked, so start such children from the main thread only.
    Elsewhere the child is started without this safety net.
    """
    parent = os.getpid()
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None

    def prepare() -> None:
        if libc is None:
            return
        libc.prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died before the request was in place
            os._exit(1)

    return prepare
