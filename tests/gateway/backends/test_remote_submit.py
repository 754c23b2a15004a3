"""How a task reaches a provider: never paid twice, and whatever may cost us is told."""

import asyncio

import msgspec
import pytest
from structlog.testing import capture_logs

from engine import Task
from gateway.audio import InputUnreadable
from gateway.backends.base import (
    BackendUnavailable,
    Failed,
    Reason,
    Rendered,
    SubmitAmbiguous,
)
from gateway.backends.remote.provider import Refused
from gateway.generation import SAMPLE_RATE, AudioInput
from gateway.jobs.job import JobErrorCode
from gateway.routing import Circuit
from gateway.storage import StoreUnavailable
from tests.gateway.backends.conftest import (
    MODEL,
    NANO_PER_SECOND,
    OTHER_MODEL,
    SONG_NANO,
    Bench,
    File,
    Open,
    task_of,
)
from tests.scripted_provider import away, made

QUEUES = tuple(f"runware/{model}" for model in (MODEL, OTHER_MODEL))
REFUSED = Refused(Failed(code=JobErrorCode.CONTENT_POLICY_VIOLATION, message="not this"))
UNCLEAR = SubmitAmbiguous("broken off")
SOURCE = AudioInput(url="https://music.example/a.flac")


async def after(bench: Bench, work: asyncio.Task, seconds: float = 60) -> object:  # type: ignore[type-arg]
    """What a call comes to, in the time that it takes."""
    await bench.clock.advance(seconds)
    assert work.done()
    return work.result()


def test_the_intent_says_all_that_is_needed_to_find_the_task_again(bench: Bench, strict: Bench) -> None:
    task = task_of(n=6)
    intent = bench.backend.intend(task)
    assert [(piece.first, piece.count, piece.ref) for piece in intent.pieces] == [
        (0, 4, "ours-1"),
        (4, 2, "ours-2"),
    ]
    assert (intent.backend, intent.ref, intent.model) == ("runware", "ours-1", "vendor/model")
    assert intent.sent_at == bench.clock.utc()
    assert intent.most_nano == 6 * SONG_NANO
    blind = strict.backend.intend(task)
    assert [(piece.first, piece.count, piece.ref) for piece in blind.pieces] == [
        (index, 1, None) for index in range(6)
    ]
    assert blind.ref != strict.backend.intend(msgspec.structs.replace(task, attempt=2)).ref
    assert msgspec.json.decode(msgspec.json.encode(intent), type=type(intent)) == intent


def test_a_short_song_may_cost_what_the_provider_makes_at_least(bench: Bench, strict: Bench) -> None:
    short = task_of(seconds=10, n=2)
    assert bench.backend.intend(short).most_nano == 2 * 30 * NANO_PER_SECOND  # Runware's minimum
    assert strict.backend.intend(short).most_nano == 2 * 10 * NANO_PER_SECOND
    assert bench.backend.intend(task_of(seconds=60.01)).most_nano == 601 * NANO_PER_SECOND // 10


async def test_what_is_accepted_carries_the_ids_of_the_provider(strict: Bench) -> None:
    task = task_of(n=2)
    remote = await strict.submit(task)
    assert [piece.ref for piece in remote.pieces] == ["theirs-1", "theirs-2"]
    assert remote.ref == "theirs-1"
    assert [(call.first, call.count, call.model) for call in strict.provider.sent] == [
        (0, 1, "vendor/model"),
        (1, 1, "vendor/model"),
    ]
    assert strict.provider.sent[0].request is task.request


@pytest.mark.parametrize("reason", list(Reason))
async def test_what_was_not_taken_may_be_submitted_again(bench: Bench, reason: Reason) -> None:
    bench.provider.send_script = [away(reason, 7.0)]
    with pytest.raises(BackendUnavailable) as caught:
        await bench.submit(task_of(n=8))
    assert (caught.value.reason, caught.value.retry_after_seconds) == (reason, 7.0)
    assert len(bench.provider.sent) == 1
    assert sum(health.running for health in bench.backend.health()) == 0


