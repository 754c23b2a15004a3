"""A lane answers everybody once, whatever happens to the batch, the neighbour or the database."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

import billing
from gateway.auth.principal import Principal
from gateway.errors import Overloaded
from gateway.jobs.admission import admit
from gateway.jobs.lane import MAX_BATCH, Lane
from gateway.jobs.service import Jobs
from gateway.jobs.walk import Admitted, Submission, Verdict
from tests.factories import NANO_PER_SECOND, Pool, new_customer, new_order, new_submission, until, violations


class Desk:
    """What a lane writes to: doubles numbers, refuses negative ones, and can be told to wait."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, items: Sequence[int], retry: bool) -> Sequence[int]:  # noqa: ARG002, FBT001 - protocol
        self.batches.append(list(items))
        await self.open.wait()
        if min(items) < 0:
            raise ValueError("a negative number")
        return [2 * item for item in items]


async def submit_behind_a_closed_door(
    desk: Desk, lane: Lane[int, int], count: int
) -> list[asyncio.Task[int]]:
    """One item is being written and `count` more are waiting."""
    desk.open.clear()
    tasks = [asyncio.create_task(lane.submit(0))]
    await until(lambda: _is(bool(desk.batches)), what="the first batch")
    tasks += [asyncio.create_task(lane.submit(n)) for n in range(1, count + 1)]
    await until(lambda: _is(len(lane._waiting) == count), what="the queue")
    return tasks


async def _is(fact: bool) -> bool:  # noqa: FBT001
    return fact


async def test_an_idle_lane_writes_at_once_and_a_busy_one_gathers() -> None:
    desk = Desk()
    lane: Lane[int, int] = Lane(desk.write, name="test")
    tasks = await submit_behind_a_closed_door(desk, lane, MAX_BATCH + 5)
    desk.open.set()
    assert await asyncio.gather(*tasks) == [2 * n for n in range(MAX_BATCH + 6)]
    assert [len(batch) for batch in desk.batches] == [1, MAX_BATCH, 5]


async def test_too_many_waiting_are_turned_away_and_nobody_else() -> None:
    desk = Desk()
    lane: Lane[int, int] = Lane(desk.write, name="test", max_waiting=3)
    tasks = await submit_behind_a_closed_door(desk, lane, 3)
    with pytest.raises(Overloaded) as refusal:
        await lane.submit(9)
    assert refusal.value.retry_after_seconds == 1
    desk.open.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6]
    assert await lane.submit(9) == 18


async def test_a_poisonous_item_fails_alone() -> None:
    desk = Desk()
    lane: Lane[int, int] = Lane(desk.write, name="test")
    answers = await asyncio.gather(*(lane.submit(n) for n in (1, -1, 2)), return_exceptions=True)
    assert answers[0::2] == [2, 4]
    assert isinstance(answers[1], ValueError)


async def test_whoever_hangs_up_takes_nobody_along() -> None:
    desk = Desk()
    lane: Lane[int, int] = Lane(desk.write, name="test")
    tasks = await submit_behind_a_closed_door(desk, lane, 3)
    tasks[0].cancel()
    tasks[2].cancel()
    desk.open.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == [2, 6]
    assert desk.batches[1] == [1, 2, 3]


async def test_draining_waits_for_every_answer() -> None:
    desk = Desk()
    lane: Lane[int, int] = Lane(desk.write, name="test")
    await lane.drain()
    tasks = await submit_behind_a_closed_door(desk, lane, 2)
    desk.open.set()
    await lane.drain()
    assert [task.result() for task in tasks] == [0, 2, 4]


async def test_a_refusal_of_the_database_is_not_repeated() -> None:
    calls = []

    async def write(items: Sequence[int], retry: bool) -> Sequence[int]:  # noqa: FBT001 - protocol
        calls.append((list(items), retry))
        raise asyncpg.CheckViolationError("no")

    with pytest.raises(asyncpg.CheckViolationError):
        await Lane(write, name="test").submit(1)
    assert calls == [([1], False)]


LOST = [
    ConnectionResetError(),
    TimeoutError(),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
    asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
    asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.TooManyConnectionsError("sorry, too many clients already"),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
async def test_a_lost_database_is_asked_again(error: Exception) -> None:
    calls = []

    async def write(items: Sequence[int], retry: bool) -> Sequence[int]:  # noqa: FBT001 - protocol
        calls.append(retry)
        if len(calls) == 1:
            raise error
        return items

    assert await Lane(write, name="test").submit(1) == 1
    assert calls == [False, True]


async def test_admission_outlasts_a_connection_that_is_cut_before_the_commit(
    jobs: Jobs, pool: Pool, database: str
) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn)
    async with pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await billing.lock_accounts(conn, {principal.organization_id})
        submitting = [asyncio.create_task(jobs.submit(principal, new_order())) for _ in range(5)]
        await until(lambda: _cut_off_whoever_waits(pool), what="the lock")
        await transaction.commit()
    submitted = await asyncio.gather(*submitting)
    assert len({answer.job.id for answer in submitted}) == 5
    await _expect_jobs(pool, principal, 5)
    assert await violations(database) == []


async def _cut_off_whoever_waits(pool: Pool) -> bool:
    cut = await pool.fetch(
        """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'
        """
    )
    return bool(cut)


async def _expect_jobs(pool: Pool, principal: Principal, count: int) -> None:
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM job") == count
        account = await billing.read_account(conn, principal.organization_id)
    assert account.held_nano == count * 10 * NANO_PER_SECOND


class Line:
    """Admission over a line that breaks: after the commit, but before the answer."""

    def __init__(self, pool: Pool, *troubles: Exception | None) -> None:
        self._pool = pool
        self._troubles = list(troubles)
        self.retries: list[bool] = []

    async def write(self, batch: Sequence[Submission], retry: bool) -> Sequence[Verdict]:  # noqa: FBT001
        self.retries.append(retry)
        verdicts = await admit(self._pool, batch, retry=retry)
        if self._troubles and (trouble := self._troubles.pop(0)) is not None:
            raise trouble
        return verdicts


@pytest.mark.parametrize("cuts", [1, 3])
async def test_a_commit_whose_answer_was_lost_is_found_out_and_not_repeated(
    pool: Pool, database: str, cuts: int
) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn)
        price = (await billing.read_price_book(conn)).find("sandbox", principal.organization_id)
    assert price is not None
    line = Line(pool, *[ConnectionResetError()] * cuts)
    lane: Lane[Submission, Verdict] = Lane(line.write, name="test")
    batch = [new_submission(principal, price, idempotency_key=key) for key in ("one", None, "two")]
    verdicts = await asyncio.gather(*map(lane.submit, batch))
    assert verdicts == [Admitted(submission.job_id) for submission in batch]
    assert line.retries == [False, *[True] * cuts]
    await _expect_jobs(pool, principal, 3)
    assert await violations(database) == []


async def test_a_commit_is_found_out_even_when_its_batch_is_taken_apart(pool: Pool, database: str) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn)
        price = (await billing.read_price_book(conn)).find("sandbox", principal.organization_id)
    assert price is not None
    line = Line(pool, ConnectionResetError(), asyncpg.DeadlockDetectedError("a deadlock"))
    lane: Lane[Submission, Verdict] = Lane(line.write, name="test")
    batch = [new_submission(principal, price) for _ in range(3)]
    verdicts = await asyncio.gather(*map(lane.submit, batch))
    assert verdicts == [Admitted(submission.job_id) for submission in batch]
    await _expect_jobs(pool, principal, 3)
    assert await violations(database) == []
