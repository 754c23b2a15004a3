"""Jobs on their way from one route to another: by failed attempts, and past doors that nobody opens."""

import uuid
from typing import Any

import pytest

from gateway.ids import new_id
from gateway.jobs.job import JobStatus
from gateway.jobs.moving import MOST_MOVES, REROUTE_SECONDS
from gateway.jobs.queue import Claim
from gateway.jobs.workforce import note_alive
from tests.factories import violations
from tests.workbench import Workbench, accept, send

FIRST, SECOND, THIRD = "sandbox", "runware/sandbox", "wavespeed/sandbox"


async def _submitted(bench: Workbench, *others: str) -> uuid.UUID:
    """A job in the first queue that may also go to the others."""
    job = await bench.submit(await bench.customer())
    await bench.pool.execute("UPDATE job SET routes = $2 WHERE id = $1", job.id, list(others) or None)
    return job.id


async def _claimed(bench: Workbench, *others: str) -> Claim:
    await _submitted(bench, *others)
    return await bench.claim_one()


async def _place(bench: Workbench, job_id: uuid.UUID) -> tuple[Any, ...]:
    row = await bench.row(job_id)
    return row["queue"], row["routes"], row["route_reason"]


async def _serve(bench: Workbench, *queues: str) -> None:
    async with bench.pool.acquire() as conn:
        await note_alive(conn, new_id(), queues, capacity=1)


async def _wait(bench: Workbench, job_id: uuid.UUID, seconds: float) -> None:
    """As if the job had waited for so long."""
    await bench.pool.execute(
        "UPDATE job SET run_at = now() - make_interval(secs => $2) WHERE id = $1", job_id, seconds
    )


async def test_a_failed_attempt_takes_the_next_route_and_keeps_those_after_it(bench: Workbench) -> None:
    claim = await _claimed(bench, SECOND, THIRD)
    assert claim.routes == (SECOND, THIRD)
    assert await bench.move_on(claim, SECOND, cost_nano=0)
    assert await _place(bench, claim.job_id) == (SECOND, [THIRD], "a test")
    (again,) = await bench.claim(queues=[SECOND])
    assert (again.attempt, again.routes) == (2, (THIRD,))
    reasons = await bench.pool.fetch("SELECT reason FROM attempt ORDER BY n")
    assert [row["reason"] for row in reasons] == ["the only route", "a test"]


async def test_a_backend_that_took_nothing_may_be_come_back_to(bench: Workbench) -> None:
    claim = await _claimed(bench, SECOND)
    assert await bench.move_on(claim, SECOND, cost_nano=0, come_back=True)
    assert await _place(bench, claim.job_id) == (SECOND, [FIRST], "a test")


async def test_a_job_is_not_sent_around_for_ever(bench: Workbench, database: str) -> None:
    claim, moves = await _claimed(bench, SECOND), 0
    there, here = SECOND, FIRST
    while await bench.move_on(claim, there, cost_nano=0, come_back=True):
        moves += 1
        (claim,) = await bench.claim(queues=[there])
        there, here = here, there
    assert moves == MOST_MOVES - 1
    assert await bench.status(claim.job_id) is JobStatus.PROCESSING
    assert (await bench.fail(claim)).won
    assert await violations(database) == []


async def test_in_another_queue_a_job_comes_next(bench: Workbench) -> None:
    moved = await _claimed(bench, SECOND)
    other = await bench.submit(await bench.customer(), seconds=60)
    await bench.pool.execute("UPDATE job SET queue = $2, turn = 1 WHERE id = $1", other.id, SECOND)
    await bench.move_on(moved, SECOND, cost_nano=0)
    first, second = [(await bench.claim(queues=[SECOND]))[0].job_id for _ in range(2)]
    assert (first, second) == (moved.job_id, other.id)


async def test_a_job_leaves_a_door_that_nobody_opens(bench: Workbench) -> None:
    job_id = await _submitted(bench, SECOND, THIRD)
    await _serve(bench, THIRD)
    await _wait(bench, job_id, REROUTE_SECONDS - 5)
    assert await bench.reap() == (0, 0)
    await _wait(bench, job_id, REROUTE_SECONDS + 5)
    assert await bench.reap() == (1, 0)
    assert await _place(bench, job_id) == (THIRD, [SECOND, FIRST], f"nobody served {FIRST}")
    assert await bench.reap() == (0, 0)


