"""Several songs of one request: held, told and charged for each; and songs shorter than was held for."""

import base64
from typing import Any

import pytest

import billing
from tests.gateway.api.installation import SONG, Customer, Installation
from tests.gateway.api.test_quotes import agree, quoted

URL = "https://music.example/song.flac"


async def ended(customer: Customer, job: dict[str, Any]) -> dict[str, Any]:
    found = await customer.job(job["id"])
    assert found["status"] == "completed"
    return found


@pytest.mark.parametrize("seconds", [5, 5.0004, 12.3456])
@pytest.mark.parametrize("n", [1, 3, 8])
async def test_a_quote_is_what_all_variations_then_cost(
    customer: Customer, installation: Installation, n: int, seconds: float
) -> None:
    await agree(customer, 299_999)
    told = await quoted(customer, n=n, audio_duration=seconds)
    job = await customer.submitted(n=n, audio_duration=seconds)
    await installation.finish(job["id"])
    done = await ended(customer, job)
    frames = n * round(seconds * 48_000)
    milliseconds = -(-frames // 48)
    assert told["outputs"] == n
    assert told["billable_seconds"] == done["cost"]["billed_seconds"] == milliseconds / 1000
    cost = billing.format_usd(-(-milliseconds * 299_999 // 1000))
    assert {told["max_cost_usd"], job["cost"]["held_usd"], done["cost"]["usd"]} == {cost}
    assert done["result"]["usage"]["billable_units"] == milliseconds / 1000
    assert (await customer.get("/v1/balance")).json()["held_usd"] == "0.000000000"


async def test_each_variation_is_a_result_of_its_own_with_the_next_seed(
    customer: Customer, installation: Installation
) -> None:
    job = await customer.submitted(n=3, seed=2**32 - 2, return_base64=True, format="mp3")
    assert (await customer.stored(job)).n == 3
    await installation.finish(job["id"])
    data = (await ended(customer, job))["result"]["data"]
    assert [one["seed"] for one in data] == [2**32 - 2, 2**32 - 1, 0]
    assert [one["duration_seconds"] for one in data] == [5.0, 5.0, 5.0]
    assert len({one["url"].partition("?")[0] for one in data}) == 3
    assert [base64.b64decode(one["b64_json"]) for one in data] == [SONG] * 3
    for one in data:
        assert (await customer.http.get(one["url"])).content == SONG


async def test_a_cancelled_job_costs_nothing_for_any_variation(customer: Customer) -> None:
    job = await customer.submitted(n=8)
    assert job["cost"]["held_usd"] == "0.010000000"
    await customer.http.delete(f"/v1/jobs/{job['id']}", headers=customer.headers())
    assert (await customer.get("/v1/balance")).json()["available_usd"] == "5.000000000"


async def test_more_variations_than_there_is_credit_for_are_refused(installation: Installation) -> None:
    customer = await installation.customer(usd="0.01")
    answer = await customer.submit(n=8, audio_duration=5.001)
    assert (answer.status_code, answer.json()["error"]["required_usd"]) == (402, "0.010002000")
    await customer.submitted(n=8, audio_duration=5)


async def test_what_turns_out_shorter_is_charged_by_what_came(
    customer: Customer, installation: Installation
) -> None:
    body = {"task": "cover", "source_audio": URL, "audio_duration": None, "n": 2}
    told = await quoted(customer, **body)
    job = await customer.submitted(**body)
    assert told["max_cost_usd"] == job["cost"]["held_usd"] == "0.300000000"
    assert (job["task"], told["task"], told["billable_seconds"]) == ("cover", "cover", 1200.0)
    await installation.finish(job["id"], frames=[20 * 48_000, 20 * 48_000 + 1])
    done = await ended(customer, job)
    assert (done["cost"]["usd"], done["cost"]["billed_seconds"]) == ("0.010000250", 40.001)
    balance = (await customer.get("/v1/balance")).json()
    assert (balance["balance_usd"], balance["held_usd"]) == ("4.989999750", "0.000000000")
    events = (await customer.get("/v1/account/usage")).json()["data"]
    assert [(event["billable_units"], event["cost_usd"]) for event in events] == [(40.001, "0.010000250")]


async def test_a_live_key_may_not_agree_to_less_than_all_variations_cost(customer: Customer) -> None:
    answer = await customer.submit(n=4, max_cost_usd="0.00125")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "price_changed")
    await customer.submitted(n=4, max_cost_usd="0.005")


async def test_songs_in_base64_are_as_many_as_one_answer_can_hold(customer: Customer) -> None:
    answer = await customer.submit(n=4, audio_duration=200, response_format="b64_json")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["suggestion"]) == (400, "n", "3")
    await customer.submitted(n=3, audio_duration=200, response_format="b64_json")
    await customer.submitted(n=4, audio_duration=200)
