"""Stand-ins for the providers that the product talks to, each over a real loopback socket."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.providers import runware, wavespeed
from tests.providers.runware import RunwareStandIn
from tests.providers.stripe import StandIn, running
from tests.providers.wavespeed import WaveSpeedStandIn
from tests.providers.wavespeed_clients import plain


@pytest.fixture
async def stripe_stand_in() -> AsyncIterator[StandIn]:
    async with running() as stand_in:
        yield stand_in


@pytest.fixture
async def runware_stand_in() -> AsyncIterator[RunwareStandIn]:
    async with runware.running() as stand_in:
        stand_in.processing_seconds = 0.02
        yield stand_in


@pytest.fixture
async def stand_in() -> AsyncIterator[WaveSpeedStandIn]:
    async with wavespeed.running() as stand_in:
        stand_in.processing_seconds = 0
        yield stand_in


@pytest.fixture
async def http(stand_in: WaveSpeedStandIn) -> AsyncIterator[httpx.AsyncClient]:
    async with plain(stand_in) as client:
        yield client
