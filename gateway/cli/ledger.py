"""`antiphon ledger`: the books, proven."""

import asyncpg
import click
import msgspec

import billing
from gateway.cli.commands import json_option, run
from gateway.jobs.audit import verify_ledger
from gateway.settings import Settings

VIOLATION_STATUS = 3


@click.group()
def ledger() -> None:
    """The books."""


@ledger.command()
@json_option
@click.pass_context
def verify(context: click.Context, *, as_json: bool) -> None:
    """Recompute every balance, hold, charge and job from its lines; exit status 3 if one differs."""

    async def action(
        conn: "asyncpg.Connection[asyncpg.Record]", _: Settings
    ) -> tuple[list[billing.Violation], int]:
        return await verify_ledger(conn)

    violations, entries = run(action)
    if as_json:
        report = {"ok": not violations, "violations": violations, "entries": entries}
        click.echo(msgspec.json.encode(report).decode())
    elif violations:
        for violation in violations:
            click.echo(f"VIOLATED  {violation.invariant}: {violation.subject} ({violation.detail})")
    else:
        click.echo(f"ok, {entries} entries")
    context.exit(VIOLATION_STATUS if violations else 0)
