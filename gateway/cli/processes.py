"""`antiphon serve` and `antiphon migrate`. Neither may import torch: `work` lives in its own module."""

import asyncio
import gc
import os

import asyncpg
import click

import billing
from gateway import schema
from gateway.app import create_app
from gateway.bootstrap import database_url, open_http
from gateway.catalog import CatalogError, read_catalog
from gateway.cli.commands import PRIVATE, describe, json_option, run_process, show
from gateway.cli.http_server import Config, Server
from gateway.config_watch import bump_revision
from gateway.database import DATABASE_ERRORS
from gateway.observability import configure_logging
from gateway.settings import Settings, read_settings

BACKLOG = 2048
GRACE_SECONDS = 25
GC_THRESHOLD = 20_000
"""Allocations between two young collections; Python's 700 makes one every few requests."""


@click.command()
def serve() -> None:
    """Run the HTTP process."""
    os.umask(PRIVATE)
    configure_logging("serve")
    run_process(_serve(read_settings(os.environ)))


@click.command()
@json_option
def migrate(*, as_json: bool) -> None:
    """Bring the database to this version's schema, and give models without a price their first one."""
    settings = read_settings(os.environ)
    try:
        revision = schema.upgrade(database_url(settings))
        seeded = asyncio.run(_seed_prices(settings))
    except (schema.SchemaError, CatalogError) as error:
        raise click.ClickException(str(error)) from error
    except DATABASE_ERRORS as error:
        raise click.ClickException(describe(error)) from error
    show({"revision": revision, "prices_seeded": seeded}, as_json=as_json)


async def _serve(settings: Settings) -> None:
    async with open_http(settings) as live:
        # What was loaded until here lives as long as the process: the collector need not walk it again.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        config = Config(
            create_app(live),
            host=settings.bind_host,
            port=settings.bind_port,
            backlog=BACKLOG,
            timeout_graceful_shutdown=GRACE_SECONDS,
            lifespan="on",
        )
        await Server(config, on_exit=live.job_watch.stop).serve()


async def _seed_prices(settings: Settings) -> int:
    conn = await asyncpg.connect(database_url(settings), timeout=10)
    try:
        async with conn.transaction():
            seeded = await billing.seed_prices(conn, read_catalog(settings.catalog).seed_prices())
            if seeded:
                await bump_revision(conn)
            return seeded
    finally:
        await conn.close()
