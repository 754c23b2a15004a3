"""Runware as a provider: tasks carry our UUID, so nothing is made twice and everything is found again."""

import asyncio
import ssl
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from gateway.backends.base import BackendUnavailable, Failed, Output, Reason, SubmitAmbiguous
from gateway.backends.remote.connection import Connection, NoResponse, RequestFailed, Timeouts
from gateway.backends.remote.provider import Brought, Call, Made, Refused, Sight, Unknown, Waiting
from gateway.backends.runware.tasks import account_task, inference_task, look_task, upload_task
from gateway.backends.runware.verdicts import REASONS, Verdict, failure_of, verdict_of
from gateway.backends.runware.wire import Item, Reply, Trouble, balance_nano, cost_nano, read_reply
from gateway.routing.route import RUNWARE
from gateway.routing.runware import MOST_AT_ONCE

LOOKS_AT_ONCE: Final = 50
MAX_BYTES: Final = 2_000_000
"""Of an answer: hundreds of times the largest that the vendor has a reason to send."""
TIMEOUTS: Final = Timeouts(query=90.0)
"""One question is about many tasks."""
RESEND_SECONDS: Final = 0.5
_OURS: Final = frozenset({Verdict.MISCONFIGURED, Verdict.NOT_EXPRESSED})
"""Nobody but an operator can mend it."""

log = structlog.get_logger(__name__)


class Runware:
    """A Provider; see there. One per process; `close` it in the loop that used it."""

    name: Final = RUNWARE
    most_at_once: Final = MOST_AT_ONCE
    can_resend: Final = True
    looks_at_once: Final = LOOKS_AT_ONCE

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        webhook_url: str | None = None,
        timeouts: Timeouts = TIMEOUTS,
        resend_seconds: float = RESEND_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`webhook_url`: where it tells that a task has ended; None: nowhere. `tls`: see Connection.

        `resend_seconds`: before a request is sent once more.
        """
        self._connection = Connection(base_url=base_url, api_key=api_key, timeouts=timeouts, tls=tls)
        self._resend_seconds = resend_seconds
        self._webhook_url = webhook_url

    def new_ref(self) -> str:
        """A UUID v4, as its API wants it."""
        return str(uuid.uuid4())

    async def send(self, call: Call) -> str:
        """Bring the source, then the task; once more the same task where nobody knows what became of it."""
        ref = call.ref or self.new_ref()
        # What cannot be expressed at all is told before megabytes are sent.
        task = inference_task(call, ref, media=None, webhook_url=self._webhook_url)
        if call.source is not None and "inputs" in task:
            task["inputs"] = {"audio": await self._upload(call.source)}
        refused, in_doubt = await self._offer(task, ref, in_doubt=False)
        if refused is not None and refused.reason is Reason.OUTAGE:
            await asyncio.sleep(self._resend_seconds)
            refused, in_doubt = await self._offer(task, ref, in_doubt=in_doubt)
        if refused is None:
            return ref
        if not in_doubt:
            raise refused
        try:
            is_there = await self._is_there(ref)
        except BackendUnavailable as error:
            raise SubmitAmbiguous(
                "runware tells neither that it took the task nor that it did not"
            ) from error
        if not is_there:
            raise refused
        return ref

    async def find(self, call: Call, *, since: datetime) -> str | None:  # noqa: ARG002 - a ref has no twin
        """By its ref alone, whenever it was sent."""
        return call.ref if call.ref is not None and await self._is_there(call.ref) else None

    async def look(self, refs: Sequence[str]) -> Mapping[str, Sight]:
        """All of them in one request."""
        reply = await self._query([look_task(ref) for ref in refs])
        says_nothing = not reply.items and reply.general_trouble is not None
        if _is_refused(reply) or not reply.is_readable or says_nothing:
            raise _unavailable(reply, reply.general_trouble)
        seen = ((ref, _sight(reply, ref)) for ref in refs)
        return {ref: sight for ref, sight in seen if sight is not None}

    async def stop(self, ref: str) -> None:
        """There is no such thing there: it is made and paid for, and nobody fetches it."""

    async def balance_nano(self) -> int:
        """What our account there holds."""
        ref = self.new_ref()
        reply = await self._query([account_task(ref)])
        held = [item.balance for item in reply.items_of(ref) if item.balance is not None]
        nano = balance_nano(held[0]) if held else None
        if nano is None:
            raise _unavailable(reply, reply.trouble_of(ref) or reply.general_trouble)
        return nano

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def _offer(
        self, task: dict[str, Any], ref: str, *, in_doubt: bool
    ) -> tuple[BackendUnavailable | None, bool]:
        """None if the task is there; else why not, and whether it may be there all the same.

        `in_doubt`: that was so already. Raises Refused.
        """
        try:
            reply = await self._post(msgspec.json.encode([task]), seconds=self._connection.timeouts.submit)
        except RequestFailed as error:
            return _not_answered(error), in_doubt or isinstance(error, NoResponse)
        if any(item.status != "error" for item in reply.items_of(ref)):
            return None, False
        trouble = reply.trouble_of(ref) or reply.general_trouble
        verdict = verdict_of(trouble.code if trouble else "", reply.status)
        if verdict is Verdict.ALREADY_THERE:
            return None, False
        if verdict not in REASONS and verdict is not Verdict.NOT_THERE:
            _note_refusal(verdict, reply, trouble)
            raise Refused(failure_of(verdict))
        # A refusal in the vendor's own words, and what its front door turns away, started nothing.
        is_certain = (
            (trouble is not None and trouble.code) or 300 <= reply.status < 500 or reply.status == 503
        )
        return _unavailable(reply, trouble), in_doubt or not is_certain

    async def _upload(self, source: Brought) -> str:
        """What the source is called there. It was read here, so that a refusal is none of the customer's."""
        ref = self.new_ref()
        content = await asyncio.to_thread(_upload_content, source, ref)
        reply = await self._ask(content, seconds=self._connection.timeouts.upload)
        kept = [item.media for item in reply.items_of(ref) if item.media]
        if kept:
            return kept[0]
        trouble = reply.trouble_of(ref) or reply.general_trouble
        verdict = verdict_of(trouble.code if trouble else "", reply.status)
        if verdict in {Verdict.CONTENT, Verdict.INPUT, Verdict.NOT_EXPRESSED}:
            _note_refusal(verdict, reply, trouble)
            raise Refused(failure_of(Verdict.CONTENT if verdict is Verdict.CONTENT else Verdict.INPUT))
        raise _unavailable(reply, trouble)

    async def _is_there(self, ref: str) -> bool:
        """Raises BackendUnavailable where that cannot be learned."""
        reply = await self._query([look_task(ref)])
        if reply.items_of(ref):
            return True
        trouble = reply.trouble_of(ref) or reply.general_trouble
        if trouble is None or _is_refused(reply):
            raise _unavailable(reply, trouble)
        verdict = verdict_of(trouble.code, 200)
        if verdict is Verdict.NOT_THERE:
            return False
        if trouble.task is None or not trouble.code or verdict is Verdict.RATE_LIMITED:
            raise _unavailable(reply, trouble)
        return True  # and has failed

    async def _query(self, tasks: Sequence[dict[str, Any]]) -> Reply:
        return await self._ask(msgspec.json.encode(tasks), seconds=self._connection.timeouts.query)

    async def _ask(self, content: bytes, *, seconds: float) -> Reply:
        """A question that may be asked twice: a connection that has just been closed is no outage."""
        try:
            return await self._post(content, seconds=seconds)
        except RequestFailed as error:
            if error.timed_out:
                raise _not_answered(error) from error
        await asyncio.sleep(self._resend_seconds)
        try:
            return await self._post(content, seconds=seconds)
        except RequestFailed as error:
            raise _not_answered(error) from error

    async def _post(self, content: bytes, *, seconds: float) -> Reply:
        """The answer, whatever its status; raises RequestFailed."""
        response = await self._connection.post("", content, max_bytes=MAX_BYTES, seconds=seconds)
        return read_reply(response.status, response.body, retry_after_seconds=response.retry_after_seconds)


