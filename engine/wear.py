"""How a worker notices that it leaks: memory that stays after batch after batch."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

from numpy.typing import NDArray

_PAGES: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = resource.getpagesize()


class Watermark:
    """Worn out once `read` stays more than `allowance_bytes` above its base for `patience` batches in a row.

    One high reading is no leak: a reader may still hold its song, an allocator its pages.
    """

    def __init__(self, read: Callable[[], int], *, allowance_bytes: int, patience: int = 8) -> None:
        if allowance_bytes < 0 or patience < 1:
            raise ValueError("an allowance cannot be negative, and patience is at least one batch")
        self._read = read
        self._allowance_bytes = allowance_bytes
        self._patience = patience
        self._base_bytes: int | None = None
        self._above = 0

    @property
    def worn_out(self) -> bool:
        return self._above >= self._patience

    def rebase(self) -> None:
        """What stays after the next batch is what is expected: a model was loaded, say."""
        self._base_bytes = None

    def look(self) -> None:
        """To be called after each batch, when nothing renders."""
        if self.worn_out:
            return
        now = self._read()
        if self._base_bytes is None:
            self._base_bytes = now
        self._above = self._above + 1 if now - self._base_bytes > self._allowance_bytes else 0


class Sounds:
    """The sound of requests and results that somebody still holds: gigabytes under load, and no leak."""

    def __init__(self) -> None:
        self._samples: WeakValueDictionary[int, NDArray[Any]] = WeakValueDictionary()

    @property
    def bytes(self) -> int:
        """May be asked for from any thread."""
        living = (reference() for reference in self._samples.valuerefs())
        return sum(samples.nbytes for samples in living if samples is not None)

    def note(self, samples: NDArray[Any]) -> None:
        """Counted from now on, once, until it is gone."""
        self._samples[id(samples)] = samples


def resident_bytes() -> int:
    """What this process holds in RAM; 0 where the system does not tell, which never counts as worn."""
    try:
        return int(_PAGES.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
