"""Whoever waits for a job is told how it stands: one query per tick, for all jobs and all who wait.

What is told is the latest, never a list of what was: a slow listener skips states and costs no memory.
The poller outlasts a database that is away, and asks again.
"""

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

import asyncpg
import msgspec
import structlog

import billing
from gateway.auth.principal import Principal, Scope
from gateway.database import DATABASE_ERRORS, Reader
from gateway.errors import Overloaded
from gateway.jobs.forecast import Forecast, Outlook
from gateway.jobs.job import (
    FINAL,
    JOB_COLUMNS,
    STATE_COLUMNS,
    Job,
    JobState,
    JobStatus,
    UnreadableJob,
    job_from_row,
    state_from_row,
)
from gateway.jobs.reading import read_state

TICK_SECONDS: Final = 0.25
QUERY_SHARE: Final = 0.05
"""Of the time, at most this much is spent in queries: a slow database is asked more rarely."""
LONGEST_PAUSE_SECONDS: Final = 2.0
OUTLOOK_SECONDS: Final = 2.0
"""How often those who wait in the queue are told a new place, if it has changed."""
MAX_FOLLOWERS: Final = 2_000
MAX_FOLLOWERS_OF_ONE: Final = 1_000
"""Of one organization, so that nobody takes all places."""
JOBS_PER_READ: Final = 64
READS_AT_ONCE: Final = 2

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class Sight(msgspec.Struct):
    """A job as it stands, shared by all who follow it."""

    state: JobState
    outlook: Outlook
    job: Job | None = None
    """All of it, once it has ended."""
    text: bytes = b""
    """What a dialect has made of it, so that it is made once, not for each listener."""


class JobWatch:
    """The jobs of one process that somebody waits for."""

    def __init__(
        self,
        *,
        pool: "asyncpg.Pool[asyncpg.Record]",
        forecast: Forecast,
        tick_seconds: float = TICK_SECONDS,
        max_followers: int = MAX_FOLLOWERS,
    ) -> None:
        self._reader = Reader(pool, at_once=READS_AT_ONCE)
        self._forecast = forecast
        self._tick_seconds = tick_seconds
        self._max_followers = max_followers
        self._watched: dict[uuid.UUID, _Watched] = {}
        self._followers = 0
        self._followers_of: Counter[uuid.UUID] = Counter()
        self._poller: asyncio.Task[None] | None = None
        self._stopped = False

    async def look(self, principal: Principal, job_id: uuid.UUID) -> Sight:
        """How a job stands now. Raises JobNotFound, for foreign ids as for unknown ones."""
        principal.check_scope(Scope.READ)
        state = await self._reader.run(lambda conn: read_state(conn, principal, job_id))
        return Sight(state, await self._forecast.outlook(state))

    def follow(self, job_id: uuid.UUID, *, owner: uuid.UUID, sight: Sight | None = None) -> "Following":
        """Be told of the job within a `with` block, first of `sight`. Raises Overloaded.

        `owner` is the organization that counts as the listener.
        """
        if self._stopped:
            raise Overloaded("this process is being stopped; try again", retry_after_seconds=1)
        if self._followers >= self._max_followers or self._followers_of[owner] >= MAX_FOLLOWERS_OF_ONE:
            raise Overloaded("too many clients wait for jobs; poll instead", retry_after_seconds=5)
        watched = self._watched.get(job_id)
        if watched is None:
            watched = self._watched[job_id] = _Watched()
        if sight is not None:
            watched.learn(sight)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll_forever(), name="job watch")
            self._poller.add_done_callback(self._poller_ended)
        following = Following(self, watched, job_id, owner)
        watched.followers.add(following)
        self._followers += 1
        self._followers_of[owner] += 1
        return following

    async def wait_until_final(self, principal: Principal, job_id: uuid.UUID, seconds: float) -> Job | None:
        """The job, if it ends within `seconds`; None if not, or if nobody may wait any more."""
        deadline = time.monotonic() + seconds
        try:
            following = self.follow(job_id, owner=principal.organization_id)
        except Overloaded:
            return None
        with following:
            while not following.ended and (left := deadline - time.monotonic()) > 0:
                sight = await following.next(left)
                if sight is not None and sight.job is not None:
                    return sight.job if _may_see(principal, sight.job) else None
        return None

    def stop(self) -> None:
        """Nobody can be told anything more: everyone stops waiting, now."""
        self._stopped = True
        if self._poller is not None:
            self._poller.cancel()
        self._dismiss(self._watched.values())

    def forget(self, following: "Following") -> None:
        """One listener less; the job of the last one is not asked for any more."""
        watched = following.watched
        if following not in watched.followers:
            return
        watched.followers.remove(following)
        self._followers -= 1
        self._followers_of[following.owner] -= 1
        if not self._followers_of[following.owner]:
            del self._followers_of[following.owner]
        if not watched.followers and self._watched.get(following.job_id) is watched:
            del self._watched[following.job_id]

    async def _poll_forever(self) -> None:
        pause_seconds = self._tick_seconds
        while self._watched:
            await asyncio.sleep(pause_seconds)
            took_seconds = 0.0
            try:
                took_seconds = await self._poll(list(self._watched))
            except DATABASE_ERRORS as error:
                log.warning("watch.database_lost", jobs=len(self._watched), error=type(error).__name__)
            share_kept = took_seconds * (1 / QUERY_SHARE - 1)
            pause_seconds = min(max(self._tick_seconds, share_kept), LONGEST_PAUSE_SECONDS)
            self._renew_outlooks()

    async def _poll(self, ids: Sequence[uuid.UUID]) -> float:
        """Look at all of them once; returns the seconds that the queries took."""
        states, took_seconds = await self._reader.run(lambda conn: _timed(_read_states(conn, ids)))
        ended = []
        for state in states:
            if state.status in FINAL:
                ended.append(state)
            elif (watched := self._watched.get(state.id)) is not None and watched.is_news(state):
                watched.show(Sight(state, self._forecast.look(state)))
        gone = set(ids).difference(state.id for state in states)
        self._dismiss(watched for job_id in gone if (watched := self._watched.get(job_id)) is not None)
        for start in range(0, len(ended), JOBS_PER_READ):
            took_seconds += await self._tell_the_end(ended[start : start + JOBS_PER_READ])
        return took_seconds

    async def _tell_the_end(self, states: Sequence[JobState]) -> float:
        """Only now all of the job is read; those who follow it afterwards start anew."""
        ids = [state.id for state in states if state.id in self._watched]
        jobs, took_seconds = await self._reader.run(lambda conn: _timed(_read_jobs(conn, ids)))
        for state in states:
            watched = self._watched.pop(state.id, None)
            if watched is not None and (job := jobs.get(state.id)) is not None:
                watched.show(Sight(state, Outlook(), job))
            elif watched is not None:
                self._dismiss([watched])
        return took_seconds

    def _renew_outlooks(self) -> None:
        now = time.monotonic()
        for watched in self._watched.values():
            sight = watched.sight
            if sight is None or sight.state.status is not JobStatus.QUEUED or now < watched.renew_at:
                continue
            watched.renew_at = now + OUTLOOK_SECONDS
            outlook = self._forecast.look(sight.state)
            if outlook != sight.outlook:
                watched.show(Sight(sight.state, outlook))

    def _dismiss(self, dismissed: "Iterable[_Watched]") -> None:
        for watched in dismissed:
            for following in watched.followers:
                following.end()

    def _poller_ended(self, task: asyncio.Task[None]) -> None:
        """What nobody foresaw is told, and clients come back, instead of waiting for nothing."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("watch.crashed", exc_info=error)
            self._dismiss(self._watched.values())


class Following:
    """One listener of one job, until the end of its `with` block."""

    def __init__(self, watch: JobWatch, watched: "_Watched", job_id: uuid.UUID, owner: uuid.UUID) -> None:
        self.watched: Final = watched
        self.job_id: Final = job_id
        self.owner: Final = owner
        self.ended = False
        """Nothing more will be told."""
        self._watch = watch
        self._seen: Sight | None = None
        self._news = asyncio.Event()
        if watched.sight is not None:
            self._news.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.forget(self)

    async def next(self, seconds: float) -> Sight | None:
        """The job as it stands now, if that is news; None after `seconds`, or at the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        if self.ended:
            return None
        self._news.clear()
        last, self._seen = self._seen, self.watched.sight
        return None if self._seen is last else self._seen

    def wake(self) -> None:
        """There is another sight."""
        self._news.set()

    def end(self) -> None:
        """Stop waiting; nothing more will be told."""
        self.ended = True
        self._news.set()


