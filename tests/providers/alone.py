"""A stand-in alone, for development: one line of JSON with its addresses, until it is stopped."""

import asyncio
import json
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import click

from tests.providers.serving import LOOPBACK


def command(
    running: Callable[..., AbstractAsyncContextManager[Any]],
    *,
    key: str,
    addresses: Callable[[Any], dict[str, str]],
) -> click.Command:
    """The command line of a stand-in that has a key and `processing_seconds`."""

    @click.command()
    @click.option("--port", type=int, default=0, help="A free one unless given.")
    @click.option(
        "--host", default=LOOPBACK, show_default=True, help="Address to listen on; there is no protection."
    )
    @click.option("--api-key", default=key, show_default=True)
    @click.option("--processing-seconds", type=float, default=2.0, show_default=True)
    def main(port: int, host: str, api_key: str, processing_seconds: float) -> None:
        """A provider's API, its files and its webhooks; `POST /_control` makes it fail."""
        asyncio.run(run(port, host, api_key, processing_seconds))

    async def run(port: int, host: str, api_key: str, processing_seconds: float) -> None:
        stopped = asyncio.Event()
        for wanted in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(wanted, stopped.set)
        async with running(port, host=host, key=api_key) as stand_in:
            stand_in.processing_seconds = processing_seconds
            click.echo(json.dumps(addresses(stand_in)))
            await stopped.wait()

    return main
