"""Many who ask for the same at once share one answer, which is never older than their question."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Generic, TypeVar

Answer = TypeVar("Answer")


class Flights(Generic[Answer]):
    """One piece of work per key at a time; whoever comes while it is under way shares the next one.

    Who came later may know of something that the work under way has already passed by, so its result
    is not for them.
    """

    def __init__(self) -> None:
        self._running: Final[dict[Hashable, asyncio.Task[Answer]]] = {}
        self._waiting: Final[dict[Hashable, asyncio.Task[Answer]]] = {}

    async def join(self, key: Hashable, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """What the work gives, or raises; it goes on if the caller is cancelled."""
        task = self._waiting.get(key)
        if task is None:
            task = asyncio.create_task(self._run(key, self._running.get(key), work))
            self._waiting[key] = task
        return await asyncio.shield(task)

    async def land(self) -> None:
        """Wait for all of it."""
        under_way: list[asyncio.Task[Any]] = [*self._running.values(), *self._waiting.values()]
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _run(
        self, key: Hashable, before: asyncio.Task[Answer] | None, work: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        if before is not None:
            await asyncio.wait([before])
        task = self._running[key] = self._waiting.pop(key)
        try:
            return await work()
        finally:
            if self._running.get(key) is task:
                del self._running[key]
