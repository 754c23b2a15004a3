"""A gateway that takes payments, and one that does not."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.factories import violations
from tests.gateway.api.installation import Installation, running
from tests.gateway.payments.shop import WEBHOOK_SECRET, Shop, environ
from tests.providers import stripe


@pytest.fixture
async def shop(database: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """At its end nothing of the books is wrong."""
    async with (
        stripe.running() as stand_in,
        running(database, tmp_path / "home", **environ(stand_in)) as installation,
    ):
        stand_in.deliveries.send_to(f"{installation.http.base_url}/webhooks/stripe", WEBHOOK_SECRET)
        yield Shop(installation=installation, stripe=stand_in, customer=await installation.customer(usd="0"))
        await stand_in.deliveries.settled()
        assert await violations(database) == []


@pytest.fixture
async def without_payments(database: str, tmp_path: Path) -> AsyncIterator[Installation]:
    """A gateway whose operator has set no key of Stripe's."""
    async with running(database, tmp_path / "home") as installation:
        yield installation
