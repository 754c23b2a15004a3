"""A worker whose memory grows batch after batch ends itself; its supervisor starts a fresh one."""

import asyncio
import itertools

from engine import Engine, EngineRequest, Watermark
from engine.composer.runner import ComposerRunner
from gateway.workers.process import stop_when_worn_out


async def test_a_worker_that_leaks_stops_and_one_that_does_not_goes_on() -> None:
    readings = {"leaking": itertools.count(), "tight": itertools.repeat(0)}
    stopped: dict[str, bool] = {}
    for name, reading in readings.items():
        mark = Watermark(lambda reading=reading: next(reading), allowance_bytes=0, patience=2)
        with Engine([ComposerRunner(threads=1)], watermarks=[mark]) as engine:
            for index in range(4):
                request = EngineRequest(
                    id=str(index), model="sandbox", prompt="a calm song", lyrics="", frames=4800, seed=index
                )
                await asyncio.wrap_future(engine.submit(request).future)
            stop = asyncio.Event()
            watching = asyncio.create_task(stop_when_worn_out(engine, stop, period_seconds=0.01))
            await asyncio.sleep(0.2)
            stopped[name] = stop.is_set()
            watching.cancel()
    assert stopped == {"leaking": True, "tight": False}
