"""How the tests of the stand-in reach it: the vendor's own package, and plain HTTP."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import wavespeed

from tests.providers.wavespeed import WaveSpeedStandIn

ONE = "wavespeed-ai/ace-step"
ONE_FIVE = "wavespeed-ai/ace-step-1.5"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # its list of authorities would take longer than a test


def client(stand_in: WaveSpeedStandIn, **options: Any) -> wavespeed.Client:
    """The unmodified client; it is synchronous."""
    settings = {"api_key": stand_in.key, "base_url": stand_in.url, "retry_interval": 0.01} | options
    return wavespeed.Client(**settings)


async def run(stand_in: WaveSpeedStandIn, model: str = ONE_FIVE, **members: Any) -> dict[str, Any]:
    """`Client.run` in a thread, polling fast; `members` over a short request."""
    return await called(client(stand_in).run, model, short(**members), poll_interval=0.02)


async def called(act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await asyncio.to_thread(act, *args, **kwargs)


def short(**members: Any) -> dict[str, Any]:
    return {"tags": "calm piano", "duration": 5} | members


@asynccontextmanager
async def plain(stand_in: WaveSpeedStandIn, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Plain HTTP with the key, relative to the API's root."""
    headers = {"authorization": f"Bearer {key or stand_in.key}"}
    async with httpx.AsyncClient(
        base_url=f"{stand_in.url}/api/v3", headers=headers, verify=NO_TLS, trust_env=False, timeout=20
    ) as http:
        yield http
