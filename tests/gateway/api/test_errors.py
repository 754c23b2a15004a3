"""Every refusal has the same shape, says whose move it is, and is explained on a page of ours."""

import re
from typing import Any

import httpx
import pytest

from gateway.auth.keys import generate_key
from gateway.storage import StoreUnavailable
from tests.gateway.api.installation import Customer, Installation

FIELDS = {
    "message": str,
    "type": str,
    "param": str | None,
    "code": str,
    "suggestion": str | None,
    "charged": bool,
    "retryable": bool,
    "request_id": str,
    "doc_url": str,
}


async def check(http: httpx.AsyncClient, answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error, when everything around it is as promised."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    error: dict[str, Any] = answer.json()["error"]
    for name, type_ in FIELDS.items():
        assert isinstance(error[name], type_), name
    assert set(error) - set(FIELDS) <= {"required_usd", "available_usd"}
    assert (error["code"], error["charged"]) == (code, False)
    assert error["request_id"] == answer.headers["x-request-id"] != ""
    assert answer.headers.get("x-should-retry") == (None if error["retryable"] else "false")
    page, _, anchor = error["doc_url"].partition("#")
    assert f'id="{anchor}"' in (await http.get(page)).text
    return error


async def test_bad_requests_name_the_field(customer: Customer) -> None:
    error = await check(customer.http, await customer.submit(bpm=20), 400, "invalid_request")
    assert (error["type"], error["param"], error["suggestion"]) == ("invalid_request_error", "bpm", "30")
    error = await check(customer.http, await customer.submit(promt="x"), 400, "unknown_parameter")
    assert (error["param"], error["suggestion"]) == ("promt", "prompt")
    error = await check(
        customer.http, await customer.submit(audio_settings={"bitrate": 128}), 400, "unsupported_parameter"
    )
    assert error["param"] == "audio_settings"
    answer = await customer.get("/v1/jobs", limit="many")
    assert (await check(customer.http, answer, 400, "invalid_request"))["param"] == "limit"


async def test_a_missing_and_a_wrong_key_are_told_apart(customer: Customer) -> None:
    answer = await customer.http.get("/v1/jobs")
    error = await check(customer.http, answer, 401, "missing_api_key")
    assert error["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"
    mistyped = customer.live_key[:-1] + ("0" if customer.live_key[-1] != "0" else "1")
    for key in ("nonsense", "aph_live_", customer.live_key[:-1], mistyped, generate_key("live")):
        await check(customer.http, await customer.get("/v1/jobs", key=key), 401, "invalid_api_key")


async def test_either_header_carries_the_key(customer: Customer) -> None:
    for headers in (
        {"authorization": f"Bearer {customer.live_key}"},
        {"authorization": f"bearer   {customer.live_key}"},
        {"x-api-key": customer.live_key},
        {"authorization": "Basic YTpi", "x-api-key": customer.live_key},
    ):
        assert (await customer.http.get("/v1/key", headers=headers)).status_code == 200


async def test_missing_credit_says_how_much(installation: Installation) -> None:
    customer = await installation.customer(usd="0.001")
    answer = await customer.submit(audio_duration=10)
    error = await check(customer.http, answer, 402, "insufficient_credits")
    assert (error["required_usd"], error["available_usd"]) == ("0.002500000", "0.001000000")
    assert error["type"] == "billing_error"


async def test_a_budget_says_how_much_is_left(customer: Customer) -> None:
    key = await customer.key(budget_nano=2_000_000, budget_period="day")
    await customer.submitted(key=key)
    error = await check(customer.http, await customer.submit(key=key), 402, "budget_exceeded")
    assert (error["required_usd"], error["available_usd"]) == ("0.001250000", "0.000750000")


async def test_a_key_may_be_limited(customer: Customer) -> None:
    reader = await customer.key(scopes=["read"])
    error = await check(customer.http, await customer.submit(key=reader), 403, "scope_denied")
    assert error["type"] == "permission_error"
    writer = await customer.key(scopes=["generate"])
    await check(customer.http, await customer.get("/v1/jobs", key=writer), 403, "scope_denied")
    narrow = await customer.key(models=["ace-step-1.5"])
    error = await check(customer.http, await customer.submit(key=narrow), 403, "model_not_allowed")
    assert error["suggestion"] == "ace-step-1.5"


async def test_what_is_not_there_is_404(customer: Customer) -> None:
    for path in ("/", "/v1", "/v1/nothing", "/V1/jobs", "/nowhere", "/.env", "/docs/errors/x"):
        await check(customer.http, await customer.get(path), 404, "not_found")
    await check(customer.http, await customer.get("/v1/jobs/" + "0" * 32), 404, "job_not_found")
    await check(customer.http, await customer.get("/v1/models/none"), 404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", {"GET"}),
        ("PUT", "/v1/jobs/", {"GET"}),
        ("PUT", "/v1//jobs/", {"GET"}),
        ("GET", "/v1/audio/generations", {"POST"}),
        ("PATCH", "/v1/jobs/" + "0" * 32, {"GET", "DELETE"}),
        ("POST", "/v1/models", {"GET"}),
        ("POST", "/audio/a/b.flac", {"GET", "HEAD"}),
        ("DELETE", "/healthz", {"GET"}),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    customer: Customer, method: str, path: str, allowed: set[str]
) -> None:
    answer = await customer.http.request(method, path, headers=customer.headers())
    error = await check(customer.http, answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {*allowed, "OPTIONS"}
    assert all(name in error["message"] for name in allowed)
    asked = await customer.http.request("OPTIONS", path)
    assert (asked.status_code, asked.headers["allow"], asked.content) == (204, answer.headers["allow"], b"")


async def test_a_path_that_is_not_there_takes_no_method(customer: Customer) -> None:
    for method in ("OPTIONS", "PUT", "REPORT"):
        answer = await customer.http.request(method, "/v1/nothing", headers=customer.headers())
        await check(customer.http, answer, 404, "not_found")


async def test_a_body_may_be_too_large_or_no_json(customer: Customer) -> None:
    answer = await customer.submit(user="x" * 2_000_000)
    await check(customer.http, answer, 413, "payload_too_large")
    answer = await customer.http.post(
        "/v1/audio/generations", data={"model": "x"}, headers=customer.headers()
    )
    await check(customer.http, answer, 415, "unsupported_media_type")


async def test_limits_say_when_to_come_back(customer: Customer) -> None:
    busy = await customer.key(max_open_jobs=1)
    await customer.submitted(key=busy)
    answer = await customer.submit(key=busy)
    error = await check(customer.http, answer, 429, "concurrency_limit_exceeded")
    assert (error["type"], error["retryable"]) == ("rate_limit_error", True)
    assert int(answer.headers["retry-after"]) >= 1
    hasty = await customer.key(requests_per_minute=2)
    answers = [await customer.submit(key=hasty) for _ in range(5)]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert refused  # the minute may have turned once in between
    await check(customer.http, refused[0], 429, "rate_limit_exceeded")
    assert 1 <= int(refused[0].headers["retry-after"]) <= 60


async def test_a_model_without_a_route_is_not_worth_a_retry(customer: Customer) -> None:
    answer = await customer.submit(model="ace-step-1.5-xl", audio_duration=30)
    error = await check(customer.http, answer, 503, "model_unavailable")
    assert (error["param"], error["retryable"]) == ("model", False)
    assert "ace-step-1.5-xl" in error["message"]
    assert "no backend of this installation serves" in error["message"]


async def test_a_reused_idempotency_key_is_422(customer: Customer) -> None:
    await customer.submitted(idempotency_key="one")
    answer = await customer.submit(idempotency_key="one", bpm=100)
    error = await check(customer.http, answer, 422, "idempotency_key_reused")
    assert error["param"] == "Idempotency-Key"


async def test_a_final_job_cannot_be_cancelled(customer: Customer, installation: Installation) -> None:
    job = await customer.submitted()
    await installation.finish(job["id"])
    for method, path in (("DELETE", ""), ("POST", "/cancel")):
        answer = await customer.http.request(
            method, f"/v1/jobs/{job['id']}{path}", headers=customer.headers()
        )
        await check(customer.http, answer, 409, "job_already_final")


async def test_a_store_that_is_down_is_worth_a_retry(
    customer: Customer, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await customer.submitted(response_format="b64_json")
    await installation.finish(job["id"])

    async def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("the bucket is on fire")

    with monkeypatch.context() as patched:
        patched.setattr(type(installation.live.store), "open", fail)
        answer = await customer.get(f"/v1/jobs/{job['id']}")
    error = await check(customer.http, answer, 503, "overloaded")
    assert "fire" not in error["message"]
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_defect_tells_nothing_but_its_request_id(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise LookupError("a secret of the program")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.jobs.service.Jobs.list", fail)
        answer = await customer.get("/v1/jobs")
    error = await check(customer.http, answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert "request id" in error["message"]


async def test_every_answer_has_a_request_id_of_its_own(customer: Customer) -> None:
    paths = ["/v1/jobs", "/v1/models", "/healthz", "/readyz", "/metrics", "/docs", "/docs/errors", "/nowhere"]
    ids = [(await customer.get(path)).headers["x-request-id"] for path in paths * 2]
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", request_id) for request_id in ids)
    assert len(set(ids)) == len(ids)


async def test_no_answer_names_the_server(customer: Customer) -> None:
    for path in ("/v1/jobs", "/nowhere", "/healthz"):
        assert "server" not in (await customer.get(path)).headers