async def test_what_will_never_be_made_fails_at_the_first_poll(bench: Bench) -> None:
    bench.provider.send_script = [REFUSED] * 10
    for _ in range(10):
        remote = await bench.submit()
        assert await bench.state(remote) == msgspec.structs.replace(REFUSED.failed, cost_nano=0)
        bench.backend.forget(remote)
    assert bench.backend.queues == QUEUES


async def test_a_part_that_is_not_taken_is_sent_again_because_the_others_were(bench: Bench) -> None:
    bench.provider.send_script = [None, away(Reason.RATE_LIMITED, 2.0), away()]
    submitting = asyncio.ensure_future(bench.submit(task_of(n=8)))
    remote = await after(bench, submitting)
    assert [piece.ref for piece in remote.pieces] == ["ours-1", "ours-2"]  # type: ignore[attr-defined]
    assert [call.ref for call in bench.provider.sent] == ["ours-1", "ours-2", "ours-2", "ours-2"]
    assert bench.provider.stopped == []


async def test_where_a_part_is_not_taken_in_the_end_the_others_are_given_up_and_may_cost(
    bench: Bench,
) -> None:
    bench.provider.send_script = [None, *[away()] * 3]
    submitting = asyncio.ensure_future(bench.submit(task_of(n=8)))
    with pytest.raises(SubmitAmbiguous) as caught:
        await after(bench, submitting)
    assert caught.value.cost_nano == 4 * SONG_NANO
    assert bench.provider.stopped == ["ours-1"]


async def test_credit_that_ends_between_two_parts_is_not_waited_for_and_rests_the_provider(
    bench: Bench,
) -> None:
    bench.provider.send_script = [None, away(Reason.NO_CREDIT)]
    with pytest.raises(SubmitAmbiguous) as caught:
        await bench.submit(task_of(n=8))
    assert caught.value.cost_nano == 4 * SONG_NANO
    assert len(bench.provider.sent) == 2
    assert {health.no_credit for health in bench.backend.health()} == {True}


async def test_a_refused_part_fails_the_whole_and_the_others_may_cost(bench: Bench) -> None:
    bench.provider.send_script = [None, REFUSED]
    remote = await bench.submit(task_of(n=5))
    state = await bench.state(remote)
    assert state == msgspec.structs.replace(REFUSED.failed, cost_nano=4 * SONG_NANO)
    assert bench.provider.stopped == ["ours-1"]


async def test_where_ids_are_ours_an_unclear_call_is_sent_again(bench: Bench) -> None:
    bench.provider.send_script = [UNCLEAR, UNCLEAR]
    remote = await after(bench, asyncio.ensure_future(bench.submit()))
    assert remote.ref == "ours-1"  # type: ignore[attr-defined]
    assert [call.ref for call in bench.provider.sent] == ["ours-1"] * 3


async def test_where_they_are_not_it_is_looked_for_and_never_sent_again(strict: Bench) -> None:
    strict.provider.send_script = [UNCLEAR]
    strict.provider.find_script = [None, away(), "theirs-9"]
    strict.provider.sights["theirs-9"] = made(7)
    remote = await after(strict, asyncio.ensure_future(strict.submit()))
    assert remote.ref == "theirs-9"  # type: ignore[attr-defined]
    assert len(strict.provider.sent) == 1
    assert isinstance(await strict.state(remote), Rendered)


async def test_what_is_not_found_is_unclear_with_its_whole_price(strict: Bench) -> None:
    strict.provider.send_script = [None, UNCLEAR]
    with pytest.raises(SubmitAmbiguous) as caught:
        await after(strict, asyncio.ensure_future(strict.submit(task_of(n=2))))
    assert caught.value.cost_nano == 2 * SONG_NANO
    assert len(strict.provider.found) == 3
    assert strict.provider.stopped == ["theirs-1"]


