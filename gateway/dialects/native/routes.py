"""Our own API at the root: generations, jobs, models, balance, key."""

import asyncio
import contextlib
import hashlib
import uuid
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED

import billing
from gateway.auth.principal import Scope
from gateway.catalog import Catalog
from gateway.dialects.native.answers import Answer, rate_limit_headers
from gateway.dialects.native.body import GenerationBody
from gateway.dialects.native.documents import (
    CANCEL_ERRORS,
    ERRORS,
    FINDING_ERRORS,
    ID,
    MOMENTS,
    SUBMIT_ANSWERS,
    query,
)
from gateway.dialects.native.events import stream_events
from gateway.dialects.native.guarding import GatewayRequest, known_job_id, origin, require_key
from gateway.dialects.native.models import ModelList, ModelView, model_view
from gateway.dialects.native.render import JobView
from gateway.dialects.native.submit_headers import SubmitOperation, read_submit_headers
from gateway.dialects.native.validation import check_body, check_metadata
from gateway.errors import GatewayError, InvalidRequest, ModelNotFound
from gateway.ids import parse_id
from gateway.jobs.job import FINAL, Job, JobStatus
from gateway.jobs.reading import MAX_PAGE, JobFilter
from gateway.jobs.service import Order
from gateway.storage import StoreError

LOOK_SECONDS: Final = 3.0
"""After waiting in vain, for one more look at the job."""
_STATUSES: Final = {
    "queued": (JobStatus.QUEUED,),
    "processing": (JobStatus.PROCESSING,),
    "completed": (JobStatus.COMPLETED,),
    "failed": (JobStatus.FAILED, JobStatus.CANCELED),
}


class JobList(msgspec.Struct, kw_only=True):
    """A page of jobs, newest first; pass `next_cursor` as `cursor` for the next one."""

    object: str = "list"
    data: list[JobView]
    has_more: bool
    next_cursor: str | None


class BalanceView(msgspec.Struct, kw_only=True):
    """The organization's money, as decimal strings in USD; balance = available + held."""

    object: str = "balance"
    balance_usd: str
    held_usd: str
    available_usd: str


class KeyView(msgspec.Struct, kw_only=True):
    """The key that was sent: what it may do. The key itself is never shown again."""

    object: str = "key"
    id: str
    organization_id: str
    project_id: str | None
    test: bool
    scopes: list[str] | None
    models: list[str] | None
    requests_per_minute: int | None
    max_open_jobs: int | None
    expires_at: datetime | None


@post(
    "/audio/generations",
    status_code=HTTP_202_ACCEPTED,
    summary="Generate music",
    responses=SUBMIT_ANSWERS,
    operation_class=SubmitOperation,
    scope=Scope.GENERATE,
)
async def create_generation(request: GatewayRequest, data: JSONBody[GenerationBody]) -> Response[JobView]:
    """Generate music.

    The money for the longest possible result is reserved and the job is stored before the answer
    leaves; poll `Location` until the status is `completed` or `failed`, follow its events, or ask for
    `Prefer: wait=N`. Only delivered seconds are charged. Send `Idempotency-Key` to be safe against
    sending twice.
    """
    asked = read_submit_headers(request)
    desk = request.desk
    model = desk.catalog.find(data.model)
    checked = check_body(data, model)
    check_metadata(data.metadata)
    submitted = await desk.jobs.submit(
        request.auth,
        Order(
            model=model,
            request=checked.request,
            request_hash=hashlib.sha256(b"/v1/audio/generations\n" + await request.body()).digest(),
            warnings=checked.warnings,
            metadata=data.metadata,
            idempotency_key=asked.idempotency_key,
            is_retry=asked.is_retry,
            cancel_after=asked.cancel_after,
        ),
    )
    job, status = submitted.job, HTTP_202_ACCEPTED
    headers = rate_limit_headers(submitted.allowance)
    headers.append((b"location", b"/v1/jobs/" + job.id.hex.encode()))
    if submitted.replayed:
        headers.append((b"idempotent-replayed", b"true"))
    if asked.wait_seconds is not None:
        job = await _wait(request, job, asked.wait_seconds)
        if job.status in FINAL:
            headers.append((b"preference-applied", b"wait=%d" % asked.wait_seconds))
            status = HTTP_200_OK
    return Answer(await _view_after_commit(request, job), status=status, headers=headers)


