"""`antiphon generate`: music from a terminal. Paths on stdout, progress on stderr, statuses for scripts."""

import math
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli.client import ClientError, Exit, GatewayClient, Job, failure_of, song_path
from gateway.cli.demo import await_song
from gateway.cli.guides import read_guide

FORMATS = ["mp3", "flac", "wav", "ogg"]
TASKS = ["text2music", "cover", "repaint", "extract", "lego", "complete"]
MAX_BATCH = 8
REFUSALS = {Exit.USAGE, Exit.AUTH, Exit.CREDIT, Exit.RATE_LIMIT}
"""A submit that is refused has made no job, now or before."""
SONGS = Path("out")
MAX_SEED = 2**32 - 1


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for, decoded from the command line."""

    body: dict[str, Any]
    sounds: dict[str, str]
    """Files and URLs of the user, by the field that they are for; files are still to be uploaded."""
    output: Path | None
    poll_seconds: float
    wait_seconds: float
    quiet: bool


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A finished job, as --json tells it."""

    id: str
    cost_usd: str
    """Of all its songs together."""
    songs: list["Song"]


class Song(msgspec.Struct, frozen=True, kw_only=True):
    """One saved song, as --json tells it."""

    id: str
    """Of the job, which all variations share."""
    path: str
    seed: int
    duration_seconds: float


