"""What Runware tells of tasks, of money and of itself, and how little of it is believed."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from gateway.backends.base import BackendUnavailable, Failed, Output, Reason
from gateway.backends.remote.provider import Made, Sight, Unknown, Waiting
from gateway.backends.runware.wire import balance_nano, read_reply
from gateway.jobs.job import JobErrorCode
from tests.gateway.backends.runware_account import Desk, calling
from tests.gateway.routing.runware_requests import TURBO
from tests.providers.runware import Drop, Fault, Hostile, Outputs, Raw, Status, TaskFails, running
from tests.providers.runware.faults import HostileKind

OUTAGE, UPSTREAM = Reason.OUTAGE, JobErrorCode.UPSTREAM_ERROR
REF, OTHER = "3c45aa70-03e4-41dd-9239-21a7f0c8d971", "5313aa70-03e4-41dd-9239-21a7f0c8d972"
ITEM = {"taskType": "audioInference", "taskUUID": REF, "status": "success", "audioUUID": "1",
        "audioURL": "https://a.example/1.flac", "seed": 7, "cost": 0.003}  # fmt: skip


async def answered(desk: Desk, body: bytes | Mapping[str, Any], *refs: str) -> Mapping[str, Sight]:
    """What is seen in this answer."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    desk.vendor.fail_next("getResponse", Raw(content))
    return await desk.runware.look(refs or (REF,))


async def test_a_task_is_seen_from_its_acceptance_to_its_files(desk: Desk) -> None:
    ref = await desk.accepted(count=3, model=TURBO)
    assert await desk.runware.look([ref]) == {ref: Waiting(0.0)}
    desk.vendor.tasks[ref].since -= 464_000
    assert await desk.runware.look([ref]) == {ref: Waiting(0.46)}
    await desk.vendor.finish(ref)
    made = (await desk.runware.look([ref]))[ref]
    assert isinstance(made, Made)
    urls = [item["audioURL"] for item in desk.vendor.tasks[ref].items]
    assert made.outputs == tuple(
        Output(url=url, seed=seed) for url, seed in zip(urls, (7, 8, 9), strict=True)
    )
    assert made.cost_nano == 3 * 60 * 200_000 == desk.vendor.tasks[ref].cost_nano
    desk.vendor.forget(ref)
    assert await desk.runware.look([ref]) == {ref: Unknown()}


async def test_many_tasks_are_seen_in_one_request(desk: Desk) -> None:
    desk.vendor.fail_next("audioInference", TaskFails())
    failed = await desk.made()
    made, waiting, unknown = await desk.made(), await desk.accepted(), desk.runware.new_ref()
    desk.vendor.requests.clear()
    seen = await desk.runware.look([failed, made, waiting, unknown])
    assert len(desk.vendor.requests) == 1
    assert [type(seen[ref]) for ref in (failed, made, waiting, unknown)] == [Failed, Made, Waiting, Unknown]
    many = [desk.runware.new_ref() for _ in range(desk.runware.looks_at_once)]
    assert await desk.runware.look(many) == dict.fromkeys(many, Unknown())


FAILURES: list[tuple[str, JobErrorCode, bool]] = [
    ("inferenceError", UPSTREAM, True),
    ("providerError", UPSTREAM, True),
    ("serviceUnavailable", UPSTREAM, True),
    ("internalServerError", UPSTREAM, True),
    ("insufficientCredits", UPSTREAM, True),
    ("taskCancelled", UPSTREAM, True),
    ("invalidSteps", UPSTREAM, True),
    ("somethingNobodyHasHeardOf", UPSTREAM, True),
    ("timeoutProvider", JobErrorCode.TIMEOUT, True),
    ("invalidInputsAudio", JobErrorCode.INPUT_UNREADABLE, True),
    ("contentPolicyViolation", JobErrorCode.CONTENT_POLICY_VIOLATION, False),
]


@pytest.mark.parametrize(("code", "job_code", "retryable"), FAILURES)
async def test_a_failed_task_is_told_in_words_of_our_own(
    desk: Desk, code: str, job_code: JobErrorCode, *, retryable: bool
) -> None:
    desk.vendor.fail_next("audioInference", TaskFails(code, "you wrote: calm piano"))
    ref = await desk.made()
    failed = (await desk.runware.look([ref]))[ref]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable, failed.cost_nano) == (job_code, retryable, 0)
    assert "piano" not in failed.message


async def test_a_failure_may_also_stand_inside_an_item(desk: Desk) -> None:
    item = {"taskUUID": REF, "status": "error", "error": {"code": "contentPolicyViolation"}}
    failed = (await answered(desk, {"data": [item]}))[REF]
    assert isinstance(failed, Failed)
    assert failed.code is JobErrorCode.CONTENT_POLICY_VIOLATION
    failed = (await answered(desk, {"data": [{"taskUUID": REF, "status": "error"}]}))[REF]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == (UPSTREAM, True)


