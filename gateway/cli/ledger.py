"""`antiphon ledger`: the books, proven and handed out."""

import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import click
import msgspec

import billing
from gateway.cli.commands import json_option, run
from gateway.cli.values import MOMENT, Conn
from gateway.jobs.audit import Proof, prove
from gateway.settings import Settings

VIOLATION_STATUS: Final = 3
GONE_STATUS: Final = 141
"""As of a program that SIGPIPE ended: whoever read had enough."""


class _ReaderGone(Exception):
    """Nobody reads the output any more."""


@click.group()
def ledger() -> None:
    """The books."""


@ledger.command()
@json_option
@click.pass_context
def verify(context: click.Context, *, as_json: bool) -> None:
    """Recompute every balance, grant, hold, charge, budget and job from its lines.

    Exit status 3 if one differs: then nothing new is held, until this finds nothing.
    """

    async def action(conn: Conn, _: Settings) -> Proof:
        return await prove(conn)

    proof = run(action)
    if as_json:
        click.echo(msgspec.json.encode({"ok": not proof.violations} | msgspec.to_builtins(proof)).decode())
    else:
        _tell(proof)
    context.exit(VIOLATION_STATUS if proof.violations else 0)


@ledger.command()
@click.option("--json", "form", flag_value="json", help="One JSON object: accounts, entries, totals.")
@click.option("--csv", "form", flag_value="csv", help="A header, and one line per entry.")
@click.option("--since", type=MOMENT, help="Leave out what was booked before.")
@click.pass_context
def export(context: click.Context, *, form: str | None, since: datetime | None) -> None:
    """Write all entries to stdout, oldest first, as they were at one moment."""
    if form is None:
        raise click.UsageError("say --json or --csv")
    write = {"json": billing.write_json, "csv": billing.write_csv}[form]

    async def action(conn: Conn, _: Settings) -> billing.Exported:
        return await write(conn, _writer(), since=since)

    try:
        run(action)
    except _ReaderGone:
        # What is still in the buffer would raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        context.exit(GONE_STATUS)


def _tell(proof: Proof) -> None:
    for violation in proof.violations:
        click.echo(f"VIOLATED  {violation.invariant}: {violation.subject} ({violation.detail})")
    if not proof.violations:
        click.echo(f"ok, {proof.entries} entries")
    if proof.lifted:
        click.echo("new jobs are accepted again")
    elif proof.halted and not proof.violations:
        click.echo("something was found meanwhile: new jobs are refused until another check finds nothing")
    elif proof.halted:
        click.echo("new jobs are refused until a check finds nothing")


def _writer() -> Callable[[bytes], Any]:
    """To stdout, without the lines of a database that is not to blame when the reader leaves."""
    out = sys.stdout.buffer

    def write(data: bytes) -> None:
        try:
            out.write(data)
            out.flush()
        except BrokenPipeError as error:
            raise _ReaderGone from error

    return write