def _guide(name: str, guide: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option that prints a guide and ends, whatever else was given."""

    def show(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - Click's call
        if value and not context.resilient_parsing:
            click.echo_via_pager(read_guide(guide))
            context.exit()

    return click.option(
        name, is_flag=True, is_eager=True, expose_value=False, callback=show, help="Print a guide."
    )


@click.command()
@click.option("--api-url", envvar="ANTIPHON_BASE_URL", default="http://127.0.0.1:8000", show_default=True)
@click.option("--key", envvar="ANTIPHON_API_KEY", help="API key; better in ANTIPHON_API_KEY than here.")
@click.option("--caption", "-c", help="What the music is like.")
@click.option("--lyrics", "-l", help="Words and section tags.")
@click.option("--lyrics-file", "-f", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--duration", "-d", type=float, help="Seconds; default: the model's own.")
@click.option(
    *("--batch-size", "-b"),
    type=click.IntRange(1, MAX_BATCH),
    default=1,
    show_default=True,
    help="Variations, each with the next seed.",
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File, or folder for several songs.")
@click.option("--model", default="sandbox", show_default=True)
@click.option("--provider", metavar="NAME", help="Only by engine, runware or wavespeed.")
@click.option("--task", type=click.Choice(TASKS), default="text2music", show_default=True)
@click.option("--source", metavar="FILE_OR_URL", help="What every task but text2music works on.")
@click.option("--reference", metavar="FILE_OR_URL", help="Sound whose timbre is wanted.")
@click.option("--start", type=float, help="Repaint from this second of the source; below 0 it grows.")
@click.option("--end", type=float, help="Repaint up to this second; beyond the source it grows.")
@click.option("--cover-strength", type=float, help="0-1: how long a cover follows its source.")
@click.option("--track", multiple=True, help="Track to extract, add or complete; again for more to complete.")
@click.option("--thinking", is_flag=True, help="Let the planner think the song out first.")
@click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), help="Default: random. Each variation has the next one."
)
@click.option("--format", "audio_format", type=click.Choice(FORMATS), help="Default: --output's, else mp3.")
@click.option("--poll-interval", type=click.FloatRange(0.1), default=1.0, show_default=True)
@click.option("--timeout", type=click.FloatRange(1), default=600.0, show_default=True, help="Seconds.")
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@_guide("--show-lyrics-help", "lyrics")
@_guide("--show-caption-help", "captions")
@click.pass_context
def generate(context: click.Context, /, **given: Any) -> None:
    """Generate music through a running gateway.

    Exit status: 0 ok, 2 usage, 3 key, 4 credit, 5 rate limit, 6 provider, 7 canceled, 8 timeout
    (the job goes on; its id is printed).
    """
    if not given["key"]:
        raise click.UsageError("no API key: set ANTIPHON_API_KEY, or pass --key")
    options = _options(given)
    try:
        with GatewayClient(given["api_url"], given["key"]) as client:
            made = _generate(client, options)
    except ClientError as error:
        click.echo(f"antiphon: {error}", err=True)
        context.exit(error.status)
    if given["as_json"]:
        click.echo(msgspec.json.encode(made).decode())
    else:
        for song in made.songs:
            click.echo(song.path)


def _options(given: dict[str, Any]) -> Options:
    if not given["caption"]:
        raise click.UsageError("say what the music is like: --caption 'lo-fi, soft piano'")
    if given["lyrics"] and given["lyrics_file"]:
        raise click.UsageError("--lyrics and --lyrics-file exclude each other")
    lyrics = _read_lyrics(given["lyrics_file"]) if given["lyrics_file"] else given["lyrics"]
    for name in ("duration", "start", "end", "cover_strength"):
        if given[name] is not None and not math.isfinite(given[name]):
            raise click.UsageError(f"--{name.replace('_', '-')} is a number")
    suffix = given["output"].suffix.lower().lstrip(".") if given["output"] else ""
    audio_format = given["audio_format"] or (suffix if suffix in FORMATS else "mp3")
    if suffix in FORMATS and suffix != audio_format:
        raise click.UsageError(f"--output ends in .{suffix}, and --format is {audio_format}")
    body = {
        "model": given["model"],
        "provider": given["provider"],
        "prompt": given["caption"],
        "lyrics": lyrics,
        "audio_duration": given["duration"],
        "task": given["task"],
        "repainting_start": given["start"],
        "repainting_end": given["end"],
        "cover_strength": given["cover_strength"],
        "thinking": given["thinking"] or None,
        "format": audio_format,
        "seed": given["seed"],
        "n": given["batch_size"],
        **_tracks(given["task"], given["track"]),
    }
    sounds = {"source_audio": given["source"], "reference_audio": given["reference"]}
    return Options(
        body={name: value for name, value in body.items() if value is not None},
        sounds={name: value for name, value in sounds.items() if value},
        output=given["output"],
        poll_seconds=given["poll_interval"],
        wait_seconds=given["timeout"],
        quiet=given["quiet"],
    )


def _tracks(task: str, names: tuple[str, ...]) -> dict[str, Any]:
    """One track is made, or several are completed."""
    if not names:
        return {}
    if task == "complete":
        return {"track_classes": list(names)}
    if len(names) > 1:
        raise click.UsageError(f"--track: {task} is about one track")
    return {"track_name": names[0]}


def _read_lyrics(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--lyrics-file {path} cannot be read: {error}") from error


class Submit(msgspec.Struct):
    """The submit under way. Its key makes it repeatable: a lost answer can be asked for again."""

    body: dict[str, Any]
    key: str
    job: Job | None = None

    def send(self, client: GatewayClient) -> Job:
        """The job, made now or found again."""
        self.job = client.submit(self.body, idempotency_key=self.key)
        return self.job


def _generate(client: GatewayClient, options: Options) -> Made:
    """Upload, submit, wait and save; Ctrl-C ends the job, uncharged."""
    submit: Submit | None = None
    try:
        sounds = {name: _sound(client, value) for name, value in options.sounds.items()}
        submit = Submit(options.body | sounds, uuid.uuid4().hex)
        job = submit.send(client)
        for warning in job.warnings:
            click.echo(f"antiphon: {warning}", err=True)
        return _finish(client, job, options)
    except KeyboardInterrupt:
        if submit is not None and not _is_cancelled(client, submit):
            raise ClientError("interrupted; the job could not be canceled and may be charged") from None
        raise ClientError("canceled; nothing that was unfinished is charged", Exit.CANCELED) from None


def _sound(client: GatewayClient, file_or_url: str) -> str:
    """What a request names it by."""
    if file_or_url.lower().startswith(("http://", "https://")):
        return file_or_url
    path = Path(file_or_url)
    if not path.is_file():
        raise ClientError(f"there is no file {file_or_url!r}, and it is no http(s) URL", Exit.USAGE)
    return client.upload(path).id


def _finish(client: GatewayClient, job: Job, options: Options) -> Made:
    count = options.body["n"]
    done = await_song(
        client,
        job,
        label="The song" if count == 1 else f"{count} songs",
        pause=time.sleep,
        poll_seconds=options.poll_seconds,
        wait_seconds=options.wait_seconds,
        quiet=options.quiet,
    )
    if done.result is None:
        raise failure_of(done)
    songs = []
    for number, track in enumerate(done.result.data):
        path = _path(options, done.id, number, track.format)
        client.download(track.url, path)
        seconds = track.duration_seconds
        songs.append(Song(id=done.id, path=str(path), seed=track.seed, duration_seconds=seconds))
    return Made(id=done.id, cost_usd=done.cost.usd, songs=songs)


def _path(options: Options, job_id: str, number: int, extension: str) -> Path:
    """The asked file; a folder, or more than one song, gets names of our own."""
    output = options.output
    if output is not None and options.body["n"] == 1 and output.suffix and not output.is_dir():
        return output
    prompt = str(options.body["prompt"])
    return song_path(output or SONGS, prompt=prompt, job_id=job_id, number=number, extension=extension)


def _is_cancelled(client: GatewayClient, submit: Submit) -> bool:
    """End the job. One whose answer was still under way is found by sending its submit again."""
    try:
        job = submit.job or submit.send(client)
        if not job.is_final:
            client.cancel(job.id)
    except ClientError as error:
        click.echo(f"antiphon: {error}", err=True)
        return error.code == "job_already_final" or error.status in REFUSALS
    return True