@get("/jobs/{job_id:str}", summary="Read a job", responses=FINDING_ERRORS)
async def read_job(
    request: GatewayRequest,
    job_id: FromPath[str],
    include: Annotated[
        str | None, query("Add every try at a backend.", type="string", enum=["attempts"])
    ] = None,
) -> Response[JobView]:
    """One job. `include=attempts` adds every try at a backend."""
    if include not in {None, "attempts"}:
        raise InvalidRequest("include must be attempts", param="include", suggestion="attempts")
    job = await request.desk.jobs.read(request.auth, known_job_id(job_id))
    attempts = await request.desk.jobs.attempts(job) if include else None
    return Answer(await request.desk.renderer.view(job, origin=origin(request), attempts=attempts))


@get("/jobs", summary="List jobs", responses=ERRORS)
async def list_jobs(
    request: GatewayRequest,
    limit: Annotated[int, query(f"Jobs per page, 1 to {MAX_PAGE}.", minimum=1, maximum=MAX_PAGE)] = 20,
    cursor: Annotated[
        str | None, query("`next_cursor` of an earlier page.", type="string", pattern=ID)
    ] = None,
    status: Annotated[
        str | None, query(f"One of {', '.join(_STATUSES)}.", type="string", enum=[*_STATUSES])
    ] = None,
    model: Annotated[str | None, query("Id or alias of a model.", type="string")] = None,
    created_from: Annotated[
        str | None,
        query("Unix seconds, or ISO 8601 with `+` written %2B.", name="created[gte]", any_of=MOMENTS),
    ] = None,
) -> JobList:
    """Jobs of the organization (of a project key: its project), newest first; without inline audio."""
    page, next_cursor = await request.desk.jobs.list(
        request.auth,
        JobFilter(
            statuses=_statuses(status),
            model=_model(model, request.desk.catalog),
            created_from=_moment(created_from),
            before=_cursor(cursor),
            limit=_limit(limit),
        ),
    )
    views = [await request.desk.renderer.view(job, origin=origin(request), inline=False) for job in page]
    return JobList(
        data=views, has_more=next_cursor is not None, next_cursor=next_cursor.hex if next_cursor else None
    )


@post(
    "/jobs/{job_id:str}/cancel",
    status_code=HTTP_200_OK,
    summary="Cancel a job",
    responses=CANCEL_ERRORS,
    scope=Scope.GENERATE,
)
async def cancel_job(request: GatewayRequest, job_id: FromPath[str]) -> JobView:
    """End a job. A queued one ends now; a running one as soon as its worker can stop. Never charged."""
    job = await request.desk.jobs.cancel(request.auth, known_job_id(job_id))
    return await request.desk.renderer.view(job, origin=origin(request))


@delete(
    "/jobs/{job_id:str}",
    status_code=HTTP_200_OK,
    summary="Cancel a job (the same)",
    responses=CANCEL_ERRORS,
    scope=Scope.GENERATE,
)
async def delete_job(request: GatewayRequest, job_id: FromPath[str]) -> JobView:
    """The same as `POST /v1/jobs/{job_id}/cancel`."""
    job = await request.desk.jobs.cancel(request.auth, known_job_id(job_id))
    return await request.desk.renderer.view(job, origin=origin(request))


@get("/models", summary="List models and prices", responses=ERRORS)
async def list_models(request: GatewayRequest) -> ModelList:
    """All models with their ranges and the prices that are charged now."""
    organization = request.auth.organization_id
    return ModelList(
        data=[
            model_view(m, await request.desk.jobs.price(m, organization))
            for m in request.desk.catalog.models.values()
        ]
    )


@get("/models/{model_id:str}", summary="Read a model", responses=FINDING_ERRORS)
async def read_model(request: GatewayRequest, model_id: FromPath[str]) -> ModelView:
    """One model, by id or alias."""
    model = request.desk.catalog.find(model_id)
    return model_view(model, await request.desk.jobs.price(model, request.auth.organization_id))