def _upload_content(source: Brought, ref: str) -> bytes:
    """Megabytes, so in a thread."""
    return msgspec.json.encode([upload_task(source, ref)])


def _is_refused(reply: Reply) -> bool:
    """All of the request, whatever it was about."""
    return reply.status >= 500 or verdict_of("taskFailed", reply.status) in REASONS


def _not_answered(error: RequestFailed) -> BackendUnavailable:
    return BackendUnavailable(f"runware does not answer: {error}", reason=Reason.OUTAGE)


def _unavailable(reply: Reply, trouble: Trouble | None) -> BackendUnavailable:
    """Nothing was taken, or nothing told; said once to the log where only an operator can help."""
    code = trouble.code if trouble else ""
    verdict = verdict_of(code, reply.status)
    if verdict is Verdict.MISCONFIGURED:
        _note_refusal(verdict, reply, trouble)
    return BackendUnavailable(
        f"runware answers with status {reply.status}{f', {code}' if code else ''}",
        reason=REASONS.get(verdict, Reason.OUTAGE),
        retry_after_seconds=reply.retry_after_seconds,
    )


def _note_refusal(verdict: Verdict, reply: Reply, trouble: Trouble | None) -> None:
    note = log.error if verdict in _OURS else log.warning
    note(
        "runware.refused",
        status=reply.status,
        code=trouble.code if trouble else "",
        parameter=trouble.parameter if trouble else "",
    )


def _sight(reply: Reply, ref: str) -> Sight | None:
    """None: nothing is said of it, or nothing that can be read."""
    items, trouble = reply.items_of(ref), reply.trouble_of(ref)
    made: dict[str, Item] = {}
    for item in items:
        if item.url and item.status != "error":
            made.setdefault(item.audio or item.url, item)  # a file that is told of twice is one file
    finished = list(made.values())
    if trouble is not None:
        failed = _failed(trouble, finished)
        if failed is not None or not items:
            return failed
    running = [item.progress for item in items if item.status == "processing"]
    if running:
        return Waiting(max(running))
    if finished or any(item.status == "success" for item in items):
        outputs = tuple(Output(url=item.url or "", seed=item.seed) for item in finished)
        return Made(
            outputs=outputs, cost_nano=cost_nano(item.cost for item in finished) if finished else None
        )
    return None


def _failed(trouble: Trouble, finished: Sequence[Item]) -> Unknown | Failed | None:
    """What an error in an answer that came says of its task."""
    verdict = verdict_of(trouble.code, 200)
    if not trouble.code or verdict in {Verdict.RATE_LIMITED, Verdict.ALREADY_THERE}:
        return None
    if verdict is Verdict.NOT_THERE:
        return None if finished else Unknown()
    cost = cost_nano(item.cost for item in finished) if finished else 0
    return failure_of(verdict, cost_nano=cost)
