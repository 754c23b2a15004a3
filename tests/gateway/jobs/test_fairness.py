"""Whose turn it is: organizations share the workers by seconds of audio, not by who shouts first."""

from gateway.auth.principal import Principal
from tests.workbench import Workbench


async def submit_many(bench: Workbench, principal: Principal, count: int, *, seconds: float = 10) -> None:
    for _ in range(count):
        await bench.submit(principal, seconds=seconds)


async def claimed_names(bench: Workbench, names: dict[str, Principal], count: int) -> str:
    """Who owns the next jobs, one letter each, claimed one by one."""
    letters = {principal.organization_id: letter for letter, principal in names.items()}
    return "".join([letters[(await bench.claim_one()).organization_id] for _ in range(count)])


async def test_one_job_does_not_wait_behind_a_backlog_of_a_hundred(bench: Workbench) -> None:
    busy, quiet = await bench.customer(), await bench.customer()
    await submit_many(bench, busy, 100)
    await submit_many(bench, quiet, 1)
    assert "q" in await claimed_names(bench, {"b": busy, "q": quiet}, 2)


async def test_a_newcomer_comes_next_in_the_middle_of_a_backlog(bench: Workbench) -> None:
    busy, quiet = await bench.customer(), await bench.customer()
    await submit_many(bench, busy, 30)
    await bench.claim(20)
    await submit_many(bench, quiet, 1)
    assert "q" in await claimed_names(bench, {"b": busy, "q": quiet}, 2)


async def test_one_organization_is_served_in_the_order_of_its_requests(bench: Workbench) -> None:
    principal = await bench.customer()
    ids = [(await bench.submit(principal, seconds=seconds)).id for seconds in (60, 5, 30, 5)]
    assert [claim.job_id for claim in await bench.claim(4)] == ids


async def test_two_backlogs_take_turns(bench: Workbench) -> None:
    one, other = await bench.customer(), await bench.customer()
    await submit_many(bench, one, 6)
    await submit_many(bench, other, 6)
    order = await claimed_names(bench, {"a": one, "b": other}, 12)
    assert all({"a", "b"} == set(order[n : n + 2]) for n in range(0, 12, 2))


async def test_turns_are_measured_in_seconds_of_audio(bench: Workbench) -> None:
    long, short = await bench.customer(), await bench.customer()
    await submit_many(bench, long, 4, seconds=60)
    await submit_many(bench, short, 24, seconds=10)
    order = await claimed_names(bench, {"L": long, "s": short}, 28)
    for n in range(1, 29):
        served = 60 * order[:n].count("L") - 10 * order[:n].count("s")
        assert abs(served) <= 60


async def test_three_organizations_each_come_first_once(bench: Workbench) -> None:
    customers = [await bench.customer() for _ in range(3)]
    for principal in customers:
        await submit_many(bench, principal, 3)
    order = await claimed_names(bench, dict(zip("abc", customers, strict=True)), 9)
    assert all(set(order[n : n + 3]) == set("abc") for n in range(0, 9, 3))


async def test_a_job_that_is_queued_again_keeps_its_place(bench: Workbench) -> None:
    principal = await bench.customer()
    await submit_many(bench, principal, 3)
    claim = await bench.claim_one()
    await bench.lapse(claim)
    await bench.reap()
    assert (await bench.claim_one()).job_id == claim.job_id
