"""Lives of jobs through the product's own lanes, without HTTP and without sound."""

import abc
import contextlib
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

import billing
from benchmarks.harness.stack import SECRET
from engine import Task
from gateway.bootstrap import open_pool
from gateway.errors import GatewayError
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.ids import new_id
from gateway.jobs.admission import DEADLINE, admit
from gateway.jobs.audit import verify_ledger
from gateway.jobs.job import JobResult, Track
from gateway.jobs.lane import Lane
from gateway.jobs.queue import Claim, claim
from gateway.jobs.settlement import Ended, Ending, finish
from gateway.jobs.walk import Submission, Verdict
from gateway.settings import read_settings

MODEL: Final = "sandbox"
QUEUE: Final = "sandbox"
LENGTH_MS: Final = 10_000
FRAMES: Final = 95 * SAMPLE_RATE // 10
"""Delivered: a bit less than what was held."""
POOL_SIZE: Final = 6

_REQUEST: Final = GenerationRequest(
    prompt="lo-fi house, soft piano", frames=LENGTH_MS * SAMPLE_RATE // 1000, seed=1
)
_RESULT: Final = JobResult(
    tracks=(
        Track(
            key="of/no/file.mp3",
            master_key="of/no/file.flac",
            format="mp3",
            content_type="audio/mpeg",
            frames=FRAMES,
            master_sample_rate=SAMPLE_RATE,
            sample_rate=SAMPLE_RATE,
            channels=2,
            size_bytes=160_000,
            sha256="0" * 64,
            seed=1,
            file_name="lo-fi-house.mp3",
        ),
    ),
    deterministic=True,
)


class Lives(abc.ABC):
    """One account and the lanes through which its jobs go."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        *,
        owner: uuid.UUID,
        key_id: uuid.UUID,
        price: billing.Price,
    ) -> None:
        self.batches: dict[str, list[tuple[int, float]]] = defaultdict(list)
        """Size and seconds of each, by lane."""
        self._pool = pool
        self._owner = owner
        self._key_id = key_id
        self._price = price
        self._amount_nano = price.cost_nano(LENGTH_MS)

    @abc.abstractmethod
    async def one(self) -> None:
        """One job from its hold to its entries, each step acknowledged before the next."""

    @abc.abstractmethod
    async def verify(self) -> tuple[Sequence[billing.Violation], int]:
        """What is wrong with the books, and how many entries they have."""

    def _lane(self, name: str, write: Callable[..., Any]) -> Lane[Any, Any]:
        def note(size: int, seconds: float) -> None:
            self.batches[name].append((size, seconds))

        return Lane(write, name=name, on_batch=note)


class LedgerLives(Lives):
    """Holds, usage, transfers and entries alone."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", **facts: Any) -> None:
        super().__init__(pool, **facts)
        self._holds: Lane[billing.Hold, bool] = self._lane("holds", self._hold)
        self._settlements: Lane[billing.Delivery, billing.Charge] = self._lane("settlements", self._settle)

    async def one(self) -> None:
        hold = billing.Hold(
            reference=new_id(),
            account_id=self._owner,
            price_version_id=self._price.id,
            amount_nano=self._amount_nano,
            deadline_at=datetime.now(UTC) + DEADLINE,
        )
        if not await self._holds.submit(hold):
            raise RuntimeError("the account is empty")
        delivery = billing.Delivery(reference=hold.reference, frames=FRAMES, sample_rate=SAMPLE_RATE)
        await self._settlements.submit(delivery)

    async def verify(self) -> tuple[Sequence[billing.Violation], int]:
        async with (
            self._pool.acquire() as conn,
            conn.transaction(isolation="repeatable_read", readonly=True),
        ):
            return await billing.verify(conn), await billing.count_entries(conn)

    async def _hold(self, batch: Sequence[billing.Hold], _: bool) -> list[bool]:  # noqa: FBT001
        async with self._pool.acquire() as conn, conn.transaction():
            accounts = await billing.lock_accounts(conn, {hold.account_id for hold in batch})
            covered = [accounts[hold.account_id].reserve(hold.amount_nano) for hold in batch]
            kept = [hold for hold, is_covered in zip(batch, covered, strict=True) if is_covered]
            await billing.write_holds(conn, kept, accounts=accounts.values(), budgets=())
        return covered

    async def _settle(self, batch: Sequence[billing.Delivery], _: bool) -> list[billing.Charge]:  # noqa: FBT001
        async with self._pool.acquire() as conn, conn.transaction():
            charges = await billing.settle(conn, batch)
        return [charges[delivery.reference] for delivery in batch]


