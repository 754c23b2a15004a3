"""What a request can cost is told before it is made, exactly, and nobody pays more than they agreed to."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

import billing
from gateway.config_watch import bump_revision
from tests.factories import until
from tests.gateway.api.installation import Customer, Installation

USD_PER_SECOND = "0.000250000"


async def quote(customer: Customer, *, key: str | None = None, **body: Any) -> httpx.Response:
    """POST a quote for what `customer.submit` would order."""
    body = {"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5} | body
    return await customer.http.post("/v1/audio/quotes", json=body, headers=customer.headers(key))


async def quoted(customer: Customer, **options: Any) -> dict[str, Any]:
    answer = await quote(customer, **options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def agree(customer: Customer, nano_per_second: int, **options: Any) -> billing.Price:
    """A price for this customer alone, in force in this process when it returns."""
    async with customer.live.pool.acquire() as conn, conn.transaction():
        price = await billing.set_price(
            conn,
            model="sandbox",
            nano_per_second=nano_per_second,
            account_id=customer.organization_id,
            **options,
        )
        await bump_revision(conn)
    await customer.live.jobs._prices._watch.refresh()
    return price


async def pricing_of(customer: Customer) -> dict[str, Any]:
    return dict((await customer.get("/v1/models/sandbox")).json()["pricing"])


async def spend_everything(customer: Customer) -> None:
    async with customer.live.pool.acquire() as conn:
        account = await billing.read_account(conn, customer.organization_id)
    await agree(customer, account.available_nano // 5)
    await customer.submitted(audio_duration=5)


async def test_a_quote_is_what_the_submit_then_holds(customer: Customer) -> None:
    for seconds in (5, 5.0004, 12.3456, 600):
        told = await quoted(customer, audio_duration=seconds)
        cost = (await customer.submitted(audio_duration=seconds))["cost"]
        assert (told["max_cost_usd"], told["usd_per_second"]) == (cost["held_usd"], cost["usd_per_second"])


async def test_a_quote_has_everything_and_writes_nothing(customer: Customer) -> None:
    before = (await customer.get("/v1/balance")).json()
    start = datetime.now(UTC)
    told = await quoted(customer, audio_duration=12.5, num_inference_steps=8)
    expires_at = datetime.fromisoformat(told.pop("expires_at"))
    assert timedelta(minutes=9) < expires_at - start <= timedelta(minutes=10, seconds=20)
    assert told == {
        "object": "quote",
        "model": "sandbox",
        "task": "text2music",
        "max_cost_usd": "0.003125000",
        "usd_per_second": USD_PER_SECOND,
        "list_usd_per_second": USD_PER_SECOND,
        "billable_seconds": 12.5,
        "outputs": 1,
        "price_version": (await pricing_of(customer))["price_version"],
        "available_usd": "5.000000000",
        "warnings": ["num_inference_steps has no effect on sandbox and was ignored"],
        "test": False,
    }
    assert (await customer.get("/v1/balance")).json() == before
    assert await customer.count_jobs() == 0


@pytest.mark.parametrize(
    ("wrong_key", "body"),
    [
        (True, {"bpm": "fast", "model": "none"}),
        (False, {"bpm": "fast", "model": "none"}),
        (False, {"nonsense": 1}),
        (False, {"bpm": 1}),
        (False, {"prompt": ""}),
        (False, {"metadata": {"k" * 100: "v"}}),
        (False, {"max_cost_usd": "a lot"}),
        (False, {"model": "none"}),
        (False, {"model": "ace-step-1.5-xl", "audio_duration": 30}),
    ],
)
async def test_a_quote_refuses_what_a_submit_refuses(
    customer: Customer,
    wrong_key: bool,  # noqa: FBT001 - a case of the table
    body: dict[str, Any],
) -> None:
    key = "nonsense" if wrong_key else customer.live_key
    one, other = await quote(customer, key=key, **body), await customer.submit(key=key, **body)
    told = []
    for answer in (one, other):
        error = answer.json()["error"]
        error.pop("request_id")
        told.append((answer.status_code, error, answer.headers.get("x-should-retry")))
    assert told[0] == told[1]
    assert told[0][0] >= 400


async def test_a_key_for_other_models_gets_no_quote_and_one_that_may_only_read_does(
    customer: Customer,
) -> None:
    other = await customer.key(models=["ace-step"])
    answer = await quote(customer, key=other)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")
    assert (await quote(customer, key=await customer.key(scopes=["read"]))).status_code == 200
    assert (await quote(customer, key=await customer.key(scopes=["generate"]))).status_code == 403


async def test_a_quote_counts_against_no_limit(customer: Customer) -> None:
    key = await customer.key(requests_per_minute=1)
    for _ in range(3):
        assert "x-ratelimit-limit-requests" not in (await quote(customer, key=key)).headers
    await customer.submitted(key=key)


async def test_without_credit_there_are_still_quotes(customer: Customer) -> None:
    await spend_everything(customer)
    assert (await customer.submit()).status_code == 402
    told = await quoted(customer)
    assert (told["available_usd"], told["max_cost_usd"]) == ("0.000000000", "5.000000000")


async def test_a_test_key_is_told_what_a_live_key_would_pay(customer: Customer) -> None:
    live, test = await quoted(customer), await quoted(customer, key=customer.test_key)
    differing = {name for name in live if live[name] != test[name]} - {"expires_at"}
    assert (differing, test["test"], test["max_cost_usd"]) == ({"test"}, True, "0.001250000")
    dear = await quoted(customer, key=customer.test_key, model="ace-step-1.5-xl-base", audio_duration=600)
    assert dear["max_cost_usd"] == "0.600000000"


async def test_the_rate_card_and_the_quote_show_the_discounted_price(customer: Customer) -> None:
    version = await agree(customer, 200_000, was_nano_per_second=250_000, discount_ppm=125_000)
    assert await pricing_of(customer) == {
        "usd_per_second": "0.000175000",
        "list_usd_per_second": "0.000200000",
        "discount_percent": "12.5",
        "was_usd_per_second": "0.000250000",
        "price_version": version.id.hex,
        "changes_at": None,
        "next_usd_per_second": None,
        "billing_unit": "second",
    }
    told = await quoted(customer, audio_duration=10)
    assert (told["usd_per_second"], told["list_usd_per_second"]) == ("0.000175000", "0.000200000")
    assert (told["max_cost_usd"], told["price_version"]) == ("0.001750000", version.id.hex)


async def test_a_discounted_job_shows_and_is_charged_the_price_of_the_card(
    customer: Customer, installation: Installation
) -> None:
    await agree(customer, 200_000, discount_ppm=125_000)
    job = await customer.submitted(audio_duration=10)
    await agree(customer, 300_000)
    await installation.finish(job["id"])
    ended = (await customer.job(job["id"]))["cost"]
    assert job["cost"]["usd_per_second"] == ended["usd_per_second"] == "0.000175000"
    assert (ended["usd"], ended["held_usd"]) == ("0.001750000", "0.001750000")
    listed = (await customer.get("/v1/jobs")).json()["data"]
    assert [one["cost"]["usd_per_second"] for one in listed] == ["0.000175000"]


async def test_a_change_ahead_is_told_and_ends_quotes_early(customer: Customer) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=3)
    await agree(customer, 300_000, effective_from=soon)
    pricing = await pricing_of(customer)
    assert (pricing["usd_per_second"], pricing["next_usd_per_second"]) == (USD_PER_SECOND, "0.000300000")
    assert datetime.fromisoformat(pricing["changes_at"]) == soon
    assert datetime.fromisoformat((await quoted(customer))["expires_at"]) == soon
    await agree(customer, 250_000, effective_from=soon)
    assert (await pricing_of(customer))["changes_at"] is None


async def test_a_scheduled_price_comes_without_anybody_being_told(customer: Customer) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=0.7)
    await agree(customer, 400_000, effective_from=moment)
    revision = customer.live.jobs._prices._watch.revision

    async def is_there() -> bool:
        told = await quoted(customer)
        if datetime.now(UTC) < moment:
            assert told["usd_per_second"] == USD_PER_SECOND
        return bool(told["usd_per_second"] == "0.000400000")

    await until(is_there, what="the new price")
    assert datetime.now(UTC) >= moment
    assert (await customer.submitted())["cost"]["usd_per_second"] == "0.000400000"
    assert await customer.live.pool.fetchval("SELECT revision FROM config_revision") == revision


@pytest.mark.parametrize(
    "written", ['"0.00125"', "0.00125", "1.25e-3", '"0.001250000"', "125E-5", "1", '"9999999999"']
)
async def test_a_cost_within_what_was_agreed_is_accepted(customer: Customer, written: str) -> None:
    assert (await submit_raw(customer, written)).status_code == 202


@pytest.mark.parametrize(
    "written", ['"0.001249999"', "0.001249999", "1249.999e-6", "0", "-0.0", '"0"', "1e-9"]
)
async def test_a_cost_above_it_by_a_nano_is_refused(customer: Customer, written: str) -> None:
    answer = await submit_raw(customer, written)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["retryable"]) == ("price_changed", "max_cost_usd", False)
    assert (error["required_usd"], error["suggestion"]) == ("0.001250000", "0.001250000")
    assert float(error["max_cost_usd"]) == pytest.approx(float(json.loads(written)))
    assert error["price_version"] == (await pricing_of(customer))["price_version"]
    assert await customer.count_jobs() == 0
    assert (await customer.get("/v1/balance")).json()["held_usd"] == "0.000000000"


@pytest.mark.parametrize("written", ["null", None])
async def test_without_a_most_there_is_none(customer: Customer, written: str | None) -> None:
    assert (await submit_raw(customer, written)).status_code == 202


@pytest.mark.parametrize(
    ("written", "suggestion"),
    [
        ('"-0.01"', "0"),
        ("-0.01", "0"),
        ("-1e-5", "0"),
        ("0.0012500001", "0.001250000"),
        ('"0.9999999999"', "0.999999999"),
        ("0.30000000000000004", "0.300000000"),
        ("1e-10", "0.000000000"),
        ('"NaN"', "0.05"),
        ('"Infinity"', "0.05"),
        ('"1e-3"', "0.05"),
        ('"1_0"', "0.05"),
        ('" 1"', "0.05"),
        ('"\N{FULLWIDTH DIGIT ONE}"', "0.05"),
        ('"1,5"', "0.05"),
        ('".5"', "0.05"),
        ('""', "0.05"),
        ('"\\u0000"', "0.05"),
        ("true", "0.05"),
        ("[1]", "0.05"),
        ('{"usd": 1}', "0.05"),
        ("1e1000", "0.05"),
        ("1e-999999999999", "0.05"),
        ("9" * 65, "0.05"),
    ],
)
async def test_what_is_no_amount_is_refused_by_name(
    customer: Customer, written: str, suggestion: str
) -> None:
    for key in (customer.live_key, customer.test_key):
        answer = await submit_raw(customer, written, key=key)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert (error["code"], error["param"], error["suggestion"]) == (
            "invalid_request",
            "max_cost_usd",
            suggestion,
        )
    assert await customer.count_jobs() == 0


@pytest.mark.parametrize(
    "written", ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x1", '"\\ud800"']
)
async def test_what_is_no_json_is_refused(customer: Customer, written: str) -> None:
    assert (await submit_raw(customer, written)).json()["error"]["code"] == "invalid_request"


async def test_a_test_key_can_try_a_changed_price(customer: Customer) -> None:
    answer = await customer.submit(key=customer.test_key, max_cost_usd="0.001")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "price_changed")
    assert (await customer.submit(key=customer.test_key, max_cost_usd="0.00125")).status_code == 202


async def test_a_changed_price_is_told_after_the_route_and_before_limits_and_credit(
    installation: Installation,
) -> None:
    customer = await installation.customer(usd="0")
    key = await customer.key(requests_per_minute=1)
    for body, code in (
        ({"model": "ace-step-1.5-xl", "audio_duration": 30}, "model_unavailable"),
        ({}, "price_changed"),
        ({}, "price_changed"),
        ({"max_cost_usd": None}, "insufficient_credits"),
    ):
        answer = await customer.submit(key=key, **({"max_cost_usd": 0} | body))
        assert answer.json()["error"]["code"] == code


async def test_a_quote_keeps_its_word_or_the_submit_is_refused(customer: Customer) -> None:
    told = await quoted(customer, audio_duration=30)
    await agree(customer, 250_001)
    answer = await customer.submit(audio_duration=30, max_cost_usd=told["max_cost_usd"])
    assert answer.json()["error"]["code"] == "price_changed"
    again = await quoted(customer, audio_duration=30, max_cost_usd=told["max_cost_usd"])
    assert answer.json()["error"]["required_usd"] == again["max_cost_usd"]
    assert answer.json()["error"]["price_version"] == again["price_version"]
    job = await customer.submitted(audio_duration=30, max_cost_usd=again["max_cost_usd"])
    assert job["cost"]["held_usd"] == again["max_cost_usd"] == "0.007500030"
    await agree(customer, 1)
    assert (await customer.submit(max_cost_usd=told["max_cost_usd"])).status_code == 202


async def test_an_accepted_job_is_replayed_at_its_own_price(customer: Customer) -> None:
    key = uuid.uuid4().hex
    first = await customer.submitted(idempotency_key=key, max_cost_usd="0.00125")
    await agree(customer, 250_001)
    answer = await customer.submit(idempotency_key=key, max_cost_usd="0.00125")
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (202, "true")
    assert (answer.json()["id"], answer.json()["cost"]) == (first["id"], first["cost"])
    other = await customer.submit(idempotency_key=key, max_cost_usd="0.001")
    assert other.json()["error"]["code"] in {"price_changed", "idempotency_key_reused"}
    fresh = await customer.submit(idempotency_key=uuid.uuid4().hex, max_cost_usd="0.00125")
    assert fresh.json()["error"]["code"] == "price_changed"
    assert await customer.count_jobs() == 1


async def test_a_retry_without_a_key_is_replayed_at_its_own_price(customer: Customer) -> None:
    body = b'{"model":"sandbox","prompt":"p","audio_duration":5,"max_cost_usd":0.00125}'
    headers = customer.headers() | {"content-type": "application/json"}
    url = "/v1/audio/generations"
    first = (await customer.http.post(url, content=body, headers=headers)).json()
    await agree(customer, 250_001)
    retry = headers | {"x-stainless-retry-count": "1"}
    assert (await customer.http.post(url, content=body, headers=retry)).json()["id"] == first["id"]
    assert (await customer.http.post(url, content=body, headers=headers)).status_code == 409
    assert await customer.count_jobs() == 1


async def test_repeats_while_the_price_changes_make_one_job_or_none(customer: Customer) -> None:
    """Many copies of one request race a price change: all agree on the same job."""
    for _ in range(5):
        await agree(customer, 250_000)
        key, before = uuid.uuid4().hex, await customer.count_jobs()
        submits = [customer.submit(idempotency_key=key, max_cost_usd="0.00125") for _ in range(8)]
        *answers, _ = await asyncio.gather(*submits, agree(customer, 250_001))
        accepted = {answer.json()["id"] for answer in answers if answer.status_code == 202}
        assert {answer.status_code for answer in answers} <= {202, 409}
        assert len(accepted) == await customer.count_jobs() - before
        assert len(accepted) <= 1


async def submit_raw(customer: Customer, written: str | None, *, key: str | None = None) -> httpx.Response:
    """A submit whose `max_cost_usd` is written like that; five seconds cost 0.00125 USD."""
    most = "" if written is None else f', "max_cost_usd": {written} '
    body = '{"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5' + most + "}"
    headers = customer.headers(key) | {"content-type": "application/json"}
    return await customer.http.post("/v1/audio/generations", content=body.encode(), headers=headers)
