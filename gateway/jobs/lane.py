"""Group commit: one lane per process in which waiting items are written together.

Nobody waits on a timer. While one batch is being committed, the next one gathers; so an idle lane
adds no delay and a busy one pays one fsync for hundreds of items.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

import structlog

from gateway.database import DATABASE_ERRORS, is_lost_connection
from gateway.errors import Overloaded

MAX_BATCH: Final = 512
MAX_WAITING: Final = 4096
RETRY_DELAYS_SECONDS: Final = (0.05, 0.2, 0.5, 1.0, 2.0, 2.0)
"""How long a lane waits for a database that restarts before it gives its items up."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class Lane(Generic[Item, Answer]):
    """Runs `write` on batches of items, one batch at a time.

    `write` commits the batch in one transaction and returns one answer per item, in order. It is
    called with `retry=True` after a failure: the lost answer may have hidden a commit, so it must
    then look first for what is there already. A batch that fails for another reason than a lost
    database is retried one by one, so that a poisonous item fails alone.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item], bool], Awaitable[Sequence[Answer]]],
        *,
        name: str,
        max_waiting: int = MAX_WAITING,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._write = write
        self._name = name
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """The answer for `item`, after its commit. Raises Overloaded when too many are waiting."""
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded("too many requests are waiting", retry_after_seconds=1)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name=f"lane {self._name}")
        return await future

    async def drain(self) -> None:
        """Wait until everything that was submitted has its answer."""
        if self._runner is not None:
            await self._runner

    async def _run(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
            started = asyncio.get_running_loop().time()
            await self._answer(batch)
            if self._on_batch is not None:
                self._on_batch(len(batch), asyncio.get_running_loop().time() - started)

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Answer]]], *, retry: bool = False) -> None:
        try:
            answers = await self._write_stubbornly([item for item, _ in batch], retry=retry)
        except Exception as error:  # noqa: BLE001 - it is not swallowed: every waiting caller gets it
            if len(batch) > 1 and not isinstance(error, Overloaded):
                log.warning("lane.batch_failed", lane=self._name, size=len(batch), error=type(error).__name__)
                for pair in batch:
                    # A try before the one that failed may have been committed, and its answer lost.
                    await self._answer([pair], retry=True)
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _write_stubbornly(self, items: Sequence[Item], *, retry: bool) -> Sequence[Answer]:
        """Outlast a restart of the database; whether the first try was committed is found out."""
        try:
            return await self._write(items, retry)
        except DATABASE_ERRORS as error:
            if not is_lost_connection(error):
                raise
            lost = error
        for delay in RETRY_DELAYS_SECONDS:
            log.warning("lane.database_lost", lane=self._name, size=len(items), error=type(lost).__name__)
            await asyncio.sleep(delay)
            try:
                return await self._write(items, True)
            except DATABASE_ERRORS as error:
                if not is_lost_connection(error):
                    raise
                lost = error
        raise Overloaded(
            "the database cannot be reached; what was sent may have been accepted", retry_after_seconds=2
        ) from lost
