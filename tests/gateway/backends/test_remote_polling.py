"""What becomes of tasks at a provider, and how often it is asked."""

import asyncio
import itertools

import msgspec
import pytest
from structlog.testing import capture_logs

from gateway.backends.base import Failed, Reason, RemoteTask, Rendered, Running
from gateway.backends.remote.provider import Unknown, Waiting
from gateway.jobs.job import JobErrorCode
from gateway.routing import Circuit
from tests.gateway.backends.conftest import MODEL, SONG_NANO, Bench, Open, task_of
from tests.scripted_provider import away, made

TOLD = Failed(code=JobErrorCode.UPSTREAM_ERROR, message="it broke", retryable=True, cost_nano=5)


async def test_what_is_made_comes_in_the_order_of_its_variations_with_its_whole_cost(strict: Bench) -> None:
    remote = await strict.submit(task_of(n=3))
    strict.provider.sights = {
        "theirs-3": made(9, cost_nano=300),
        "theirs-1": made(7, cost_nano=100),
        "theirs-2": Waiting(0.5),
    }
    await strict.clock.advance(2)
    state = await strict.state(remote)
    assert isinstance(state, Running)
    assert state.progress == pytest.approx(2.5 / 3)
    strict.provider.sights["theirs-2"] = made(8)
    await strict.clock.advance(5)
    state = await strict.state(remote)
    assert isinstance(state, Rendered)
    assert [output.seed for output in state.outputs] == [7, 8, 9]
    assert state.cost_nano == 400 + SONG_NANO
    assert strict.provider.stopped == []
    assert await strict.backend.poll(remote) == state


async def test_progress_never_falls_and_is_whole_only_at_the_end(bench: Bench) -> None:
    remote = await bench.submit()
    seen = []
    for progress in (0.2, 0.1, 1.0):
        bench.provider.sights[remote.ref] = Waiting(progress)
        polling = asyncio.ensure_future(bench.backend.poll(remote))
        await bench.clock.advance(10)
        if polling.done():
            seen.append(polling.result())
        polling.cancel()
    assert seen == [Running(0.2), Running(0.99)]


async def test_a_poll_waits_for_a_change_and_asks_nobody_itself(bench: Bench) -> None:
    remote = await bench.submit()
    polling = asyncio.ensure_future(bench.backend.poll(remote))
    await bench.clock.settle()
    assert not polling.done()
    assert bench.provider.looks == []
    bench.provider.sights[remote.ref] = made(7)
    bench.backend.hint(remote.ref)
    await bench.clock.settle()
    assert isinstance(polling.result(), Rendered)
    assert bench.provider.looks == [(remote.ref,)]
    await bench.clock.advance(60)
    assert len(bench.provider.looks) == 1


async def test_fewer_songs_than_ordered_are_a_failure_that_costs(bench: Bench) -> None:
    remote = await bench.submit(task_of(n=2))
    bench.provider.sights[remote.ref] = made(7, cost_nano=100)
    await bench.clock.advance(2)
    state = await bench.state(remote)
    assert isinstance(state, Failed)
    assert (state.code, state.retryable, state.cost_nano) == (JobErrorCode.UPSTREAM_ERROR, True, 100)


async def test_a_song_of_another_request_is_nobody_s_and_is_left_there(strict: Bench) -> None:
    remote = await strict.submit(task_of(n=2))
    mine, other = (piece.ref for piece in remote.pieces)
    strict.provider.sights |= {
        mine: msgspec.structs.replace(made(7), asked_seed=7),
        other: msgspec.structs.replace(made(8), asked_seed=9),
    }
    await strict.clock.advance(2)
    state = await strict.state(remote)
    assert isinstance(state, Failed)
    assert (state.code, state.retryable) == (JobErrorCode.UPSTREAM_ERROR, True)
    assert strict.provider.stopped == []


async def test_more_songs_than_ordered_are_left_there(bench: Bench) -> None:
    remote = await bench.submit(task_of(n=2))
    bench.provider.sights[remote.ref] = made(7, 8, 9)
    await bench.clock.advance(2)
    state = await bench.state(remote)
    assert isinstance(state, Rendered)
    assert [output.seed for output in state.outputs] == [7, 8]


async def test_one_part_that_fails_stops_the_others(strict: Bench) -> None:
    remote = await strict.submit(task_of(n=3))
    strict.provider.sights["theirs-1"] = made(7, cost_nano=100)
    await strict.clock.advance(3)
    strict.provider.sights["theirs-2"] = TOLD
    await strict.clock.advance(5)
    state = await strict.state(remote)
    assert isinstance(state, Failed)
    assert (state.code, state.message, state.cost_nano) == (TOLD.code, "it broke", None)
    assert "theirs-3" in strict.provider.stopped
    assert "theirs-1" not in strict.provider.stopped


