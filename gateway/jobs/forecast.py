"""When a job's turn will come: estimates from one survey of each queue, taken at most once a second.

A request never waits for a scan: it looks at the last survey, and one that finds it old has the next
one taken meanwhile. A survey looks at a bounded part of the queue, however long that is, and stays as
Postgres sent it, two strings of bytes: nothing is unpacked until somebody looks something up.
"""

import asyncio
import time
import uuid
from bisect import bisect_left
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec
import structlog

import billing
from gateway.database import DATABASE_ERRORS
from gateway.jobs.job import FINAL, JobState, JobStatus
from gateway.jobs.workforce import ALIVE_SECONDS

REFRESH_SECONDS: Final = 1.0
STALE_SECONDS: Final = 5.0
"""An older survey tells nothing any more."""
PATIENCE_SECONDS: Final = 0.2
"""How long an answer may wait for the first survey, or the first after a silence."""
TIMEOUT_SECONDS: Final = 2.0
SURVEYED_JOBS: Final = 10_000
NOTED_JOBS: Final = 1_000
RECENT_JOBS: Final = 128
"""Started last; those of them that were completed tell how fast the workers are."""
RECENCY: Final = 0.95
"""What a job weighs, compared with the one that was started after it."""

_KEY_BYTES: Final = 24
_WORK_BYTES: Final = 8

_SURVEY: Final = """
    WITH first AS (
        SELECT turn, id, length_ms FROM job
         WHERE status = 'queued' AND queue = $1 ORDER BY turn, id LIMIT $2
    ), line AS (
        SELECT turn, id, sum(length_ms) OVER (ORDER BY turn, id ROWS UNBOUNDED PRECEDING)::bigint
                   AS work_ms
          FROM first
    ), packed AS (
        SELECT coalesce(string_agg(int8send(turn) || uuid_send(id), ''::bytea ORDER BY turn, id), '')
                   AS keys,
               coalesce(string_agg(int8send(work_ms), ''::bytea ORDER BY turn, id), '') AS work
          FROM line
    ), running AS (
        SELECT count(*)::int AS running, coalesce(sum((1 - progress) * length_ms), 0) AS running_ms
          FROM job WHERE status = 'processing' AND queue = $1
    ), latest AS (
        SELECT status, length_ms, completed_at - started_at AS took,
               power($4::float8, row_number() OVER (ORDER BY started_at DESC, turn DESC)) AS weight
          FROM (SELECT status, length_ms, started_at, completed_at, turn FROM job
                 WHERE started_at IS NOT NULL AND queue = $1
                 ORDER BY started_at DESC, turn DESC LIMIT $3) AS j
    ), pace AS (
        SELECT sum(weight * extract(epoch FROM took) * 1000) / nullif(sum(weight * length_ms), 0) AS pace
          FROM latest WHERE status = 'completed'
    ), slots AS (
        SELECT coalesce(sum(capacity), 0)::int AS slots FROM worker
         WHERE $1 = ANY(queues) AND seen_at > now() - make_interval(secs => $5)
    )
    SELECT now() AS taken_at, keys, work, running, running_ms, slots, pace
      FROM packed, running, pace, slots
"""
"""One index probe each for queue and history, and never more rows than their limits."""

log = structlog.get_logger(__name__)


class Outlook(msgspec.Struct, frozen=True):
    """Estimates, as of the last survey; None where there is none."""

    queue_position: int | None = None
    """1: next."""
    eta_seconds: float | None = None
    """Until the job ends."""


UNKNOWN: Final = Outlook()


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """One queue at one moment."""

    taken_at: datetime
    """By the clock of the database, like the moments in the jobs."""
    keys: bytes
    """Turn and id of the jobs that are served first, in order: 24 bytes that compare as the two would."""
    work: bytes
    """Milliseconds of audio up to and with each of them, 8 bytes."""
    running: int
    running_ms: float
    """Milliseconds of audio that the running jobs have left."""
    slots: int
    """Jobs that the living workers can have under way at once."""
    pace: float | None
    """For how long a millisecond of audio occupies a slot, in milliseconds."""

    @property
    def depth(self) -> int:
        """How many waiting jobs were looked at."""
        return len(self.keys) // _KEY_BYTES

    def rank(self, key: bytes) -> int:
        """How many of them come before this key."""
        return bisect_left(range(self.depth), key, key=self._key)

    def holds(self, key: bytes, rank: int) -> bool:
        """Whether the job with this key and rank is one of them."""
        return self._key(rank) == key

    def work_before(self, rank: int) -> int:
        """Milliseconds of audio of the first `rank` jobs."""
        end = rank * _WORK_BYTES
        return int.from_bytes(self.work[end - _WORK_BYTES : end]) if rank else 0

    def jobs_beyond(self, turn: int) -> int:
        """About how many that were not looked at come before this turn, if they lie as densely."""
        depth = self.depth
        if depth < SURVEYED_JOBS:
            return 0
        first, last = self._turn(0), self._turn(depth - 1)
        return (turn - last) * depth // (last - first) if turn > last > first else 0

    def seconds_until_end(self, position: int, work_ahead_ms: float, length_ms: int) -> float | None:
        """Of a waiting job: until a slot is free, and then its own time."""
        if self.pace is None or not self.slots:
            return None
        is_next = position <= self.slots - self.running
        wait_ms = 0.0 if is_next else (work_ahead_ms + self.running_ms) / self.slots
        return _rounded((wait_ms + length_ms) * self.pace / 1000)

    def seconds_left(self, state: JobState, age_seconds: float) -> float | None:
        """Of a running job: the rest of what such a job takes, or of what this one has taken already."""
        if self.pace is None or not self.slots or state.started_at is None:
            return None
        usual = state.length_ms * self.pace / 1000
        elapsed = (self.taken_at - state.started_at + timedelta(seconds=age_seconds)).total_seconds()
        return _rounded((1 - state.progress) * max(usual, elapsed))

    def _key(self, index: int) -> bytes:
        start = index * _KEY_BYTES
        return self.keys[start : start + _KEY_BYTES]

    def _turn(self, index: int) -> int:
        return int.from_bytes(self._key(index)[:8])


