"""`antiphon admin`: organizations, projects, keys, credit, prices."""

import uuid
from datetime import datetime

import asyncpg
import click
import msgspec

from gateway.auth.directory import KeyLimits, create_key, create_organization, create_project, revoke_key
from gateway.auth.keys import derive_pepper
from gateway.catalog import read_catalog
from gateway.cli.commands import json_option, run, show
from gateway.cli.credit import alerts, budget, credit
from gateway.cli.payments import payment
from gateway.cli.prices import price
from gateway.cli.values import ID, MOMENT, TEXT, USD, WORDS, Conn
from gateway.errors import NotFound
from gateway.settings import Settings


@click.group()
def admin() -> None:
    """Organizations, keys, credit and prices; effective in running processes within a second."""


admin.add_command(credit)
admin.add_command(budget)
admin.add_command(alerts)
admin.add_command(price)
admin.add_command(payment)


@admin.group()
def org() -> None:
    """Organizations."""


@org.command("create")
@click.option("--name", type=TEXT, required=True)
@json_option
def org_create(*, name: str, as_json: bool) -> None:
    """Create an organization with an empty account."""

    async def action(conn: Conn, _: Settings) -> uuid.UUID:
        async with conn.transaction():
            return await create_organization(conn, name=name)

    show({"id": run(action).hex}, as_json=as_json)


@admin.group()
def project() -> None:
    """Projects of an organization."""


@project.command("create")
@click.option("--org", "organization_id", type=ID, required=True)
@click.option("--name", type=TEXT, required=True)
@json_option
def project_create(*, organization_id: uuid.UUID, name: str, as_json: bool) -> None:
    """Create a project; its keys see only its jobs."""

    async def action(conn: Conn, _: Settings) -> uuid.UUID:
        try:
            return await create_project(conn, organization_id=organization_id, name=name)
        except asyncpg.UniqueViolationError as error:
            raise click.ClickException(f"the organization has a project {name!r} already") from error
        except asyncpg.ForeignKeyViolationError as error:
            raise NotFound(f"there is no organization {organization_id.hex}") from error

    show({"id": run(action).hex}, as_json=as_json)


@admin.group()
def key() -> None:
    """API keys."""


@key.command("create")
@click.option("--org", "organization_id", type=ID, required=True)
@click.option("--name", type=TEXT, required=True)
@click.option("--test", is_flag=True, help="A test key: free, rendered by the sandbox.")
@click.option("--project", "project_id", type=ID, help="Limit the key to one project.")
@click.option(
    "--scopes", type=WORDS, help="Comma-separated: generate, read, billing, webhooks. Default: all."
)
@click.option("--models", type=WORDS, help="Comma-separated model ids. Default: all.")
@click.option(
    "--cidrs", type=WORDS, help="Comma-separated networks from which the key works. Default: anywhere."
)
@click.option("--expires", type=MOMENT, help="When the key stops working.")
@click.option("--budget-usd", type=USD, help="The most that the key may spend per window.")
@click.option("--budget-window", type=click.Choice(["day", "month", "total"]), default="total")
@click.option("--rpm", type=click.IntRange(min=1), help="Generation requests per minute.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Unfinished jobs at a time.")
@json_option
def key_create(
    *,
    organization_id: uuid.UUID,
    name: str,
    test: bool,
    project_id: uuid.UUID | None,
    scopes: list[str] | None,
    models: list[str] | None,
    cidrs: list[str] | None,
    expires: datetime | None,
    budget_usd: int | None,
    budget_window: str,
    rpm: int | None,
    concurrency: int | None,
    as_json: bool,
) -> None:
    """Issue a key. It is shown now and never again; limits are unlimited unless set."""
    limits = KeyLimits(
        scopes=scopes,
        cidrs=cidrs,
        expires_at=expires,
        requests_per_minute=rpm,
        max_open_jobs=concurrency,
        budget_nano=budget_usd,
        budget_period=budget_window,
    )

    async def action(conn: Conn, settings: Settings) -> tuple[uuid.UUID, str]:
        catalog = read_catalog(settings.catalog)
        known = None if models is None else [catalog.find(name).id for name in models]
        async with conn.transaction():
            return await create_key(
                conn,
                pepper=derive_pepper(settings.secret_key),
                organization_id=organization_id,
                name=name,
                test=test,
                project_id=project_id,
                limits=msgspec.structs.replace(limits, models=known),
            )

    key_id, issued = run(action)
    show({"id": key_id.hex, "key": issued}, as_json=as_json)


@key.command("revoke")
@click.argument("key_id", type=ID)
@json_option
def key_revoke(*, key_id: uuid.UUID, as_json: bool) -> None:
    """End a key, everywhere within a second; jobs that it has submitted go on."""

    async def action(conn: Conn, _: Settings) -> None:
        async with conn.transaction():
            await revoke_key(conn, key_id)

    run(action)
    show({"id": key_id.hex, "revoked": True}, as_json=as_json)
