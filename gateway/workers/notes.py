"""What a worker writes down of an attempt while it is under way."""

import asyncio
from typing import Final

import asyncpg
import msgspec
import structlog

from gateway.backends.base import RemoteTask
from gateway.database import DATABASE_ERRORS
from gateway.jobs import queue
from gateway.jobs.job import JobErrorCode
from gateway.jobs.queue import Claim
from gateway.workers.performance import AttemptFailed

NOTES_AT_ONCE: Final = 2
"""Of the pool's connections: thousands of jobs that begin together must not keep a heartbeat waiting."""

log = structlog.get_logger(__name__)


class AttemptNotes:
    """Notes in Postgres; only what another process can go on with is kept whole."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, resumable: bool) -> None:
        self._pool = pool
        self._resumable = resumable
        self._turns = asyncio.Semaphore(NOTES_AT_ONCE)

    async def sent(self, claim: Claim, remote: RemoteTask) -> bool:
        """Durably, before anything is sent; False if the job is not ours any more."""
        async with self._turns, self._pool.acquire() as conn:
            return await queue.note_sent(conn, claim, remote.ref, _json(remote))

    async def accepted(self, claim: Claim, remote: RemoteTask) -> None:
        """Raises AttemptFailed if another attempt has this task: its music is somebody else's.

        If it is lost because the database is away, the next worker looks for what was sent.
        """
        try:
            async with self._turns, self._pool.acquire() as conn:
                await queue.note_accepted(conn, claim, remote.ref, _json(remote) if self._resumable else None)
        except asyncpg.UniqueViolationError:
            log.error("job.task_of_another", job=claim.job_id.hex, backend=remote.backend)  # noqa: TRY400
            raise AttemptFailed(
                JobErrorCode.UPSTREAM_ERROR,
                "the provider gave the same task to two jobs",
                elsewhere=True,
                is_ambiguous=True,
                cost_nano=None,
            ) from None
        except DATABASE_ERRORS as error:
            log.warning("worker.note_failed", error=type(error).__name__)


def _json(remote: RemoteTask) -> str:
    return msgspec.json.encode(remote).decode()
