"""A pool of connections to a database of the test's own."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.factories import Pool


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=4) as opened:
        yield opened