async def test_a_task_that_made_a_part_and_failed_costs_what_was_made(desk: Desk) -> None:
    errors = [{"taskUUID": REF, "code": "inferenceError"}]
    failed = (await answered(desk, {"data": [ITEM], "errors": errors}))[REF]
    assert isinstance(failed, Failed)
    assert failed.cost_nano == 3_000_000


async def test_files_that_are_there_count_only_when_none_is_still_made(desk: Desk) -> None:
    running_item = {"taskUUID": REF, "status": "processing", "progress": 50}
    assert await answered(desk, {"data": [ITEM, running_item]}) == {REF: Waiting(0.5)}


async def test_a_file_that_is_told_of_twice_is_one_file_and_costs_once(desk: Desk) -> None:
    second = ITEM | {"audioUUID": "2", "audioURL": "https://a.example/2.flac", "seed": 8}
    made = (await answered(desk, {"data": [ITEM, second, second, ITEM]}))[REF]
    assert isinstance(made, Made)
    assert [output.seed for output in made.outputs] == [7, 8]
    assert made.cost_nano == 6_000_000


async def test_a_seed_that_is_not_told_is_none(desk: Desk) -> None:
    for seed in (None, "7", -1, 2**32, 10**400, 1.5):
        made = (await answered(desk, {"data": [ITEM | {"seed": seed}]}))[REF]
        assert isinstance(made, Made)
        assert made.outputs == (Output(url="https://a.example/1.flac", seed=None),)


COSTS: list[tuple[list[str], int | None]] = [
    (["0.003"], 3_000_000),
    (["0.000000001"], 1),
    (["1e-9"], 1),
    (["0.123456789", "0.876543211"], 1_000_000_000),
    (["0.1", "0.2"], 300_000_000),
    (["0.30000000000000004"], 300_000_000),
    (["0.0000000019"], 2),
    (["12"], 12_000_000_000),
    (['"0.003"'], 3_000_000),
    (["0"], 0),
    (["0.003", "null"], None),
    (["null"], None),
    (["-0.003"], None),
    (["true"], None),
    (['"NaN"'], None),
    (['"Infinity"'], None),
    (["1e999999999"], None),
    (["1e-999999999"], 0),
    (["100000"], None),
    (["9" * 400], None),
    (["{}"], None),
]


@pytest.mark.parametrize(("written", "nano"), COSTS, ids=lambda value: repr(value)[:30])
async def test_a_cost_is_read_to_the_nano_or_not_at_all(written: list[str], nano: int | None) -> None:
    items = ",".join(
        f'{{"taskUUID":"{REF}","status":"success","audioURL":"https://a.example/{place}","cost":{cost}}}'
        for place, cost in enumerate(written)
    )
    async with running() as vendor, calling(vendor.url, vendor.key) as runware:
        seen = await answered(Desk(vendor, runware), f'{{"data":[{items}]}}'.encode())
    made = seen[REF]
    assert isinstance(made, Made)
    assert (len(made.outputs), made.cost_nano) == (len(written), nano)


HOSTILE: list[tuple[HostileKind, str]] = [
    ("duplicates", "all"),
    ("both", "all"),
    ("huge_numbers", "all"),
    ("wrong_types", "nothing"),
    ("nulls", "nothing"),
    ("foreign", "nothing"),
    ("deep", "outage"),
    ("missing", "outage"),
    ("not_object", "outage"),
    ("no_data", "outage"),
]


@pytest.mark.parametrize(("kind", "told"), HOSTILE)
async def test_a_hostile_answer_tells_the_truth_or_nothing(desk: Desk, kind: HostileKind, told: str) -> None:
    desk.vendor.fail_next("audioInference", TaskFails())
    failed = await desk.made()
    refs = [failed, await desk.made(), await desk.accepted(), desk.runware.new_ref()]
    truth = await desk.runware.look(refs)
    desk.vendor.fail_next("getResponse", Hostile(kind))
    if told == "outage":
        with pytest.raises(BackendUnavailable) as caught:
            await desk.runware.look(refs)
        assert caught.value.reason is OUTAGE
    else:
        seen = await desk.runware.look(refs)
        expected = [type(truth[ref]) for ref in refs] if told == "all" else []
        assert [type(seen[ref]) for ref in refs if ref in seen] == expected
    assert await desk.runware.look(refs) == truth


SILENT: list[bytes | dict[str, Any]] = [
    b'{"data":[]}',
    b'{"data":null,"errors":[]}',
    b'{"data":[7,null,"x",[]]}',
    b'{"data":[{"taskUUID":7}]}',
    {"data": [ITEM | {"taskUUID": OTHER}], "errors": [{"code": "inferenceError"}]},
    {"data": [], "errors": [{"code": "inferenceError", "taskUUID": OTHER}]},
    {"data": [{"taskType": "audioInference", "taskUUID": REF}]},
    {"data": [{"taskUUID": REF, "status": "paused"}]},
    {"errors": [{"taskUUID": REF, "code": "rateLimitExceeded"}]},
    {"errors": [{"taskUUID": REF, "code": {"of": "another kind"}}]},
]


