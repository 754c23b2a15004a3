"""What is sent to Runware, and what becomes of it when the vendor or the network does not behave."""

import socket
import uuid
from datetime import UTC, datetime

import msgspec
import pytest
import structlog.testing

from gateway.backends.base import BackendUnavailable, Reason, SubmitAmbiguous
from gateway.backends.remote.connection import Timeouts
from gateway.backends.remote.provider import Refused
from gateway.jobs.job import JobErrorCode
from tests.gateway.backends.runware_account import Desk, a_call, a_source, calling
from tests.gateway.routing.runware_requests import COVER, REPAINT, SECONDS
from tests.providers.runware import Delay, Drop, Fault, Hostile, Huge, Raw, Status, TaskFails, running
from tests.providers.runware.faults import HostileKind

NOW = datetime.now(UTC)
OUTAGE, MISCONFIGURED = Reason.OUTAGE, Reason.MISCONFIGURED


async def test_a_call_is_one_request_with_our_uuid_and_our_key(desk: Desk) -> None:
    call = a_call(count=4)
    ref = await desk.runware.send(call)
    assert ref == call.ref == next(iter(desk.vendor.tasks))
    [request] = desk.vendor.requests
    assert request.headers["authorization"] == f"Bearer {desk.vendor.key}"
    [task] = request.tasks
    assert (task["taskUUID"], task["numberResults"], task["deliveryMethod"]) == (ref, 4, "async")
    assert "webhookURL" not in task


async def test_each_new_ref_is_another_uuid_of_version_four(desk: Desk) -> None:
    refs = [desk.runware.new_ref() for _ in range(50)]
    assert len(set(refs)) == 50
    assert {uuid.UUID(ref).version for ref in refs} == {4}


async def test_a_call_that_is_sent_again_stays_one_task(desk: Desk) -> None:
    call = a_call()
    refs = {await desk.runware.send(call) for _ in range(3)}
    assert refs == {call.ref}
    [task] = desk.vendor.tasks.values()
    assert (task.accepted, task.offered) == (1, 3)


HOSTILE: list[HostileKind] = [
    "wrong_types", "nulls", "deep", "missing", "foreign", "duplicates", "both", "not_object", "no_data",
    "huge_numbers",
]  # fmt: skip
ONE_TASK_ALL_THE_SAME: list[Fault] = [
    Drop(),
    Drop(after_accepting=True),
    Raw(b""),
    Raw(b"<html>502 Bad Gateway</html>", 502),
    Raw(b"\xff\xfe"),
    Raw(b"{" * 100_000),
    Raw(b'{"data":[]}'),
    Raw(b'{"data":[{"taskUUID":"5313aa70-03e4-41dd-9239-21a7f0c8d972"}]}'),
    Huge(3_000_000),
    Status(500),
    Status(502),
    Status(503),
    Status(504),
    *(Hostile(kind) for kind in HOSTILE),
]


@pytest.mark.parametrize("fault", ONE_TASK_ALL_THE_SAME, ids=lambda fault: repr(fault)[:40])
async def test_whatever_befalls_the_first_try_there_is_one_task_in_the_end(desk: Desk, fault: Fault) -> None:
    desk.vendor.fail_next("audioInference", fault)
    call = a_call()
    assert await desk.runware.send(call) == call.ref
    assert [(ref, task.accepted) for ref, task in desk.vendor.tasks.items()] == [(call.ref, 1)]
    assert set(desk.asked) == {"audioInference"}


@pytest.mark.parametrize(
    "faults",
    [
        (Drop(after_accepting=True), Drop()),
        (Drop(after_accepting=True), Status(503)),
        (Hostile("foreign"), Raw(b"<html>502 Bad Gateway</html>", 502)),
        (Hostile("foreign"), Status(429)),
    ],
)
async def test_a_task_whose_acceptance_was_never_heard_of_is_asked_for(
    desk: Desk, faults: tuple[Fault, Fault]
) -> None:
    for fault in faults:
        desk.vendor.fail_next("audioInference", fault)
    call = a_call()
    assert await desk.runware.send(call) == call.ref
    assert desk.asked == ["audioInference", "audioInference", "getResponse"]
    assert desk.vendor.tasks[call.ref or ""].accepted == 1


