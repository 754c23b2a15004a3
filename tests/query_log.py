"""A pool that tells which statements went through it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from tests.factories import Pool


@contextlib.asynccontextmanager
async def logged_pool(dsn: str) -> AsyncIterator[tuple[Pool, list[str]]]:
    """The pool, and the list that grows by every statement."""
    seen: list[str] = []

    def note(record: Any) -> None:
        seen.append(record.query)

    async def log_from_now_on(conn: Any) -> None:
        conn.add_query_logger(note)

    async with asyncpg.create_pool(
        dsn, min_size=1, max_size=4, setup=log_from_now_on, reset=_leave_as_it_is
    ) as pool:
        yield pool, seen


async def _leave_as_it_is(_: Any) -> None:
    """No query on return, as in the product's pools."""
