"""One running gateway for all tests of the API, a customer of its own for each of them."""

import httpx
import pytest_asyncio

from gateway.embedded import EmbeddedPostgres
from tests.gateway.api.installation import Customer, Installation
from tests.gateway.api.money_history import History


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def http(installation: Installation) -> httpx.AsyncClient:
    return installation.http


@pytest_asyncio.fixture(loop_scope="session")
async def customer(installation: Installation) -> Customer:
    return await installation.customer()


@pytest_asyncio.fixture(loop_scope="session")
async def history(installation: Installation, postgres: EmbeddedPostgres) -> History:
    """A new customer with 5 USD, whose past can be made."""
    customer = await installation.customer()
    return History(customer=customer, installation=installation, superuser_dsn=postgres.superuser_dsn)