async def test_a_defect_while_sending_is_taken_for_unclear(strict: Bench) -> None:
    strict.provider.send_script = [KeyError("id")]
    with capture_logs() as logs, pytest.raises(SubmitAmbiguous):
        await after(strict, asyncio.ensure_future(strict.submit()))
    assert "provider.send_broken" in {entry["event"] for entry in logs}
    assert len(strict.provider.sent) == 1


async def test_one_id_for_two_tasks_is_believed_once(strict: Bench) -> None:
    await strict.submit()
    strict.provider.send_script = ["theirs-1"]
    with pytest.raises(SubmitAmbiguous) as caught:
        await strict.submit()
    assert caught.value.cost_nano == SONG_NANO


async def test_the_source_is_handed_over_with_its_length(bench: Bench) -> None:
    await bench.submit(task_of(task=Task.COVER, source_audio=SOURCE))
    assert bench.files.asked == [SOURCE]
    (call,) = bench.provider.sent
    assert call.source is not None
    assert (call.source.content, call.source.frames) == (b"fLaC", 10 * SAMPLE_RATE)


@pytest.mark.parametrize(
    "fate", [InputUnreadable("there is no sound in it"), File(frames=61 * SAMPLE_RATE)], ids=["noise", "long"]
)
async def test_a_source_that_cannot_be_used_fails_the_job_before_anything_is_sent(
    bench: Bench, fate: File | Exception
) -> None:
    bench.files.fate = fate
    remote = await bench.submit(task_of(task=Task.COVER, source_audio=SOURCE))
    state = await bench.state(remote)
    assert isinstance(state, Failed)
    assert (state.code, state.retryable, state.cost_nano) == (JobErrorCode.INPUT_UNREADABLE, False, 0)
    assert bench.provider.sent == []


async def test_a_source_that_we_cannot_read_just_now_costs_nothing_and_may_be_tried_again(
    bench: Bench,
) -> None:
    bench.files.fate = StoreUnavailable("the disk is gone")
    with capture_logs():
        state = await bench.state(await bench.submit(task_of(task=Task.COVER, source_audio=SOURCE)))
    assert isinstance(state, Failed)
    assert (state.code, state.retryable, state.cost_nano) == (JobErrorCode.UPSTREAM_ERROR, True, 0)
    assert bench.provider.sent == []


async def test_a_source_that_is_gone_when_the_next_worker_looks_tells_nothing_of_what_was_sent(
    bench: Bench,
) -> None:
    task = task_of(task=Task.COVER, source_audio=SOURCE)
    intent = bench.backend.intend(task)
    bench.files.fate = InputUnreadable("the URL answers with status 404")
    state = await bench.state(await bench.backend.recover(task, intent, accepted=False))
    assert isinstance(state, Failed)
    assert (state.code, state.cost_nano) == (JobErrorCode.INPUT_UNREADABLE, None)


async def test_a_job_that_is_cancelled_while_its_source_comes_is_never_sent(bench: Bench) -> None:
    bench.files.waits = asyncio.Event()
    task = task_of(task=Task.COVER, source_audio=SOURCE)
    intent = bench.backend.intend(task)
    submitting = asyncio.ensure_future(bench.backend.submit(task, intent))
    await bench.clock.settle()
    await bench.backend.cancel(intent)
    state = await bench.state(await submitting)
    assert isinstance(state, Failed)
    assert state.code is JobErrorCode.JOB_CANCELLED
    assert bench.provider.sent == []


async def test_a_job_that_is_cancelled_while_it_is_sent_is_given_up_when_it_has_arrived(
    bench: Bench,
) -> None:
    bench.provider.gate = asyncio.Event()
    task = task_of()
    intent = bench.backend.intend(task)
    submitting = asyncio.ensure_future(bench.backend.submit(task, intent))
    await bench.clock.settle()
    await bench.backend.cancel(intent)
    bench.provider.gate.set()
    state = await bench.state(await submitting)
    assert isinstance(state, Failed)
    assert (state.code, state.cost_nano) == (JobErrorCode.JOB_CANCELLED, None)
    assert bench.provider.stopped == ["ours-1"]


