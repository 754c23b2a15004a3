"""What a client may ask for beside the body, and what it is told beside the answer."""

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.native.submit_headers import MAX_WAIT_SECONDS, cancel_after, preferred_wait
from gateway.errors import InvalidRequest
from gateway.ids import parse_id
from gateway.jobs import service
from gateway.jobs.reaper import reap
from gateway.storage import StoreUnavailable
from tests.factories import until
from tests.gateway.api.installation import Customer, Installation

PATH = "/v1/audio/generations"
BODY = {"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5}
IN_10_MINUTES = timedelta(minutes=10, seconds=5)


async def send(
    customer: Customer, *, retry: int | None = None, key: str | None = None, **others: Any
) -> httpx.Response:
    """A submit as the OpenAI clients send it: a count of retries, no idempotency key."""
    headers = customer.headers(key)
    if retry is not None:
        headers["x-stainless-retry-count"] = str(retry)
    body = others.pop("body", BODY)
    return await customer.http.post(PATH, json=body, headers=headers | others)


async def make_older(customer: Customer, job_id: str, age: timedelta) -> None:
    """Move a job into the past, with the slot in which a retry looks for it."""
    await customer.live.pool.execute(
        """
        UPDATE job SET created_at = created_at - $2::interval,
                       retry_slot = retry_slot - ((extract(epoch FROM created_at)::bigint / 60
                           - extract(epoch FROM created_at - $2::interval)::bigint / 60) << 32)
         WHERE id = $1
        """,
        parse_id(job_id),
        age,
    )


async def test_a_retry_without_a_key_is_the_job_of_the_first_try(customer: Customer) -> None:
    first = await send(customer, retry=0)
    again = [await send(customer, retry=count) for count in (1, 2)]
    assert [answer.status_code for answer in (first, *again)] == [202] * 3
    assert {answer.json()["id"] for answer in again} == {first.json()["id"]}
    assert [answer.headers.get("idempotent-replayed") for answer in (first, *again)] == [None, "true", "true"]
    assert await customer.count_jobs() == 1


async def test_retries_that_overtake_the_first_try_are_one_job(customer: Customer) -> None:
    answers = await asyncio.gather(*(send(customer, retry=count % 3 + 1) for count in range(12)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await customer.count_jobs() == 1


async def test_a_request_that_is_sent_twice_on_purpose_is_two_jobs(customer: Customer) -> None:
    answers = [await send(customer, retry=retry) for retry in (None, None, 0)]
    assert len({answer.json()["id"] for answer in answers}) == 3


async def test_a_retry_is_the_newest_job_of_its_request(customer: Customer) -> None:
    answers = [await send(customer, retry=retry) for retry in (0, 0, 1)]
    assert answers[2].json()["id"] == answers[1].json()["id"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"body": BODY | {"prompt": "a loud piano"}}, id="another body"),
        pytest.param({"body": dict(reversed(BODY.items()))}, id="other bytes"),
    ],
)
async def test_a_retry_of_something_else_is_a_new_job(customer: Customer, other: dict[str, Any]) -> None:
    first = await send(customer, retry=0)
    second = await send(customer, retry=1, **other)
    assert second.json()["id"] != first.json()["id"]


async def test_a_retry_by_another_key_is_a_new_job(customer: Customer) -> None:
    first = await send(customer, retry=0)
    second = await send(customer, retry=1, key=await customer.key())
    assert second.json()["id"] != first.json()["id"]


@pytest.mark.parametrize("minutes", [1, 5, 9])
async def test_a_retry_is_known_for_ten_minutes(customer: Customer, minutes: int) -> None:
    first = (await send(customer, retry=0)).json()["id"]
    await make_older(customer, first, timedelta(minutes=minutes, seconds=50))
    assert (await send(customer, retry=1)).json()["id"] == first
    await make_older(customer, first, IN_10_MINUTES)
    assert (await send(customer, retry=2)).json()["id"] != first


async def test_a_retry_with_an_idempotency_key_goes_by_the_key(customer: Customer) -> None:
    first = await send(customer, retry=0)
    keyed = [await send(customer, retry=retry, **{"idempotency-key": "mine"}) for retry in (1, 2)]
    assert keyed[0].json()["id"] == keyed[1].json()["id"] != first.json()["id"]


