"""One connection to a database of the test's own, with prices in force."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.factories import Conn, open_shop


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Conn]:
    connection = await asyncpg.connect(database)
    await open_shop(connection)
    yield connection
    await connection.close()
