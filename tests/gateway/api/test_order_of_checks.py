"""Key, body, model, route, limits, budget and credit: the first of them that fails is the answer."""

from typing import Any

import pytest

from tests.gateway.api.installation import Installation

BROKEN_FIELD = {"bpm": "fast"}
BAD_VALUE = {"bpm": 1}
NO_MODEL = {"model": "none"}
NO_ROUTE = {"model": "ace-step-1.5-xl", "audio_duration": 30}
DEAR: dict[str, Any] = {"audio_duration": 600}


@pytest.mark.parametrize(
    ("wrong_key", "body", "status", "code"),
    [
        (True, BROKEN_FIELD | NO_MODEL, 401, "invalid_api_key"),
        (False, BROKEN_FIELD | NO_MODEL, 400, "invalid_request"),
        (False, {"nonsense": 1} | NO_MODEL, 400, "unknown_parameter"),
        (False, BAD_VALUE | NO_MODEL, 404, "model_not_found"),
        (False, BAD_VALUE | NO_ROUTE, 400, "invalid_request"),
        (False, NO_ROUTE, 503, "model_unavailable"),
        (False, DEAR, 429, "rate_limit_exceeded"),
    ],
)
async def test_the_first_check_that_fails_is_the_answer(
    installation: Installation,
    wrong_key: bool,  # noqa: FBT001 - a case of the table
    body: dict[str, Any],
    status: int,
    code: str,
) -> None:
    # Every later check would fail too: no credit, a spent budget, and a key at its limit.
    customer = await installation.customer(usd="0.00125")
    key = await customer.key(requests_per_minute=1, max_open_jobs=1, budget_nano=1_250_000)
    await customer.submitted(key=key)
    answer = await customer.submit(key="nonsense" if wrong_key else key, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert await customer.count_jobs() == 1


async def test_concurrency_comes_before_budget_and_budget_before_credit(installation: Installation) -> None:
    customer = await installation.customer(usd="0.00125")
    full = await customer.key(max_open_jobs=1, budget_nano=1_250_000)
    spent = await customer.key(budget_nano=1)
    await customer.submitted(key=full)
    for key, code in (
        (full, "concurrency_limit_exceeded"),
        (spent, "budget_exceeded"),
        (customer.live_key, "insufficient_credits"),
    ):
        assert (await customer.submit(key=key)).json()["error"]["code"] == code


async def test_a_refusal_uses_up_nothing(installation: Installation) -> None:
    customer = await installation.customer(usd="0.002")
    key = await customer.key(requests_per_minute=2, max_open_jobs=1, budget_nano=1_250_000)
    for body in (BROKEN_FIELD, NO_MODEL, NO_ROUTE, DEAR):
        for _ in range(3):
            assert (await customer.submit(key=key, **body)).status_code in {400, 402, 404, 503}
    assert (await customer.get("/v1/balance")).json()["held_usd"] == "0.000000000"
    await customer.submitted(key=key)


async def test_a_test_key_needs_neither_route_nor_credit(installation: Installation) -> None:
    customer = await installation.customer(usd="0")
    job = await customer.submitted(key=customer.test_key, **NO_ROUTE)
    assert (job["test"], job["model"]) == (True, "ace-step-1.5-xl")
    assert job["cost"] == {
        "usd": "0.000000000",
        "usd_per_second": "0.000250000",
        "billed_seconds": None,
        "held_usd": "0.000000000",
        "charged": False,
    }