async def test_a_task_may_be_unknown_just_after_it_was_accepted_and_not_for_long(bench: Bench) -> None:
    remote = await bench.submit()
    bench.provider.sights[remote.ref] = Unknown()
    await bench.clock.advance(8)
    assert len(bench.provider.looks) > 2
    bench.provider.sights[remote.ref] = Waiting(0.5)
    await bench.clock.advance(10)
    assert await bench.state(remote) == Running(0.5)
    bench.provider.sights[remote.ref] = Unknown()
    await bench.clock.advance(25)
    state = await bench.state(remote)
    assert isinstance(state, Failed)
    assert (state.code, state.retryable, state.cost_nano) == (JobErrorCode.UPSTREAM_ERROR, True, None)


@pytest.mark.parametrize("seconds", [901, 1801])
async def test_a_provider_that_never_ends_a_task_or_tells_nothing_of_it_keeps_no_job(
    bench: Bench, seconds: int
) -> None:
    remote = await bench.submit()
    if seconds == 901:
        bench.provider.look_script = [away()] * 1000
    for _ in range(3):
        bench.provider.sights[remote.ref] = Waiting(0.1)
        await bench.clock.advance(seconds / 3)
    bench.provider.sights[remote.ref] = Waiting(0.2)
    if seconds == 901:
        bench.backend._tracker.find(remote).changed.set()  # type: ignore[union-attr]
    state = await bench.state(remote)
    assert isinstance(state, Failed)
    assert (state.code, state.retryable, state.cost_nano) == (JobErrorCode.TIMEOUT, True, None)
    await bench.clock.settle()
    assert bench.provider.stopped == [remote.ref]


async def test_the_time_before_a_crash_counts(open_bench: Open) -> None:
    first, second = open_bench(), open_bench()
    task = task_of()
    remote = await first.submit(task)
    second.clock.time += 1795
    second.provider.sights[remote.ref] = Waiting(0.5)
    found = await second.backend.recover(task, remote, accepted=True)
    await second.clock.advance(6)
    state = await second.state(found)
    assert isinstance(state, Failed)
    assert state.code is JobErrorCode.TIMEOUT


async def test_a_cancelled_task_is_stopped_and_ends(strict: Bench) -> None:
    remote = await strict.submit(task_of(n=2))
    for _ in range(2):
        await strict.backend.cancel(remote)
    state = await strict.state(remote)
    assert isinstance(state, Failed)
    assert (state.code, state.cost_nano) == (JobErrorCode.JOB_CANCELLED, None)
    assert strict.provider.stopped == ["theirs-1", "theirs-2"]
    assert strict.backend.health()[0].error_rate == 0


async def test_what_is_finished_can_no_longer_be_cancelled(bench: Bench) -> None:
    remote = await bench.submit()
    bench.provider.sights[remote.ref] = made(7)
    await bench.clock.advance(2)
    await bench.backend.cancel(remote)
    assert isinstance(await bench.state(remote), Rendered)
    assert bench.provider.stopped == []


async def test_what_this_process_does_not_follow_is_stopped_by_its_ids(
    strict: Bench, open_bench: Open
) -> None:
    other = open_bench(name="wavespeed", most_at_once=1, can_resend=False)
    remote = await strict.submit(task_of(n=2))
    await other.backend.cancel(remote)
    assert other.provider.stopped == ["theirs-1", "theirs-2"]
    await other.backend.cancel(RemoteTask(backend="wavespeed", ref="unheard-of"))


async def test_what_is_forgotten_is_neither_looked_at_nor_stopped(bench: Bench) -> None:
    remote = await bench.submit()
    await bench.clock.advance(2)
    looks = len(bench.provider.looks)
    for _ in range(2):
        bench.backend.forget(remote)
    bench.backend.hint(remote.ref)
    await bench.clock.advance(60)
    assert len(bench.provider.looks) == looks
    assert bench.provider.stopped == []
    assert bench.backend._tracker._works == {}
    with pytest.raises(LookupError):
        await bench.backend.poll(remote)


@pytest.mark.parametrize(
    ("code", "counts"),
    [
        (JobErrorCode.QUALITY_FAILED, True),
        (JobErrorCode.UPSTREAM_ERROR, True),
        (JobErrorCode.INPUT_UNREADABLE, False),
        (None, False),
    ],
)
async def test_what_becomes_of_the_files_counts_for_the_circuit(
    bench: Bench, code: JobErrorCode | None, *, counts: bool
) -> None:
    for _ in range(5):
        remote = await bench.submit()
        bench.provider.sights[remote.ref] = made(7)
        await bench.clock.advance(2)
        await bench.state(remote)
        bench.backend.note_outcome(remote, code)
        bench.backend.forget(remote)
    health = bench.backend.health()[0]
    assert (health.circuit is Circuit.OPEN) == counts
    assert health.why == (code.value if counts and code else None)
    assert health.latency_seconds is not None
    assert 0.9 <= health.latency_seconds <= 1.2


