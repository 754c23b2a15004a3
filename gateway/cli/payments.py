"""`antiphon admin payment`: what came in, and giving it back."""

import os
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import click

import billing
from billing import payments
from gateway.bootstrap import open_payments, open_pool
from gateway.cli.commands import json_option, run, show
from gateway.cli.values import ID, TEXT, USD, Conn
from gateway.errors import PaymentsUnavailable
from gateway.settings import Settings, read_settings

Result = TypeVar("Result")

LONGEST_LIST: Final = 1000
POOL_SIZE: Final = 2


def run_with_till(action: Callable[[payments.Till], Awaitable[Result]]) -> Result:
    """Run `action` with Stripe; what is expected to go wrong becomes one line and exit status 1."""
    if read_settings(os.environ).stripe_secret_key is None:
        raise click.ClickException("payments are not configured: set ANTIPHON_STRIPE_SECRET_KEY")

    async def with_till(_: Conn, settings: Settings) -> Result:
        async with open_pool(settings, size=POOL_SIZE) as pool:
            till = open_payments(settings, pool)
            if till is None:
                raise PaymentsUnavailable("payments are not configured")
            try:
                return await action(till)
            finally:
                await till.close()

    return run(with_till)


@click.group()
def payment() -> None:
    """Payments of organizations, and refunds."""


@payment.command("list")
@click.option("--org", "organization_id", type=ID, required=True)
@click.option("--limit", type=click.IntRange(1, LONGEST_LIST), default=20, show_default=True)
@json_option
def payment_list(*, organization_id: uuid.UUID, limit: int, as_json: bool) -> None:
    """The newest payments of an organization."""

    async def action(conn: Conn, _: Settings) -> list[payments.Payment]:
        return await payments.list_payments(conn, organization_id, limit=limit)

    found = [_line(one) for one in run(action)]
    if as_json:
        show({"payments": found}, as_json=True)
        return
    for line in found:
        click.echo("  ".join(f"{name} {value}" for name, value in line.items() if value is not None))


@payment.command("refund")
@click.argument("payment_id", type=ID)
@click.option("--usd", "amount_nano", type=USD, help="How much of it. Default: all that is left.")
@click.option("--reason", type=TEXT, help="Why; it is kept here and at Stripe.")
@click.option("--force", is_flag=True, help="Also what is spent: the organization then owes it.")
@json_option
def payment_refund(
    *, payment_id: uuid.UUID, amount_nano: int | None, reason: str | None, force: bool, as_json: bool
) -> None:
    """Give money back to the card that paid. Repeated after a lost connection, it is not paid twice."""

    async def action(till: payments.Till) -> payments.RefundOrder:
        return await payments.refund_payment(
            till.pool, till.processor, payment_id, amount_nano=amount_nano, reason=reason, force=force
        )

    order = run_with_till(action)
    refunded = {"refund": order.refund_ref, "refunded_usd": billing.format_usd(order.amount_nano)}
    show({"id": payment_id.hex} | refunded, as_json=as_json)


def _line(one: payments.Payment) -> dict[str, Any]:
    return {
        "id": one.id.hex,
        "created_at": one.created_at.isoformat(timespec="seconds"),
        "kind": one.kind,
        "status": one.status,
        "amount_usd": billing.format_usd(one.amount_nano),
        "refunded_usd": billing.format_usd(one.refunded_nano),
        "disputed_usd": billing.format_usd(one.disputed_nano),
        "payment_intent": one.intent_ref,
        "error": one.error_code,
    }
