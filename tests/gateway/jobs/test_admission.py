"""Admission over several lanes at once: the balance decides, to the nano, and a job is one commit."""

import asyncio
import threading
from collections import Counter

import asyncpg
import pytest

import billing
from gateway.auth.directory import KeyLimits
from gateway.auth.principal import Principal
from gateway.errors import (
    IdempotencyKeyReused,
    InsufficientCredits,
    ModelNotAllowed,
    ModelUnavailable,
    Overloaded,
    ScopeDenied,
)
from gateway.jobs.job import JobStatus
from gateway.jobs.service import Jobs, Order, Submitted
from tests.factories import (
    CATALOG,
    NANO_PER_SECOND,
    USD,
    Pool,
    new_customer,
    new_key,
    new_order,
    new_project,
    open_lane,
    open_lanes,
    violations,
)

COST = 10 * NANO_PER_SECOND
"""What the order of these tests costs at most."""


async def submit_all(lanes: list[Jobs], principal: Principal, orders: list[Order]) -> list[object]:
    """All at once, dealt to the lanes in turn; refusals are returned."""
    return await asyncio.gather(
        *(lanes[n % len(lanes)].submit(principal, order) for n, order in enumerate(orders)),
        return_exceptions=True,
    )


async def test_an_admitted_job_is_there_with_its_money_held(jobs: Jobs, pool: Pool, database: str) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn)
    submitted = await jobs.submit(principal, new_order())
    assert submitted.job.status is JobStatus.QUEUED
    assert await jobs.read(principal, submitted.job.id) == submitted.job
    async with pool.acquire() as conn:
        account = await billing.read_account(conn, principal.organization_id)
    assert (account.posted_nano, account.held_nano) == (USD, COST)
    assert await violations(database) == []


async def test_credit_for_some_jobs_admits_exactly_these_out_of_many_more(pool: Pool, database: str) -> None:
    affordable = 20
    async with pool.acquire() as conn:
        principal = await new_customer(conn, credit_nano=affordable * COST + COST - 1)
    async with open_lanes(database, 4) as lanes:
        answers = await submit_all(lanes, principal, [new_order() for _ in range(20 * affordable)])
    assert Counter(map(type, answers)) == {Submitted: affordable, InsufficientCredits: 19 * affordable}
    async with pool.acquire() as conn:
        account = await billing.read_account(conn, principal.organization_id)
        assert await conn.fetchval("SELECT count(*) FROM job") == affordable
    assert (account.held_nano, account.available_nano) == (affordable * COST, COST - 1)
    assert await violations(database) == []


async def test_processes_with_event_loops_of_their_own_cannot_overspend_together(
    pool: Pool, database: str
) -> None:
    affordable, threads = 15, 3
    async with pool.acquire() as conn:
        principal = await new_customer(conn, credit_nano=affordable * COST)
    barrier = threading.Barrier(threads)

    async def rush() -> list[object]:
        async with open_lane(database) as lane:
            await asyncio.to_thread(barrier.wait)
            return await submit_all([lane], principal, [new_order() for _ in range(100)])

    answers = await asyncio.gather(*(asyncio.to_thread(asyncio.run, rush()) for _ in range(threads)))
    taken = [answer for part in answers for answer in part if isinstance(answer, Submitted)]
    assert len(taken) == affordable
    assert await violations(database) == []


async def test_test_keys_hold_nothing_and_need_no_credit(jobs: Jobs, pool: Pool, database: str) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn, credit_nano=0, test=True)
    submitted = await jobs.submit(principal, new_order())
    assert (submitted.job.test, submitted.job.held_nano) == (True, 0)
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM hold") == 0
    assert await violations(database) == []


async def test_the_same_request_from_several_lanes_is_one_job(pool: Pool, database: str) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn)
    orders = [new_order(idempotency_key="once", body=b"a") for _ in range(40)]
    async with open_lanes(database, 4) as lanes:
        answers = await submit_all(lanes, principal, orders)
    submitted = [answer for answer in answers if isinstance(answer, Submitted)]
    assert len(submitted) == 40
    assert len({answer.job.id for answer in submitted}) == 1
    assert Counter(answer.replayed for answer in submitted) == {True: 39, False: 1}
    async with pool.acquire() as conn:
        assert (await billing.read_account(conn, principal.organization_id)).held_nano == COST
    assert await violations(database) == []


async def test_another_body_under_the_same_idempotency_key_is_refused(pool: Pool, database: str) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn)
    orders = [new_order(idempotency_key="once", body=bytes([n % 2])) for n in range(40)]
    async with open_lanes(database, 2) as lanes:
        answers = await submit_all(lanes, principal, orders)
    kinds = Counter(map(type, answers))
    assert kinds == {Submitted: 20, IdempotencyKeyReused: 20}
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM job") == 1
    assert await violations(database) == []


