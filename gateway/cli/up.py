"""`antiphon up`: database, HTTP process and worker of one machine, started and ended together."""

import os
from pathlib import Path

import click
import msgspec

from gateway.cli.client import ClientError
from gateway.cli.demo import run_demo
from gateway.cli.stack import Stack, UpError
from gateway.cli.stop_signals import Stopped, StopSignals
from gateway.embedded import EmbeddedPostgresError
from gateway.settings import Settings, read_settings

SONGS = Path("out")


@click.command()
@click.option("--demo", is_flag=True, help="Generate a first song over HTTP and save it below out/.")
@click.option("--exit", "exits", is_flag=True, help="Stop again when ready, or after the song of --demo.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line on stdout when ready.")
@click.pass_context
def up(context: click.Context, *, demo: bool, exits: bool, as_json: bool) -> None:
    """Run everything on this machine: HTTP, worker and (without ANTIPHON_DATABASE_URL) Postgres.

    An empty database gets a first organization with 5 USD of credit, a live and a test key.
    Stop it with Ctrl-C.
    """
    settings = read_settings(os.environ)
    with StopSignals() as signals:
        try:
            with Stack(settings, signals, report=_tell) as stack:
                stack.start()
                _announce(settings, stack, as_json=as_json)
                if demo:
                    _first_song(settings, stack, exits=exits, as_json=as_json)
                if not exits:
                    stack.run()
        except Stopped:
            pass
        except (UpError, EmbeddedPostgresError, ClientError) as error:
            _tell(f"antiphon: {error}")
            context.exit(error.status if isinstance(error, UpError) else 1)


def _announce(settings: Settings, stack: Stack, *, as_json: bool) -> None:
    live, test = (stack.keys.live_key, stack.keys.test_key) if stack.keys else (None, None)
    if as_json:
        ready = {"base_url": settings.base_url, "live_key": live, "test_key": test, "dashboard_url": None}
        click.echo(msgspec.json.encode(ready).decode())
        return
    click.echo(f"Antiphon is ready at {settings.base_url}")
    click.echo(f"Docs      {settings.base_url}/docs")
    if stack.keys is None:
        click.echo("Keys      made elsewhere; make another with `antiphon admin key create`")
    else:
        click.echo(f"Live key  {live} (spends credit)")
        click.echo(f"Test key  {test} (free, rendered by the sandbox)")
    click.echo(f"State     {settings.home} (logs in logs/)")


def _first_song(settings: Settings, stack: Stack, *, exits: bool, as_json: bool) -> None:
    """Raises ClientError or UpError when the command exits after the song; else a failure is only told."""
    try:
        with stack.interruptible():
            run_demo(
                base_url=settings.base_url,
                key=stack.live_key(),
                folder=SONGS,
                pause=stack.pause,
                to_stderr=as_json,
            )
    except (ClientError, UpError) as error:
        if exits:
            raise
        _tell(f"antiphon: {error}")
    if not exits:
        _tell("Serving until Ctrl-C.")


def _tell(text: str) -> None:
    """On stderr; a terminal that was closed must not keep us from ending in order."""
    try:
        click.echo(text, err=True)
    except OSError:
        return
