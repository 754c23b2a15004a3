"""One attempt: the message or the song, sent once, and what is to be said of it afterwards."""

import time
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import asyncpg
import msgspec

from gateway.outbound import Answer, BadUrl, OutboundError, Sender
from gateway.storage import AudioStore, ObjectMissing, StoreError
from gateway.webhooks.claims import Claim, Outcome
from gateway.webhooks.events import EventType
from gateway.webhooks.schedule import Kind, delay_after
from gateway.webhooks.signing import Secrets, signed_headers

WEBHOOK_SECONDS: Final = 15.0
UPLOAD_SECONDS: Final = 300.0

_GONE: Final = 410
_STORE_FAILED: Final = "the audio could not be read"

Render = Callable[[uuid.UUID, uuid.UUID], Awaitable[bytes]]
"""The job object, as JSON, of this job and its organization. Raises NotRenderable."""


class NotRenderable(Exception):
    """This version of the gateway cannot show the job."""


class Postman:
    """Sends; nothing here is written down."""

    def __init__(
        self,
        *,
        pool: "asyncpg.Pool[asyncpg.Record]",
        sender: Sender,
        store: AudioStore,
        secrets: Secrets,
        render: Render,
        webhook_seconds: float = WEBHOOK_SECONDS,
    ) -> None:
        self._pool = pool
        self._sender = sender
        self._store = store
        self._secrets = secrets
        self._render = render
        self._webhook_seconds = webhook_seconds

    async def bring(self, claim: Claim) -> Outcome:
        """Try it once. Raises DATABASE_ERRORS where the event itself could not be read."""
        at, started = datetime.now(UTC), time.perf_counter()
        try:
            match claim.kind:
                case Kind.WEBHOOK:
                    answer = await self._post(claim, at)
                case Kind.UPLOAD:
                    answer = await self._put(claim)
        except ObjectMissing:
            return _hopeless(at, started, "the audio is not kept any more")
        except BadUrl as error:
            return _hopeless(at, started, str(error))
        except OutboundError as error:
            return _failed(claim, at, started, str(error))
        except StoreError:
            return _failed(claim, at, started, _STORE_FAILED)
        except NotRenderable:
            return _failed(claim, at, started, "the event could not be written")
        return _answered(claim, at, answer)

    async def _post(self, claim: Claim, at: datetime) -> Answer:
        body = await self._message(claim)
        values = self._secrets.valid(claim.secret_owner, claim.secret_version, with_old=claim.with_old_secret)
        headers = signed_headers(values, webhook_id=claim.webhook_id, at=at, body=body)
        return await self._sender.send(
            "POST",
            claim.url,
            content=body,
            headers={"content-type": "application/json", **headers},
            timeout=self._webhook_seconds,
        )

    async def _message(self, claim: Claim) -> bytes:
        """A job as it is now, with links that have just been signed; `timestamp` is of the event."""
        if claim.job_id is None:
            data = (claim.payload or "{}").encode()
        else:
            data = await self._render(claim.job_id, claim.organization_id)
        happened_at = claim.happened_at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
        return msgspec.json.encode({"type": claim.type, "timestamp": happened_at, "data": msgspec.Raw(data)})

    async def _put(self, claim: Claim) -> Answer:
        """The song's bytes as they are stored; nothing that would say who we are."""
        row = await self._pool.fetchrow(
            """
            SELECT result #>> '{tracks,0,key}' AS key, result #>> '{tracks,0,content_type}' AS content_type
              FROM job WHERE id = $1
            """,
            claim.job_id,
        )
        if row is None or row["key"] is None:
            raise ObjectMissing
        head = await self._store.head(row["key"])
        content: AsyncIterable[bytes] = await self._store.open(row["key"])
        return await self._sender.send(
            "PUT",
            claim.url,
            content=content,
            headers={"content-type": row["content_type"], "content-length": str(head.size_bytes)},
            timeout=UPLOAD_SECONDS,
        )


def _answered(claim: Claim, at: datetime, answer: Answer) -> Outcome:
    """2xx has arrived; a redirect has not."""
    if 200 <= answer.status < 300:
        state, delay_seconds = "delivered", None
    elif answer.status == _GONE:
        state, delay_seconds = "dropped", None
    else:
        state, delay_seconds = _next(claim)
    return Outcome(
        at=at,
        latency_ms=answer.latency_ms,
        status=answer.status,
        answer=answer.body_head.decode(errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}"),
        state=state,
        delay_seconds=delay_seconds,
    )


def _failed(claim: Claim, at: datetime, started: float, error: str) -> Outcome:
    state, delay_seconds = _next(claim)
    return Outcome(at=at, latency_ms=_since(started), error=error, state=state, delay_seconds=delay_seconds)


def _hopeless(at: datetime, started: float, error: str) -> Outcome:
    return Outcome(at=at, latency_ms=_since(started), error=error, state="dropped")


def _next(claim: Claim) -> tuple[str, int | None]:
    """Again later, unless that was the last time; a test is sent once."""
    is_test = claim.type == EventType.WEBHOOK_TEST
    delay_seconds = None if is_test else delay_after(claim.kind, claim.attempts)
    return ("exhausted" if delay_seconds is None else "pending"), delay_seconds


def _since(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
