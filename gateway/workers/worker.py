"""A worker process: claim, perform, settle; keep the leases alive; take back what others lost."""

import asyncio
import contextlib
import functools
import heapq
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import asyncpg
import msgspec
import structlog

import billing
from gateway.backends.base import Backend, BackendUnavailable
from gateway.database import DATABASE_ERRORS
from gateway.errors import Overloaded
from gateway.ids import new_id
from gateway.jobs import queue, settlement, workforce
from gateway.jobs.lane import Lane
from gateway.jobs.moving import Closing, move_on
from gateway.jobs.queue import Claim
from gateway.jobs.reaper import reap_forever
from gateway.jobs.workforce import LoadedModel
from gateway.routing import RouteHealth
from gateway.workers.delivery import Delivery
from gateway.workers.notes import AttemptNotes
from gateway.workers.performance import (
    WAITING_SECONDS,
    Active,
    AttemptFailed,
    Collects,
    LeaseLost,
    Observe,
    Performer,
    ending_of,
)
from gateway.workers.ways import way_after, way_around

POLL_SECONDS: Final = 1.0
"""A lost wake-up call costs this much, not a job."""
DRAIN_SECONDS: Final = 20.0
CLAIMS_AT_ONCE: Final = 256
"""So that one statement never holds thousands of rows."""
BEATS_AT_ONCE: Final = 1000
"""Leases that are extended each second."""
_TOOK_NOTHING: Final = "the provider took nothing"

Connect = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]

log = structlog.get_logger(__name__)


