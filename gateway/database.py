"""The database seen from its clients: which errors mean that it is away, and reads that outlast it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg

import billing

DATABASE_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what using a connection that has just been cut may raise
    OSError,
)
READ_DELAYS_SECONDS: Final = (0.0, 0.1, 0.3, 0.6, 1.0)
"""A restart of the database costs a reader this long at most, and usually no error."""

Answer = TypeVar("Answer")


def is_lost_connection(error: BaseException) -> bool:
    """Whether the database went away, as opposed to refusing what was asked."""
    return isinstance(
        error,
        OSError
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError
        | asyncpg.PostgresConnectionError
        | asyncpg.OperatorInterventionError
        | asyncpg.InsufficientResourcesError,
    )


class Reader:
    """Reads that take their turn in the order of their arrival and outlast a restart.

    The pool alone is not fair: a newcomer takes a connection that was just returned before the waiter
    that was woken for it, who then queues up again behind everybody else.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, at_once: int) -> None:
        self._pool = pool
        self._turns = asyncio.Semaphore(at_once)

    async def run(self, action: Callable[[billing.Connection], Awaitable[Answer]]) -> Answer:
        """The action's answer; it is run again if its connection was lost. Raises the last error."""
        for delay in READ_DELAYS_SECONDS:
            try:
                return await self._run_once(action)
            except DATABASE_ERRORS as error:
                if not is_lost_connection(error):
                    raise
            await asyncio.sleep(delay)
        return await self._run_once(action)

    async def _run_once(self, action: Callable[[billing.Connection], Awaitable[Answer]]) -> Answer:
        async with self._turns, self._pool.acquire() as conn:
            return await action(conn)