async def test_a_long_backlog_passes_nobody_by_on_another_way(bench: Workbench) -> None:
    many, one = await bench.customer(), await bench.customer()
    moved = [(await bench.submit(owner)).id for owner in (many, many, many, one)]
    await bench.pool.execute("UPDATE job SET routes = $1, run_at = now() - interval '1 hour'", [SECOND])
    there = (await bench.submit(await bench.customer())).id
    await bench.pool.execute("UPDATE job SET queue = $2 WHERE id = $1", there, SECOND)
    await _serve(bench, SECOND)
    assert await bench.reap() == (4, 0)
    claimed = [claim.job_id for claim in await bench.claim(5, queues=[SECOND])]
    assert set(claimed[:3]) == {moved[0], moved[3], there}
    assert claimed[3:] == moved[1:3]


async def test_jobs_without_another_way_keep_nobody_from_theirs(bench: Workbench) -> None:
    goes, stays = await _submitted(bench, SECOND), await _submitted(bench, THIRD)
    await bench.pool.execute(
        """
        INSERT INTO job
        SELECT (jsonb_populate_record(job, jsonb_build_object('id', gen_random_uuid(), 'turn', -1))).*
          FROM job, generate_series(1, 1000) WHERE id = $1
        """,
        stays,
    )
    await bench.pool.execute("UPDATE job SET run_at = now() - interval '1 hour'")
    await _serve(bench, SECOND)
    assert await bench.reap() == (1, 0)
    assert (await bench.row(goes))["queue"] == SECOND


async def test_a_job_waits_in_front_of_each_door_for_a_while(bench: Workbench) -> None:
    job_id = await _submitted(bench, SECOND)
    await _serve(bench, SECOND)
    await _wait(bench, job_id, 3600)
    assert await bench.reap() == (1, 0)
    await bench.pool.execute("DELETE FROM worker")
    await _serve(bench, FIRST)
    assert await bench.reap() == (0, 0)


@pytest.mark.parametrize("why", ["served", "nowhere to go", "nobody there either", "sent"])
async def test_a_job_stays_where_it_is(bench: Workbench, why: str) -> None:
    job_id = await _submitted(bench, *(() if why == "nowhere to go" else (SECOND,)))
    await _serve(bench, {"served": FIRST, "nobody there either": THIRD}.get(why, SECOND))
    if why == "sent":
        claim = await bench.claim_one()
        await send(bench, claim, most_nano=5)
        await bench.hand_over(claim)
    await _wait(bench, job_id, 3600)
    assert await bench.reap() == (0, 0)
    assert (await bench.row(job_id))["queue"] == FIRST


async def test_what_was_sent_goes_on_under_the_next_worker_as_the_same_attempt(bench: Workbench) -> None:
    claim = await _claimed(bench)
    await send(bench, claim, most_nano=5)
    await accept(bench, claim, most_nano=5)
    await bench.hand_over(claim)
    again = await bench.claim_one()
    assert (again.attempt, again.fence, again.accepted) == (1, 2, True)
    assert again.stored is not None
    assert await bench.attempts(claim.job_id) == [(1, "accepted")]


async def test_a_lease_that_was_lost_sends_nothing(bench: Workbench) -> None:
    claim = await _claimed(bench)
    await bench.lapse(claim)
    await bench.reap()
    await bench.claim_one()
    assert not await send(bench, claim, most_nano=5)


async def test_what_nobody_has_looked_at_for_an_hour_is_given_up_and_made_elsewhere(
    bench: Workbench, database: str
) -> None:
    claim = await _claimed(bench, SECOND)
    await send(bench, claim, most_nano=5)
    await bench.hand_over(claim)
    await _serve(bench, SECOND)
    await _wait(bench, claim.job_id, REROUTE_SECONDS + 5)
    await bench.pool.execute("UPDATE attempt SET sent_at = now() - interval '59 minutes'")
    assert await bench.reap() == (0, 0)
    await bench.pool.execute("UPDATE attempt SET sent_at = now() - interval '61 minutes'")
    assert await bench.reap() == (1, 0)
    (again,) = await bench.claim(queues=[SECOND])
    assert (again.attempt, again.stored) == (2, None)
    await bench.deliver(again)
    row = await bench.pool.fetchrow(
        "SELECT state, provider_cost_nano, cost_is_possible FROM attempt WHERE n = 1"
    )
    assert tuple(row) == ("ambiguous", 5, True)
    assert await violations(database) == []