class Worker:
    """Runs up to `capacity` jobs at once on one backend."""

    def __init__(
        self,
        *,
        pool: "asyncpg.Pool[asyncpg.Record]",
        backend: Backend,
        delivery: Delivery,
        capacity: int,
        connect: Connect,
        lease_seconds: float | None = None,
        waiting_seconds: float = WAITING_SECONDS,
        collector: Collects | None = None,
        models: Callable[[], Sequence[LoadedModel]] = tuple,
        routes: Callable[[], Sequence[RouteHealth]] = tuple,
        observe: Observe | None = None,
        warn: Callable[[Claim], tuple[str, ...]] | None = None,
    ) -> None:
        """What the backend tells at this moment: `models` that it has in memory, how its `routes` fare.

        `lease_seconds`, `waiting_seconds`, `collector`, `observe`: see queue and Performer. `warn` tells what
        the backend changes of a request.
        """
        self.id: Final = new_id()
        self._pool = pool
        self._backend = backend
        self._performer = Performer(
            backend=backend,
            delivery=delivery,
            notes=AttemptNotes(pool, resumable=backend.resumable),
            collector=collector,
            waiting_seconds=waiting_seconds,
            observe=observe,
        )
        self._lease_seconds = lease_seconds or queue.LEASE_SECONDS
        self._routes = routes
        self._warn = warn
        self._capacity = capacity
        self._connect = connect
        self._models = models
        self._active: dict[uuid.UUID, Active] = {}
        self._wake = asyncio.Event()
        self._resting_until = 0.0
        self._endings: Lane[settlement.Ending, settlement.Ended] = Lane(self._finish, name="settlement")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`, then finish or hand over what is under way."""
        async with self._pool.acquire() as conn:
            await self._note_alive(conn)
        log.info("worker.started", worker=self.id.hex, queues=self._backend.queues)
        stopped = asyncio.create_task(stop.wait())
        beating = asyncio.create_task(self._beat_forever())
        loops = [
            asyncio.create_task(loop())
            for loop in (self._claim_forever, self._reap_forever, self._listen_forever)
        ]
        try:
            done, _ = await asyncio.wait([stopped, beating, *loops], return_when=asyncio.FIRST_COMPLETED)
            for loop in loops:
                loop.cancel()
            await self._drain()
        finally:  # also if this is cancelled: then everything is left as it is, as by a crash
            for task in (stopped, beating, *loops, *self._tasks()):
                task.cancel()
        with contextlib.suppress(*DATABASE_ERRORS):
            async with self._pool.acquire() as conn:
                await workforce.note_left(conn, self.id)
        for task in done - {stopped}:
            task.result()  # a loop never ends by itself: what ended it is a defect, and loud

    async def _drain(self) -> None:
        """Finish what ends soon; return the rest to the queue, uncounted."""
        if tasks := self._tasks():
            log.info("worker.draining", jobs=len(tasks))
            await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        claims = [active.claim for active in self._active.values()]  # none, if all have ended
        if tasks := self._tasks():
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await self._endings.drain()
        if claims:
            # What was settled until now has no open fence any more: giving back leaves it alone.
            with contextlib.suppress(*DATABASE_ERRORS):
                async with self._pool.acquire() as conn:
                    await queue.hand_over(conn, claims)
            log.info("worker.handed_over", jobs=len(claims))

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [active.task for active in self._active.values() if active.task is not None]

    async def _claim_forever(self) -> None:
        while True:
            self._wake.clear()
            free = min(self._capacity - len(self._active), CLAIMS_AT_ONCE)
            resting = asyncio.get_running_loop().time() < self._resting_until
            claims = await self._claim(free) if free > 0 and not resting else []
            for claim in claims:
                active = Active(claim=claim, beaten_at=asyncio.get_running_loop().time())
                self._active[claim.job_id] = active
                active.task = asyncio.create_task(self._work(active))
                active.task.add_done_callback(functools.partial(_tell_of_crash, claim))
            if not claims:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)

    async def _claim(self, limit: int) -> list[Claim]:
        try:
            # Durable, unlike a beat: a claim that a crash of the database forgot would give its fence, and
            # the names of its files, to the next worker a second time.
            async with self._pool.acquire() as conn, conn.transaction():
                return await queue.claim(
                    conn,
                    worker_id=self.id,
                    queues=self._backend.queues,
                    backend=self._backend.name,
                    limit=limit,
                    lease_seconds=self._lease_seconds,
                )
        except DATABASE_ERRORS as error:
            log.warning("worker.claim_failed", error=type(error).__name__)
            return []

    async def _work(self, active: Active) -> None:
        claim = active.claim
        try:
            ending = await self._performer.perform(active)
            if self._warn is not None and ending.result is not None:
                ending = msgspec.structs.replace(ending, warnings=self._warn(claim))
            await self._settle(claim, ending)
        except LeaseLost:
            log.warning("job.lease_lost", job=claim.job_id.hex, attempt=claim.attempt)
        except AttemptFailed as failure:
            await self._move_on(claim, failure)
        except BackendUnavailable as error:
            await self._step_around(claim, error)
        finally:
            # Given back to the queue, the job may be ours again already, under the next fence.
            if self._active.get(claim.job_id) is active:
                del self._active[claim.job_id]
            self._wake.set()

    async def _settle(self, claim: Claim, ending: settlement.Ending) -> None:
        try:
            ended = await self._endings.submit(ending)
        except Overloaded:
            # The lease lapses and somebody does it again: slower, but never charged twice.
            log.error("job.settlement_failed", job=claim.job_id.hex, attempt=claim.attempt)  # noqa: TRY400
            return
        log.info(
            "job.ended",
            job=claim.job_id.hex,
            attempt=claim.attempt,
            status=ended.status.value if ended.status else "lost",
            code=ending.error.code.value if ending.error else None,
        )

    async def _move_on(self, claim: Claim, failure: AttemptFailed) -> None:
        """Another attempt, here or elsewhere, or the end."""
        way, moved = way_after(claim, failure), False
        if way is not None:
            async with self._pool.acquire() as conn, conn.transaction():
                moved = await move_on(conn, claim, failure.closing, queue=way.queue, why=way.why)
        log.warning(
            "job.attempt_failed",
            job=claim.job_id.hex,
            attempt=claim.attempt,
            code=failure.error.code.value,
            next=way.queue if way and moved else None,
        )
        if not moved:
            await self._settle(claim, ending_of(claim, failure))

    async def _step_around(self, claim: Claim, error: BackendUnavailable) -> None:
        """Nothing was started: another route is next, or the job waits for this one."""
        way, moved = way_around(claim, error), False
        async with self._pool.acquire() as conn, conn.transaction():
            if way is not None:
                closing = Closing(code=error.reason.value, message=_TOOK_NOTHING, cost_nano=0)
                moved = await move_on(conn, claim, closing, queue=way.queue, why=way.why, come_back=True)
            if not moved:
                # Nothing is claimed for a while: a job given back would only be claimed again at once.
                self._resting_until = asyncio.get_running_loop().time() + POLL_SECONDS
                if claim.accepted:  # something was, by another worker: it must be found again
                    await queue.hand_over(conn, [claim])
                else:
                    await queue.give_back(conn, [claim], delay_seconds=error.retry_after_seconds or 0.0)
        log.warning(
            "job.given_back",
            job=claim.job_id.hex,
            reason=error.reason.value,
            detail=str(error),
            next=way.queue if way and moved else None,
        )

    async def _beat_forever(self) -> None:
        while True:
            await asyncio.sleep(queue.HEARTBEAT_SECONDS)
            await self._beat()

    async def _beat(self) -> None:
        """Those come first that have waited longest: of ten thousand jobs not all need it each second."""
        now = asyncio.get_running_loop().time()
        oldest = heapq.nsmallest(BEATS_AT_ONCE, self._active.values(), key=lambda active: active.beaten_at)
        beats = [
            queue.Beat(job_id=active.claim.job_id, fence=active.claim.fence, progress=active.progress)
            for active in oldest
        ]
        others: list[uuid.UUID] = []
        try:
            async with self._pool.acquire() as conn, conn.transaction():
                await conn.execute("SET LOCAL synchronous_commit = off")
                await self._note_alive(conn)
                alive = await queue.beat(conn, beats, lease_seconds=self._lease_seconds) if beats else {}
                if len(self._active) > len(beats):
                    others = await queue.find_cancelled(conn, self.id)
        except DATABASE_ERRORS as error:
            log.warning("worker.beat_failed", error=type(error).__name__)
            return
        for active in oldest:
            active.beaten_at = now
            active.tell(
                lost=active.claim.job_id not in alive, cancel_wanted=alive.get(active.claim.job_id, False)
            )
        for job_id in others:
            if (found := self._active.get(job_id)) is not None:
                found.tell(lost=found.lost, cancel_wanted=True)

    async def _note_alive(self, conn: billing.Connection) -> None:
        await workforce.note_alive(
            conn,
            self.id,
            self._backend.queues,
            capacity=self._capacity,
            models=self._models(),
            routes=self._routes(),
        )

    async def _reap_forever(self) -> None:
        await reap_forever(self._pool, on_change=self._wake.set)

    async def _listen_forever(self) -> None:
        """Wake up on NOTIFY; while there is no connection, polling alone does it."""
        while True:
            closed = asyncio.Event()
            conn = None
            try:
                conn = await self._connect()
                conn.add_termination_listener(lambda _, closed=closed: closed.set())
                await conn.add_listener(queue.CHANNEL, lambda *_: self._wake.set())
                await closed.wait()
            except DATABASE_ERRORS as error:
                log.warning("worker.listen_failed", error=type(error).__name__)
                await asyncio.sleep(POLL_SECONDS)
            finally:
                if conn is not None:
                    conn.terminate()

    async def _finish(
        self,
        endings: Sequence[settlement.Ending],
        retry: bool,  # noqa: FBT001 - the lane's protocol
    ) -> Sequence[settlement.Ended]:
        return await settlement.finish(self._pool, endings, retry=retry)


def _tell_of_crash(claim: Claim, task: asyncio.Task[None]) -> None:
    """What nobody foresaw is told when it happens; the lapsing lease takes care of the job."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("job.crashed", job=claim.job_id.hex, attempt=claim.attempt, exc_info=error)
