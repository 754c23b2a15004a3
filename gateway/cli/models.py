"""`antiphon models`: the weights that the engine serves - which there are, getting them, proving them."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import msgspec

from engine import weights
from gateway.catalog import Catalog, CatalogError, read_catalog
from gateway.cli.commands import json_option
from gateway.settings import Settings, read_settings

PROBLEM_STATUS: Final = 3
PLANNER: Final = "planner"
_GIGA: Final = 10**9


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One thing with weights that this installation could serve."""

    name: str
    """Public model id, or `planner`."""
    variant: str | None
    """What the catalog says that it is."""
    source: str | None
    """What the operator configured."""
    release: str | None
    """The repository that it comes from if nothing else is said."""


@click.group()
def models() -> None:
    """The weights of the engine: which there are, getting them, proving them."""


@models.command("list")
@json_option
def list_models(*, as_json: bool) -> None:
    """Show the models that the engine can serve, and how those fare that are configured."""
    settings, catalog = _read()
    lines = []
    for wanted in _all(settings, catalog):
        facts = None if wanted.source is None else _inspect(wanted)
        lines.append((wanted, facts))
    if as_json:
        described = [
            msgspec.to_builtins(wanted) | {"facts": facts and msgspec.to_builtins(facts)}
            for wanted, facts in lines
        ]
        click.echo(msgspec.json.encode({"models": described}).decode())
        return
    width = max(len(wanted.name) for wanted, _ in lines)
    for wanted, facts in lines:
        click.echo(f"{wanted.name.ljust(width)}  {_state(wanted, facts)}")


@models.command()
@click.argument("name_or_repository")
@json_option
@click.pass_context
def pull(context: click.Context, name_or_repository: str, *, as_json: bool) -> None:
    """Download a model with all that it needs; run again, it goes on where it stopped.

    NAME_OR_REPOSITORY is a model's public id, `planner`, or owner/name of the hub, with @revision to pin one
    and with donors after plus signs. Only .safetensors and texts are fetched, into the cache of
    huggingface_hub (HF_HOME), and compared with the hub's checksums.
    """
    settings, catalog = _read()
    source = _source_of(name_or_repository, settings, catalog) or name_or_repository
    if Path(source).is_dir():
        raise click.BadParameter(f"{source} is a folder on this machine: there is nothing to pull")
    try:
        downloads = weights.downloads_for(source)
    except weights.CheckpointError as error:
        raise click.BadParameter(str(error)) from error
    try:
        done = [weights.pull(download, progress=sys.stderr.isatty()) for download in downloads]
    except weights.CheckpointError as error:
        raise click.ClickException(str(error)) from error
    usable = "+".join(
        download.repository + (f"@{download.revision}" if download.revision else "") for download in downloads
    )
    is_planner = name_or_repository == PLANNER or "5Hz-lm" in usable
    facts = weights.inspect_planner(usable) if is_planner else weights.inspect(usable)
    if as_json:
        answer = {"source": usable, "pulled": done, "facts": facts}
        click.echo(msgspec.json.encode(answer).decode())
    else:
        for each in done:
            click.echo(f"{each.repository}  {each.files} files, {_size(each.bytes)}, {each.revision}")
        _tell_problems(facts)
        if not facts.problems:
            variable = "PLANNER=" if is_planner else f"MODELS={_public_id(name_or_repository, catalog)}="
            click.echo(f"to serve it: ANTIPHON_ENGINE_{variable}{usable}")
    context.exit(PROBLEM_STATUS if facts.problems else 0)


@models.command()
@click.argument("name_or_folder", required=False)
@click.option(
    "--write", is_flag=True, help="Take a folder's files as they are, and list their checksums in it."
)
@json_option
@click.pass_context
def check(context: click.Context, name_or_folder: str | None, *, write: bool, as_json: bool) -> None:
    """Prove that weights are whole and fit, without loading them. Exit status 3 if they are not.

    Without an argument: everything that is configured. Reads every byte where checksums are listed.
    """
    settings, catalog = _read()
    chosen = _chosen(name_or_folder, settings, catalog)
    if write:
        _declare([wanted.source for wanted in chosen if wanted.source is not None])
    found = [(wanted, _checked(wanted)) for wanted in chosen]
    has_problems = any(facts.problems for _, facts in found)
    if as_json:
        described = [{"name": wanted.name, **msgspec.to_builtins(facts)} for wanted, facts in found]
        click.echo(msgspec.json.encode({"ok": not has_problems, "models": described}).decode())
    for wanted, facts in [] if as_json else found:
        click.echo(f"{wanted.name}  {_state(wanted, facts)}")
        _tell_problems(facts)
    if not found and not as_json:
        click.echo("nothing is configured: set ANTIPHON_ENGINE_MODELS, or name a folder or repository")
    context.exit(PROBLEM_STATUS if has_problems else 0)


