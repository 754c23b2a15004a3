"""A small client of our own API, for commands: typed answers, and errors that know their exit status."""

import os
import re
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

TIMEOUT_SECONDS = 30.0
UPLOAD_SECONDS = 300.0
"""An upload is answered when it has been decoded, and others may come first."""

Answer = TypeVar("Answer", bound=msgspec.Struct)


class Exit(IntEnum):
    """Exit statuses of the client; scripts rely on them."""

    OK = 0
    OTHER = 1
    USAGE = 2
    AUTH = 3
    CREDIT = 4
    RATE_LIMIT = 5
    PROVIDER = 6
    CANCELED = 7
    TIMEOUT = 8


class ClientError(Exception):
    """The gateway did not do it; the message is what it said."""

    def __init__(self, message: str, status: Exit = Exit.OTHER, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Track(msgspec.Struct, frozen=True):
    """One finished piece."""

    url: str
    format: str
    duration_seconds: float
    seed: int


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
    """The part of a job that commands look at."""

    id: str
    status: str
    cost: Cost
    progress: float = 0.0
    result: Result | None = None
    error: JobError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in {"completed", "failed"}


class Upload(msgspec.Struct, frozen=True):
    """A file that the gateway keeps for a while."""

    id: str


class Balance(msgspec.Struct, frozen=True):
    """Money left."""

    balance_usd: str


class _Refusal(msgspec.Struct, frozen=True):
    message: str
    code: str
    suggestion: str | None = None


class _Envelope(msgspec.Struct, frozen=True):
    error: _Refusal


_STATUS_OF_HTTP = {400: Exit.USAGE, 401: Exit.AUTH, 402: Exit.CREDIT, 403: Exit.AUTH, 429: Exit.RATE_LIMIT}
_STATUS_OF_JOB = {"job_cancelled": Exit.CANCELED, "timeout": Exit.TIMEOUT}


class GatewayClient:
    """A connection to one gateway with one key; every failure is a ClientError."""

    def __init__(self, base_url: str, key: str) -> None:
        """ClientError(USAGE) for an address or key that cannot be sent; the key is never repeated."""
        if not key.isascii() or not key.isprintable():
            raise ClientError("this is no API key: it has characters that no key has", Exit.AUTH)
        if not re.match(r"https?://[^/]", base_url):
            raise ClientError(f"{base_url!r} is no address: write http://host:port", Exit.USAGE)
        self._http = httpx.Client(
            base_url=base_url,
            trust_env=not _is_local(base_url),
            timeout=TIMEOUT_SECONDS,
            follow_redirects=True,
        )
        self._headers = {"authorization": f"Bearer {key}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, body: dict[str, Any], *, idempotency_key: str) -> Job:
        """Ask for a generation; the job that was accepted."""
        return self._job("POST", "/v1/audio/generations", json=body, idempotency_key=idempotency_key)

    def upload(self, path: Path) -> Upload:
        """Bring a file; requests name it by its id."""
        try:
            with path.open("rb") as file:
                answer = self._call(
                    "POST", "/v1/files", files={"file": (path.name, file)}, timeout=UPLOAD_SECONDS
                )
        except OSError as error:
            raise ClientError(f"{path} cannot be read: {error}", Exit.USAGE) from error
        return self._decoded(answer, Upload)

    def job(self, job_id: str) -> Job:
        """The job as it is now."""
        return self._job("GET", f"/v1/jobs/{job_id}")

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job; it is not charged."""
        return self._job("POST", f"/v1/jobs/{job_id}/cancel")

    def balance_usd(self) -> str:
        """Credit left, as text with nine decimals."""
        return self._decoded(self._call("GET", "/v1/balance"), Balance).balance_usd

    def download(self, url: str, target: Path) -> None:
        """Save what a signed URL points to, whole or not at all; the signature is enough, no key is sent."""
        part = target.with_name(f"{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._http.stream("GET", url) as answer, part.open("wb") as file:
                answer.raise_for_status()
                for chunk in answer.iter_bytes():
                    file.write(chunk)
            part.replace(target)
        except (httpx.HTTPError, OSError) as error:
            part.unlink(missing_ok=True)
            raise ClientError(f"the song could not be saved as {target}: {error}") from error

    def _job(self, method: str, path: str, **options: Any) -> Job:
        return self._decoded(self._call(method, path, **options), Job)

    def _decoded(self, content: bytes, kind: type[Answer]) -> Answer:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise ClientError(f"this is not an Antiphon gateway: {error}") from error

    def _call(self, method: str, path: str, *, idempotency_key: str | None = None, **options: Any) -> bytes:
        headers = self._headers | ({"idempotency-key": idempotency_key} if idempotency_key else {})
        try:
            answer = self._http.request(method, path, headers=headers, **options)
        except httpx.ConnectError as error:
            hint = "is it running (`make run`), and at this address?"
            raise ClientError(f"no gateway answers at {self._http.base_url}: {error}; {hint}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClientError(f"{method} {self._http.base_url}: {error}") from error
        except ValueError as error:  # not finite, or not Unicode: it cannot be written as JSON
            raise ClientError(f"this cannot be sent: {error}", Exit.USAGE) from error
        if answer.is_error:
            raise _refused(answer)
        return answer.content


def failure_of(job: Job) -> ClientError:
    """Why a job ended without music, as an error with its exit status."""
    reason = job.error or JobError("no reason given", "unknown")
    status = _STATUS_OF_JOB.get(reason.code, Exit.PROVIDER)
    return ClientError(f"job {job.id} failed ({reason.code}): {reason.message}; nothing was charged", status)


def song_path(folder: Path, *, prompt: str, job_id: str, number: int, extension: str) -> Path:
    """A few words of the prompt and enough of the job's id to tell two songs apart."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())[:4]
    tail = job_id[-8:] if number == 0 else f"{job_id[-8:]}-{number + 1}"
    return folder / f"{'-'.join([*words, tail])}.{extension}"


def _refused(answer: httpx.Response) -> ClientError:
    status = _STATUS_OF_HTTP.get(answer.status_code, Exit.PROVIDER if answer.is_server_error else Exit.OTHER)
    try:
        error = msgspec.json.decode(answer.content, type=_Envelope).error
        status = Exit.USAGE if error.code == "model_not_found" else status
    except msgspec.DecodeError:
        return ClientError(f"{answer.url} answered {answer.status_code}", status)
    hint = f" (try: {error.suggestion})" if error.suggestion else ""
    return ClientError(f"{error.message}{hint} [{error.code}]", status, code=error.code)


def _is_local(base_url: str) -> bool:
    """A gateway on this machine is not reached through anybody's proxy."""
    return httpx.URL(base_url).host in {"127.0.0.1", "localhost", "::1", os.uname().nodename}
