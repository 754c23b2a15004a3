"""`antiphon work`: one worker process. Only this command imports torch."""

import asyncio
import os
import signal

import click

from gateway.cli.commands import PRIVATE, run_process
from gateway.observability import configure_logging
from gateway.settings import Settings, read_settings
from gateway.workers.process import run_worker


@click.command()
def work() -> None:
    """Run a worker process; as many as you like, on any machines that share database and storage."""
    os.umask(PRIVATE)
    configure_logging("work")
    run_process(_work(read_settings(os.environ)))


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run_worker(settings, stop)
