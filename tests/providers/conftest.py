"""Stand-ins for the providers that the product talks to, each over a real loopback socket."""

from collections.abc import AsyncIterator

import pytest

from tests.providers.stripe import StandIn, running


@pytest.fixture
async def stripe_stand_in() -> AsyncIterator[StandIn]:
    async with running() as stand_in:
        yield stand_in
