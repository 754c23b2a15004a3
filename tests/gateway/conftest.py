"""One running gateway for all tests of the HTTP API and of the commands beside it; a shop for those below."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from gateway.embedded import EmbeddedPostgres
from gateway.storage import AudioStore
from tests.databases import fresh_database
from tests.factories import Pool, open_lane, open_shop
from tests.gateway.api.installation import Installation, running
from tests.workbench import Workbench

HERE = Path(__file__).parent
OF_A_RUNNING_GATEWAY = (HERE / "api", HERE / "cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The gateway lives in the session's event loop, so its tests run there too."""
    for item in items:
        if item.path.parent in OF_A_RUNNING_GATEWAY and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installation(
    postgres: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    async with (
        fresh_database(postgres, template_database) as dsn,
        running(dsn, tmp_path_factory.mktemp("home")) as installation,
    ):
        yield installation


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(database, min_size=1, max_size=8) as opened:
        async with opened.acquire() as conn:
            await open_shop(conn)
        yield opened


@pytest.fixture
async def bench(pool: Pool, database: str) -> AsyncIterator[Workbench]:
    async with open_lane(database) as jobs:
        yield Workbench(pool, jobs)


@pytest.fixture
def store(tmp_path: Path) -> AudioStore:
    return AudioStore((tmp_path / "audio").as_uri())