async def test_an_idempotency_key_counts_within_organization_project_and_mode(
    jobs: Jobs, pool: Pool, database: str
) -> None:
    async with pool.acquire() as conn:
        whole = await new_customer(conn)
        projects = [await new_project(conn, whole.organization_id, name) for name in ("one", "two")]
        callers = [
            whole,
            await new_customer(conn),
            *[await new_key(conn, whole.organization_id, project_id=project) for project in projects],
            await new_key(conn, whole.organization_id, test=True),
        ]
        sibling = await new_key(conn, whole.organization_id)
    order = new_order(idempotency_key="once")
    answers = [await jobs.submit(caller, order) for caller in callers]
    assert len({answer.job.id for answer in answers}) == len(callers)
    replay = await jobs.submit(sibling, order)
    assert (replay.replayed, replay.job.id) == (True, answers[0].job.id)
    assert await violations(database) == []


async def test_a_refused_request_may_come_again_with_its_idempotency_key(jobs: Jobs, pool: Pool) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn, credit_nano=0)
    order = new_order(idempotency_key="once")
    with pytest.raises(InsufficientCredits):
        await jobs.submit(principal, order)
    async with pool.acquire() as conn, conn.transaction():
        await billing.grant(
            conn, account_id=principal.organization_id, amount_nano=COST, reason="a second thought"
        )
    assert not (await jobs.submit(principal, order)).replayed


async def test_a_key_that_may_only_generate_still_gets_its_replay(jobs: Jobs, pool: Pool) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn, limits=KeyLimits(scopes=["generate"]))
    order = new_order(idempotency_key="once")
    first = await jobs.submit(principal, order)
    assert (await jobs.submit(principal, order)).job.id == first.job.id


async def test_the_price_at_submission_is_frozen_on_the_job(jobs: Jobs, pool: Pool, database: str) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn)
        before = await jobs.submit(principal, new_order())
        await billing.set_price(
            conn, model="sandbox", nano_per_second=7, account_id=principal.organization_id
        )
    async with open_lane(database) as later:
        after = await later.submit(principal, new_order())
        again = await later.read(principal, before.job.id)
    assert (again.nano_per_second, after.job.nano_per_second, after.job.held_nano) == (NANO_PER_SECOND, 7, 70)


async def test_scope_and_model_are_checked_before_anything_is_reserved(jobs: Jobs, pool: Pool) -> None:
    async with pool.acquire() as conn:
        reader = await new_customer(conn, limits=KeyLimits(scopes=["read"]))
        other = await new_customer(conn, limits=KeyLimits(models=["ace-step"]))
    with pytest.raises(ScopeDenied):
        await jobs.submit(reader, new_order())
    with pytest.raises(ModelNotAllowed):
        await jobs.submit(other, new_order())
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM job") == 0


async def test_a_model_without_a_backend_is_unavailable_to_live_keys_alone(jobs: Jobs, pool: Pool) -> None:
    async with pool.acquire() as conn:
        live = await new_customer(conn)
        test = await new_key(conn, live.organization_id, test=True)
    order = Order(model=CATALOG.find("ace-step-1.5-xl"), request=new_order().request, request_hash=b"x" * 32)
    with pytest.raises(ModelUnavailable):
        await jobs.submit(live, order)
    assert (await jobs.submit(test, order)).job.model == "ace-step-1.5-xl"


async def test_a_poisonous_request_fails_alone(jobs: Jobs, pool: Pool, database: str) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn)
        unknown = await new_customer(conn)
        await conn.execute("DELETE FROM api_key WHERE id = $1", unknown.key_id)
    answers = await asyncio.gather(
        *(jobs.submit(unknown if n == 3 else principal, new_order()) for n in range(8)),
        return_exceptions=True,
    )
    assert isinstance(answers.pop(3), asyncpg.ForeignKeyViolationError)
    assert {type(answer) for answer in answers} == {Submitted}
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM job") == 7
    assert await violations(database) == []


async def test_a_database_that_stays_away_overloads_and_reserves_nothing(pool: Pool, database: str) -> None:
    async with pool.acquire() as conn:
        principal = await new_customer(conn)
    async with open_lane(database) as lane:
        await lane.price(CATALOG.find("sandbox"), principal.organization_id)
        await lane._pool.close()
        with pytest.raises((Overloaded, asyncpg.InterfaceError)):
            await lane.submit(principal, new_order())
    async with pool.acquire() as conn:
        assert (await billing.read_account(conn, principal.organization_id)).held_nano == 0
