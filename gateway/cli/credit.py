"""`antiphon admin credit | budget | alerts`: what an organization may spend, and when somebody is told."""

import uuid
from datetime import UTC, datetime
from typing import Any

import click

import billing
from gateway.cli.commands import json_option, run, show
from gateway.cli.values import ID, MOMENT, TEXT, USD, Conn
from gateway.config_watch import bump_revision
from gateway.errors import NotFound
from gateway.settings import Settings

organization_option = click.option("--org", "organization_id", type=ID, required=True)


@click.group()
def credit() -> None:
    """Credit of an organization."""


@credit.command("grant")
@organization_option
@click.option("--usd", "amount_nano", type=USD, required=True)
@click.option("--reason", type=TEXT, required=True, help="Why; it stays in the ledger.")
@click.option("--expires", "expires_at", type=MOMENT, help="When what is left of it is lost. Default: never.")
@json_option
def credit_grant(
    *, organization_id: uuid.UUID, amount_nano: int, reason: str, expires_at: datetime | None, as_json: bool
) -> None:
    """Give credit that nobody paid for."""
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise click.BadParameter("it must be in the future", param_hint="--expires")

    async def action(conn: Conn, _: Settings) -> billing.Account:
        async with conn.transaction():
            try:
                return await billing.grant(
                    conn,
                    account_id=organization_id,
                    amount_nano=amount_nano,
                    reason=reason,
                    expires_at=expires_at,
                )
            except billing.AccountMissing as error:
                raise _no_organization(organization_id) from error

    account = run(action)
    show({"balance_usd": billing.format_usd(account.posted_nano)}, as_json=as_json)


@credit.command("refund")
@click.argument("job_id", type=ID)
@click.option("--reason", type=TEXT, required=True, help="Why; it stays in the ledger.")
@json_option
def credit_refund(*, job_id: uuid.UUID, reason: str, as_json: bool) -> None:
    """Give back, as credit, what a job was charged; a job can be refunded once."""

    async def action(conn: Conn, _: Settings) -> billing.Account:
        async with conn.transaction():
            return await billing.refund_usage(conn, reference=job_id, reason=reason)

    account = run(action)
    show({"balance_usd": billing.format_usd(account.posted_nano)}, as_json=as_json)


@click.group()
def budget() -> None:
    """Caps on what a key, a project or an organization may spend in a day, a month or ever (UTC)."""


period_option = click.option(
    "--window", type=click.Choice(billing.BUDGET_PERIODS), default="total", show_default=True
)


@budget.command("set")
@organization_option
@click.option("--project", "project_id", type=ID, help="Cap this project instead of the organization.")
@click.option("--key", "key_id", type=ID, help="Cap this key instead of the organization.")
@click.option("--usd", "limit_nano", type=USD, required=True, help="The most that may be spent per window.")
@click.option("--alert-percent", type=click.IntRange(1, 100), help="Say so when this much of it is spent.")
@period_option
@json_option
def budget_set(
    *,
    organization_id: uuid.UUID,
    project_id: uuid.UUID | None,
    key_id: uuid.UUID | None,
    limit_nano: int,
    alert_percent: int | None,
    window: str,
    as_json: bool,
) -> None:
    """Set or change a cap; what was spent in its window stays counted."""

    async def action(conn: Conn, _: Settings) -> None:
        async with conn.transaction():
            scope, subject = await _find_subject(conn, organization_id, project_id, key_id)
            await billing.set_budget(
                conn,
                account_id=organization_id,
                subject=subject,
                scope=scope,
                period=window,
                limit_nano=limit_nano,
                alert_nano=alert_percent and max(limit_nano * alert_percent // 100, 1),
            )
            await bump_revision(conn)

    run(action)
    show({"window": window, "limit_usd": billing.format_usd(limit_nano)}, as_json=as_json)


@budget.command("remove")
@organization_option
@click.option("--project", "project_id", type=ID)
@click.option("--key", "key_id", type=ID)
@period_option
@json_option
def budget_remove(
    *,
    organization_id: uuid.UUID,
    project_id: uuid.UUID | None,
    key_id: uuid.UUID | None,
    window: str,
    as_json: bool,
) -> None:
    """Lift a cap."""

    async def action(conn: Conn, _settings: Settings) -> bool:
        async with conn.transaction():
            _, subject = await _find_subject(conn, organization_id, project_id, key_id)
            removed = await billing.remove_budget(conn, subject=subject, period=window)
            await bump_revision(conn)
            return removed

    if not run(action):
        raise click.ClickException(f"there is no such cap per {window}")
    show({"window": window, "removed": True}, as_json=as_json)


@budget.command("list")
@organization_option
@json_option
def budget_list(*, organization_id: uuid.UUID, as_json: bool) -> None:
    """The caps of an organization, its projects and keys, and what of them is spent and held."""

    async def action(conn: Conn, _: Settings) -> list[billing.Budget]:
        return await billing.read_budgets(conn, organization_id)

    found = [_budget_line(one) for one in run(action)]
    if as_json:
        show({"budgets": found}, as_json=True)
        return
    for line in found:
        click.echo("  ".join(f"{name} {value}" for name, value in line.items()))


@click.command("alerts")
@organization_option
@click.option("--low-usd", "low_nano", type=USD, required=True)
@click.option("--critical-usd", "critical_nano", type=USD, required=True)
@json_option
def alerts(*, organization_id: uuid.UUID, low_nano: int, critical_nano: int, as_json: bool) -> None:
    """At which balances it is noted that credit runs low."""
    if critical_nano > low_nano:
        raise click.BadParameter("it must not be more than --low-usd", param_hint="--critical-usd")

    async def action(conn: Conn, _: Settings) -> None:
        try:
            await billing.set_thresholds(
                conn, organization_id, low_nano=low_nano, critical_nano=critical_nano
            )
        except billing.AccountMissing as error:
            raise _no_organization(organization_id) from error

    run(action)
    amounts = {"low_usd": billing.format_usd(low_nano), "critical_usd": billing.format_usd(critical_nano)}
    show(amounts, as_json=as_json)


async def _find_subject(
    conn: Conn, organization_id: uuid.UUID, project_id: uuid.UUID | None, key_id: uuid.UUID | None
) -> tuple[str, uuid.UUID]:
    """Whom the cap is for; each must belong to the organization."""
    if project_id is not None and key_id is not None:
        raise click.UsageError("a cap is for a project or for a key: name one of them")
    if not await conn.fetchval("SELECT true FROM organization WHERE id = $1", organization_id):
        raise _no_organization(organization_id)
    scope, subject = ("project", project_id) if project_id is not None else ("key", key_id)
    if subject is None:
        return "organization", organization_id
    table = "project" if scope == "project" else "api_key"
    if not await conn.fetchval(
        f"SELECT true FROM {table} WHERE id = $1 AND organization_id = $2",  # noqa: S608 - one of two words
        subject,
        organization_id,
    ):
        raise NotFound(f"the organization has no {scope} {subject.hex}")
    return scope, subject


def _budget_line(one: billing.Budget) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "subject": one.subject.hex,
        "window": one.period,
        "limit_usd": billing.format_usd(one.limit_nano),
        "spent_usd": billing.format_usd(one.spent_nano),
        "held_usd": billing.format_usd(one.held_nano),
        "alert_usd": None if one.alert_nano is None else billing.format_usd(one.alert_nano),
    }


def _no_organization(organization_id: uuid.UUID) -> NotFound:
    return NotFound(f"there is no organization {organization_id.hex}")
