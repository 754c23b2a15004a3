"""WaveSpeed's submit: mapped, sent once, and every answer to it is certain or told as uncertain."""

import asyncio
import contextlib
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from gateway.backends.base import BackendUnavailable, Reason, SubmitAmbiguous
from gateway.backends.remote import connection
from gateway.backends.remote.connection import Timeouts
from gateway.backends.remote.provider import Refused
from gateway.generation import SAMPLE_RATE
from gateway.jobs.job import JobErrorCode
from tests.gateway.backends.wavespeed_account import MODEL, SHORT, Account, call
from tests.providers.wavespeed import Cut, Delay, Drip, Drop, Huge, Odd, Raw, Status

COST_NANO = 60 * 300_000


def sent(account: Account) -> dict[str, Any]:
    """What the last prediction was asked for."""
    return list(account.vendor.predictions.values())[-1].input


def longer_ago() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=2)


async def test_a_call_becomes_one_prediction_of_that_model(account: Account) -> None:
    ref = await account.provider.send(call())
    (prediction,) = account.vendor.predictions.values()
    assert (prediction.id, prediction.model) == (ref, MODEL)
    assert prediction.input == {
        "tags": "calm piano",
        "lyrics": "[instrumental]",
        "duration": 60,
        "seed": 7,
    }
    assert account.vendor.requests[0].headers["authorization"] == f"Bearer {account.vendor.key}"


async def test_what_has_no_field_there_is_told_in_words(account: Account) -> None:
    await account.provider.send(
        call(
            lyrics="[verse]\nla la",
            bpm=120,
            key_scale="F# minor",
            time_signature=6,
            vocal_language="de",
            frames=round(30.5 * SAMPLE_RATE),
        )
    )
    assert sent(account) == {
        "tags": "calm piano, 120 bpm, F# minor, 6/8 time, German vocals",
        "lyrics": "[verse]\nla la",
        "duration": 30.5,
        "seed": 7,
    }


async def test_variations_have_seeds_of_their_own_that_stay_in_range(account: Account) -> None:
    last = 2**31 - 1
    for first in range(3):
        await account.provider.send(call(first=first, seed=last - 1, n=3))
    assert [one.seed for one in account.vendor.predictions.values()] == [last - 1, last, 0]


async def test_a_webhook_is_asked_for_where_one_is_configured(account: Account) -> None:
    url = "https://music.example/webhooks/providers/wavespeed?a=1&b=ä"
    provider = account.client(webhook_url=url)
    await provider.send(call())
    await provider.close()
    assert account.vendor.requests[-1].query == {"webhook": url}
    assert [one.asked.webhook for one in account.vendor.predictions.values()] == [url]


@pytest.mark.parametrize(
    ("status", "reason", "seconds"),
    [
        (Status(401), Reason.MISCONFIGURED, None),
        (Status(403), Reason.MISCONFIGURED, None),
        (Status(404), Reason.MISCONFIGURED, None),
        (Status(405), Reason.MISCONFIGURED, None),
        (Status(307, location="http://169.254.169.254/"), Reason.MISCONFIGURED, None),
        (Status(402), Reason.NO_CREDIT, None),
        (Status(429, retry_after=7), Reason.RATE_LIMITED, 7.0),
        (Status(429, retry_after="99999999999"), Reason.RATE_LIMITED, 3600.0),
        (Status(429, retry_after="soon"), Reason.RATE_LIMITED, None),
        (Status(429, retry_after="-1"), Reason.RATE_LIMITED, None),
        (Status(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), Reason.RATE_LIMITED, 0.0),
        (Status(429, retry_after="Wed, 21 Oct 2015 99:99:99 GMT"), Reason.RATE_LIMITED, None),
        (Status(503, retry_after=3), Reason.OUTAGE, 3.0),
        (Status(503, body="<html>"), Reason.OUTAGE, None),
    ],
)
async def test_a_documented_refusal_started_nothing(
    account: Account, status: Status, reason: Reason, seconds: float | None
) -> None:
    account.vendor.fail_next("submit", status)
    with pytest.raises(BackendUnavailable) as refused:
        await account.provider.send(call())
    assert (refused.value.reason, refused.value.retry_after_seconds) == (reason, seconds)
    assert (account.vendor.submits, len(account.vendor.predictions)) == (1, 0)


async def test_an_empty_account_and_a_wrong_key_are_told_apart(account: Account) -> None:
    account.vendor.balance_nano = COST_NANO - 1
    with pytest.raises(BackendUnavailable) as refused:
        await account.provider.send(call())
    assert refused.value.reason is Reason.NO_CREDIT
    stranger = account.client(api_key="wrong")
    with pytest.raises(BackendUnavailable) as refused:
        await stranger.send(call())
    await stranger.close()
    assert refused.value.reason is Reason.MISCONFIGURED