@pytest.mark.parametrize("count", ["x", "-1", "1.5", "", "9" * 400])
async def test_a_count_of_retries_that_is_none_is_ignored(customer: Customer, count: str) -> None:
    answers = [await send(customer, **{"x-stainless-retry-count": count}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert await customer.count_jobs() == 2


async def test_a_replay_is_not_counted(customer: Customer) -> None:
    key = await customer.key(requests_per_minute=2, max_open_jobs=2)
    await send(customer, key=key)
    for _ in range(5):
        answer = await send(customer, key=key, retry=1)
        assert (answer.status_code, answer.headers["x-ratelimit-remaining-requests"]) == (202, "1")


async def test_a_limited_key_is_told_what_is_left(customer: Customer) -> None:
    key = await customer.key(requests_per_minute=2)
    answers = [await send(customer, key=key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert [answer.headers["x-ratelimit-limit-requests"] for answer in answers] == ["2"] * 3
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    for answer in answers:
        assert 0 < int(answer.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
        assert "x-ratelimit-limit-jobs" not in answer.headers
    assert 0 < int(answers[2].headers["retry-after"]) <= 60


async def test_a_key_is_told_how_many_jobs_it_may_still_have(customer: Customer) -> None:
    key = await customer.key(max_open_jobs=1)
    answers = [await send(customer, key=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 429]
    assert [answer.headers["x-ratelimit-remaining-jobs"] for answer in answers] == ["0", "0"]
    assert answers[1].json()["error"]["code"] == "concurrency_limit_exceeded"
    await customer.http.delete(f"/v1/jobs/{answers[0].json()['id']}", headers=customer.headers(key))
    assert (await send(customer, key=key)).headers["x-ratelimit-limit-jobs"] == "1"


async def test_a_key_without_limits_is_told_of_none(customer: Customer) -> None:
    answer = await send(customer)
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_a_job_is_cancelled_when_its_time_is_over(
    customer: Customer, installation: Installation
) -> None:
    job = (await send(customer, **{"cancel-after": "30"})).json()
    later = (await send(customer, **{"cancel-after": "86400"})).json()
    await reap(installation.live.pool)
    assert (await customer.job(job["id"]))["status"] == "queued"
    await _let_pass(installation, job["id"])
    await reap(installation.live.pool)
    ended = await customer.job(job["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "job_cancelled")
    assert (ended["cost"]["charged"], ended["cost"]["usd"]) == (False, "0.000000000")
    assert (await customer.job(later["id"]))["status"] == "queued"


async def test_a_running_job_is_asked_to_end_when_its_time_is_over(
    customer: Customer, installation: Installation
) -> None:
    job = (await send(customer, **{"cancel-after": "30"})).json()
    await _let_pass(installation, job["id"])
    claim = await installation.claim(job["id"])
    await reap(installation.live.pool)
    assert (await customer.job(job["id"]))["cancel_requested_at"] is not None
    assert claim.job_id == parse_id(job["id"])


async def test_a_job_whose_time_is_over_is_not_charged_even_if_its_music_comes_first(
    customer: Customer, installation: Installation
) -> None:
    job = (await send(customer, **{"cancel-after": "30"})).json()
    claim = await installation.claim(job["id"])
    await _let_pass(installation, job["id"])
    await installation.end(claim)
    ended = await customer.job(job["id"])
    assert (ended["error"]["code"], ended["cost"]["charged"]) == ("job_cancelled", False)


async def test_time_ends_nothing_that_has_ended(customer: Customer, installation: Installation) -> None:
    job = (await send(customer, **{"cancel-after": "30"})).json()
    await installation.finish(job["id"])
    await _let_pass(installation, job["id"])
    await reap(installation.live.pool)
    assert (await customer.job(job["id"]))["status"] == "completed"


@pytest.mark.parametrize(
    ("header", "value", "suggestion"),
    [
        ("cancel-after", "0", "1"),
        ("cancel-after", "86401", "86400"),
        ("cancel-after", "soon", "86400"),
        ("cancel-after", "1.5", "86400"),
        ("cancel-after", "-3", "86400"),
        ("cancel-after", "", "86400"),
        ("prefer", "wait=56", "wait=55"),
        ("prefer", "wait=x", "wait=55"),
        ("prefer", "respond-async, wait=-1", "wait=55"),
    ],
)
async def test_times_that_cannot_be_meant_are_refused(
    customer: Customer, header: str, value: str, suggestion: str
) -> None:
    answer = await send(customer, **{header: value})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["suggestion"]) == (400, "invalid_request", suggestion)
    assert error["param"].lower() == header
    assert await customer.count_jobs() == 0


def test_preferences_are_read_as_the_standard_has_them() -> None:
    assert preferred_wait(None) is None
    assert preferred_wait("respond-async") is None
    assert preferred_wait("wait") == MAX_WAIT_SECONDS
    assert preferred_wait('Respond-Async, WAIT = "7"; q=1, x=y') == 7
    assert preferred_wait("waiting=3") is None
    assert preferred_wait('return="a, wait=zz", wait=3') == 3


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_is_more_than_refused(text: str) -> None:
    for read in (preferred_wait, cancel_after):
        try:
            read(text)
        except InvalidRequest as error:
            assert error.param in {"Prefer", "Cancel-After"}  # noqa: PT017 - a value or this error


async def test_a_repeat_does_not_wait_for_ever_on_an_undecided_first_request(
    customer: Customer, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "IN_PROGRESS_SECONDS", 0.2)
    async with installation.live.pool.acquire() as conn, conn.transaction():
        await conn.execute("SELECT 1 FROM account WHERE id = $1 FOR UPDATE", customer.organization_id)
        first = asyncio.create_task(customer.submit(idempotency_key="mine"))
        await asyncio.sleep(0.1)
        repeat = await customer.submit(idempotency_key="mine")
        assert (repeat.status_code, repeat.json()["error"]["code"]) == (409, "request_in_progress")
        assert (repeat.headers["retry-after"], repeat.json()["error"]["retryable"]) == ("1", True)
    assert (await first).status_code == 202
    replay = await customer.submit(idempotency_key="mine")
    assert replay.json()["id"] == (await first).json()["id"]
    assert await customer.count_jobs() == 1


async def _let_pass(installation: Installation, job_id: str) -> None:
    """Until after the moment at which the job is to be cancelled."""
    moved: uuid.UUID | None = await installation.live.pool.fetchval(
        "UPDATE job SET cancel_at = now() - interval '1 s' WHERE id = $1 RETURNING id", parse_id(job_id)
    )
    assert moved is not None


async def test_who_prefers_to_wait_gets_the_finished_job(
    customer: Customer, installation: Installation
) -> None:
    waiting = asyncio.create_task(send(customer, prefer="wait=20"))
    job_id = await queued_job(customer)
    await installation.finish(job_id)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.headers["location"] == f"/v1/jobs/{job_id}"
    assert (await customer.http.get(answer.json()["result"]["data"][0]["url"])).status_code == 200


async def test_who_waits_in_vain_gets_the_job_as_it_stands(
    customer: Customer, installation: Installation
) -> None:
    waiting = asyncio.create_task(send(customer, prefer="wait=2"))
    job_id = await queued_job(customer)
    await installation.claim(job_id)
    answer = await waiting
    assert (answer.status_code, answer.json()["status"]) == (202, "processing")


async def test_a_job_that_fails_while_somebody_waits_is_told_at_once(customer: Customer) -> None:
    waiting = asyncio.create_task(send(customer, prefer="respond-async, wait"))
    job_id = await queued_job(customer)
    await customer.http.delete(f"/v1/jobs/{job_id}", headers=customer.headers())
    answer = await waiting
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, "job_cancelled")
    assert answer.headers["preference-applied"] == "wait=55"


async def test_after_the_commit_a_lost_audio_store_costs_the_inline_audio_alone(
    customer: Customer, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        await asyncio.sleep(0)
        raise StoreUnavailable("away")

    waiting = asyncio.create_task(send(customer, prefer="wait=20", body=BODY | {"return_base64": True}))
    job_id = await queued_job(customer)
    with monkeypatch.context() as patched:
        patched.setattr("gateway.storage.AudioStore.open", fail)
        await installation.finish(job_id)
        answer = await waiting
    (track,) = answer.json()["result"]["data"]
    assert (answer.status_code, "b64_json" in track, "url" in track) == (200, False, True)


async def test_a_replay_may_wait_as_well(customer: Customer, installation: Installation) -> None:
    first = (await send(customer, **{"idempotency-key": "mine"})).json()["id"]
    await installation.finish(first)
    again = [await send(customer, prefer=prefer, **{"idempotency-key": "mine"}) for prefer in ("", "wait=5")]
    assert [answer.status_code for answer in again] == [202, 200]
    assert {answer.json()["status"] for answer in again} == {"completed"}


async def queued_job(customer: Customer) -> str:
    """The customer's only waiting job, as soon as there is one."""
    found: list[str] = []

    async def look() -> bool:
        page = (await customer.get("/v1/jobs", status="queued")).json()
        found.extend(job["id"] for job in page["data"])
        return bool(found)

    await until(look, what="the job")
    return found[0]
