"""Postgres is shut down at once, again and again, while money moves: what was acknowledged is there, once."""

import asyncio
import copy
import os
import random
import secrets
import signal
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import asyncpg
import msgspec
import pytest

import billing
from gateway import schema
from gateway.auth.principal import Principal
from gateway.database import DATABASE_ERRORS
from gateway.embedded import EmbeddedPostgres
from gateway.errors import GatewayError
from gateway.jobs import settlement
from gateway.jobs.job import JobStatus
from gateway.jobs.service import Jobs
from gateway.jobs.settlement import Ending
from tests.billing import till
from tests.crash.stack import children_of, end_at_once, is_postgres, tell, wait_until, words_of
from tests.factories import USD, Pool, new_customer, new_order, new_result, open_lane, open_shop, violations
from tests.workbench import Workbench

Answer = TypeVar("Answer")

CLIENTS = 12
CREDIT = 100 * USD
PATIENCE_SECONDS = 60


class Acknowledged(msgspec.Struct):
    """What somebody was told is done."""

    jobs: dict[uuid.UUID, JobStatus] = msgspec.field(default_factory=dict)
    charged: dict[uuid.UUID, int] = msgspec.field(default_factory=dict)
    given_back: set[uuid.UUID] = msgspec.field(default_factory=set)
    moved: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)
    """By kind and object at the payment provider, what it has added to the balance."""

    @property
    def count(self) -> int:
        """How much was told."""
        return len(self.jobs) + len(self.charged) + len(self.given_back) + len(self.moved)

    async def missing(self, conn: asyncpg.Connection) -> list[object]:
        """What is not as it was told; a job may have gone on since."""
        jobs = {r["id"]: r["status"] for r in await conn.fetch("SELECT id, status FROM job")}
        transfers = await conn.fetch("SELECT kind, reference, external_ref FROM transfer")
        booked = [(row["kind"], row["external_ref"] or row["reference"]) for row in transfers]
        told: list[tuple[str, object]] = [*self.moved]
        told += [("settle", job_id) for job_id in self.charged]
        told += [("usage_refund", job_id) for job_id in self.given_back]
        return [
            *(job_id for job_id in self.jobs if job_id not in jobs),
            *(job_id for job_id in self.charged if jobs.get(job_id) != "completed"),
            *(what for what in told if booked.count(what) != 1),
        ]