@pytest.mark.parametrize(
    ("code", "error", "retryable"),
    [
        (1200, JobErrorCode.CONTENT_POLICY_VIOLATION, False),
        (1201, JobErrorCode.CONTENT_POLICY_VIOLATION, False),
        (1400, JobErrorCode.UPSTREAM_ERROR, True),
        (1401, JobErrorCode.UPSTREAM_ERROR, True),
    ],
)
async def test_a_refusal_of_what_is_in_the_request_is_final_only_for_content(
    account: Account, code: int, error: JobErrorCode, *, retryable: bool
) -> None:
    body = f'{{"code":400,"message":"the secret prompt is bad","data":{{"code":{code}}}}}'
    account.vendor.fail_next("submit", Status(400, body=body))
    with pytest.raises(Refused) as refused:
        await account.provider.send(call())
    failed = refused.value.failed
    assert (failed.code, failed.retryable) == (error, retryable)
    assert "secret" not in failed.message


@pytest.mark.parametrize("status", [Status(400, body="[" * 100_000), Status(413), Status(422, body="")])
async def test_any_other_refusal_may_be_tried_elsewhere(account: Account, status: Status) -> None:
    account.vendor.fail_next("submit", status)
    with pytest.raises(Refused) as refused:
        await account.provider.send(call())
    assert refused.value.failed.retryable


async def test_what_the_model_does_not_take_is_our_fault_and_may_be_tried_elsewhere(account: Account) -> None:
    with pytest.raises(Refused) as refused:
        await account.provider.send(call(frames=241 * SAMPLE_RATE))
    assert refused.value.failed.retryable


AMBIGUOUS = [
    Drop(),
    Drop(after_accepting=True),
    Cut(),
    Raw(),
    Raw(instead_of_http=True),
    Raw(b""),
    Status(500),
    Status(500, after_accepting=True),
    Status(502, body="<html>bad gateway</html>"),
    Status(504, after_accepting=True),
    Status(524),
    Status(408),
    Status(204, body=""),
    *(
        Odd(kind)
        for kind in (
            "nulls",
            "wrong_types",
            "deep",
            "bare",
            "no_data",
            "no_id",
            "list",
            "path_in_id",
            "long_id",
        )
    ),
]


@pytest.mark.parametrize("fault", AMBIGUOUS, ids=repr)
async def test_whatever_may_have_started_something_is_ambiguous_and_never_sent_again(
    account: Account, fault: Any
) -> None:
    account.vendor.fail_next("submit", fault)
    began = longer_ago()
    with pytest.raises(SubmitAmbiguous) as lost:
        await account.provider.send(call())
    assert lost.value.cost_nano == COST_NANO
    assert account.vendor.submits == 1
    accepted = list(account.vendor.predictions)
    assert len(accepted) == getattr(fault, "after_accepting", True)  # faults without it answer, in a way
    assert await account.provider.find(call(), since=began) == (accepted[0] if accepted else None)
    assert account.vendor.submits == 1


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
async def test_an_answer_without_end_is_not_read_to_its_end(account: Account, *, compressed: bool) -> None:
    size = 100_000_000 if compressed else 1_000_000_000
    account.vendor.fail_next("submit", Huge(bytes_count=size, compressed=compressed))
    with pytest.raises(SubmitAmbiguous):
        await account.provider.send(call())


@pytest.mark.parametrize(
    "fault", [Delay(30), Delay(30, after_accepting=True), Drip(pause_seconds=0.02)], ids=repr
)
async def test_a_submit_ends_at_its_deadline(account: Account, fault: Any) -> None:
    hasty = account.client(timeouts=SHORT)
    account.vendor.fail_next("submit", fault)
    with pytest.raises(SubmitAmbiguous):
        await hasty.send(call())
    await hasty.close()
    assert account.vendor.submits == 1


async def test_a_vendor_that_takes_no_connection_took_nothing(account: Account) -> None:
    async with account.vendor.down():
        with pytest.raises(BackendUnavailable) as refused:
            await account.provider.send(call())
    assert refused.value.reason is Reason.OUTAGE
    assert account.vendor.submits == 0