def sort_key(turn: int, job_id: uuid.UUID) -> bytes:
    """Compares as turn, then id: the order in which jobs are claimed."""
    return turn.to_bytes(8) + job_id.bytes


class Forecast:
    """The estimates of one process."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._queues: dict[str, _Queue] = {}

    async def outlook(self, state: JobState) -> Outlook:
        """The estimates for a job; if there was no survey for a while, one is waited for, but not long."""
        if state.status in FINAL:
            return UNKNOWN
        queue = self._queue(state.queue)
        if queue.age() > STALE_SECONDS:
            task = self._refresh(queue)
            # Counted from its start: who asks for many jobs, one after another, does not wait for each.
            left = queue.tried_at + PATIENCE_SECONDS - time.monotonic()
            if left > 0 and not task.done():
                await asyncio.wait({task}, timeout=left)
        return self.look(state)

    def look(self, state: JobState) -> Outlook:
        """The estimates by what is known; whoever asks sees to it that the next one knows better."""
        if state.status in FINAL:
            return UNKNOWN
        queue = self._queue(state.queue)
        age_seconds = queue.age()
        if age_seconds >= REFRESH_SECONDS:
            self._refresh(queue)
        survey = queue.survey
        if survey is None or age_seconds > STALE_SECONDS:
            return UNKNOWN
        if state.status is JobStatus.PROCESSING:
            return Outlook(None, survey.seconds_left(state, age_seconds))
        return UNKNOWN if state.turn is None else queue.place(survey, state, state.turn)

    async def close(self) -> None:
        """Give up surveys under way."""
        tasks = [queue.task for queue in self._queues.values() if queue.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _queue(self, name: str) -> "_Queue":
        if (queue := self._queues.get(name)) is None:
            queue = self._queues[name] = _Queue(name)
        return queue

    def _refresh(self, queue: "_Queue") -> "asyncio.Task[None]":
        """The last survey, which may be under way; begun now if it is time for another."""
        now = time.monotonic()
        if queue.task is None or (queue.task.done() and now - queue.tried_at >= REFRESH_SECONDS):
            queue.tried_at = now
            queue.task = asyncio.create_task(self._take_survey(queue), name=f"survey of {queue.name}")
        return queue.task

    async def _take_survey(self, queue: "_Queue") -> None:
        """An unreachable database costs the estimates, nothing else."""
        queue.begin()
        try:
            async with self._pool.acquire(timeout=TIMEOUT_SECONDS) as conn:
                survey = await take_survey(conn, queue.name)
        except DATABASE_ERRORS as error:
            log.warning("forecast.failed", queue=queue.name, error=type(error).__name__)
            return
        queue.finish(survey)


class _Queue:
    """What is known of one queue: a survey, and the jobs that were heard of since."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.survey: Survey | None = None
        self.task: asyncio.Task[None] | None = None
        self.tried_at = float("-inf")
        self._surveyed_at = float("-inf")
        self._noted: list[bytes] = []
        self._noted_ms = 0
        self._next: list[tuple[bytes, int]] = []

    def age(self) -> float:
        """Seconds since the survey was begun."""
        return time.monotonic() - self._surveyed_at

    def begin(self) -> None:
        """A survey starts: it may miss what is heard of from now on."""
        self._next = []

    def finish(self, survey: Survey) -> None:
        """It is there."""
        self.survey = survey
        self._surveyed_at = self.tried_at
        missing = [pair for pair in self._next if not survey.holds(pair[0], survey.rank(pair[0]))]
        self._noted = sorted(key for key, _ in missing)
        self._noted_ms = sum(length_ms for _, length_ms in missing)

    def place(self, survey: Survey, state: JobState, turn: int) -> Outlook:
        """Of a waiting job, which is kept in mind if it was submitted after the survey."""
        key = sort_key(turn, state.id)
        rank = survey.rank(key)
        noted = bisect_left(self._noted, key)
        if not survey.holds(key, rank) and rank < SURVEYED_JOBS:
            self._note(key, noted, state.length_ms)
        beyond = survey.jobs_beyond(turn) if rank == survey.depth else 0
        work_ahead_ms: float = survey.work_before(rank)
        if beyond:
            work_ahead_ms += work_ahead_ms / rank * beyond
        if noted:
            work_ahead_ms += self._noted_ms / len(self._noted) * noted
        position = rank + beyond + noted + 1
        return Outlook(position, survey.seconds_until_end(position, work_ahead_ms, state.length_ms))

    def _note(self, key: bytes, index: int, length_ms: int) -> None:
        """Jobs that came after the survey count too, as far as this process has heard of them."""
        if len(self._noted) < NOTED_JOBS and self._noted[index : index + 1] != [key]:
            self._noted.insert(index, key)
            self._noted_ms += length_ms
            self._next.append((key, length_ms))


async def take_survey(conn: billing.Connection, queue: str) -> Survey:
    """Look at the front of the queue, at who works, and at what they finished last."""
    arguments = (queue, SURVEYED_JOBS, RECENT_JOBS, RECENCY, ALIVE_SECONDS)
    (row,) = await conn.fetch(_SURVEY, *arguments, timeout=TIMEOUT_SECONDS)
    return Survey(**dict(row))


def _rounded(seconds: float) -> float:
    return round(max(seconds, 0.0), 1)
