"""What commands share: run a coroutine, turn what is expected to go wrong into one line, show results."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import asyncpg
import click
import msgspec
import uvloop

import billing
from gateway import schema
from gateway.bootstrap import connect
from gateway.catalog import CatalogError
from gateway.database import DATABASE_ERRORS
from gateway.errors import GatewayError
from gateway.settings import Settings, read_settings

Result = TypeVar("Result")

PRIVATE = 0o077
"""The umask of processes: songs are for the account that runs them, whatever its shell says."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


def run(
    action: Callable[["asyncpg.Connection[asyncpg.Record]", Settings], Awaitable[Result]],
) -> Result:
    """Run `action` in one transaction; what is expected to go wrong becomes one line and exit status 1."""
    settings = read_settings(os.environ)
    try:
        return asyncio.run(_run(action, settings))
    except (GatewayError, billing.BillingError, schema.SchemaError, CatalogError) as error:
        raise click.ClickException(str(error)) from error
    except DATABASE_ERRORS as error:
        raise click.ClickException(describe(error)) from error


def describe(error: Exception) -> str:
    """A database's complaint in one line; its details name values that are nobody's business."""
    first, _, _ = (str(error) or type(error).__name__).partition("\n")
    return f"the database cannot be used: {first}"


def show(value: dict[str, Any], *, as_json: bool) -> None:
    """The result, as a JSON object or as lines for people."""
    if as_json:
        click.echo(msgspec.json.encode(value).decode())
        return
    width = max(map(len, value))
    for name, item in value.items():
        click.echo(f"{name.ljust(width)}  {item}")


def run_process(main: Coroutine[Any, Any, None]) -> None:
    """Run a long-lived process; a database or catalog that it cannot use becomes one line."""
    try:
        uvloop.run(main)
    except (schema.SchemaError, CatalogError) as error:
        raise click.ClickException(str(error)) from error
    except DATABASE_ERRORS as error:
        raise click.ClickException(describe(error)) from error


async def _run(
    action: Callable[["asyncpg.Connection[asyncpg.Record]", Settings], Awaitable[Result]], settings: Settings
) -> Result:
    conn = await connect(settings)
    try:
        await schema.check(conn)
        return await action(conn, settings)
    finally:
        await conn.close()
