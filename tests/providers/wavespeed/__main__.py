"""`python -m tests.providers.wavespeed`: the stand-in alone, for development."""

import asyncio
import json
import signal

import click

from tests.providers.wavespeed.stand_in import API_KEY, LOOPBACK, running


@click.command()
@click.option("--port", type=int, default=0, help="A free one unless told.")
@click.option(
    "--host", default=LOOPBACK, show_default=True, help="Address to listen on; there is no protection."
)
@click.option("--api-key", default=API_KEY, show_default=True)
@click.option("--processing-seconds", type=float, default=2.0, show_default=True)
def main(port: int, host: str, api_key: str, processing_seconds: float) -> None:
    """A stand-in for the provider's API, its files and its webhooks; `POST /_control` makes it fail."""
    asyncio.run(_run(port, host, api_key, processing_seconds))


async def _run(port: int, host: str, api_key: str, processing_seconds: float) -> None:
    stopped = asyncio.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, stopped.set)
    async with running(port, host=host, key=api_key) as stand_in:
        stand_in.processing_seconds = processing_seconds
        click.echo(
            json.dumps({"url": stand_in.url, "key": stand_in.key, "control": f"{stand_in.url}/_control"})
        )
        await stopped.wait()


if __name__ == "__main__":
    main()
