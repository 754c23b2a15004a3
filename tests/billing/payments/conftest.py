"""A shop of the test's own."""

from collections.abc import AsyncIterator

import pytest

from tests.billing.payments.shop import Shop, open_shop


@pytest.fixture
async def shop(database: str) -> AsyncIterator[Shop]:
    async with open_shop(database) as shop:
        yield shop
