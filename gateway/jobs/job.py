"""The durable record of one generation, and its states."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from gateway.generation import GenerationRequest


class JobStatus(StrEnum):
    """`queued` - `processing` - `completed`, `failed` or `canceled`; nothing leaves the last three."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


FINAL: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED})


class JobErrorCode(StrEnum):
    """Why a job did not complete; none of them is charged."""

    UPSTREAM_ERROR = "upstream_error"
    TIMEOUT = "timeout"
    QUALITY_FAILED = "quality_failed"
    CONTENT_POLICY_VIOLATION = "content_policy_violation"
    JOB_CANCELLED = "job_cancelled"
    OUT_OF_MEMORY = "out_of_memory"
    INPUT_UNREADABLE = "input_unreadable"


MEANINGS: Final = {
    JobErrorCode.UPSTREAM_ERROR: "The backend failed, or rendering stopped unexpectedly three times.",
    JobErrorCode.TIMEOUT: "Rendering took too long, or the job was not finished within 24 hours.",
    JobErrorCode.QUALITY_FAILED: "The audio did not pass quality control: length, silence, clipping, offset.",
    JobErrorCode.CONTENT_POLICY_VIOLATION: "A provider refused the content.",
    JobErrorCode.JOB_CANCELLED: "It was cancelled.",
    JobErrorCode.OUT_OF_MEMORY: "The song did not fit into memory.",
    JobErrorCode.INPUT_UNREADABLE: "A file of the request could not be read.",
}
"""For the errors page and the reference."""


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why the job ended without music, in words for the customer."""

    code: JobErrorCode
    message: str


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """One delivered file; `key` and `master_key` are its places in the audio store."""

    key: str
    master_key: str
    format: str
    content_type: str
    frames: int
    """Of the master, at `master_sample_rate`: what is billed."""
    master_sample_rate: int
    sample_rate: int
    channels: int
    size_bytes: int
    sha256: str
    seed: int
    file_name: str


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a completed job delivers."""

    tracks: tuple[Track, ...]
    deterministic: bool | str
    """True, `best_effort` or False: whether the same seed gives the same sound again."""


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stands: what changes while it waits and runs, and what its place follows from."""

    id: uuid.UUID
    status: JobStatus
    progress: float
    fence: int
    queue: str
    turn: int | None
    """None where it was not read back."""
    length_ms: int
    started_at: datetime | None


class Job(JobState, frozen=True, kw_only=True):
    """One job as its row stands."""

    organization_id: uuid.UUID
    project_id: uuid.UUID | None
    test: bool
    model: str
    task: str
    request: GenerationRequest
    metadata: dict[str, str] | None
    cancel_requested_at: datetime | None
    created_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None
    nano_per_second: int
    held_nano: int
    charged_nano: int | None
    billed_ms: int | None
    backend: str | None
    route_reason: str | None
    """Why it waits, or was tried, where it is."""
    result: JobResult | None
    error: JobError | None
    warnings: tuple[str, ...]
    request_hash: bytes


class UnreadableJob(Exception):
    """Another version of the gateway wrote this row, with values that this one does not know."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try of a job at one backend."""

    n: int
    backend: str
    reason: str | None
    state: str
    created_at: datetime
    finished_at: datetime | None
    error_code: str | None
    error_message: str | None


_JSON_COLUMNS: Final[dict[str, Any]] = {
    "request": GenerationRequest,
    "metadata": dict[str, str],
    "result": JobResult,
    "error": JobError,
    "warnings": tuple[str, ...],
}
_DECODERS: Final = [(name, msgspec.json.Decoder(type_).decode) for name, type_ in _JSON_COLUMNS.items()]

JOB_COLUMNS: Final = ", ".join(Job.__struct_fields__)
STATE_COLUMNS: Final = ", ".join(JobState.__struct_fields__)


def state_from_row(row: Any) -> JobState:
    """A JobState from a row that begins with STATE_COLUMNS."""
    values = dict(zip(JobState.__struct_fields__, row, strict=False))
    values["status"] = JobStatus(values["status"])
    return JobState(**values)


def job_from_row(row: Any) -> Job:
    """A Job from a row that begins with JOB_COLUMNS; JSON columns arrive as text. Raises UnreadableJob."""
    values = dict(zip(Job.__struct_fields__, row, strict=False))
    try:
        for name, decode in _DECODERS:
            if values[name] is not None:
                values[name] = decode(values[name])
    except msgspec.MsgspecError as error:
        raise UnreadableJob(f"job {values['id'].hex}: {error}") from error
    values["status"] = JobStatus(values["status"])
    return Job(**values)
