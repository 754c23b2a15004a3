"""`antiphon admin price`: what a second of each model costs, for all or for one organization."""

import functools
import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import click

import billing
from gateway.catalog import read_catalog
from gateway.cli.commands import json_option, run, show
from gateway.cli.values import ID, MOMENT, USD, Conn
from gateway.config_watch import bump_revision
from gateway.errors import NotFound
from gateway.settings import Settings

_PERCENT: Final = re.compile(r"(\d{1,3})(?:\.(\d{1,4}))?", re.ASCII)


class PercentType(click.ParamType[int]):
    """A discount in percent, kept as parts per million."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """12.5 -> 125_000"""
        if isinstance(value, int):
            return value
        match = _PERCENT.fullmatch(value)
        ppm = int(match[1] + (match[2] or "").ljust(4, "0")) if match else None
        if ppm is None or ppm > billing.PPM:
            self.fail(f"{value!r} is no discount: write a number from 0 to 100, such as 12.5", param, ctx)
        return ppm


@click.group()
def price() -> None:
    """Prices; old versions stay, and running jobs keep theirs."""


@price.command("set")
@click.option("--model", required=True)
@click.option("--usd-per-second", "nano_per_second", type=USD, help="The list price, before a discount.")
@click.option("--was", "was_nano_per_second", type=USD, help="A former, higher price to show struck through.")
@click.option("--org", "organization_id", type=ID, help="For this organization alone.")
@click.option("--discount-percent", "discount_ppm", type=PercentType(), default=0, help="Off that price.")
@click.option("--from", "effective_from", type=MOMENT, help="When it takes effect. Default: now.")
@click.option("--default", "withdraw", is_flag=True, help="With --org: back to the list price.")
@json_option
def price_set(
    *,
    model: str,
    nano_per_second: int | None,
    was_nano_per_second: int | None,
    organization_id: uuid.UUID | None,
    discount_ppm: int,
    effective_from: datetime | None,
    withdraw: bool,
    as_json: bool,
) -> None:
    """Append a price version; it takes effect now, or at a moment ahead."""
    change: Callable[..., Awaitable[billing.Price]]
    if nano_per_second is not None and not withdraw:
        if was_nano_per_second is not None and was_nano_per_second <= nano_per_second:
            raise click.BadParameter("it must be more than the new price", param_hint="--was")
        change = functools.partial(
            billing.set_price,
            nano_per_second=nano_per_second,
            was_nano_per_second=was_nano_per_second,
            discount_ppm=discount_ppm,
            account_id=organization_id,
        )
    elif withdraw and nano_per_second is None:
        if organization_id is None or was_nano_per_second is not None or discount_ppm:
            raise click.UsageError("--default ends an organization's own price: give it --org and no amounts")
        change = functools.partial(billing.withdraw_price, account_id=organization_id)
    else:
        raise click.UsageError("name a price with --usd-per-second, or end an organization's with --default")

    async def action(conn: Conn, settings: Settings) -> billing.Price:
        known = read_catalog(settings.catalog).find(model)
        async with conn.transaction():
            await _check_organization(conn, organization_id)
            version = await change(conn, model=known.id, effective_from=effective_from)
            await bump_revision(conn)
        return version

    show(_describe(run(action)), as_json=as_json)


@price.command("list")
@click.option("--org", "organization_id", type=ID, help="Those agreed with this organization.")
@json_option
def price_list(*, organization_id: uuid.UUID | None, as_json: bool) -> None:
    """List prices in force, scheduled and past: of everybody, or of one organization alone."""

    async def action(conn: Conn, _: Settings) -> list[tuple[billing.Price, billing.PriceState]]:
        await _check_organization(conn, organization_id)
        return await billing.read_price_history(conn, organization_id)

    found = [_describe(version) | {"state": state.value} for version, state in run(action)]
    if as_json:
        show({"prices": found}, as_json=True)
        return
    for line in found:
        click.echo("  ".join(f"{name} {value}" for name, value in line.items() if value is not None))


async def _check_organization(conn: Conn, organization_id: uuid.UUID | None) -> None:
    if organization_id is not None and not await conn.fetchval(
        "SELECT true FROM organization WHERE id = $1", organization_id
    ):
        raise NotFound(f"there is no organization {organization_id.hex}")


def _describe(version: billing.Price) -> dict[str, Any]:
    """`usd_per_second` is what is charged; null where the list price is charged again."""
    was = version.was_nano_per_second
    amounts: dict[str, Any] = {
        "usd_per_second": billing.format_usd(version.net_nano_per_second),
        "list_usd_per_second": billing.format_usd(version.nano_per_second),
        "discount_percent": version.discount_percent,
        "was_usd_per_second": None if was is None else billing.format_usd(was),
    }
    return {
        "id": version.id.hex,
        "model": version.model,
        "org": None if version.account_id is None else version.account_id.hex,
        **(dict.fromkeys(amounts) if version.withdrawn else amounts),
        "default": version.withdrawn,
        "effective_from": version.effective_from.astimezone(UTC).isoformat(),
    }