async def test_a_submit_that_this_process_breaks_off_leaves_nothing_behind(bench: Bench) -> None:
    bench.provider.gate = asyncio.Event()
    submitting = asyncio.ensure_future(bench.submit())
    await bench.clock.settle()
    assert [health.running for health in bench.backend.health()] == [1, 0]
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert [health.running for health in bench.backend.health()] == [0, 0]
    assert bench.backend.queues == QUEUES


async def test_no_more_is_taken_than_there_is_room_for(open_bench: Open) -> None:
    bench = open_bench(capacity=2, most_at_once=1)
    remote = await bench.submit(task_of(n=2))
    assert bench.backend.queues == QUEUES  # or their jobs would leave for another provider
    with pytest.raises(BackendUnavailable) as caught:
        await bench.submit()
    assert caught.value.reason is Reason.FULL
    bench.backend.forget(remote)
    assert bench.backend.queues == QUEUES


async def test_what_another_process_has_sent_is_looked_at_and_not_sent(open_bench: Open) -> None:
    first, second = open_bench(), open_bench()
    task = task_of(n=5)
    remote = await first.submit(task)
    second.provider.sights = {"ours-1": made(7, 8, 9, 10), "ours-2": made(11)}
    found = await second.backend.recover(task, remote, accepted=True)
    assert found == remote
    await second.clock.advance(2)
    state = await second.state(found)
    assert isinstance(state, Rendered)
    assert [output.seed for output in state.outputs] == [7, 8, 9, 10, 11]
    assert second.provider.sent == []


async def test_what_may_have_been_sent_is_sent_again_under_the_same_id(bench: Bench) -> None:
    task = task_of(n=5, task=Task.COVER, source_audio=SOURCE)
    intent = bench.backend.intend(task)
    remote = await bench.backend.recover(task, intent, accepted=False)
    assert remote == intent
    assert [call.ref for call in bench.provider.sent] == ["ours-1", "ours-2"]
    assert bench.provider.sent[0].source is not None
    assert bench.backend.health()[0].running == 2


async def test_what_was_never_started_is_known_to_be_where_the_provider_says_so(bench: Bench) -> None:
    task = task_of()
    bench.provider.send_script = [away(Reason.RATE_LIMITED)]
    with pytest.raises(BackendUnavailable) as caught:
        await bench.backend.recover(task, bench.backend.intend(task), accepted=False)
    assert caught.value.reason is Reason.RATE_LIMITED
    assert len(bench.provider.found) == 1


async def test_what_nobody_can_be_asked_about_stays_unclear(bench: Bench) -> None:
    task = task_of()
    bench.provider.send_script = [away()] * 9
    bench.provider.find_script = [away()] * 9
    recovering = asyncio.ensure_future(
        bench.backend.recover(task, bench.backend.intend(task), accepted=False)
    )
    with pytest.raises(SubmitAmbiguous) as caught:
        await after(bench, recovering)
    assert caught.value.cost_nano == SONG_NANO


@pytest.mark.parametrize("tries", [1, 3])
async def test_a_call_without_an_id_is_found_by_what_was_in_it(strict: Bench, tries: int) -> None:
    task = task_of()
    strict.provider.find_script = [*[None] * tries, "theirs-5"]
    recovering = asyncio.ensure_future(
        strict.backend.recover(task, strict.backend.intend(task), accepted=False)
    )
    remote = await after(strict, recovering)
    assert remote.ref == "theirs-5"  # type: ignore[attr-defined]
    assert strict.provider.sent == []


async def test_where_one_call_of_several_is_not_found_the_others_are_given_up(strict: Bench) -> None:
    task = task_of(n=2)
    strict.provider.find_script = ["theirs-5"]
    recovering = asyncio.ensure_future(
        strict.backend.recover(task, strict.backend.intend(task), accepted=False)
    )
    with pytest.raises(SubmitAmbiguous) as caught:
        await after(strict, recovering)
    assert caught.value.cost_nano == 2 * SONG_NANO
    assert strict.provider.stopped == ["theirs-5"]


