"""The first song: one generation over HTTP, as any client would do it."""

import time
import uuid
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.cli.client import ClientError, Cost, Exit, GatewayClient, Job, failure_of, song_path

PROMPT = "warm lo-fi house, soft piano, vinyl crackle, late evening"
LYRICS = "[Intro]\n[Verse]\nThe city hums below the window\n[Chorus]\nStay a little longer\n[Outro]"
SONG_SECONDS = 30
WAIT_SECONDS = 180.0
POLL_SECONDS = 0.25


def run_demo(
    *, base_url: str, key: str, folder: Path, pause: Callable[[float], None], to_stderr: bool
) -> Path:
    """Generate, show progress, save below `folder`, say what it cost; raises ClientError."""
    body = {
        "model": "sandbox",
        "prompt": PROMPT,
        "lyrics": LYRICS,
        "audio_duration": SONG_SECONDS,
        "format": "mp3",
    }
    with GatewayClient(base_url, key) as client:
        job = client.submit(body, idempotency_key=uuid.uuid4().hex)
        job = await_song(
            client,
            job,
            label="The first song",
            pause=pause,
            poll_seconds=POLL_SECONDS,
            wait_seconds=WAIT_SECONDS,
        )
        if job.result is None or not job.result.data:
            raise failure_of(job)
        track = job.result.data[0]
        song = song_path(folder, prompt=PROMPT, job_id=job.id, number=0, extension=track.format)
        client.download(track.url, song)
        for line in [*receipt(song, job.cost, client.balance_usd()), *_next_steps(base_url)]:
            click.echo(line, err=to_stderr)
        return song


def await_song(
    client: GatewayClient,
    job: Job,
    *,
    label: str,
    pause: Callable[[float], None],
    poll_seconds: float,
    wait_seconds: float,
    quiet: bool = False,
) -> Job:
    """Poll until the job is final, with a progress bar on stderr; ClientError(TIMEOUT) names the job."""
    deadline = time.monotonic() + wait_seconds
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    console = Console(stderr=True, quiet=quiet)
    # Without its refreshing thread: children are started from processes with one thread only.
    with Progress(*columns, TimeElapsedColumn(), console=console, auto_refresh=False) as bar:
        task = bar.add_task(label, total=1.0)
        while not job.is_final:
            if time.monotonic() > deadline:
                raise ClientError(f"job {job.id} was not done within {wait_seconds:g} s", Exit.TIMEOUT)
            pause(poll_seconds)
            job = client.job(job.id)
            bar.update(task, completed=job.progress, refresh=True)
    return job


def receipt(song: Path, cost: Cost, balance_usd: str) -> list[str]:
    """Where the song is, what it has cost, what is left."""
    return [
        f"Song      {song}",
        f"Charged   {cost.usd} USD = {cost.billed_seconds or 0:g} s x {cost.usd_per_second} USD per second",
        f"Balance   {balance_usd} USD",
    ]


def _next_steps(base_url: str) -> list[str]:
    """The key goes through the environment, where neither process lists nor histories show it."""
    return [
        f"Docs      {base_url}/docs",
        f"Go on     export ANTIPHON_BASE_URL={base_url} ANTIPHON_API_KEY=  # the live key above",
        "          .venv/bin/antiphon generate --caption 'fast bossa nova' --duration 20",
    ]
