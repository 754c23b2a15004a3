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


async def read(
    pool: "asyncpg.Pool[asyncpg.Record]", action: Callable[[billing.Connection], Awaitable[Answer]]
) -> Answer:
    """Run an action that only reads, again if its connection was lost; raises the last error."""
    for delay in READ_DELAYS_SECONDS:
        try:
            async with pool.acquire() as conn:
                return await action(conn)
        except DATABASE_ERRORS as error:
            if not is_lost_connection(error):
                raise
        await asyncio.sleep(delay)
    async with pool.acquire() as conn:
        return await action(conn)
