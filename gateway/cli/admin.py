"""`antiphon admin`: organizations, projects, keys, credit, prices."""

import uuid
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
import click
import msgspec

import billing
from gateway.auth.directory import KeyLimits, create_key, create_organization, create_project, revoke_key
from gateway.auth.keys import derive_pepper
from gateway.catalog import read_catalog
from gateway.cli.commands import json_option, run, show
from gateway.config_watch import bump_revision
from gateway.errors import NotFound
from gateway.settings import Settings

Conn: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class IdType(click.ParamType[uuid.UUID]):
    """An id in its public spelling: 32 hexadecimal digits."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> uuid.UUID:
        """Dashes are tolerated."""
        try:
            return value if isinstance(value, uuid.UUID) else uuid.UUID(hex=value)
        except ValueError:
            self.fail(f"{value!r} is no id", param, ctx)


class UsdType(click.ParamType[int]):
    """A decimal number of dollars, kept as integer nano-USD."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Never through a float."""
        try:
            nano = value if isinstance(value, int) else billing.parse_usd(value)
        except billing.MoneyFormatError as error:
            self.fail(str(error), param, ctx)
        if nano < 0:
            self.fail("a negative amount", param, ctx)
        return nano


class MomentType(click.ParamType[datetime]):
    """A time in ISO 8601; without a zone it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """2026-12-31 or 2026-12-31T12:00:00Z"""
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write 2026-12-31T00:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class WordsType(click.ParamType[list[str]]):
    """Words between commas, at least one: an empty list would forbid everything."""

    name = "words"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """a, b"""
        words = (
            value if isinstance(value, list) else [word.strip() for word in value.split(",") if word.strip()]
        )
        if not words:
            self.fail("the list is empty; leave the option out for no limit", param, ctx)
        return words


class TextType(click.ParamType[str]):
    """Something that a person can read."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Without the blanks around it."""
        text = str(value).strip()
        if not text or not text.isprintable():
            self.fail("write some words on one line", param, ctx)
        return text


ID, USD, MOMENT, WORDS, TEXT = IdType(), UsdType(), MomentType(), WordsType(), TextType()


@click.group()
def admin() -> None:
    """Organizations, keys, credit and prices; effective in running processes within a second."""


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
@click.option("--scopes", type=WORDS, help="Comma-separated: generate, read. Default: all.")
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


@admin.group()
def credit() -> None:
    """Credit of an organization."""


@credit.command("grant")
@click.option("--org", "organization_id", type=ID, required=True)
@click.option("--usd", "amount_nano", type=USD, required=True)
@click.option("--reason", type=TEXT, required=True, help="Why; it stays in the ledger.")
@json_option
def credit_grant(*, organization_id: uuid.UUID, amount_nano: int, reason: str, as_json: bool) -> None:
    """Give credit that nobody paid for."""

    async def action(conn: Conn, _: Settings) -> billing.Account:
        async with conn.transaction():
            try:
                return await billing.grant(
                    conn, account_id=organization_id, amount_nano=amount_nano, reason=reason
                )
            except billing.AccountMissing as error:
                raise NotFound(f"there is no organization {organization_id.hex}") from error

    account = run(action)
    show({"balance_usd": billing.format_usd(account.posted_nano)}, as_json=as_json)


@admin.group()
def price() -> None:
    """Prices; old versions stay, and running jobs keep theirs."""


@price.command("set")
@click.option("--model", required=True)
@click.option("--usd-per-second", "nano_per_second", type=USD, required=True)
@click.option("--was", "was_nano_per_second", type=USD, help="A former, higher price to show struck through.")
@click.option("--org", "organization_id", type=ID, help="For this organization alone.")
@json_option
def price_set(
    *,
    model: str,
    nano_per_second: int,
    was_nano_per_second: int | None,
    organization_id: uuid.UUID | None,
    as_json: bool,
) -> None:
    """Append a price version that is in force at once."""
    if was_nano_per_second is not None and was_nano_per_second <= nano_per_second:
        raise click.BadParameter("it must be more than the new price", param_hint="--was")

    async def action(conn: Conn, settings: Settings) -> str:
        known = read_catalog(settings.catalog).find(model)
        async with conn.transaction():
            if organization_id is not None and not await conn.fetchval(
                "SELECT true FROM organization WHERE id = $1", organization_id
            ):
                raise NotFound(f"there is no organization {organization_id.hex}")
            await billing.set_price(
                conn,
                model=known.id,
                nano_per_second=nano_per_second,
                was_nano_per_second=was_nano_per_second,
                account_id=organization_id,
            )
            await bump_revision(conn)
        return known.id

    show({"model": run(action), "usd_per_second": billing.format_usd(nano_per_second)}, as_json=as_json)
