"""`antiphon margin`: what customers paid against what providers took."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
import msgspec

import billing
from gateway.cli.commands import json_option, run
from gateway.cli.values import ID, MOMENT, Conn
from gateway.jobs.margins import JobMargin, MarginGroup, MarginRow, read_job_margins, read_margins
from gateway.settings import Settings

USUAL_DAYS: Final = 30
BY_JOB: Final = "job"


@click.command()
@click.option("--since", type=MOMENT, help=f"From which day on, by UTC. Default: {USUAL_DAYS} days ago.")
@click.option(
    "--by",
    type=click.Choice([*(group.value for group in MarginGroup), BY_JOB]),
    default=MarginGroup.MODEL.value,
    help="One line for each day, model, backend, or job (the least profitable first).",
)
@click.option("--job", "job_id", type=ID, help="Only this job.")
@json_option
def margin(*, since: datetime | None, by: str, job_id: uuid.UUID | None, as_json: bool) -> None:
    """Show revenue, provider costs and what is left, from the counters that move with the ledger."""
    start = since or datetime.now(UTC) - timedelta(days=USUAL_DAYS)

    async def action(conn: Conn, _: Settings) -> list[MarginRow] | list[JobMargin]:
        if by == BY_JOB or job_id is not None:
            return await read_job_margins(conn, since=start, job_id=job_id)
        return await read_margins(conn, since=start.astimezone(UTC).date(), by=[MarginGroup(by)])

    lines = [_line(row) for row in run(action)]
    if as_json:
        click.echo(msgspec.json.encode({"since": start, "margins": lines}).decode())
        return
    for line in lines:
        possible = f", perhaps {line['possible_cost_usd']} more" if line["possible_cost_nano"] else ""
        click.echo(
            f"{line['name']}: {line['margin_usd']} USD left of {line['revenue_usd']}, "
            f"cost {line['cost_usd']}{possible}; attempts {line['attempts']}"
        )
    if not lines:
        click.echo("nothing was charged, and nothing cost anything")


def _line(row: MarginRow | JobMargin) -> dict[str, Any]:
    usd = billing.format_usd
    line: dict[str, Any] = {
        "name": row.name if isinstance(row, MarginRow) else row.job_id.hex,
        "revenue_usd": usd(row.revenue_nano),
        "cost_usd": usd(row.cost_nano),
        "possible_cost_usd": usd(row.possible_cost_nano),
        "possible_cost_nano": row.possible_cost_nano,
        "margin_usd": usd(row.margin_nano),
        "attempts": row.attempts,
    }
    if isinstance(row, MarginRow):
        return line | {"jobs": row.jobs}
    return line | {"model": row.model, "backend": row.backend, "status": row.status}