class Shop:
    """Customers' programs, a worker and a payment provider; each repeats what it got no answer to."""

    def __init__(self, pool: Pool, jobs: Jobs, principal: Principal, dice: random.Random) -> None:
        self._pool = pool
        self._bench = Workbench(pool, jobs)
        self._principal = principal
        self._dice = dice
        self.told = Acknowledged()
        self.stopping = False

    async def live(self, name: str) -> None:
        """One step after another until told to stop."""
        number = 0
        while not self.stopping:
            number += 1
            await self._dice.choice((self._sing, self._sing, self._pay))(f"{name}-{number}")

    async def _sing(self, name: str) -> None:
        order = new_order(idempotency_key=name, body=name.encode())
        submitted = await self._insist(lambda: self._bench.jobs.submit(self._principal, order))
        job_id = submitted.job.id
        self.told.jobs[job_id] = submitted.job.status
        if self._dice.random() < 0.2:
            return
        for claim in await self._insist(lambda: self._bench.claim(1)):
            ending = Ending(job_id=claim.job_id, fence=claim.fence, result=new_result(claim.request.frames))
            (ended,) = await self._insist(lambda e=ending: settlement.finish(self._pool, [e], retry=True))
            assert ended.status is JobStatus.COMPLETED
            self.told.charged[claim.job_id] = claim.request.frames * 250 // 48
            if self._dice.random() < 0.3:
                await self._insist(lambda job_id=claim.job_id: self._give_back(job_id))
                self.told.given_back.add(claim.job_id)

    async def _give_back(self, job_id: uuid.UUID) -> None:
        async with self._pool.acquire() as conn:
            try:
                await till.refund(conn, job_id)
            except billing.LedgerConflict as error:  # the answer to an earlier try was lost
                assert "already" in str(error)  # noqa: PT017

    async def _pay(self, name: str) -> None:
        """A payment, and perhaps what is taken of it and given again."""
        owner, paid, taken = self._principal.organization_id, USD, self._dice.choice([USD // 3, 2 * CREDIT])
        kind = self._dice.choice(["payment_refund", "dispute"])
        given = {"payment_refund": "payment_refund_failed", "dispute": "dispute_won"}[kind]
        await self._book("top_up", name, paid, lambda conn: till.pay(conn, owner, paid, name))
        if self._dice.random() < 0.5:
            await self._book(
                kind, name, -taken, lambda conn: till.take(conn, owner, taken, name, kind=kind, payment=name)
            )
            await self._book(
                given, name, taken, lambda conn: till.return_again(conn, owner, taken, name, kind=given)
            )

    async def _book(
        self, kind: str, name: str, nano: int, step: Callable[[asyncpg.Connection], Awaitable[bool]]
    ) -> None:
        async def act() -> None:
            async with self._pool.acquire() as conn:
                await step(conn)

        await self._insist(act)
        self.told.moved[kind, name] = nano

    async def _insist(self, step: Callable[[], Awaitable[Answer]]) -> Answer:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    return await step()
                except (*DATABASE_ERRORS, GatewayError):
                    await asyncio.sleep(0.05)

    async def end(self) -> None:
        """What a lost answer has left with nobody is taken up again, until nothing is left."""
        while await self._pool.fetchval("SELECT count(*) FROM job WHERE completed_at IS NULL"):
            await self._pool.execute("UPDATE job SET lease_until = now() WHERE status = 'processing'")
            await self._bench.reap()
            for claim in await self._bench.claim(100):
                await self._bench.deliver(claim)


@pytest.fixture
def server(disk_folder: Path) -> Iterator[EmbeddedPostgres]:
    """On a disk and with fsync: what it acknowledges, it has written."""
    server = EmbeddedPostgres(disk_folder / "home")
    schema.upgrade(server.start())
    yield server
    server.stop()


def shut_down(server: EmbeddedPostgres, folder: Path, *, immediately: bool) -> None:
    """As `pg_ctl stop -m immediate` does; or as if all its processes were killed."""
    postmaster = next(
        child
        for child in children_of(os.getpid())
        if is_postgres(child) and str(folder) in " ".join(words_of(child))
    )
    if immediately:
        postmaster.send_signal(signal.SIGQUIT)
    else:
        end_at_once([postmaster, *children_of(postmaster.pid)])
    wait_until(lambda: not server.alive())


@pytest.mark.parametrize("shutdowns", [4, pytest.param(30, marks=pytest.mark.slow)])
async def test_what_was_acknowledged_outlives_shutdowns_and_is_booked_once(
    server: EmbeddedPostgres, disk_folder: Path, shutdowns: int
) -> None:
    seed = new_seed()
    dice = random.Random(seed)
    dsn = server.start()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=CLIENTS) as pool, open_lane(dsn) as jobs:
        async with pool.acquire() as conn, conn.transaction():
            await open_shop(conn)
            principal = await new_customer(conn, credit_nano=CREDIT)
        shop = Shop(pool, jobs, principal, dice)
        clients = [asyncio.create_task(shop.live(f"client-{n}")) for n in range(CLIENTS)]
        for shutdown in range(shutdowns):
            wanted = shop.told.count + dice.randint(20, 80)
            while shop.told.count < wanted:
                assert not any(client.done() for client in clients), clients
                await asyncio.sleep(0.002)
            told = copy.deepcopy(shop.told)
            shut_down(server, disk_folder, immediately=shutdown % 2 == 0)
            assert server.start() == dsn
            conn = await asyncpg.connect(dsn)
            assert await told.missing(conn) == []
            await conn.close()
        shop.stopping = True
        await asyncio.gather(*clients)
        await shop.end()
        async with pool.acquire() as conn:
            assert await shop.told.missing(conn) == []
            assert await till.faults(conn) == []
            account = await billing.read_account(conn, principal.organization_id)
            charged = await conn.fetchval("SELECT sum(charged_nano) FROM job")
        given_back = sum(shop.told.charged[job_id] for job_id in shop.told.given_back)
        expected = CREDIT + sum(shop.told.moved.values()) - charged + given_back
        assert (account.posted_nano - account.owed_nano, account.held_nano) == (expected, 0)
    tell(f"{shop.told.count} steps were acknowledged, {len(shop.told.jobs)} of them jobs")
    assert await violations(dsn) == []


def new_seed() -> int:
    """Another one each time; that of a run that failed stands in its output."""
    seed = int(os.environ.get("CRASH_SEED") or secrets.randbits(32))
    tell(f"seed {seed}: repeat with CRASH_SEED={seed}")
    return seed
