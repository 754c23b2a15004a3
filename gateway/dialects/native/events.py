"""A job's way to its end as server-sent events, for those who would rather not poll.

An event's id says how the job stood, so it means the same in every process and after every restart:
who comes back with the last one is not told the same again.
"""

import asyncio
import time
from typing import Annotated, Final

import msgspec
from litestar import get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from gateway.auth.principal import Scope as KeyScope
from gateway.dialects.native.documents import FINDING_ERRORS
from gateway.dialects.native.guarding import GatewayRequest, known_job_id, origin, presented_key
from gateway.dialects.native.render import public_status
from gateway.jobs.job import FINAL, Job, JobState, JobStatus
from gateway.jobs.watching import Following, Sight

KEEP_ALIVE_SECONDS: Final = 15.0
"""Proxies give up connections that were silent for a minute or less."""
KEY_CHECK_SECONDS: Final = 1.0
MAX_BODY_BYTES: Final = 65_536
"""Of a GET that has one, for whatever reason."""

_RETRY: Final = b"retry: 2000\n\n"
_KEEP_ALIVE: Final = b": keep-alive\n\n"
_encode: Final = msgspec.json.Encoder().encode


class EventView(msgspec.Struct, kw_only=True):
    """One server-sent event; its data is JSON."""

    id: str
    event: str
    data: str


class ProgressView(msgspec.Struct, kw_only=True):
    """Data of a `progress` event; the fields are those of the job object."""

    job_id: str
    status: str
    progress: float
    queue_position: int | None
    eta_seconds: float | None


@get(
    "/jobs/{job_id:str}/events",
    summary="Follow a job",
    responses=FINDING_ERRORS
    | {
        200: ResponseSpec(
            data_container=EventView,
            media_type="text/event-stream",
            generate_examples=False,
            description="`progress` events (data: `job_id`, `status`, `progress`, `queue_position`, "
            "`eta_seconds`), then one named `completed` or `failed` whose data is the job object.",
        ),
        204: ResponseSpec(
            data_container=None,
            description="The last event has been seen already: nothing will follow.",
        ),
    },
)
async def stream_events(
    request: GatewayRequest,
    job_id: FromPath[str],
    last_seen: Annotated[
        str | None,
        HeaderParameter(
            name="Last-Event-ID",
            description="Id of the last event that was seen; it is not sent again. Browsers send it by "
            "themselves when they come back.",
        ),
    ] = None,
) -> ASGIResponse:
    """Follow a job as server-sent events.

    First how the job stands now, then each change, at most four times a second; a slow reader skips
    states. The last event is named `completed` or `failed` and carries the job object without inline
    audio; then the stream ends. A stream that ends without it, as when the server restarts, is to be
    opened again.
    """
    desk = request.desk
    sight = await desk.job_watch.look(request.auth, known_job_id(job_id))
    if sight.state.status in FINAL:
        if last_seen == _final_id(sight.state):
            return ASGIResponse(status_code=204, headers={"cache-control": "no-store"})
        sight.job = await desk.jobs.read(request.auth, sight.state.id)
    return EventStream(request, sight, last_seen)


class EventStream(ASGIResponse):
    """The answer: one task for the events, one that notices when the client hangs up."""

    _should_set_content_length = False

    def __init__(self, request: GatewayRequest, sight: Sight, last_seen: str | None) -> None:
        """`sight`: how the job stands, by a look that proved that the caller may see it."""
        super().__init__(
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )
        self._request = request
        self._sight = sight
        self._last_seen = last_seen

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Raises Overloaded, before anything was sent."""
        request, sight = self._request, self._sight
        if sight.job is not None:
            event = await self._final_event(sight.job)
            await self.start_response(send)
            await _send(send, _RETRY + event, more=False)
            return
        owner = request.auth.organization_id
        with request.desk.job_watch.follow(sight.state.id, owner=owner, sight=sight) as following:
            hanging_up = asyncio.create_task(_until_hung_up(receive, following))
            try:
                await self.start_response(send)
                await _send(send, _RETRY)
                await self._tell(following, send)
                await _send(send, b"", more=False)
            finally:
                hanging_up.cancel()

    async def _tell(self, following: Following, send: Send) -> None:
        """Until the last event, or until nobody may or can be told any more."""
        seen = b"id: %b\n" % (self._last_seen or "").encode("latin-1", "replace")
        told = b""
        told_at = time.monotonic()
        pause_seconds = min(KEY_CHECK_SECONDS, KEEP_ALIVE_SECONDS)
        while True:
            sight = await following.next(pause_seconds)
            if following.ended or not await self._may_listen():
                return
            if sight is not None and sight.job is not None:
                await _send(send, await self._final_event(sight.job))
                return
            event = told if sight is None else _progress_event(sight)
            if not told and event.startswith(seen):
                told = event  # by the stream before this one
            if event != told:
                await _send(send, event)
            elif time.monotonic() - told_at >= KEEP_ALIVE_SECONDS:
                await _send(send, _KEEP_ALIVE)
            else:
                continue
            told, told_at = event, time.monotonic()

    async def _may_listen(self) -> bool:
        """A key that was revoked or has expired ends its streams."""
        request = self._request
        return await request.desk.keys.still_opens(
            presented_key(request),
            client_host=request.client.host if request.client else None,
            scope=KeyScope.READ,
        )

    async def _final_event(self, job: Job) -> bytes:
        view = await self._request.desk.renderer.view(job, origin=origin(self._request), inline=False)
        return _event(_final_id(job), view.status, view)


async def _until_hung_up(receive: Receive, following: Following) -> None:
    received = 0
    while received <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            break
        received += len(message["body"])
    following.end()


async def _send(send: Send, data: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


def _progress_event(sight: Sight) -> bytes:
    """Made once for all who follow the job."""
    if not sight.text:
        state, outlook = sight.state, sight.outlook
        progress = round(state.progress, 4)
        view = ProgressView(
            job_id=state.id.hex,
            status=public_status(state.status),
            progress=progress,
            queue_position=outlook.queue_position,
            eta_seconds=outlook.eta_seconds,
        )
        place = outlook.queue_position if state.status is JobStatus.QUEUED else round(progress * 10_000)
        sight.text = _event(f"{view.status}-{state.fence}-{place or 0}", "progress", view)
    return sight.text


def _final_id(state: JobState) -> str:
    return f"{public_status(state.status)}-{state.fence}"


def _event(event_id: str, name: str, data: msgspec.Struct) -> bytes:
    """JSON has no line breaks of its own, so that the data is one line."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event_id.encode(), name.encode(), _encode(data))
