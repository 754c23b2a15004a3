"""The command `antiphon`. A command's module is imported when that command runs, not before."""

import importlib
from typing import Any

import click
import msgspec

from gateway.settings import SettingsError

USAGE_STATUS = 2


class LazyCommand(msgspec.Struct, frozen=True):
    """Where a command is, and its line in the list of commands (which must not import them all)."""

    target: str
    """`module:attribute`."""
    summary: str


COMMANDS = {
    "up": LazyCommand("gateway.cli.up:up", "Run everything on this machine: HTTP, worker, database."),
    "serve": LazyCommand("gateway.cli.processes:serve", "Run the HTTP process."),
    "work": LazyCommand("gateway.cli.work:work", "Run a worker process."),
    "migrate": LazyCommand("gateway.cli.processes:migrate", "Bring the database to this version's tables."),
    "admin": LazyCommand("gateway.cli.admin:admin", "Organizations, keys, credit and prices."),
    "ledger": LazyCommand("gateway.cli.ledger:ledger", "Verify and export the ledger."),
    "reconcile": LazyCommand(
        "gateway.cli.reconcile:reconcile", "Compare Stripe and provider costs with the ledger."
    ),
    "margin": LazyCommand(
        "gateway.cli.margin:margin", "Show what customers paid against what providers took."
    ),
    "models": LazyCommand("gateway.cli.models:models", "List, pull and check the weights of the engine."),
    "generate": LazyCommand("gateway.cli.generate:generate", "Generate music through a running gateway."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        command = COMMANDS.get(cmd_name)
        if command is None:
            return None
        module, _, attribute = command.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, click.Command):
            raise TypeError(f"{command.target} is no command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            for problem in str(error).splitlines():
                click.echo(f"antiphon: {problem}", err=True)
            ctx.exit(USAGE_STATUS)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="antiphon", prog_name="antiphon")
def main() -> None:
    """Antiphon: a gateway for music generation with exact per-second billing."""
