"""Turns go on: customers who send one job after another do not keep a backlog waiting for ever."""

import uuid
from datetime import UTC, datetime, timedelta

import billing
from gateway.auth.principal import Principal
from gateway.jobs.admission import admit
from gateway.jobs.queue import Claim
from gateway.jobs.walk import Admitted
from tests.factories import SANDBOX, new_submission
from tests.workbench import Workbench


async def serve(bench: Workbench, claim: Claim, sequential: dict[uuid.UUID, Principal]) -> None:
    """End the job; a customer who sends one after another sends the next."""
    await bench.deliver(claim)
    if claim.organization_id in sequential:
        await bench.submit(sequential[claim.organization_id])


async def test_customers_with_one_job_at_a_time_leave_a_backlog_its_share(bench: Workbench) -> None:
    busy = await bench.customer()
    sequential = {p.organization_id: p for p in [await bench.customer() for _ in range(3)]}
    for _ in range(8):
        await bench.submit(busy)
    for principal in sequential.values():
        await bench.submit(principal)
    served = []
    for _ in range(24):
        claim = await bench.claim_one()
        served.append(claim.organization_id)
        await serve(bench, claim, sequential)
    assert served.count(busy.organization_id) in {5, 6, 7}


async def test_who_was_served_a_lot_in_a_quiet_hour_owes_nothing_afterwards(bench: Workbench) -> None:
    early, late = await bench.customer(), await bench.customer()
    for _ in range(5):
        await bench.submit(early)
        await serve(bench, await bench.claim_one(), {})
    for _ in range(5):
        await bench.submit(late)
    await bench.submit(early)
    owners = [(await bench.claim_one()).organization_id for _ in range(3)]
    assert early.organization_id in owners


async def test_what_was_cancelled_in_the_queue_is_no_turn(bench: Workbench) -> None:
    fickle, patient = await bench.customer(), await bench.customer()
    for job in [await bench.submit(fickle) for _ in range(5)]:
        await bench.jobs.cancel(fickle, job.id)
    for _ in range(5):
        await bench.submit(patient)
    await bench.submit(fickle)
    owners = [(await bench.claim_one()).organization_id for _ in range(2)]
    assert fickle.organization_id in owners


async def test_a_job_can_be_claimed_at_once_whatever_the_clock_of_its_gateway_says(bench: Workbench) -> None:
    principal = await bench.customer()
    price = await bench.jobs.price(SANDBOX, principal.organization_id)
    assert isinstance(price, billing.Price)
    ahead = new_submission(principal, price, created_at=datetime.now(UTC) + timedelta(minutes=5))
    assert await admit(bench.pool, [ahead], retry=False) == [Admitted(ahead.job_id)]
    assert (await bench.claim_one()).job_id == ahead.job_id
