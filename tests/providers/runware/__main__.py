"""`python -m tests.providers.runware`: the stand-in alone, for development."""

import asyncio
import json
import signal

import click

from tests.providers.runware.running import API_KEY, running
from tests.providers.serving import LOOPBACK


@click.command()
@click.option("--port", type=int, default=0, help="A free one unless given.")
@click.option(
    "--host", default=LOOPBACK, show_default=True, help="Address to listen on; there is no protection."
)
@click.option("--api-key", default=API_KEY, show_default=True)
@click.option("--processing-seconds", type=float, default=0.2, show_default=True)
def main(port: int, host: str, api_key: str, processing_seconds: float) -> None:
    """A stateful stand-in for the music API of Runware; its first line of output says where it listens."""
    asyncio.run(_run(port, host, api_key, processing_seconds))


async def _run(port: int, host: str, api_key: str, processing_seconds: float) -> None:
    stopped = asyncio.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, stopped.set)
    async with running(port, host=host, key=api_key) as stand_in:
        stand_in.processing_seconds = processing_seconds
        click.echo(json.dumps({"url": stand_in.url, "ws_url": stand_in.ws_url, "key": stand_in.key}))
        await stopped.wait()


if __name__ == "__main__":
    main()