async def test_a_handshake_that_does_not_end_sent_nothing(account: Account) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hasty = account.client(timeouts=SHORT, base_url=f"https://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(BackendUnavailable) as refused:
            await hasty.send(call())
        await hasty.close()
    assert refused.value.reason is Reason.OUTAGE


async def test_a_deadline_before_anything_was_written_sent_nothing(account: Account) -> None:
    """The deadline itself tells nothing; how far the request has come does."""
    with contextlib.ExitStack() as sockets:
        deaf = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # no room for another connection
            caller = sockets.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        hasty = account.client(timeouts=Timeouts(submit=0.1), base_url=url)
        with pytest.raises(BackendUnavailable):
            await hasty.send(call())
        await hasty.close()


async def test_what_waits_for_a_connection_of_ours_was_not_sent(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_MAX_CONNECTIONS", 1)
    hasty = account.client(timeouts=Timeouts(connect=0.1))
    account.vendor.fail_next("submit", Delay(30))
    hanging = asyncio.create_task(hasty.send(call()))
    while account.vendor.submits == 0:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0)
    with pytest.raises(BackendUnavailable):
        await hasty.send(call(seed=8))
    account.vendor.clear_faults()
    assert [await hanging] == list(account.vendor.predictions)
    await hasty.close()


async def test_a_connection_that_was_closed_in_the_meantime_is_not_used_again(account: Account) -> None:
    first = await account.provider.send(call())
    async with account.vendor.down():
        pass
    second = await account.provider.send(call(seed=8))
    assert [first, second] == list(account.vendor.predictions)
    assert account.vendor.submits == 2


async def test_a_task_that_is_not_repeated_in_the_list_is_found_by_asking_for_it(account: Account) -> None:
    began = longer_ago()
    refs = [await account.provider.send(call(seed=seed)) for seed in (7, 8, 9)]
    items = [{"id": ref, "model": MODEL, "status": "processing", "created_at": "?"} for ref in refs]
    page = Raw(msgspec.json.encode({"code": 200, "data": {"page": 1, "items": items}}))
    account.vendor.fail_next("list", page, times=2)
    assert await account.provider.find(call(seed=9), since=began) == refs[2]
    account.vendor.requests.clear()
    assert await account.provider.find(call(seed=10), since=began) is None
    assert account.vendor.polls == 3


async def test_find_tells_calls_apart_by_all_that_is_in_them(account: Account) -> None:
    began = longer_ago()
    ref = await account.provider.send(call(lyrics="la la"))
    assert await account.provider.find(call(lyrics="la la"), since=began) == ref
    others = [
        call(),
        call(lyrics="la"),
        call(lyrics="la la", seed=8),
        call(lyrics="la la", first=1, n=2),
        call(lyrics="la la", prompt="calm pianos"),
        call(lyrics="la la", frames=61 * SAMPLE_RATE),
        call(lyrics="la la", model="wavespeed-ai/ace-step"),
    ]
    assert [await account.provider.find(other, since=began) for other in others] == [None] * len(others)


async def test_find_takes_the_twin_that_began_nearest_and_none_from_long_before(account: Account) -> None:
    refs = [await account.provider.send(call()) for _ in range(3)]
    now = datetime.now(UTC)
    for ref, seconds in zip(refs, (300, 20, 3), strict=True):
        account.vendor.predictions[ref].created_at = now - timedelta(seconds=seconds)
    find = account.provider.find
    assert await find(call(), since=now - timedelta(seconds=4)) == refs[2]
    assert await find(call(), since=now - timedelta(seconds=21)) == refs[1]
    assert await find(call(), since=now + timedelta(seconds=58)) is None


async def test_a_list_that_does_not_filter_does_not_lead_to_an_old_twin(account: Account) -> None:
    old = {
        "id": "old",
        "model": MODEL,
        "created_at": "2025-05-19T06:09:15.948268264Z",
        "input": {"tags": "calm piano", "lyrics": "[instrumental]", "duration": 60, "seed": 7},
    }
    page = Raw(msgspec.json.encode({"code": 200, "data": {"page": 1, "items": [old]}}))
    account.vendor.fail_next("list", page, times=2)
    assert await account.provider.find(call(), since=datetime.now(UTC)) is None
    assert await account.provider.find(call(), since=datetime(2025, 5, 19, 6, 9, 14, tzinfo=UTC)) == "old"


async def test_find_reads_on_where_the_list_has_many_pages(account: Account) -> None:
    began = longer_ago()
    ref = await account.provider.send(call())
    prediction = account.vendor.predictions[ref]
    booked = account.vendor.accounts[account.vendor.key]
    for seed in range(1000, 1150):
        booked.accept(
            type(prediction.asked)(
                **{**_fields(prediction.asked), "input": {**prediction.input, "seed": seed}}
            ),
            account.vendor.url,
            outcome=None,
            outputs=None,
        )
    assert await account.provider.find(call(), since=began) == ref
    assert [one.json()["page"] for one in account.vendor.requests if one.kind == "list"] == [1, 2]


def _fields(asked: Any) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in asked.__struct_fields__}


@pytest.mark.parametrize(
    "fault", [Status(429, retry_after=2), Status(500), Drop(), Raw(), Odd("deep"), Odd("list")]
)
async def test_a_list_that_cannot_be_had_is_not_taken_for_an_empty_one(account: Account, fault: Any) -> None:
    ref = await account.provider.send(call())
    account.vendor.fail_next("list", fault)
    with pytest.raises(BackendUnavailable):
        await account.provider.find(call(), since=longer_ago())
    assert await account.provider.find(call(), since=longer_ago()) == ref
