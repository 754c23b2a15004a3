"""Brings events to where customers want them: runs in every HTTP process, and shares the work with others.

Nobody's receiver delays another's: of one lane and one organization only a few are under way at once.
"""

import asyncio
import time
import uuid
from typing import Final

import asyncpg
import structlog

from gateway.auth.principal import Principal
from gateway.database import DATABASE_ERRORS
from gateway.errors import RateLimitExceeded
from gateway.ids import new_id
from gateway.webhooks import claims, deliveries, endpoints, outbox
from gateway.webhooks.claims import Claim, Outcome
from gateway.webhooks.deliveries import Delivery, DeliveryAttempt
from gateway.webhooks.events import EventType
from gateway.webhooks.schedule import delay_after
from gateway.webhooks.sending import Postman

AT_ONCE: Final = 512
"""In this process: it takes many organizations whose receivers all hang to keep others waiting."""
IDLE_SECONDS: Final = 0.5
SWEEP_SECONDS: Final = 3600.0

_GAP_SECONDS: Final = 0.02
"""Between two looks, so that many that end at once are followed by one look."""
_GONE: Final = 410

log = structlog.get_logger(__name__)


class Deliverer:
    """Claims, sends, writes down."""

    def __init__(
        self,
        *,
        pool: "asyncpg.Pool[asyncpg.Record]",
        postman: Postman,
        at_once: int = AT_ONCE,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._pool = pool
        self._postman = postman
        self._at_once = at_once
        self._idle_seconds = idle_seconds
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._ended = asyncio.Event()
        self._after = ""
        """The last lane of the walk that is under way."""

    async def run(self) -> None:
        """Until cancelled; what is then under way is left to others."""
        sweep_at = 0.0
        try:
            while True:
                try:
                    if sweep_at <= (now := time.monotonic()):
                        sweep_at = now + SWEEP_SECONDS
                        await self._sweep()
                    is_over = await self._claim()
                except DATABASE_ERRORS as error:
                    log.warning("webhooks.failed", error=type(error).__name__)
                    is_over = True
                await self._pause(self._idle_seconds if is_over else 0)
        finally:
            await self._stop()

    async def test_send(
        self, principal: Principal, endpoint_id: uuid.UUID
    ) -> tuple[Delivery, DeliveryAttempt | None]:
        """Send `webhook.test` now and once, also to a disabled endpoint; None: the attempt was not kept.

        Raises NotFound, or RateLimitExceeded while another test of this endpoint is under way.
        """
        endpoint = await endpoints.read_endpoint(self._pool, principal, endpoint_id)
        async with self._pool.acquire() as conn, conn.transaction():
            event_id = await outbox.note_test(
                conn,
                organization_id=endpoint.organization_id,
                project_id=endpoint.project_id,
                endpoint_id=endpoint.id,
            )
            claim = await claims.claim_test(
                conn, delivery_id=new_id(), event_id=event_id, endpoint_id=endpoint.id
            )
            if claim is None:
                raise RateLimitExceeded(
                    "a test of this endpoint is under way", retry_after_seconds=claims.WEBHOOK_LEASE_SECONDS
                )
        await self._finish(claim, await self._postman.bring(claim))
        delivery, attempts = await deliveries.read_delivery(self._pool, principal, claim.id)
        return delivery, attempts[-1] if attempts else None

    async def _claim(self) -> bool:
        """Take what is due and begin it; True when all lanes have been looked at."""
        room = self._at_once - len(self._running)
        if room <= 0:
            return True
        taken, last = await claims.claim(self._pool, after=self._after, limit=room)
        self._after = last or ""
        for claim in taken:
            task = asyncio.create_task(self._deliver(claim))
            self._running[task] = claim
            task.add_done_callback(self._forget)
        return last is None

    async def _deliver(self, claim: Claim) -> None:
        try:
            if not claim.is_wanted:
                await self._end_untried(claim, "dropped")
            elif claim.is_late or _was_last(claim):
                await self._end_untried(claim, "exhausted")
            else:
                await self._finish(claim, await self._postman.bring(claim))
        except DATABASE_ERRORS as error:
            # Its lease ends, and then it is tried again.
            log.warning("webhooks.not_written", delivery=claim.id.hex, error=type(error).__name__)

    async def _finish(self, claim: Claim, outcome: Outcome) -> None:
        is_test = claim.type == EventType.WEBHOOK_TEST
        async with self._pool.acquire() as conn:
            is_ours = await claims.record(conn, claim, outcome, is_test=is_test)
        log.info(
            "webhooks.attempt",
            delivery=claim.id.hex,
            n=claim.attempts,
            kind=claim.kind.value,
            status=outcome.status,
            error=outcome.error,
            state=outcome.state if is_ours else "lost",
        )
        if is_ours and not is_test and claim.endpoint_id is not None and outcome.state != "delivered":
            await endpoints.disable_failing(
                self._pool, claim.endpoint_id, claim.url, is_gone=outcome.status == _GONE
            )

    async def _end_untried(self, claim: Claim, state: str) -> None:
        async with self._pool.acquire() as conn:
            await claims.end_untried(conn, claim, state)

    async def _pause(self, seconds: float) -> None:
        """Until it is time to look again, or an attempt has ended and left room."""
        await asyncio.sleep(_GAP_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return
        self._ended.clear()

    async def _sweep(self) -> None:
        done = 1
        while done:
            async with self._pool.acquire() as conn, conn.transaction():
                done = await deliveries.forget_old(conn)

    def _forget(self, task: asyncio.Task[None]) -> None:
        claim = self._running.pop(task)
        self._ended.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("webhooks.attempt_crashed", delivery=claim.id.hex, exc_info=error)

    async def _stop(self) -> None:
        cut_off = dict(self._running)
        for task in cut_off:
            task.cancel()
        if not cut_off:
            return
        await asyncio.wait(cut_off)
        try:
            async with self._pool.acquire() as conn:
                await claims.give_back(conn, list(cut_off.values()))
        except DATABASE_ERRORS as error:
            log.warning("webhooks.not_given_back", error=type(error).__name__)


def _was_last(claim: Claim) -> bool:
    """All attempts have begun before, and the last one was cut off with its process."""
    if claim.type == EventType.WEBHOOK_TEST:
        return claim.attempts > 1
    return delay_after(claim.kind, claim.attempts - 1) is None