class JobLives(Lives):
    """Admission, claim and end of whole jobs, as HTTP process and worker run them."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", **facts: Any) -> None:
        super().__init__(pool, **facts)
        self._request_json = msgspec.json.encode(_REQUEST).decode()
        self._admissions: Lane[Submission, Verdict] = self._lane("admissions", self._admit)
        self._claims: Lane[None, Claim | None] = self._lane("claims", self._claim)
        self._endings: Lane[Ending, Ended] = self._lane("endings", self._finish)

    async def one(self) -> None:
        """The job that it ends is the next one in the queue, not always the one that it began."""
        verdict = await self._admissions.submit(self._submission())
        if isinstance(verdict, GatewayError):
            raise verdict
        if (mine := await self._claims.submit(None)) is None:
            raise RuntimeError("the queue is empty")
        ended = await self._endings.submit(Ending(job_id=mine.job_id, fence=mine.fence, result=_RESULT))
        if not ended.won:
            raise RuntimeError("another claim holds the job")

    async def verify(self) -> tuple[Sequence[billing.Violation], int]:
        async with self._pool.acquire() as conn:
            return await verify_ledger(conn)

    def _submission(self) -> Submission:
        job_id = new_id()
        now = datetime.now(UTC)
        return Submission(
            job_id=job_id,
            organization_id=self._owner,
            project_id=None,
            key_id=self._key_id,
            test=False,
            model=MODEL,
            task=Task.TEXT2MUSIC.value,
            queue=QUEUE,
            length_ms=LENGTH_MS,
            request_json=self._request_json,
            metadata_json=None,
            warnings_json="[]",
            request_hash=job_id.bytes * 2,
            idempotency_key=None,
            price=self._price,
            hold_nano=self._amount_nano,
            created_at=now,
        )

    async def _admit(self, batch: Sequence[Submission], retry: bool) -> Sequence[Verdict]:  # noqa: FBT001
        return await admit(self._pool, batch, retry=retry)

    async def _claim(self, batch: Sequence[None], _: bool) -> list[Claim | None]:  # noqa: FBT001
        async with self._pool.acquire() as conn, conn.transaction():
            found: list[Claim | None] = [
                *await claim(conn, worker_id=self._key_id, queues=[QUEUE], backend="engine", limit=len(batch))
            ]
        return found + [None] * (len(batch) - len(found))

    async def _finish(self, batch: Sequence[Ending], retry: bool) -> Sequence[Ended]:  # noqa: FBT001
        return await finish(self._pool, batch, retry=retry)


@contextlib.asynccontextmanager
async def open_lives(make: type[Lives], dsn: str, home: Path) -> AsyncIterator[Lives]:
    """Lives of the first organization, on the product's own pool."""
    settings = read_settings(
        {
            "ANTIPHON_DATABASE_URL": dsn,
            "ANTIPHON_HOME": str(home),
            "ANTIPHON_SECRET_KEY": SECRET,
        }
    )
    async with open_pool(settings, size=POOL_SIZE) as pool:
        async with pool.acquire() as conn:
            key_id, owner = await conn.fetchrow("SELECT id, organization_id FROM api_key ORDER BY id LIMIT 1")
            price = (await billing.read_price_book(conn)).find(MODEL, owner)
        if price is None:
            raise LookupError(f"{MODEL} has no price")
        yield make(pool, owner=owner, key_id=key_id, price=price)
