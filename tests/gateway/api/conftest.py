"""One running gateway for all tests of the API, a customer of its own for each of them."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gateway.embedded import EmbeddedPostgres
from tests.gateway.api.installation import Customer, Installation, fresh_database, running

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The gateway lives in the session's event loop, so its tests run there too."""
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
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


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def http(installation: Installation) -> httpx.AsyncClient:
    return installation.http


@pytest_asyncio.fixture(loop_scope="session")
async def customer(installation: Installation) -> Customer:
    return await installation.customer()
