"""A Job as our own API shows it. Field names are the contract's; money is text with nine decimals."""

import asyncio
import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

import billing
from gateway.generation import ResponseFormat
from gateway.jobs.forecast import Forecast
from gateway.jobs.job import FINAL, Attempt, Job, JobResult, JobStatus, Track
from gateway.signed_urls import UrlSigner
from gateway.storage import AudioStore, ObjectMissing

LINK_LIFETIME: Final = timedelta(days=7)
_PUBLIC_STATUS: Final = {status: status.value for status in JobStatus} | {JobStatus.CANCELED: "failed"}
"""Clients of this dialect loop until `completed` or `failed`: there is no third final word."""


class TrackView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One delivered file; `url` needs no credentials and expires."""

    content_type: str
    format: str
    duration_seconds: float
    sample_rate: int
    channels: int
    seed: int
    sha256: str
    url: str | None = None
    b64_json: str | None = None


class UsageView(msgspec.Struct, kw_only=True):
    """What is billed, and in which unit."""

    billable_units: float
    billing_unit: str = "second"


class ResultView(msgspec.Struct, kw_only=True):
    """What a completed job delivers."""

    created: int
    data: list[TrackView]
    usage: UsageView
    deterministic: bool | str


class JobErrorView(msgspec.Struct, kw_only=True):
    """Why a job ended without music; never charged."""

    message: str
    code: str
    type: str = "api_error"
    param: str | None = None
    charged: bool = False


class CostView(msgspec.Struct, kw_only=True):
    """Decimal strings in USD. `charged`: money has moved; `billed_seconds` is null until the end."""

    usd: str
    usd_per_second: str
    billed_seconds: float | None
    held_usd: str
    charged: bool


class AttemptView(msgspec.Struct, kw_only=True):
    """One try of the job at one backend."""

    n: int
    backend: str
    reason: str | None
    state: str
    started_at: str
    finished_at: str | None
    error_code: str | None
    error_message: str | None


class JobView(msgspec.Struct, kw_only=True):
    """The job object.

    `queue_position` (1 is next) and `eta_seconds` (until the end) are estimates, about a second old; null
    where there is nothing to go by, and once the job has ended.
    """

    job_id: str
    id: str
    object: str = "job"
    model: str
    task: str
    status: str
    progress: float
    queue_position: int | None = None
    eta_seconds: float | None = None
    created_at: str
    completed_at: str | None
    expires_at: str | None
    cancel_requested_at: str | None
    result: ResultView | None
    error: JobErrorView | None
    warnings: list[str]
    poll_url: str
    backend: str | None
    route_reason: str | None
    cost: CostView
    metadata: dict[str, str]
    test: bool
    attempts: list[AttemptView] | msgspec.UnsetType = msgspec.UNSET


class JobRenderer:
    """Renders jobs with links that carry their own permission."""

    def __init__(
        self, *, store: AudioStore, signer: UrlSigner, forecast: Forecast, public_url: str | None
    ) -> None:
        self._store = store
        self._signer = signer
        self._forecast = forecast
        self._public_url = public_url

    async def view(
        self, job: Job, *, origin: str, attempts: Sequence[Attempt] | None = None, inline: bool = True
    ) -> JobView:
        """The job object; `inline=False` leaves base64 audio out, for lists."""
        outlook = await self._forecast.outlook(job)
        return JobView(
            job_id=job.id.hex,
            id=job.id.hex,
            model=job.model,
            task=job.task,
            status=public_status(job.status),
            progress=round(job.progress, 4),
            queue_position=outlook.queue_position,
            eta_seconds=outlook.eta_seconds,
            created_at=iso(job.created_at),
            completed_at=iso_or_none(job.completed_at),
            expires_at=iso_or_none(job.expires_at),
            cancel_requested_at=iso_or_none(job.cancel_requested_at),
            result=await self._result(job, job.result, origin, inline=inline) if job.result else None,
            error=JobErrorView(message=job.error.message, code=job.error.code.value) if job.error else None,
            warnings=list(job.warnings),
            poll_url=f"/v1/jobs/{job.id.hex}",
            backend=job.backend,
            route_reason=job.route_reason,
            cost=cost_view(job),
            metadata=job.metadata or {},
            test=job.test,
            attempts=msgspec.UNSET if attempts is None else [_attempt_view(a) for a in attempts],
        )

    async def _result(self, job: Job, result: JobResult, origin: str, *, inline: bool) -> ResultView:
        return ResultView(
            created=int((job.completed_at or job.created_at).timestamp()),
            data=[await self._track(job, track, origin, inline=inline) for track in result.tracks],
            usage=UsageView(billable_units=(job.billed_ms or 0) / 1000),
            deterministic=result.deterministic,
        )

    async def _track(self, job: Job, track: Track, origin: str, *, inline: bool) -> TrackView:
        wants_url = job.request.response_format is ResponseFormat.URL or not inline
        return TrackView(
            content_type=track.content_type,
            format=track.format,
            duration_seconds=track.frames / track.master_sample_rate,
            sample_rate=track.sample_rate,
            channels=track.channels,
            seed=track.seed,
            sha256=track.sha256,
            url=self._link(job, track, origin) if wants_url else None,
            b64_json=await self._base64(track.key) if inline and job.request.wants_base64 else None,
        )

    def _link(self, job: Job, track: Track, origin: str) -> str:
        path = f"/audio/{track.key}"
        week = datetime.now(UTC) + LINK_LIFETIME
        expires_at = min(week, job.expires_at or week)
        query = self._signer.sign(path, expires_at=expires_at, filename=track.file_name)
        return f"{self._public_url or origin}{path}?{query}"

    async def _base64(self, key: str) -> str | None:
        """The whole file as text; None once its retention is over."""
        try:
            chunks = [chunk async for chunk in await self._store.open(key)]
        except ObjectMissing:
            return None
        return await asyncio.to_thread(lambda: base64.b64encode(b"".join(chunks)).decode())


def public_status(status: JobStatus) -> str:
    """The word of this dialect."""
    return _PUBLIC_STATUS[status]


def cost_view(job: Job) -> CostView:
    """What the job has cost, or may cost while it runs."""
    return CostView(
        usd=billing.format_usd(job.charged_nano or 0),
        usd_per_second=billing.format_usd(job.nano_per_second),
        billed_seconds=None if job.status not in FINAL else (job.billed_ms or 0) / 1000,
        held_usd=billing.format_usd(job.held_nano),
        charged=job.charged_nano is not None,
    )


def iso(moment: datetime) -> str:
    """2026-11-21T01:35:35.525Z"""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def iso_or_none(moment: datetime | None) -> str | None:
    """The same, or nothing."""
    return None if moment is None else iso(moment)


def _attempt_view(attempt: Attempt) -> AttemptView:
    fields: dict[str, Any] = msgspec.structs.asdict(attempt)
    return AttemptView(
        started_at=iso(fields.pop("created_at")),
        finished_at=iso_or_none(fields.pop("finished_at")),
        **fields,
    )