async def test_outages_open_the_circuit_of_one_model_and_one_job_tries_again(bench: Bench) -> None:
    bench.provider.send_script = [away()] * 5
    for _ in range(5):
        with pytest.raises(BackendUnavailable):
            await bench.submit()
    assert bench.backend.queues == (f"runware/{OTHER_MODEL}",)
    with pytest.raises(BackendUnavailable) as caught:
        await bench.submit()
    assert caught.value.reason is Reason.BUSY
    assert len(bench.provider.sent) == 5
    await bench.clock.advance(20)
    assert bench.backend.queues == QUEUES
    probe = await bench.submit()
    assert bench.backend.queues == (f"runware/{OTHER_MODEL}",)
    bench.provider.sights[probe.ref] = made(7)
    bench.backend.hint(probe.ref)
    assert isinstance(await bench.state(probe), Rendered)
    assert bench.backend.queues == (f"runware/{OTHER_MODEL}",)
    bench.backend.note_outcome(probe, None)
    assert bench.backend.queues == QUEUES


async def test_a_wrong_key_opens_the_circuit_at_once(bench: Bench) -> None:
    bench.provider.send_script = [away(Reason.MISCONFIGURED)]
    with pytest.raises(BackendUnavailable):
        await bench.submit()
    health = {one.model: one for one in bench.backend.health()}
    assert (health[MODEL].circuit, health[MODEL].why) == (Circuit.OPEN, "misconfigured")


async def test_too_many_calls_rest_the_whole_provider_for_as_long_as_it_says(bench: Bench) -> None:
    bench.provider.send_script = [away(Reason.RATE_LIMITED, 30.0)]
    with pytest.raises(BackendUnavailable):
        await bench.submit()
    assert bench.backend.queues == ()
    assert {(one.circuit, one.why) for one in bench.backend.health()} == {(Circuit.OPEN, "rate_limited")}
    with pytest.raises(BackendUnavailable) as caught:
        await bench.submit()
    assert caught.value.retry_after_seconds == 30.0
    await bench.clock.advance(30)
    assert bench.backend.queues == QUEUES


async def test_without_credit_all_models_rest_until_the_account_is_filled(bench: Bench) -> None:
    watching = asyncio.ensure_future(bench.backend.watch_account())
    await bench.clock.settle()
    assert bench.backend.health()[0].balance_nano == 5_000_000_000
    bench.provider.send_script = [away(Reason.NO_CREDIT)]
    bench.provider.balance = 0
    with capture_logs() as logs:
        with pytest.raises(BackendUnavailable):
            await bench.submit()
        await bench.clock.advance(1)
        assert {(one.no_credit, one.balance_nano) for one in bench.backend.health()} == {(True, 0)}
        await bench.clock.advance(3600)
        assert bench.backend.queues == ()
        bench.provider.balance = away()
        await bench.clock.advance(600)
        assert bench.backend.queues == ()
        bench.provider.balance = 1
        await bench.clock.advance(61)
        assert {one.circuit for one in bench.backend.health()} == {Circuit.HALF_OPEN}
        bench.provider.send_script = [away(Reason.NO_CREDIT)]
        with pytest.raises(BackendUnavailable):
            await bench.submit()
        await bench.clock.advance(800)  # what is left pays for no song
        assert bench.backend.queues == ()
        assert {one.no_credit for one in bench.backend.health()} == {True}
        bench.provider.balance = 2
        await bench.clock.advance(61)
        await bench.submit()
    told = [entry["log_level"] for entry in logs if entry["event"] == "provider.no_credit"]
    assert told == ["error"]
    watching.cancel()


async def test_an_account_whose_balance_cannot_be_read_is_tried_again_all_the_same(bench: Bench) -> None:
    watching = asyncio.ensure_future(bench.backend.watch_account())
    bench.provider.balance = away()
    bench.provider.send_script = [away(Reason.NO_CREDIT)]
    with pytest.raises(BackendUnavailable):
        await bench.submit()
    await bench.clock.advance(901)
    assert bench.backend.queues == QUEUES
    await bench.submit()
    watching.cancel()