def _read() -> tuple[Settings, Catalog]:
    settings = read_settings(os.environ)
    try:
        return settings, read_catalog(settings.catalog)
    except CatalogError as error:
        raise click.ClickException(str(error)) from error


def _all(settings: Settings, catalog: Catalog) -> Iterator[Wanted]:
    """Everything with weights: what the catalog offers, what is configured besides, the planner."""
    configured = dict(settings.engine_models)
    for model in catalog.models.values():
        release = weights.release_of(model.id)
        if model.id in configured or (model.engine is not None and release is not None):
            yield Wanted(
                name=model.id,
                variant=model.engine,
                source=configured.pop(model.id, None),
                release=None if release is None else release.repository,
            )
    for name, source in configured.items():
        yield Wanted(name=name, variant=None, source=source, release=None)
    yield Wanted(name=PLANNER, variant=None, source=settings.engine_planner, release=weights.PLANNER)


def _chosen(name: str | None, settings: Settings, catalog: Catalog) -> list[Wanted]:
    """What the argument means: everything configured, one of it by its public id, or a source."""
    every = [wanted for wanted in _all(settings, catalog) if wanted.source is not None]
    if name is None:
        return every
    public = _public_id(name, catalog)
    named = [wanted for wanted in every if wanted.name == public]
    return named or [
        Wanted(name=name, variant=None, source=_source_of(name, settings, catalog) or name, release=None)
    ]


def _source_of(name: str, settings: Settings, catalog: Catalog) -> str | None:
    """The configured source of a public name, else its release."""
    public = _public_id(name, catalog)
    for wanted in _all(settings, catalog):
        if wanted.name == public:
            return wanted.source or wanted.release
    return None


def _public_id(name: str, catalog: Catalog) -> str:
    """An alias's model; other names stay."""
    return next((model.id for model in catalog.models.values() if name in model.aliases), name)


def _inspect(wanted: Wanted) -> weights.Facts:
    source = wanted.source or ""
    facts = weights.inspect_planner(source) if wanted.name == PLANNER else weights.inspect(source)
    return _compared(wanted, facts)


def _checked(wanted: Wanted) -> weights.Facts:
    source, told = wanted.source or "", _Told() if sys.stderr.isatty() else None
    is_planner = wanted.name == PLANNER
    facts = weights.check_planner(source, told=told) if is_planner else weights.check(source, told=told)
    return _compared(wanted, facts)


def _compared(wanted: Wanted, facts: weights.Facts) -> weights.Facts:
    """With what the catalog says that they are."""
    if wanted.variant is None or facts.variant is None or facts.size is None:
        return facts
    expected = wanted.variant if facts.size != "custom" else wanted.variant.removeprefix("xl-")
    if facts.variant == expected:
        return facts
    problem = f"{facts.source} holds {facts.variant} weights; {wanted.name} is served as {wanted.variant}"
    return msgspec.structs.replace(facts, problems=(*facts.problems, problem))


def _declare(sources: list[str]) -> None:
    for source in sources:
        if not Path(source).is_dir():
            raise click.BadParameter(f"--write is for folders; {source!r} is none")
        try:
            manifest = weights.declare(Path(source))
        except weights.CheckpointError as error:
            raise click.ClickException(str(error)) from error
        click.echo(f"{len(manifest.files)} checksums written to {source}", err=True)


def _state(wanted: Wanted, facts: weights.Facts | None) -> str:
    if facts is None:
        return f"not configured (antiphon models pull {wanted.name}, from {wanted.release})"
    if facts.problems:
        return f"{wanted.source}: {len(facts.problems)} problem{'s' * (len(facts.problems) > 1)}"
    parts = [
        f"{_short(facts.parameters)} parameters",
        _size(sum(facts.bytes_by_dtype.values())),
        f"{facts.layout} layout",
    ]
    if facts.kind != PLANNER and not facts.has_audio_tokenizers:
        parts.append("no audio tokenizers: neither covers nor thinking")
    if not facts.verifiable:
        parts.append("no checksums")
    return f"{wanted.source}: ok, {facts.variant or facts.kind}, {', '.join(parts)}"


def _tell_problems(facts: weights.Facts) -> None:
    for problem in facts.problems:
        click.echo(f"  PROBLEM  {problem}")


def _short(count: int) -> str:
    return f"{count / _GIGA:.2f} B" if count >= _GIGA / 10 else f"{count / 10**6:.2f} M"


def _size(count: int) -> str:
    return f"{count / _GIGA:.1f} GB" if count >= _GIGA / 10 else f"{count / 10**6:.1f} MB"


class _Told:
    """Says on stderr which large file is being read."""

    def __init__(self) -> None:
        self._name = ""

    def __call__(self, name: str, count: int) -> None:
        if name != self._name and count > 1_000_000:
            click.echo(f"reading {name}", err=True)
            self._name = name
