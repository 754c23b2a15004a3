"""Both remote backends, with their real adapters, over sockets: nothing is made twice, whatever breaks."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.audio import QualityFailed, check_quality
from gateway.backends.base import (
    BackendUnavailable,
    Failed,
    Reason,
    Rendered,
    RenderTask,
    Running,
    SubmitAmbiguous,
    Succeeded,
    TaskState,
)
from gateway.generation import SAMPLE_RATE
from gateway.jobs.job import JobErrorCode
from gateway.routing import REMOTE, Circuit
from gateway.workers.collection import CollectFailed
from tests.gateway.backends.conftest import task_of as a_task
from tests.providers import runware, wavespeed
from tests.remote_backends import MODEL, NANO_PER_SECOND, Remote, open_remote

SECONDS = 30


@pytest.fixture(params=REMOTE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def remote(name: str, tmp_path: Path) -> AsyncIterator[Remote]:
    async with open_remote(name, tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


def task_of(**more: Any) -> RenderTask:
    return a_task(model=MODEL, seconds=SECONDS, **more)


def fail_submit(remote: Remote, *, accepted: bool = False, code: int | None = None) -> None:
    """The next submit breaks off, or is answered with that status."""
    vendor = remote.vendor
    if isinstance(vendor, wavespeed.WaveSpeedStandIn):
        fault: Any = wavespeed.Drop(after_accepting=accepted) if code is None else wavespeed.Status(code)
        vendor.fail_next("submit", fault)
    else:
        fault = runware.Drop(after_accepting=accepted) if code is None else runware.Status(code)
        vendor.fail_next("audioInference", fault, times=1 if accepted else 2)


def spoil(remote: Remote, kind: Any) -> None:
    """The next task ends well, with bad music."""
    if isinstance(remote.vendor, wavespeed.WaveSpeedStandIn):
        remote.vendor.fail_next("submit", wavespeed.Outputs(kind))
    else:
        remote.vendor.fail_next("audioInference", runware.Outputs(kind))


def accepted(remote: Remote) -> int:
    """How many tasks there are at the vendor."""
    if isinstance(remote.vendor, wavespeed.WaveSpeedStandIn):
        return len(remote.vendor.predictions)
    return len(remote.vendor.tasks)


async def ended(backend: Any, task: Any) -> TaskState:
    async with asyncio.timeout(20):
        while isinstance(state := await backend.poll(task), Running):
            pass
    return state


async def test_variations_come_in_their_order_and_cost_what_the_vendor_says(
    remote: Remote, name: str
) -> None:
    task = task_of(n=5)
    sent = await remote.backend.submit(task, remote.backend.intend(task))
    state = await ended(remote.backend, sent)
    assert isinstance(state, Rendered)
    seeds = [
        task.request.variation_seed(index) if output.seed is None else output.seed
        for index, output in enumerate(state.outputs)
    ]
    assert seeds == [7, 8, 9, 10, 11]
    assert state.cost_nano is not None
    if name == "wavespeed":
        assert state.cost_nano == 5 * SECONDS * NANO_PER_SECOND[name]
        assert accepted(remote) == 5
    else:
        assert state.cost_nano == sum(one.cost_nano for one in remote.vendor.tasks.values())
        assert accepted(remote) == 2


async def test_a_submit_that_breaks_off_after_it_was_accepted_makes_one_task(remote: Remote) -> None:
    fail_submit(remote, accepted=True)
    task = task_of()
    sent = await remote.backend.submit(task, remote.backend.intend(task))
    assert isinstance(await ended(remote.backend, sent), Rendered)
    assert accepted(remote) == 1


async def test_one_that_breaks_off_before_is_never_made_twice_either(remote: Remote, name: str) -> None:
    fail_submit(remote)
    task = task_of()
    expected = SubmitAmbiguous if name == "wavespeed" else BackendUnavailable
    with pytest.raises(expected) as caught:
        await remote.backend.submit(task, remote.backend.intend(task))
    if isinstance(caught.value, SubmitAmbiguous):
        assert caught.value.cost_nano == SECONDS * NANO_PER_SECOND[name]
    assert accepted(remote) == 0


async def test_another_worker_goes_on_with_what_was_accepted(remote: Remote) -> None:
    task = task_of()
    sent = await remote.backend.submit(task, remote.backend.intend(task))
    remote.backend.forget(sent)
    other = remote.open_another()
    found = await other.recover(task, sent, accepted=True)
    assert found == sent
    assert isinstance(await ended(other, found), Rendered)
    assert accepted(remote) == 1


async def test_another_worker_finds_what_nobody_noted_as_accepted(remote: Remote) -> None:
    task = task_of()
    intent = remote.backend.intend(task)
    sent = await remote.backend.submit(task, intent)
    other = remote.open_another()
    found = await other.recover(task, intent, accepted=False)
    assert found == sent
    assert isinstance(await ended(other, found), Rendered)
    assert accepted(remote) == 1


async def test_what_was_never_sent_is_sent_once_or_given_up_with_its_price(remote: Remote, name: str) -> None:
    task = task_of()
    other = remote.open_another()
    intent = remote.backend.intend(task)
    if name == "runware":
        assert isinstance(await ended(other, await other.recover(task, intent, accepted=False)), Rendered)
        assert accepted(remote) == 1
        return
    with pytest.raises(SubmitAmbiguous) as caught:
        await other.recover(task, intent, accepted=False)
    assert caught.value.cost_nano == intent.most_nano == SECONDS * NANO_PER_SECOND[name]
    assert accepted(remote) == 0


@pytest.mark.parametrize(
    ("code", "reason"), [(401, Reason.MISCONFIGURED), (402, Reason.NO_CREDIT), (429, Reason.RATE_LIMITED)]
)
async def test_a_refusal_of_the_account_says_so_and_makes_nothing(
    remote: Remote, code: int, reason: Reason
) -> None:
    fail_submit(remote, code=code)
    task = task_of()
    with pytest.raises(BackendUnavailable) as caught:
        await remote.backend.submit(task, remote.backend.intend(task))
    assert caught.value.reason is reason
    (health,) = remote.backend.health()
    assert (health.circuit, health.why) == (Circuit.OPEN, reason.value)
    assert remote.backend.queues == ()
    assert accepted(remote) == 0


async def test_refused_content_is_final_and_does_not_speak_against_the_vendor(remote: Remote) -> None:
    if isinstance(remote.vendor, wavespeed.WaveSpeedStandIn):
        remote.vendor.fail_next("submit", wavespeed.TaskFails(1200, "content refused"))
    else:
        remote.vendor.fail_next("audioInference", runware.TaskFails("contentPolicyViolation"))
    task = task_of()
    state = await ended(remote.backend, await remote.backend.submit(task, remote.backend.intend(task)))
    assert isinstance(state, Failed)
    assert (state.code, state.retryable) == (JobErrorCode.CONTENT_POLICY_VIOLATION, False)
    assert remote.backend.health()[0].error_rate == 0


@pytest.mark.parametrize("kind", ["silent", "half", "text", "missing", "private"])
async def test_bad_music_is_never_taken_for_good(remote: Remote, name: str, kind: str) -> None:
    spoil(remote, kind)
    task = a_task(model=MODEL, seconds=30 if name == "runware" else 10)
    state = await ended(remote.backend, await remote.backend.submit(task, remote.backend.intend(task)))
    remote.collector._sleep = lambda _: asyncio.sleep(0)

    async def judged() -> None:
        made = await remote.collected(task, state)
        assert isinstance(made, Succeeded)
        samples = made.recordings[0].samples
        check_quality(samples, sample_rate=SAMPLE_RATE, expected_frames=task.request.frames)

    with pytest.raises((QualityFailed, CollectFailed)):
        await judged()


async def test_what_the_account_holds_is_known(remote: Remote) -> None:
    assert remote.backend.health()[0].balance_nano is None
    await remote.backend._standing.account.ask()
    assert remote.backend.health()[0].balance_nano == remote.vendor.balance_nano
