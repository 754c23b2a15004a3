"""Our account at WaveSpeed's stand-in, and calls to be sent there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from engine import Task
from gateway.backends.remote.connection import Timeouts
from gateway.backends.remote.provider import Call
from gateway.backends.wavespeed import WaveSpeed
from gateway.generation import SAMPLE_RATE, GenerationRequest
from tests.providers.wavespeed import WaveSpeedStandIn, running
from tests.remote_backends import TLS

MODEL = "wavespeed-ai/ace-step-1.5"
PRICES = {MODEL: 300_000, "wavespeed-ai/ace-step": 200_000}
SHORT = Timeouts(connect=0.1, read=0.2, submit=0.3, query=0.3)


class Account:
    """The provider under test beside the vendor that it talks to."""

    def __init__(self, stand_in: WaveSpeedStandIn) -> None:
        self.vendor = stand_in
        self.provider = self.client()

    def client(self, **options: Any) -> WaveSpeed:
        """Another connection to the same vendor."""
        usual = {"api_key": self.vendor.key, "base_url": self.vendor.url, "tls": TLS}
        return WaveSpeed(price_nano_per_second=PRICES, **usual | options)


@asynccontextmanager
async def open_account(**options: Any) -> AsyncIterator[Account]:
    """Tasks there run until the test ends them."""
    async with running() as stand_in:
        stand_in.processing_seconds = None
        account = Account(stand_in)
        account.provider = account.client(**options)
        yield account
        await account.provider.close()


def request(**fields: Any) -> GenerationRequest:
    """A minute of music, unless told otherwise."""
    usual = {"prompt": "calm piano", "frames": 60 * SAMPLE_RATE, "seed": 7, "task": Task.TEXT2MUSIC}
    return GenerationRequest(**usual | {"instrumental": not fields.get("lyrics")} | fields)


def call(*, model: str = MODEL, first: int = 0, **fields: Any) -> Call:
    return Call(ref=None, model=model, request=request(**fields), first=first, count=1)