class _Watched:
    """One job that somebody follows."""

    def __init__(self) -> None:
        self.sight: Sight | None = None
        self.followers: set[Following] = set()
        self.renew_at = 0.0

    def is_news(self, state: JobState) -> bool:
        """Whether the job stood so later than what is known: several queries may overtake each other."""
        return self.sight is None or _order(self.sight.state) < _order(state)

    def learn(self, sight: Sight) -> None:
        """Somebody has looked meanwhile."""
        if self.is_news(sight.state):
            self.show(sight)

    def show(self, sight: Sight) -> None:
        """Tell everyone who follows."""
        self.sight = sight
        self.renew_at = time.monotonic() + OUTLOOK_SECONDS
        for following in self.followers:
            following.wake()


_PHASES: Final = {JobStatus.PROCESSING: 0, JobStatus.QUEUED: 1}
_ENDED: Final = 2


def _order(state: JobState) -> tuple[int, int, float]:
    """Grows as the job goes on: a claim raises the fence; then it is queued again, or it ends."""
    return (state.fence, _PHASES.get(state.status, _ENDED), state.progress)


async def _timed(answer: Awaitable[Answer]) -> tuple[Answer, float]:
    """The answer, and the seconds that it took."""
    started = time.monotonic()
    return await answer, time.monotonic() - started


def _may_see(principal: Principal, job: Job) -> bool:
    return job.organization_id == principal.organization_id and principal.project_id in {None, job.project_id}


async def _read_states(conn: billing.Connection, ids: Sequence[uuid.UUID]) -> list[JobState]:
    rows = await conn.fetch(
        f"SELECT {STATE_COLUMNS} FROM job WHERE id = ANY($1)",  # noqa: S608 - constants
        ids,
    )
    return [state_from_row(row) for row in rows]


async def _read_jobs(conn: billing.Connection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Job]:
    """Without those that another version wrote and this one cannot read."""
    rows = await conn.fetch(
        f"SELECT {JOB_COLUMNS} FROM job WHERE id = ANY($1)",  # noqa: S608 - constants
        ids,
    )
    jobs = {}
    for row in rows:
        try:
            jobs[row["id"]] = job_from_row(row)
        except UnreadableJob:
            log.exception("watch.unreadable_job", job=row["id"].hex)
    return jobs