async def test_a_task_that_the_vendor_does_not_know_after_two_tries_was_not_taken(desk: Desk) -> None:
    desk.vendor.fail_next("audioInference", Drop(), times=2)
    with pytest.raises(BackendUnavailable) as caught:
        await desk.accepted()
    assert caught.value.reason is OUTAGE
    assert desk.asked == ["audioInference", "audioInference", "getResponse"]
    assert desk.vendor.tasks == {}


@pytest.mark.parametrize("fault", [Drop(), Status(503), Raw(b"{}"), Hostile("foreign"), Raw(b'{"data":[]}')])
async def test_only_where_nobody_tells_is_it_ambiguous(desk: Desk, fault: Fault) -> None:
    desk.vendor.fail_next("audioInference", Drop(after_accepting=True))
    desk.vendor.fail_next("audioInference", Drop())
    desk.vendor.fail_next("getResponse", fault, times=2)
    with pytest.raises(SubmitAmbiguous):
        await desk.accepted()


async def test_a_vendor_that_is_down_has_taken_nothing_for_certain(desk: Desk) -> None:
    for fault in (Status(503), Status(500), Raw(b"down for maintenance", 503)):
        desk.vendor.fail_next("audioInference", fault, times=2)
        with pytest.raises(BackendUnavailable) as caught:
            await desk.accepted()
        assert caught.value.reason is OUTAGE
    assert set(desk.asked) == {"audioInference"}
    assert desk.vendor.tasks == {}


async def test_where_nobody_listens_nothing_was_taken() -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        async with calling(f"http://127.0.0.1:{port.getsockname()[1]}/v1") as runware:
            with pytest.raises(BackendUnavailable) as caught:
                await runware.send(a_call())
            assert caught.value.reason is OUTAGE
            with pytest.raises(BackendUnavailable):
                await runware.find(a_call(), since=NOW)


@pytest.mark.parametrize("after_accepting", [False, True])
async def test_a_vendor_that_is_too_slow_is_asked_again_with_the_same_task(
    desk: Desk, *, after_accepting: bool
) -> None:
    async with calling(desk.vendor.url, desk.vendor.key, timeouts=Timeouts(read=0.4)) as runware:
        desk.vendor.fail_next("audioInference", Delay(30, after_accepting=after_accepting))
        call = a_call()
        assert await runware.send(call) == call.ref
        assert desk.vendor.tasks[call.ref or ""].accepted == 1


async def test_a_question_that_took_all_its_time_is_not_asked_again(desk: Desk) -> None:
    desk.vendor.fail_next("getResponse", Delay(30))
    async with calling(desk.vendor.url, desk.vendor.key, timeouts=Timeouts(query=0.2)) as runware:
        with pytest.raises(BackendUnavailable) as caught:
            await runware.look(["a"])
    assert caught.value.reason is OUTAGE
    assert desk.asked == ["getResponse"]


NOT_TAKEN: list[tuple[Fault, Reason]] = [
    (Status(401), MISCONFIGURED),
    (Status(401, "missingApiKey"), MISCONFIGURED),
    (Status(403), MISCONFIGURED),
    (Raw(b"forbidden", 403, "text/plain"), MISCONFIGURED),
    (Raw(b"no such page", 404, "text/plain"), MISCONFIGURED),
    (Raw(b"", 301), MISCONFIGURED),
    (Status(400, "invalidModel"), MISCONFIGURED),
    (Status(402), Reason.NO_CREDIT),
    (Status(400, "insufficientBalance"), Reason.NO_CREDIT),
    (Status(429), Reason.RATE_LIMITED),
    (Raw(b"slow down", 429, "text/plain"), Reason.RATE_LIMITED),
    (Status(400, "rateLimitExceeded"), Reason.RATE_LIMITED),
]