@pytest.mark.parametrize("body", SILENT, ids=lambda body: repr(body)[:40])
async def test_an_answer_without_a_word_of_a_task_leaves_it_as_it_is(
    desk: Desk, body: bytes | dict[str, Any]
) -> None:
    assert await answered(desk, body) == {}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Status(401), Reason.MISCONFIGURED),
        (Status(402), Reason.NO_CREDIT),
        (Status(429, retry_after=3), Reason.RATE_LIMITED),
        (Status(500), OUTAGE),
        (Status(503), OUTAGE),
        (Raw(b'{"errors":[{"code":"invalidApiKey"}]}'), Reason.MISCONFIGURED),
        (Raw(b"<html>", 502), OUTAGE),
        (Raw(b"", 200), OUTAGE),
        (Raw(b"[" * 200_000), OUTAGE),
        (Raw(b'{"data":[]}' + b" " * 2_000_000), OUTAGE),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_request_that_is_not_answered_says_nothing_of_tasks(
    desk: Desk, fault: Fault, reason: Reason
) -> None:
    ref = await desk.made()
    desk.vendor.fail_next("getResponse", fault, times=2)  # a success that breaks off is asked for again
    with pytest.raises(BackendUnavailable) as caught:
        await desk.runware.look([ref])
    assert caught.value.reason is reason
    assert caught.value.retry_after_seconds == (
        3 if isinstance(fault, Status) and fault.retry_after else None
    )


async def test_one_connection_that_broke_is_no_outage_and_two_are(desk: Desk) -> None:
    ref = await desk.made()
    desk.vendor.fail_next("getResponse", Drop())
    assert isinstance((await desk.runware.look([ref]))[ref], Made)
    desk.vendor.fail_next("getResponse", Drop(), times=2)
    with pytest.raises(BackendUnavailable) as caught:
        await desk.runware.look([ref])
    assert caught.value.reason is OUTAGE


@pytest.mark.parametrize(("kind", "outputs"), [("fewer", 1), ("mono", 2)])
async def test_as_many_files_are_told_as_came(desk: Desk, kind: Any, outputs: int) -> None:
    desk.vendor.fail_next("audioInference", Outputs(kind))
    ref = await desk.made(count=2)
    made = (await desk.runware.look([ref]))[ref]
    assert isinstance(made, Made)
    assert len(made.outputs) == outputs


async def test_a_success_without_a_file_is_a_success_of_no_files(desk: Desk) -> None:
    for url in (None, 7, "", "https://a.example/" + "a" * 5_000):
        assert await answered(desk, {"data": [ITEM | {"audioURL": url}]}) == {REF: Made(outputs=())}


BALANCES: list[tuple[str, int | None]] = [
    ("2450.75", 2_450_750_000_000),
    ("0", 0),
    ("-3.5", -3_500_000_000),
    ("99.999999999", 99_999_999_999),
    ('{"amount":12.5,"currency":"USD"}', 12_500_000_000),
    ('{"total":3}', 3_000_000_000),
    ('{"currency":"USD"}', None),
    ('"many"', None),
    ("null", None),
    ("1e999", None),
    ("[1]", None),
]


async def test_a_balance_is_a_number_or_an_object_with_one(desk: Desk) -> None:
    desk.vendor.balance_nano = 12_345_678_901
    assert await desk.runware.balance_nano() == 12_345_678_901
    for written, nano in BALANCES:
        [item] = read_reply(200, f'{{"data":[{{"taskUUID":"{REF}","balance":{written}}}]}}'.encode()).items
        assert (written, balance_nano(item.balance)) == (written, nano)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Status(401), Reason.MISCONFIGURED), (Status(500), OUTAGE), (Hostile("nulls"), OUTAGE)],
    ids=lambda value: repr(value)[:40],
)
async def test_a_balance_that_is_not_told_is_no_balance(desk: Desk, fault: Fault, reason: Reason) -> None:
    desk.vendor.fail_next("accountManagement", fault)
    with pytest.raises(BackendUnavailable) as caught:
        await desk.runware.balance_nano()
    assert caught.value.reason is reason


@pytest.mark.parametrize("value", ["1", "{}", f'{{"taskUUID":"{REF}"}}'])
def test_an_answer_of_very_many_values_is_not_read(value: str) -> None:
    assert read_reply(200, f'{{"data":[{",".join([value] * 100)}]}}'.encode()).is_readable
    reply = read_reply(200, f'{{"data":[{",".join([value] * 60_000)}]}}'.encode())
    assert (reply.is_readable, reply.items) == (False, ())
