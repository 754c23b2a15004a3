"""`antiphon reconcile`: Stripe and what providers cost, against the books."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
import msgspec

import billing
from billing import payments
from gateway.cli.commands import json_option, run
from gateway.cli.payments import run_with_till
from gateway.cli.values import MOMENT, Conn
from gateway.jobs.balances import AccountChange, compare_balances
from gateway.jobs.provider_costs import BackendCost, CostDifference, compare_provider_costs
from gateway.settings import Settings, read_settings

DIFFERENCE_STATUS: Final = 3
SLACK_NANO: Final = 10_000_000
"""And one per cent: providers charge and give back a little later than they answer."""
USUAL_DAYS: Final = 35
"""Longer than a month, so that a monthly run leaves nothing out."""


class Report(msgspec.Struct, kw_only=True):
    """All that was compared."""

    since: datetime
    stripe: payments.Reconciliation | None
    """None: no key is set."""
    costs: list[BackendCost]
    cost_differences: list[CostDifference]
    accounts: list[AccountChange]

    @property
    def agrees(self) -> bool:
        """Nothing differs any more."""
        return (
            not self.cost_differences
            and all(map(is_explained, self.accounts))
            and (self.stripe is None or self.stripe.agrees)
        )


def is_explained(account: AccountChange) -> bool:
    """What a provider took is what was booked, or may have been taken, but for what is on its way."""
    slack = SLACK_NANO + abs(account.spent_nano) // 100
    return -slack <= account.difference_nano <= account.possible_nano + slack


@click.command()
@click.option("--since", type=MOMENT, help=f"From which day on, by UTC. Default: {USUAL_DAYS} days ago.")
@click.option("--dry-run", is_flag=True, help="Book nothing, only say what differs.")
@json_option
@click.pass_context
def reconcile(context: click.Context, *, since: datetime | None, dry_run: bool, as_json: bool) -> None:
    """Compare Stripe's payments, refunds and disputes with the books, both ways, and book what is missing.

    Also what attempts at providers cost with what is booked of it, and with what our accounts there lost.
    Exit status 3 if something differs that was not closed.
    """
    since = since or datetime.now(UTC) - timedelta(days=USUAL_DAYS)
    stripe = None
    if read_settings(os.environ).stripe_secret_key is not None:
        stripe = run_with_till(
            lambda till: payments.reconcile(till.pool, till.processor, since=since, dry_run=dry_run)
        )
    (costs, differences), accounts = run(lambda conn, settings: _compare_costs(conn, settings, since))
    report = Report(since=since, stripe=stripe, costs=costs, cost_differences=differences, accounts=accounts)
    if as_json:
        click.echo(msgspec.json.encode(_document(report)).decode())
    else:
        _tell(report)
    context.exit(0 if report.agrees else DIFFERENCE_STATUS)


async def _compare_costs(
    conn: Conn, _: Settings, since: datetime
) -> tuple[tuple[list[BackendCost], list[CostDifference]], list[AccountChange]]:
    return await compare_provider_costs(conn, since=since), await compare_balances(conn, since=since)


def _tell(report: Report) -> None:
    if report.stripe is None:
        click.echo("Stripe: no key is set (ANTIPHON_STRIPE_SECRET_KEY), so there is nothing to compare")
    else:
        _tell_stripe(report.stripe)
    for cost in report.costs:
        click.echo(
            f"{cost.backend}: {cost.attempts} attempts cost {billing.format_usd(cost.attempts_nano)} USD, "
            f"booked {billing.format_usd(cost.booked_nano)}"
        )
    for one in report.cost_differences:
        amounts = f"attempt {_usd(one.attempt_nano)}, books {_usd(one.booked_nano)}"
        click.echo(f"DIFFERS  provider cost {one.ref}: {amounts}")
    for account in report.accounts:
        word = "" if is_explained(account) else "DIFFERS  "
        click.echo(
            f"{word}{account.backend}: our account lost {_usd(account.spent_nano)} USD from "
            f"{account.first_at:%Y-%m-%d %H:%M} to {account.last_at:%Y-%m-%d %H:%M}, booked "
            f"{_usd(account.booked_nano)}, perhaps {_usd(account.possible_nano)} more"
        )
    click.echo("ok" if report.agrees else "not everything agrees")


def _tell_stripe(found: payments.Reconciliation) -> None:
    others = f", and {found.others} of other customers" if found.others else ""
    click.echo(f"Stripe since {found.since.date()}: {found.objects} payments, refunds and disputes{others}")
    for one in found.differences:
        word = "BOOKED " if one.closed else "DIFFERS"
        click.echo(
            f"{word}  {one.problem} {one.kind} {one.ref}: Stripe {_usd(one.at_processor_nano)}, "
            f"books {_usd(one.in_books_nano)}"
        )
    for day in found.days:
        if day.at_processor_nano != day.in_books_nano:
            click.echo(
                f"DIFFERS  {day.day}: Stripe {_usd(day.at_processor_nano)}, books {_usd(day.in_books_nano)}"
            )


def _document(report: Report) -> dict[str, Any]:
    stripe: dict[str, Any] | None = None
    if report.stripe is not None:
        found = report.stripe
        stripe = {
            "objects": found.objects,
            "others": found.others,
            "differences": [
                {
                    "problem": one.problem,
                    "kind": one.kind,
                    "id": one.ref,
                    "stripe_usd": _usd(one.at_processor_nano),
                    "books_usd": _usd(one.in_books_nano),
                    "booked": one.closed,
                }
                for one in found.differences
            ],
            "days": [
                {
                    "day": day.day,
                    "stripe_usd": _usd(day.at_processor_nano),
                    "books_usd": _usd(day.in_books_nano),
                }
                for day in found.days
            ],
        }
    return {
        "ok": report.agrees,
        "since": report.since,
        "stripe": stripe,
        "provider_costs": [
            {
                "backend": cost.backend,
                "attempts": cost.attempts,
                "attempts_usd": _usd(cost.attempts_nano),
                "books_usd": _usd(cost.booked_nano),
            }
            for cost in report.costs
        ],
        "provider_accounts": [
            {
                "backend": account.backend,
                "from": account.first_at,
                "to": account.last_at,
                "spent_usd": _usd(account.spent_nano),
                "paid_in_usd": _usd(account.paid_in_nano),
                "books_usd": _usd(account.booked_nano),
                "possible_usd": _usd(account.possible_nano),
                "explained": is_explained(account),
            }
            for account in report.accounts
        ],
        "provider_cost_differences": [
            {"id": one.ref, "attempt_usd": _usd(one.attempt_nano), "books_usd": _usd(one.booked_nano)}
            for one in report.cost_differences
        ],
    }


def _usd(nano: int | None) -> str | None:
    return None if nano is None else billing.format_usd(nano)
