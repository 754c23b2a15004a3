"""A shop with prices, a pool of connections to it, and one lane."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway.jobs.service import Jobs
from tests.factories import Pool, open_lane, open_shop
from tests.workbench import Workbench


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=8) as opened:
        async with opened.acquire() as conn:
            await open_shop(conn)
        yield opened


@pytest.fixture
async def jobs(pool: Pool, database: str) -> AsyncIterator[Jobs]:
    """One gateway process; `pool` comes first, because it sets the prices."""
    assert not pool.is_closing()
    async with open_lane(database) as opened:
        yield opened


@pytest.fixture
def bench(pool: Pool, jobs: Jobs) -> Workbench:
    return Workbench(pool, jobs)
