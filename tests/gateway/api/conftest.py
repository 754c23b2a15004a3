"""One running gateway for all tests of the API, a customer of its own for each of them."""

import httpx
import pytest_asyncio

from tests.gateway.api.installation import Customer, Installation


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def http(installation: Installation) -> httpx.AsyncClient:
    return installation.http


@pytest_asyncio.fixture(loop_scope="session")
async def customer(installation: Installation) -> Customer:
    return await installation.customer()