@get("/balance", summary="Read the balance", responses=ERRORS)
async def read_balance(request: GatewayRequest) -> BalanceView:
    """What the organization has, what of it is held for running jobs, and what is free."""
    account = await request.desk.jobs.balance(request.auth)
    return BalanceView(
        balance_usd=billing.format_usd(account.posted_nano),
        held_usd=billing.format_usd(account.held_nano),
        available_usd=billing.format_usd(account.available_nano),
    )


@get("/key", summary="Read what this key may do", responses=ERRORS)
async def read_key(request: GatewayRequest) -> KeyView:
    """What the presented key may do."""
    principal = request.auth
    return KeyView(
        id=principal.key_id.hex,
        organization_id=principal.organization_id.hex,
        project_id=principal.project_id.hex if principal.project_id else None,
        test=principal.test,
        scopes=sorted(principal.scopes) if principal.scopes is not None else None,
        models=sorted(principal.models) if principal.models is not None else None,
        requests_per_minute=principal.requests_per_minute,
        max_open_jobs=principal.max_open_jobs,
        expires_at=principal.expires_at,
    )


router: Final = Router(
    "/v1",
    route_handlers=[
        create_generation,
        read_job,
        stream_events,
        list_jobs,
        cancel_job,
        delete_job,
        list_models,
        read_model,
        read_balance,
        read_key,
    ],
    before_request=require_key,
    opt={"scope": Scope.READ},
    request_class=GatewayRequest,
    security=[{"bearer": []}, {"x-api-key": []}],
)


async def _wait(request: GatewayRequest, job: Job, seconds: int) -> Job:
    """The job at its end, or as it stands when the time is over; nothing may fail here, after the commit."""
    if job.status in FINAL:
        return job
    desk = request.desk
    ended = await desk.job_watch.wait_until_final(request.auth, job.id, seconds)
    if ended is not None:
        return ended
    with contextlib.suppress(GatewayError, TimeoutError):
        async with asyncio.timeout(LOOK_SECONDS):
            return await desk.jobs.find(request.auth, job.id)
    return job


async def _view_after_commit(request: GatewayRequest, job: Job) -> JobView:
    """The job; with links instead of inline audio while the audio store cannot be reached."""
    renderer = request.desk.renderer
    try:
        return await renderer.view(job, origin=origin(request))
    except (StoreError, OSError):
        return await renderer.view(job, origin=origin(request), inline=False)


def _cursor(text: str | None) -> uuid.UUID | None:
    if text is None:
        return None
    cursor = parse_id(text)
    if cursor is None:
        raise InvalidRequest("cursor must be the next_cursor of an earlier page", param="cursor")
    return cursor


def _limit(value: int) -> int:
    if not 1 <= value <= MAX_PAGE:
        raise InvalidRequest(
            f"limit must be between 1 and {MAX_PAGE}",
            param="limit",
            suggestion=str(min(max(value, 1), MAX_PAGE)),
        )
    return value


def _statuses(value: str | None) -> tuple[JobStatus, ...] | None:
    if value is None:
        return None
    if value not in _STATUSES:
        raise InvalidRequest(
            f"status must be one of {', '.join(_STATUSES)}", param="status", suggestion="completed"
        )
    return _STATUSES[value]


def _model(value: str | None, catalog: Catalog) -> str | None:
    """An alias counts as its model; a model that left the catalog may still have jobs."""
    if value is None:
        return None
    if "\x00" in value:
        raise InvalidRequest("model contains a NUL character", param="model")
    try:
        return catalog.find(value).id
    except ModelNotFound:
        return value


def _moment(value: str | None) -> datetime | None:
    """ISO 8601 or Unix seconds."""
    if value is None:
        return None
    try:
        if value.isdecimal():
            return datetime.fromtimestamp(int(value), UTC)
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            "created[gte] must be a time", param="created[gte]", suggestion="2026-01-31T00:00:00Z"
        ) from None
