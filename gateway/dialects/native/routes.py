"""Our own API at the root: generations, jobs, models, balance, key."""

import asyncio
import contextlib
import hashlib
from datetime import datetime
from typing import Annotated, Final

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED

from gateway.auth.principal import Scope
from gateway.catalog import Model
from gateway.dialects.native.answers import Answer, rate_limit_headers
from gateway.dialects.native.balance import read_account_usage, read_balance
from gateway.dialects.native.body import GenerationBody
from gateway.dialects.native.checking import check_asked
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
from gateway.dialects.native.ledger import read_ledger
from gateway.dialects.native.models import ModelList, ModelView, model_view
from gateway.dialects.native.queries import read_cursor, read_limit, read_model_name, read_moment
from gateway.dialects.native.quotes import create_quote
from gateway.dialects.native.render import JobView
from gateway.dialects.native.statements import list_statements, read_statement
from gateway.dialects.native.submit_headers import SubmitHeaders, SubmitOperation, read_submit_headers
from gateway.dialects.native.usage import read_usage_report
from gateway.errors import FileGone, GatewayError, InvalidRequest
from gateway.jobs.job import FINAL, Job, JobStatus
from gateway.jobs.reading import MAX_PAGE, JobFilter
from gateway.jobs.service import Order, Submitted
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
    sending twice, and `max_cost_usd` to be safe against a price that has changed since you saw it.
    """
    asked = read_submit_headers(request)
    submitted = await _submit(request, data, asked)
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
            model=read_model_name(model, request.desk.catalog),
            created_from=read_moment(created_from, "created[gte]"),
            before=read_cursor(cursor),
            limit=read_limit(limit),
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
    return ModelList(data=[await _model_view(request, m) for m in request.desk.catalog.models.values()])


@get("/models/{model_id:str}", summary="Read a model", responses=FINDING_ERRORS)
async def read_model(request: GatewayRequest, model_id: FromPath[str]) -> ModelView:
    """One model, by id or alias."""
    return await _model_view(request, request.desk.catalog.find(model_id))


async def _model_view(request: GatewayRequest, model: Model) -> ModelView:
    jobs = request.desk.jobs
    rate = await jobs.rate(model, request.auth.organization_id)
    return model_view(model, rate, jobs.routes, await jobs.crew.workforce())


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
        create_quote,
        read_job,
        stream_events,
        list_jobs,
        cancel_job,
        delete_job,
        list_models,
        read_model,
        read_balance,
        read_account_usage,
        read_usage_report,
        read_ledger,
        list_statements,
        read_statement,
        read_key,
    ],
    before_request=require_key,
    opt={"scope": Scope.READ},
    request_class=GatewayRequest,
    security=[{"bearer": []}, {"x-api-key": []}],
)


async def _submit(request: GatewayRequest, data: GenerationBody, asked: SubmitHeaders) -> Submitted:
    jobs = request.desk.jobs
    digest = hashlib.sha256(b"/v1/audio/generations\n" + await request.body()).digest()
    try:
        found = await check_asked(request, data)
    except FileGone:
        # Of a request that was accepted before: its job has what it needs, and repeats are told of it.
        earlier = await jobs.find_repeat(
            request.auth,
            request_hash=digest,
            idempotency_key=asked.idempotency_key,
            is_retry=asked.is_retry,
        )
        if earlier is None:
            raise
        return Submitted(earlier, replayed=True, allowance=None)
    order = Order(
        model=found.model,
        request=found.checked.request,
        request_hash=digest,
        warnings=found.checked.warnings,
        metadata=data.metadata,
        idempotency_key=asked.idempotency_key,
        is_retry=asked.is_retry,
        cancel_after=asked.cancel_after,
        max_cost_nano=found.checked.max_cost_nano,
    )
    return await jobs.submit(request.auth, order)


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


def _statuses(value: str | None) -> tuple[JobStatus, ...] | None:
    if value is None:
        return None
    if value not in _STATUSES:
        raise InvalidRequest(
            f"status must be one of {', '.join(_STATUSES)}", param="status", suggestion="completed"
        )
    return _STATUSES[value]
