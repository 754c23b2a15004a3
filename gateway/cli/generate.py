"""`antiphon generate`: music from a terminal. Paths on stdout, progress on stderr, statuses for scripts."""

import math
import random
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
MAX_BATCH = 8
REFUSALS = {Exit.USAGE, Exit.AUTH, Exit.CREDIT, Exit.RATE_LIMIT}
"""A submit that is refused has made no job, now or before."""
SONGS = Path("out")
MAX_SEED = 2**32 - 1


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for, decoded from the command line."""

    body: dict[str, Any]
    batch_size: int
    output: Path | None
    poll_seconds: float
    wait_seconds: float
    quiet: bool


class Song(msgspec.Struct, frozen=True, kw_only=True):
    """One saved song, as --json tells it."""

    id: str
    path: str
    seed: int
    cost_usd: str


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
@click.option("--batch-size", "-b", type=click.IntRange(1, MAX_BATCH), default=1, show_default=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File, or folder for several songs.")
@click.option("--model", default="sandbox", show_default=True)
@click.option("--task", default="text2music", show_default=True)
@click.option(
    "--seed", type=click.IntRange(0, MAX_SEED), help="Default: random. Song n of a batch gets seed + n."
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
            songs = _generate(client, options)
    except ClientError as error:
        click.echo(f"antiphon: {error}", err=True)
        context.exit(error.status)
    if given["as_json"]:
        click.echo(msgspec.json.encode({"songs": songs}).decode())
    else:
        for song in songs:
            click.echo(song.path)


def _options(given: dict[str, Any]) -> Options:
    if not given["caption"]:
        raise click.UsageError("say what the music is like: --caption 'lo-fi, soft piano'")
    if given["lyrics"] and given["lyrics_file"]:
        raise click.UsageError("--lyrics and --lyrics-file exclude each other")
    lyrics = _read_lyrics(given["lyrics_file"]) if given["lyrics_file"] else given["lyrics"]
    if given["duration"] is not None and not math.isfinite(given["duration"]):
        raise click.UsageError("--duration is a number of seconds")
    suffix = given["output"].suffix.lower().lstrip(".") if given["output"] else ""
    audio_format = given["audio_format"] or (suffix if suffix in FORMATS else "mp3")
    if suffix in FORMATS and suffix != audio_format:
        raise click.UsageError(f"--output ends in .{suffix}, and --format is {audio_format}")
    body = {
        "model": given["model"],
        "prompt": given["caption"],
        "lyrics": lyrics,
        "audio_duration": given["duration"],
        "task": given["task"],
        "format": audio_format,
        "seed": random.SystemRandom().randint(0, MAX_SEED) if given["seed"] is None else given["seed"],
    }
    return Options(
        body={name: value for name, value in body.items() if value is not None},
        batch_size=given["batch_size"],
        output=given["output"],
        poll_seconds=given["poll_interval"],
        wait_seconds=given["timeout"],
        quiet=given["quiet"],
    )


def _read_lyrics(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--lyrics-file {path} cannot be read: {error}") from error


class Submit(msgspec.Struct):
    """One submit under way. Its key makes it repeatable: a lost answer can be asked for again."""

    body: dict[str, Any]
    key: str
    job: Job | None = None

    def send(self, client: GatewayClient) -> Job:
        """The job, made now or found again."""
        self.job = client.submit(self.body, idempotency_key=self.key)
        return self.job


def _generate(client: GatewayClient, options: Options) -> list[Song]:
    """Submit all, then wait for each; Ctrl-C ends them all, uncharged."""
    submits: list[Submit] = []
    try:
        for number in range(options.batch_size):
            body = options.body | {"seed": (options.body["seed"] + number) % (MAX_SEED + 1)}
            submits.append(Submit(body, uuid.uuid4().hex))
            for warning in submits[-1].send(client).warnings:
                click.echo(f"antiphon: {warning}", err=True)
        jobs = [submit.job for submit in submits if submit.job is not None]
        return [song for number, job in enumerate(jobs) for song in _finish(client, job, number, options)]
    except KeyboardInterrupt:
        unknown = [submit for submit in submits if not _is_cancelled(client, submit)]
        if unknown:
            raise ClientError(
                f"interrupted; {len(unknown)} of {len(submits)} could not be canceled and may be charged"
            ) from None
        raise ClientError("canceled; nothing that was unfinished is charged", Exit.CANCELED) from None


def _finish(client: GatewayClient, job: Job, number: int, options: Options) -> list[Song]:
    done = await_song(
        client,
        job,
        label=f"Song {number + 1} of {options.batch_size}",
        pause=time.sleep,
        poll_seconds=options.poll_seconds,
        wait_seconds=options.wait_seconds,
        quiet=options.quiet,
    )
    if done.result is None:
        raise failure_of(done)
    songs = []
    for track in done.result.data:
        path = _path(options, done.id, number, track.format)
        client.download(track.url, path)
        songs.append(Song(id=done.id, path=str(path), seed=track.seed, cost_usd=done.cost.usd))
    return songs


def _path(options: Options, job_id: str, number: int, extension: str) -> Path:
    """The asked file; a folder, or more than one song, gets names of our own."""
    output = options.output
    if output is not None and options.batch_size == 1 and output.suffix and not output.is_dir():
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
