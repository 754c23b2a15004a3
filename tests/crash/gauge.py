"""How much of a core the machine has for one more process: seconds of a busy machine are worth less."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from statistics import fmean
from typing import Final

SLICE_SECONDS: Final = 0.02
PERIOD_SECONDS: Final = 0.2
PROGRAM: Final = f"""
import os, pathlib, sys, time
niceness = int(sys.argv[1])
os.nice(niceness)
session = pathlib.Path("/proc/self/autogroup")
if niceness and session.exists():
    session.write_text(sys.argv[1])
while True:
    began, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < {SLICE_SECONDS}:
        pass
    print({SLICE_SECONDS} / (time.perf_counter() - began), flush=True)
    time.sleep({PERIOD_SECONDS})
"""


class Gauge:
    """Samples of the share of a core that one process gets."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []

    def granted(self, since: float) -> float:
        """The seconds from `since` (monotonic) until now, as those of a machine with a free core."""
        now = time.monotonic()
        shares = [min(share, 1.0) for at, share in self._samples if at >= since]
        if not shares:  # shorter than a period: what was seen last
            shares = [min(share, 1.0) for _, share in self._samples[-1:]] or [1.0]
        return (now - since) * fmean(shares)

    async def read(self, lines: asyncio.StreamReader) -> None:
        """Note what the program says, until it ends."""
        async for line in lines:
            self._samples.append((time.monotonic(), float(line)))


@contextlib.asynccontextmanager
async def open_gauge(*, niceness: int = 0) -> AsyncIterator[Gauge]:
    """A gauge that measures while the block runs, in a session of its own like the children of `up`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(niceness),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    gauge = Gauge()
    reading = asyncio.create_task(gauge.read(process.stdout))
    try:
        yield gauge
    finally:
        process.kill()
        await process.wait()
        await reading
