"""A customer with a lane, and workers' hands: claim, finish and let leases lapse, without any sound."""

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

import billing
from gateway.auth.directory import KeyLimits
from gateway.auth.principal import Principal
from gateway.backends.base import RemoteTask
from gateway.ids import new_id
from gateway.jobs import moving, queue, reaper, settlement
from gateway.jobs.job import Job, JobError, JobErrorCode, JobStatus
from gateway.jobs.queue import Claim
from gateway.jobs.service import Jobs
from gateway.jobs.settlement import Ended, Ending
from tests.factories import USD, Pool, new_customer, new_order, new_result

BROKEN = JobError(code=JobErrorCode.UPSTREAM_ERROR, message="no music")


class Workbench:
    """Everything that a test does to jobs in one line."""

    def __init__(self, pool: Pool, jobs: Jobs) -> None:
        self.pool = pool
        self.jobs = jobs

    async def customer(
        self, *, credit_nano: int = USD, test: bool = False, limits: KeyLimits | None = None
    ) -> Principal:
        async with self.pool.acquire() as conn:
            return await new_customer(conn, credit_nano=credit_nano, test=test, limits=limits)

    async def submit(self, principal: Principal, *, seconds: float = 10, **fields: Any) -> Job:
        return (await self.jobs.submit(principal, new_order(seconds=seconds, **fields))).job

    async def claim(
        self, limit: int = 1, *, queues: Sequence[str] = ("sandbox",), worker_id: uuid.UUID | None = None
    ) -> list[Claim]:
        async with self.pool.acquire() as conn:
            return await queue.claim(
                conn, worker_id=worker_id or new_id(), queues=queues, backend="engine", limit=limit
            )

    async def claim_one(self) -> Claim:
        (claim,) = await self.claim()
        return claim

    async def deliver(
        self,
        claim: Claim,
        *,
        frames: int | None = None,
        retry: bool = False,
        cost_nano: int | None = None,
    ) -> Ended:
        """`frames`: of all variations together, where they are not as long as was ordered."""
        request = claim.request
        ending = Ending(
            job_id=claim.job_id,
            fence=claim.fence,
            result=new_result(frames or request.n * request.frames, tracks=request.n),
            cost_nano=cost_nano,
        )
        return await self._end(ending, retry=retry)

    async def fail(
        self,
        claim: Claim,
        error: JobError = BROKEN,
        *,
        retry: bool = False,
        cost_nano: int | None = None,
        is_ambiguous: bool = False,
    ) -> Ended:
        ending = Ending(
            job_id=claim.job_id,
            fence=claim.fence,
            error=error,
            cost_nano=cost_nano,
            is_ambiguous=is_ambiguous,
        )
        return await self._end(ending, retry=retry)

    async def _end(self, ending: Ending, *, retry: bool) -> Ended:
        (ended,) = await settlement.finish(self.pool, [ending], retry=retry)
        return ended

    async def beat(self, claim: Claim, *, progress: float = 0.5) -> dict[uuid.UUID, bool]:
        async with self.pool.acquire() as conn:
            beat = queue.Beat(job_id=claim.job_id, fence=claim.fence, progress=progress)
            return await queue.beat(conn, [beat])

    async def give_back(self, *claims: Claim) -> None:
        async with self.pool.acquire() as conn:
            await queue.give_back(conn, claims)

    async def hand_over(self, *claims: Claim) -> None:
        async with self.pool.acquire() as conn:
            await queue.hand_over(conn, claims)

    async def queue_again(self, claim: Claim) -> bool:
        """In the same queue, after an attempt that cost nothing."""
        return await self.move_on(claim, claim.queue, cost_nano=0)

    async def move_on(
        self,
        claim: Claim,
        where: str,
        *,
        cost_nano: int | None,
        is_ambiguous: bool = False,
        come_back: bool = False,
    ) -> bool:
        closing = moving.Closing(
            code="upstream_error", message="no music", cost_nano=cost_nano, is_ambiguous=is_ambiguous
        )
        async with self.pool.acquire() as conn, conn.transaction():
            return await moving.move_on(conn, claim, closing, queue=where, why="a test", come_back=come_back)

    async def lapse(self, *claims: Claim) -> None:
        """As if the workers had been silent for longer than a lease."""
        await self.pool.execute(
            "UPDATE job SET lease_until = now() - interval '1 second' WHERE id = ANY($1)",
            [claim.job_id for claim in claims],
        )

    async def reap(self) -> tuple[int, int]:
        """What every process does each second: how many were queued again, how many were ended."""
        return await reaper.reap(self.pool)

    async def pass_the_deadline(self, job_id: uuid.UUID) -> None:
        await self.pool.execute(
            "UPDATE job SET deadline_at = now() - interval '1 second' WHERE id = $1", job_id
        )

    async def status(self, job_id: uuid.UUID) -> JobStatus:
        return JobStatus(await self.pool.fetchval("SELECT status FROM job WHERE id = $1", job_id))

    async def row(self, job_id: uuid.UUID) -> dict[str, object]:
        return dict(await self.pool.fetchrow("SELECT * FROM job WHERE id = $1", job_id))

    async def attempts(self, job_id: uuid.UUID) -> list[tuple[int, str]]:
        rows = await self.pool.fetch("SELECT n, state FROM attempt WHERE job_id = $1 ORDER BY n", job_id)
        return [(row["n"], row["state"]) for row in rows]

    async def balance(self, principal: Principal) -> tuple[int, int]:
        """Posted and held."""
        async with self.pool.acquire() as conn:
            account = await billing.read_account(conn, principal.organization_id)
        return account.posted_nano, account.held_nano


async def send(bench: Workbench, claim: Claim, *, most_nano: int) -> bool:
    """As before a call to a provider: what may be lost is written down first."""
    async with bench.pool.acquire() as conn:
        return await queue.note_sent(conn, claim, *_remote(claim, most_nano))


async def accept(bench: Workbench, claim: Claim, *, most_nano: int) -> None:
    """The provider has said that it took it."""
    async with bench.pool.acquire() as conn:
        await queue.note_accepted(conn, claim, *_remote(claim, most_nano))


def _remote(claim: Claim, most_nano: int) -> tuple[str, str]:
    """The provider's id, and what is stored of the task."""
    ref = f"{claim.job_id.hex}-{claim.attempt}"
    task = RemoteTask(backend="engine", ref=ref, most_nano=most_nano)
    return ref, msgspec.json.encode(task).decode()
