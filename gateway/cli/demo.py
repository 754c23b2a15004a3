"""The first song: one generation over HTTP, as any client would do it."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
import httpx
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

PROMPT = "warm lo-fi house, soft piano, vinyl crackle, late evening"
LYRICS = "[Intro]\n[Verse]\nThe city hums below the window\n[Chorus]\nStay a little longer\n[Outro]"
SONG_SECONDS = 30
WAIT_SECONDS = 180.0
POLL_SECONDS = 0.25


class DemoError(Exception):
    """The gateway did not do it; the message is what it said."""


class Track(msgspec.Struct, frozen=True):
    """One finished piece."""

    url: str
    duration_seconds: float = 0.0


class Result(msgspec.Struct, frozen=True):
    """What a completed job delivers."""

    data: list[Track]


class Cost(msgspec.Struct, frozen=True):
    """What the job costs; money as text with nine decimals."""

    usd: str
    usd_per_second: str
    billed_seconds: float | None


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed."""

    message: str = ""
    code: str = ""


class Job(msgspec.Struct, frozen=True):
    """The part of a job that the demo looks at."""

    id: str
    status: str
    progress: float | None = None
    result: Result | None = None
    error: JobError | None = None
    cost: Cost | None = None


class Balance(msgspec.Struct, frozen=True):
    """Money left."""

    balance_usd: str


class GatewayClient:
    """A connection to one gateway with one key; every failure is a DemoError."""

    def __init__(self, base_url: str, key: str) -> None:
        # No proxy from the environment: the gateway is on this machine.
        self._http = httpx.Client(base_url=base_url, trust_env=False, timeout=30.0, follow_redirects=True)
        self._headers = {"authorization": f"Bearer {key}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, body: dict[str, Any]) -> Job:
        """Ask for a generation; the job that was accepted."""
        return msgspec.json.decode(self._call("POST", "/v1/audio/generations", json=body), type=Job)

    def job(self, job_id: str) -> Job:
        """The job as it is now."""
        return msgspec.json.decode(self._call("GET", f"/v1/jobs/{job_id}"), type=Job)

    def balance_usd(self) -> str:
        """Credit left, as text with nine decimals."""
        return msgspec.json.decode(self._call("GET", "/v1/balance"), type=Balance).balance_usd

    def knows_the_key(self) -> bool:
        """False when the gateway refuses the key."""
        try:
            answer = self._http.get("/v1/balance", headers=self._headers)
        except httpx.HTTPError as error:
            raise DemoError(f"GET /v1/balance: {error!r}") from error
        return answer.status_code != httpx.codes.UNAUTHORIZED

    def download(self, url: str, target: Path) -> None:
        """Save what a signed URL points to; the key is not sent, the signature is enough."""
        part = target.with_name(f"{target.name}.part")
        try:
            with self._http.stream("GET", url) as answer, part.open("wb") as file:
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    file.write(chunk)
            part.replace(target)
        except (httpx.HTTPError, OSError) as error:
            part.unlink(missing_ok=True)
            raise DemoError(f"the song could not be saved as {target}: {error}") from error

    def _call(self, method: str, path: str, **options: Any) -> bytes:
        try:
            answer = self._http.request(method, path, headers=self._headers, **options)
        except httpx.HTTPError as error:
            raise DemoError(f"{method} {path}: {error!r}") from error
        if answer.is_error:
            raise DemoError(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
        return answer.content


def run_demo(
    *, base_url: str, key: str, folder: Path, pause: Callable[[float], None], to_stderr: bool
) -> Path:
    """Generate, show progress, save below `folder`, say what it cost; raises DemoError."""
    body = {
        "model": "sandbox",
        "prompt": PROMPT,
        "lyrics": LYRICS,
        "audio_duration": SONG_SECONDS,
        "format": "mp3",
    }
    try:
        with GatewayClient(base_url, key) as client:
            job = _await_song(client, client.submit(body), pause)
            if job.result is None or not job.result.data or job.cost is None:
                raise DemoError(f"job {job.id} is completed and has no song")
            folder.mkdir(parents=True, exist_ok=True)
            song = folder / _file_name(PROMPT, job.id)
            client.download(job.result.data[0].url, song)
            for line in [*_receipt(song, job.cost, client.balance_usd()), *_next_steps(base_url, key)]:
                click.echo(line, err=to_stderr)
            return song
    except (msgspec.DecodeError, OSError) as error:
        raise DemoError(f"the first song failed: {error}") from error


def _await_song(client: GatewayClient, job: Job, pause: Callable[[float], None]) -> Job:
    deadline = time.monotonic() + WAIT_SECONDS
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    console = Console(stderr=True)
    # Without its refreshing thread: children are started from processes with one thread only.
    with Progress(*columns, TimeElapsedColumn(), console=console, auto_refresh=False) as bar:
        task = bar.add_task("The first song", total=1.0)
        while job.status in {"queued", "processing"}:
            if time.monotonic() > deadline:
                raise DemoError(f"job {job.id} was not done within {WAIT_SECONDS:.0f} s")
            pause(POLL_SECONDS)
            job = client.job(job.id)
            bar.update(task, completed=job.progress or 0.0, refresh=True)
        if job.status == "completed":
            bar.update(task, completed=1.0, refresh=True)
    if job.status != "completed":
        reason = job.error or JobError("no reason given", "unknown")
        raise DemoError(f"job {job.id} failed ({reason.code}): {reason.message}")
    return job


def _file_name(prompt: str, job_id: str) -> str:
    """A few words of the prompt and enough of the job's id to tell two songs apart."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())[:4]
    tail = re.sub(r"[^A-Za-z0-9]", "", job_id)[-8:]
    return f"{'-'.join(words)}-{tail}.mp3"


def _receipt(song: Path, cost: Cost, balance_usd: str) -> list[str]:
    return [
        f"Song      {song}",
        f"Charged   {cost.usd} USD = {cost.billed_seconds or 0:g} s x {cost.usd_per_second} USD per second",
        f"Balance   {balance_usd} USD",
    ]


def _next_steps(base_url: str, key: str) -> list[str]:
    body = '{"model": "sandbox", "prompt": "fast bossa nova", "audio_duration": 20, "format": "mp3"}'
    headers = f"-H 'authorization: Bearer {key}' -H 'content-type: application/json'"
    return [
        f"Docs      {base_url}/docs",
        f"Go on     curl {base_url}/v1/audio/generations {headers} -d '{body}'",
    ]