@pytest.mark.parametrize(("fault", "reason"), NOT_TAKEN, ids=lambda value: repr(value)[:40])
async def test_a_refusal_of_all_that_we_send_is_not_tried_again(
    desk: Desk, fault: Fault, reason: Reason
) -> None:
    desk.vendor.fail_next("audioInference", fault)
    with pytest.raises(BackendUnavailable) as caught:
        await desk.accepted()
    assert caught.value.reason is reason
    assert desk.asked == ["audioInference"]


async def test_it_says_when_to_come_again(desk: Desk) -> None:
    seconds = []
    for wait in (7, 0.5, 999_999):
        desk.vendor.fail_next("audioInference", Status(429, retry_after=wait))
        with pytest.raises(BackendUnavailable) as caught:
            await desk.accepted()
        seconds.append(caught.value.retry_after_seconds)
    assert seconds == [7.0, 0.5, 3600.0]


UPSTREAM = JobErrorCode.UPSTREAM_ERROR
REFUSED: list[tuple[str, JobErrorCode, bool]] = [
    ("contentPolicyViolation", JobErrorCode.CONTENT_POLICY_VIOLATION, False),
    ("invalidInputsAudio", JobErrorCode.INPUT_UNREADABLE, True),
    ("invalidDuration", UPSTREAM, True),
    ("missingPositivePrompt", UPSTREAM, True),
    ("unsupportedParameter", UPSTREAM, True),
    ("unsupportedCFGScaleForModel", UPSTREAM, True),
    ("inferenceError", UPSTREAM, True),
    ("somethingNobodyHasHeardOf", UPSTREAM, True),
]


@pytest.mark.parametrize(("code", "job_code", "retryable"), REFUSED)
async def test_a_refusal_of_this_call_is_final_there_in_words_of_our_own(
    desk: Desk, code: str, job_code: JobErrorCode, *, retryable: bool
) -> None:
    desk.vendor.fail_next("audioInference", Status(400, code, message="you wrote: calm piano"))
    with pytest.raises(Refused) as caught:
        await desk.accepted()
    failed = caught.value.failed
    assert (failed.code, failed.retryable, failed.cost_nano) == (job_code, retryable, 0)
    assert "calm piano" not in failed.message
    assert code not in failed.message
    assert desk.asked == ["audioInference"]


@pytest.mark.parametrize(
    ("fault", "level"),
    [
        (Status(400, "invalidSteps", message="calm piano"), "error"),
        (Status(401, message="calm piano"), "error"),
        (Status(400, "contentPolicyViolation", message="calm piano"), "warning"),
    ],
)
async def test_what_an_operator_must_mend_is_an_error_in_the_log_without_key_or_prompt(
    desk: Desk, fault: Fault, level: str
) -> None:
    desk.vendor.fail_next("audioInference", fault)
    with structlog.testing.capture_logs() as logs, pytest.raises((Refused, BackendUnavailable)) as caught:
        await desk.accepted()
    assert [(one["event"], one["log_level"]) for one in logs] == [("runware.refused", level)]
    for told in (repr(logs), str(caught.value), repr(desk.runware), repr(vars(desk.runware))):
        assert desk.vendor.key not in told
        assert "calm piano" not in told


async def test_a_wrong_key_is_our_fault(desk: Desk) -> None:
    async with calling(desk.vendor.url, "another key") as runware:
        with pytest.raises(BackendUnavailable) as caught:
            await runware.send(a_call())
        assert caught.value.reason is MISCONFIGURED
        assert "another key" not in repr(caught.value)


async def test_an_account_that_cannot_pay_is_our_fault(desk: Desk) -> None:
    desk.vendor.balance_nano = 1_000
    with pytest.raises(BackendUnavailable) as caught:
        await desk.accepted()
    assert caught.value.reason is Reason.NO_CREDIT


async def test_a_source_is_uploaded_and_named(desk: Desk) -> None:
    source = a_source(40)
    for fields in (COVER, REPAINT | {"repainting_start": -2.0}):
        ref = await desk.accepted(**fields, source=source)
        media = desk.vendor.media[desk.vendor.tasks[ref].request["inputs"]["audio"]]
        assert media.content == source.content
    assert [task.seconds for task in desk.vendor.tasks.values()] == [40, 42]
    assert desk.vendor.tasks[ref].request["settings"]["repaintingEnd"] == 40
    assert desk.asked == ["mediaStorage", "audioInference"] * 2


