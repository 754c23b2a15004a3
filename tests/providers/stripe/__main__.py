"""`python -m tests.providers.stripe`: the stand-in alone, for development."""

import asyncio
import signal

import click

from tests.providers.stripe.running import API_KEY, LOOPBACK, running


@click.command()
@click.option("--port", type=int, default=12111, show_default=True)
@click.option(
    "--host", default=LOOPBACK, show_default=True, help="Address to listen on; there is no protection."
)
@click.option(
    "--public-url", help="Under which people and programs reach it, when that is not host and port."
)
@click.option("--api-key", default=API_KEY, show_default=True)
@click.option("--webhook-url", help="Where events are delivered; without it they can only be listed.")
@click.option("--secret", help="Signs the deliveries; made up and printed if left out.")
def main(
    port: int, host: str, public_url: str | None, api_key: str, webhook_url: str | None, secret: str | None
) -> None:
    """A stateful stand-in for the payment provider's API, its checkout page and its webhooks."""
    asyncio.run(_run(port, host, public_url, api_key, webhook_url, secret))


async def _run(
    port: int, host: str, public_url: str | None, api_key: str, webhook_url: str | None, secret: str | None
) -> None:
    stopped = asyncio.Event()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(wanted, stopped.set)
    async with running(port, host=host, public_url=public_url, api_key=api_key) as stand_in:
        click.echo(f"ANTIPHON_STRIPE_BASE_URL={stand_in.url}")
        click.echo(f"ANTIPHON_STRIPE_SECRET_KEY={api_key}")
        if webhook_url:
            secret = stand_in.deliveries.send_to(webhook_url, secret)
            click.echo(f"ANTIPHON_STRIPE_WEBHOOK_SECRET={secret}")
        await stopped.wait()


if __name__ == "__main__":
    main()
