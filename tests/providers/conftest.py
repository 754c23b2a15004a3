"""Stand-ins for the providers that the product talks to, each over a real loopback socket."""

from collections.abc import AsyncIterator

import pytest

from tests.providers import runware
from tests.providers.runware import RunwareStandIn
from tests.providers.stripe import StandIn, running


@pytest.fixture
async def stripe_stand_in() -> AsyncIterator[StandIn]:
    async with running() as stand_in:
        yield stand_in


@pytest.fixture
async def runware_stand_in() -> AsyncIterator[RunwareStandIn]:
    async with runware.running() as stand_in:
        stand_in.processing_seconds = 0.02
        yield stand_in
