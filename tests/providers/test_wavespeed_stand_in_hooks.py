"""The stand-in's webhooks, received over a real socket."""

import hmac
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, Response, post

from tests.providers.stripe import served
from tests.providers.wavespeed import Delay, Hooks, TaskFails, WaveSpeedStandIn
from tests.providers.wavespeed_clients import ONE, short


@dataclass
class Endpoint:
    """What came; the next answers, 200 once they are used up."""

    url: str = ""
    received: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    found = Endpoint()

    @post("/hooks")
    async def take(request: Request[Any, Any, Any]) -> Response[None]:
        found.received.append((await request.body(), dict(request.headers)))
        return Response(None, status_code=found.answers.pop(0) if found.answers else 200)

    async with served(Litestar([take], openapi_config=None, logging_config=None)) as address:
        found.url = f"{address}/hooks"
        yield found


def is_valid(body: bytes, headers: dict[str, str], secret: str) -> bool:
    """As the vendor's documentation verifies it."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    right = hmac.new(secret.removeprefix("whsec_").encode(), signed, "sha256").hexdigest()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) <= 300
    return fresh and headers.get("webhook-signature") == f"v3,{right}"


async def submitted(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, endpoint: Endpoint) -> str:
    """A prediction that ended, its webhooks sent."""
    created = (await http.post(f"/{ONE}", json=short(webhook_url=endpoint.url))).json()["data"]["id"]
    await stand_in.predictions[created].ended.wait()
    await stand_in.hooks_settled()
    return str(created)


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_an_end_is_told_by_a_signed_webhook_with_the_bare_prediction(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, endpoint: Endpoint, status: str
) -> None:
    if status == "failed":
        stand_in.fail_next("submit", TaskFails(1403))
    created = await submitted(stand_in, http, endpoint)

    ((body, headers),) = endpoint.received
    secret = (await http.get("/webhook/secret")).json()["data"]["secret"]
    polled = await http.get(f"/predictions/{created}/result")
    assert is_valid(body, headers, secret)
    assert httpx.Response(200, content=body).json() == polled.json()["data"]
    assert polled.json()["data"]["status"] == status
    assert "webhook_url" not in polled.json()["data"]["input"]


async def test_the_query_names_the_webhook_too(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    created = await http.post(f"/{ONE}", params={"webhook": endpoint.url}, json=short())
    await stand_in.predictions[created.json()["data"]["id"]].ended.wait()
    await stand_in.hooks_settled()

    assert len(endpoint.received) == 1
    assert stand_in.hooks[0].status == 200


async def test_other_ends_and_deletions_are_not_told(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    stand_in.fail_next("submit", TaskFails(status="cancelled"))
    await submitted(stand_in, http, endpoint)
    stand_in.processing_seconds = None
    created = (await http.post(f"/{ONE}", json=short(webhook_url=endpoint.url))).json()["data"]["id"]
    await http.post("/predictions/delete", json={"ids": [created]})
    await stand_in.hooks_settled()

    assert endpoint.received == []


async def test_a_webhook_is_retried_under_its_id_until_it_is_taken(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    assert stand_in.sender.waits == (0, 5, 30, 120, 600)
    stand_in.sender.waits = (0, 0.001, 0.001, 0.001, 0.001)
    endpoint.answers = [500, 302, 204]

    await submitted(stand_in, http, endpoint)

    assert [one.status for one in stand_in.hooks] == [500, 302, 204]
    assert len({headers["webhook-id"] for _, headers in endpoint.received}) == 1
    assert all(is_valid(*one, stand_in.webhook_secret) for one in endpoint.received)


async def test_nobody_at_the_endpoint_is_tried_five_times(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.sender.waits = (0,) * 5
    async with served(Litestar([], openapi_config=None, logging_config=None)) as address:
        nobody = Endpoint(f"{address}/hooks")

    await submitted(stand_in, http, nobody)

    assert [one.status for one in stand_in.hooks] == [None] * 5
    assert "ConnectError" in str(stand_in.hooks[0].error)


@pytest.mark.parametrize("how", ["forged", "old", "altered", "unsigned"])
async def test_a_webhook_that_is_not_to_be_believed_does_not_verify(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, endpoint: Endpoint, how: Any
) -> None:
    stand_in.fail_next("webhook", Hooks(how))
    await submitted(stand_in, http, endpoint)

    ((body, headers),) = endpoint.received
    assert not is_valid(body, headers, stand_in.webhook_secret)
    assert ("webhook-signature" in headers) == (how != "unsigned")


async def test_a_webhook_comes_twice_late_or_never(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    stand_in.fail_next("webhook", Hooks("duplicate"))
    stand_in.fail_next("webhook", Hooks("never"))
    stand_in.fail_next("webhook", Delay(0.01))
    stand_in.fail_next("webhook", Hooks("late", seconds=0.01))
    came = []
    for _ in range(4):
        await submitted(stand_in, http, endpoint)
        came.append(len(endpoint.received))
        endpoint.received.clear()

    assert came == [2, 0, 1, 1]
    assert stand_in.hooks[0].headers["webhook-id"] == stand_in.hooks[1].headers["webhook-id"]


async def test_a_webhook_comes_before_the_submit_is_answered(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    stand_in.processing_seconds = None
    stand_in.fail_next("webhook", Hooks("early"))

    created = (await http.post(f"/{ONE}", json=short(webhook_url=endpoint.url))).json()["data"]["id"]
    ((body, headers),) = endpoint.received
    early = httpx.Response(200, content=body).json()
    polled = await http.get(f"/predictions/{created}/result")

    assert is_valid(body, headers, stand_in.webhook_secret)
    assert (early["id"], early["status"], len(early["outputs"])) == (created, "completed", 1)
    assert polled.json()["data"]["status"] == "processing"
    stand_in.complete(created)
    await stand_in.hooks_settled()
    assert len(endpoint.received) == 2


async def test_a_webhook_is_sent_when_a_test_says_so(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    stand_in.processing_seconds = None
    created = (await http.post(f"/{ONE}", json=short())).json()["data"]["id"]

    forged = await stand_in.send_hook(created, "forged", url=endpoint.url)
    true = await stand_in.send_hook(created, url=endpoint.url)

    assert [forged.status, true.status] == [200, 200]
    bodies = [httpx.Response(200, content=body).json() for body, _ in endpoint.received]
    assert [one["status"] for one in bodies] == ["completed", "processing"]
    assert [is_valid(*one, stand_in.webhook_secret) for one in endpoint.received] == [False, True]