async def test_what_nobody_complains_of_counts_as_delivered(bench: Bench) -> None:
    bench.backend._standing.breaker(MODEL).trip("outage")  # type: ignore[union-attr]
    await bench.clock.advance(20)
    remote = await bench.submit()
    bench.provider.sights[remote.ref] = made(7)
    await bench.clock.advance(2)
    assert isinstance(await bench.state(remote), Rendered)
    bench.backend.forget(remote)
    assert bench.backend.health()[0].circuit is Circuit.CLOSED


async def test_looks_become_rarer_up_to_ten_seconds(bench: Bench) -> None:
    await bench.submit()
    times: list[float] = []
    for _ in range(600):
        before = len(bench.provider.looks)
        await bench.clock.advance(0.1)
        times += [bench.clock.time] * (len(bench.provider.looks) - before)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] < 2
    assert 8.5 < gaps[-1] < 11.5
    assert 8 <= len(times) <= 12


async def test_what_is_due_together_is_looked_at_together(open_bench: Open) -> None:
    bench = open_bench(most_at_once=1, capacity=1000, looks_at_once=50)
    for _ in range(100):
        await bench.submit()
    await bench.clock.advance(60)
    assert len(bench.provider.looks) <= 60 / 0.5 + 2
    assert sum(map(len, bench.provider.looks)) > 700


async def test_where_a_look_at_many_takes_many_requests_it_is_as_much_rarer(open_bench: Open) -> None:
    bench = open_bench(most_at_once=1, capacity=5000, looks_at_once=10_000)
    for _ in range(2000):
        await bench.submit()
    await bench.clock.advance(60)
    pages = 21
    assert sum(min(len(look), pages) for look in bench.provider.looks) <= 60 * 10 + pages
    assert sum(map(len, bench.provider.looks)) > 5 * 2000


async def test_however_many_tasks_there_are_the_provider_is_asked_so_often_and_none_is_left_out(
    open_bench: Open,
) -> None:
    bench = open_bench(most_at_once=1, capacity=5000, looks_at_once=5)
    remotes = [await bench.submit() for _ in range(600)]
    await bench.clock.advance(30)
    assert 250 <= len(bench.provider.looks) <= 310
    assert {ref for look in bench.provider.looks for ref in look} == {remote.ref for remote in remotes}
    late = remotes[-1]
    bench.backend.hint(late.ref)
    before = len(bench.provider.looks)
    await bench.clock.advance(0.5)
    assert late.ref in {ref for look in bench.provider.looks[before:] for ref in look}


async def test_a_provider_that_does_not_answer_is_asked_less_and_less(bench: Bench) -> None:
    remote = await bench.submit()
    bench.provider.look_script = [away()] * 8
    await bench.clock.advance(120)
    assert 4 <= len(bench.provider.looks) <= 8
    bench.provider.look_script = []
    bench.provider.sights[remote.ref] = made(7)
    await bench.clock.advance(75)
    assert isinstance(await bench.state(remote), Rendered)


async def test_it_comes_again_when_the_provider_says(bench: Bench) -> None:
    await bench.submit()
    bench.provider.look_script = [away(Reason.RATE_LIMITED, 40.0)]
    await bench.clock.advance(40)
    assert len(bench.provider.looks) == 1
    await bench.clock.advance(20)
    assert len(bench.provider.looks) > 1


async def test_an_answer_that_breaks_the_adapter_stops_nothing(bench: Bench) -> None:
    remote = await bench.submit()
    bench.provider.look_script = [ValueError("defect")]
    bench.provider.sights[remote.ref] = made(7)
    with capture_logs() as logs:
        await bench.clock.advance(10)
    assert isinstance(await bench.state(remote), Rendered)
    assert "provider.look_broken" in {entry["event"] for entry in logs}


async def test_a_hint_during_a_look_brings_another_one(bench: Bench) -> None:
    remote = await bench.submit()
    asked, answer = bench.provider.look, asyncio.Event()

    async def slow(refs: tuple[str, ...]) -> object:
        sights = await asked(refs)
        await answer.wait()
        return sights

    bench.provider.look = slow  # type: ignore[method-assign, assignment]
    await bench.clock.advance(2)
    bench.provider.sights[remote.ref] = made(7)
    bench.backend.hint(remote.ref)
    answer.set()
    await bench.clock.advance(0.5)
    assert isinstance(await bench.state(remote), Rendered)


async def test_what_has_ended_is_closed_with_the_provider(bench: Bench) -> None:
    await bench.submit()
    await bench.backend.close()
    assert bench.provider.is_closed
    looks = len(bench.provider.looks)
    await bench.clock.advance(30)
    assert len(bench.provider.looks) == looks
