"""CPU time of whole process trees: on a machine that everybody shares it explains the rates."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil


class CpuUse:
    """What was used between the start and the end of a measurement, in seconds of one core."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.wall = 0.0
        self.machine = 0.0
        """Share of all cores that anybody used, 0 to 1."""

    @property
    def others(self) -> float:
        """Share of all cores that went to processes which are not named: what disturbs the figures."""
        ours = sum(self.seconds.values()) / (self.wall * (os.cpu_count() or 1))
        return max(0.0, self.machine - ours)

    def microseconds_each(self, count: int) -> dict[str, float]:
        """CPU time per request."""
        return {name: used / max(1, count) * 1e6 for name, used in self.seconds.items()}


@contextmanager
def measured(pids: Mapping[str, int]) -> Iterator[CpuUse]:
    """Fill the use of each named process and its descendants while the block runs."""
    use = CpuUse()
    machine = psutil.cpu_times()
    before = {name: _used(pid) for name, pid in pids.items()}
    started = time.perf_counter()
    yield use
    use.wall = time.perf_counter() - started
    use.seconds = {name: _used(pid) - before[name] for name, pid in pids.items()}
    use.machine = _busy_share(machine, psutil.cpu_times())


def _used(pid: int) -> float:
    """Of the process, its living descendants, and its ended and reaped children."""
    process = psutil.Process(pid)
    own = process.cpu_times()
    total = float(own.user + own.system + own.children_user + own.children_system)
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _busy_share(before: Any, after: Any) -> float:
    passed = {name: getattr(after, name) - getattr(before, name) for name in before._fields}
    whole = sum(passed.values()) - passed.get("guest", 0.0) - passed.get("guest_nice", 0.0)
    idle = passed["idle"] + passed.get("iowait", 0.0)
    return 1 - idle / whole if whole else 0.0


def resident_mib(pid: int) -> float:
    """Memory of the process now, shared pages included."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def peak_mib(pid: int) -> float:
    """The most memory that the process ever had; what it has now where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return resident_mib(pid)
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