async def test_an_upload_whose_connection_broke_is_made_again(desk: Desk) -> None:
    desk.vendor.fail_next("mediaStorage", Drop())
    ref = await desk.accepted(**COVER, source=a_source(40))
    assert list(desk.vendor.tasks) == [ref]


UPLOADS: list[tuple[Fault, Reason | JobErrorCode]] = [
    (Status(400, "invalidMedia"), JobErrorCode.INPUT_UNREADABLE),
    (Status(400, "contentPolicyViolation"), JobErrorCode.CONTENT_POLICY_VIOLATION),
    (Raw(b"too large", code=413), JobErrorCode.INPUT_UNREADABLE),
    (Status(401), MISCONFIGURED),
    (Status(402), Reason.NO_CREDIT),
    (Status(429), Reason.RATE_LIMITED),
    (Status(500), OUTAGE),
    (Raw(b"{}"), OUTAGE),
    (Hostile("nulls"), OUTAGE),
    (Hostile("foreign"), OUTAGE),
]


@pytest.mark.parametrize(("fault", "end"), UPLOADS, ids=lambda value: repr(value)[:40])
async def test_without_its_source_nothing_is_started(
    desk: Desk, fault: Fault, end: Reason | JobErrorCode
) -> None:
    desk.vendor.fail_next("mediaStorage", fault)
    with pytest.raises((Refused, BackendUnavailable)) as caught:
        await desk.accepted(**COVER, source=a_source(1))
    error = caught.value
    assert (error.failed.code if isinstance(error, Refused) else error.reason) == end
    assert desk.asked == ["mediaStorage"]


async def test_a_source_that_is_too_long_is_not_even_uploaded(desk: Desk) -> None:
    source = a_source(1)
    long = msgspec.structs.replace(source, frames=301 * SECONDS)
    with pytest.raises(Refused):
        await desk.accepted(**COVER, source=long)
    assert desk.asked == []


async def test_a_call_is_found_by_its_ref_alone(desk: Desk) -> None:
    call = a_call()
    assert await desk.runware.find(call, since=NOW) is None
    await desk.runware.send(call)
    assert await desk.runware.find(call, since=NOW) == call.ref
    await desk.vendor.finish(call.ref or "")
    assert await desk.runware.find(call, since=NOW) == call.ref
    desk.vendor.forget(call.ref or "")
    assert await desk.runware.find(call, since=NOW) is None
    desk.vendor.fail_next("audioInference", TaskFails())
    failed = a_call()
    await desk.vendor.finish(await desk.runware.send(failed))
    assert await desk.runware.find(failed, since=NOW) == failed.ref


FINDING = [
    Drop(),
    Status(500),
    Status(429),
    Raw(b"{}"),
    Raw(b'{"errors":[{"code":"inferenceError"}]}'),
    Hostile("foreign"),
    Hostile("nulls"),
]


@pytest.mark.parametrize("fault", FINDING)
async def test_where_finding_is_not_answered_nothing_is_known(desk: Desk, fault: Fault) -> None:
    desk.vendor.fail_next("audioInference", TaskFails())
    ref = await desk.accepted()
    await desk.vendor.finish(ref)
    desk.vendor.fail_next("getResponse", fault, times=2)
    with pytest.raises(BackendUnavailable):
        await desk.runware.find(msgspec.structs.replace(a_call(), ref=ref), since=NOW)


async def test_to_stop_a_task_asks_nobody(desk: Desk) -> None:
    await desk.runware.stop(await desk.accepted())
    assert desk.asked == ["audioInference"]


async def test_the_webhook_goes_with_the_task() -> None:
    async with running() as vendor:
        vendor.hold()
        hook = "http://127.0.0.1:9/webhooks/runware?token=secret"
        async with calling(vendor.url, vendor.key, webhook_url=hook) as runware:
            ref = await runware.send(a_call())
            assert vendor.tasks[ref].request["webhookURL"] == hook
            assert "secret" not in repr(runware)
