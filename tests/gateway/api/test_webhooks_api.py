"""Webhook endpoints, secrets and deliveries over HTTP: kept, refused in one clear sentence, replayed."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog

from gateway.auth.principal import Scope
from gateway.embedded import EmbeddedPostgres
from gateway.jobs.job import JobErrorCode
from tests.databases import fresh_database
from tests.gateway.api.installation import Customer, Installation, running
from tests.gateway.webhooks.receiver import Receiver, receiving

URL = "https://hooks.example/in"
EVENTS = ["job.completed", "job.failed"]
NOBODY = uuid.UUID(int=1).hex


async def call(
    customer: Customer, method: str, path: str = "", *, key: str | None = None, **options: Any
) -> httpx.Response:
    return await customer.http.request(
        method, f"/v1/webhooks{path}", headers=customer.headers(key), **options
    )


async def done(customer: Customer, method: str, path: str = "", **options: Any) -> dict[str, Any]:
    answer = await call(customer, method, path, **options)
    assert answer.status_code in {200, 201}, answer.text
    return dict(answer.json())


async def refused(customer: Customer, method: str, path: str = "", **options: Any) -> dict[str, Any]:
    answer = await call(customer, method, path, **options)
    assert answer.status_code >= 400, answer.text
    return {"status": answer.status_code, **answer.json()["error"]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def open_installation(
    postgres: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    """One that may reach this machine, where the receiver is."""
    async with (
        fresh_database(postgres, template_database) as dsn,
        running(dsn, tmp_path_factory.mktemp("home"), ANTIPHON_ALLOW_PRIVATE_HOSTS="true") as installation,
    ):
        yield installation


@pytest_asyncio.fixture(loop_scope="session")
async def teller(open_installation: Installation) -> Customer:
    """A customer of that installation."""
    return await open_installation.customer()


@pytest_asyncio.fixture(loop_scope="session")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


async def test_an_endpoint_is_created_read_changed_and_deleted(customer: Customer) -> None:
    made = await call(customer, "POST", json={"url": URL, "events": EVENTS, "description": "the shop"})
    assert made.status_code == 201
    endpoint = made.json()
    assert endpoint | {"id": "", "created_at": ""} == {
        "object": "webhook_endpoint",
        "id": "",
        "url": URL,
        "events": EVENTS,
        "description": "the shop",
        "status": "enabled",
        "disabled_reason": None,
        "failing_since": None,
        "project_id": None,
        "created_at": "",
    }
    path = f"/{endpoint['id']}"
    assert await done(customer, "GET", path) == endpoint
    assert (await done(customer, "GET"))["data"] == [endpoint]
    assert await done(customer, "PATCH", path, json={}) == endpoint
    changed = await done(customer, "PATCH", path, json={"url": URL + "2", "events": None, "enabled": False})
    assert changed == endpoint | {
        "url": URL + "2",
        "events": None,
        "status": "disabled",
        "disabled_reason": "customer",
    }
    again = await done(customer, "PATCH", path, json={"enabled": True, "description": None})
    assert (again["status"], again["disabled_reason"], again["description"]) == ("enabled", None, "")
    deleted = await done(customer, "DELETE", path)
    assert deleted == {"object": "webhook_endpoint", "id": endpoint["id"], "deleted": True}
    assert (await refused(customer, "GET", path))["status"] == 404
    assert (await done(customer, "GET"))["data"] == []


async def test_what_an_endpoint_is_told_of_may_be_left_out(customer: Customer) -> None:
    endpoint = await done(customer, "POST", json={"url": URL})
    assert (endpoint["events"], endpoint["description"]) == (None, "")


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "url", "url is required"),
        ({"url": None}, "url", "url: expected `str`"),
        ({"url": "hooks.example"}, "url", "only http and https URLs"),
        ({"url": "http://localhost/"}, "url", "not on the public internet"),
        ({"url": "http://169.254.169.254/latest"}, "url", "not on the public internet"),
        ({"url": "http://0x7f.1/"}, "url", "not on the public internet"),
        ({"url": "https://a:b@hooks.example/"}, "url", "user name or password"),
        ({"url": "https://hooks.example:22/"}, "url", "only the ports 80, 443, 8080, 8443"),
        ({"url": "https://hooks.example/" + "a" * 2048}, "url", "more than 2048 characters"),
        ({"url": URL, "events": []}, "events", "must name an event"),
        ({"url": URL, "events": ["job.complete"]}, "events", "'job.complete' is no event"),
        ({"url": URL, "events": ["webhook.test"]}, "events", "'webhook.test' is no event"),
        ({"url": URL, "events": "job.completed"}, "events", "expected `array"),
        ({"url": URL, "description": "a" * 501}, "description", "at most 500 characters"),
        ({"url": URL, "descriptoin": "a"}, "descriptoin", "did you mean 'description'"),
        ({"url": URL, "enabled": False}, "enabled", "there is no parameter 'enabled'"),
    ],
)
async def test_a_refusal_names_the_field(
    customer: Customer, body: dict[str, Any], param: str, words: str
) -> None:
    error = await refused(customer, "POST", json=body)
    assert (error["status"], error["param"]) == (400, param)
    assert words in error["message"]
    if body.get("events") == ["job.complete"]:
        assert error["suggestion"] == "job.completed"


async def test_a_change_is_checked_like_a_new_endpoint(customer: Customer) -> None:
    path = f"/{(await done(customer, 'POST', json={'url': URL}))['id']}"
    for body, param in (
        ({"url": "http://10.0.0.1/"}, "url"),
        ({"url": None}, "url"),
        ({"events": ["nothing"]}, "events"),
        ({"enabled": None}, "enabled"),
        ({"ulr": URL}, "ulr"),
    ):
        error = await refused(customer, "PATCH", path, json=body)
        assert (error["status"], error["param"]) == (400, param)
    assert (await done(customer, "GET", path))["url"] == URL


async def test_an_organization_has_at_most_twenty_endpoints(customer: Customer) -> None:
    answers = await asyncio.gather(*(call(customer, "POST", json={"url": URL}) for _ in range(22)))
    assert sorted(answer.status_code for answer in answers) == [201] * 20 + [409] * 2
    assert {a.json()["error"]["code"] for a in answers if a.status_code == 409} == {"too_many_endpoints"}
    one = (await done(customer, "GET"))["data"][0]
    await done(customer, "DELETE", f"/{one['id']}")
    await done(customer, "POST", json={"url": URL})


async def test_only_keys_with_the_scope_come_in(customer: Customer) -> None:
    key = await customer.key(scopes=frozenset({Scope.GENERATE, Scope.READ, Scope.BILLING}))
    for method, path in (("GET", ""), ("POST", ""), ("GET", "/secret"), ("GET", "/deliveries")):
        error = await refused(customer, method, path, key=key)
        assert (error["status"], error["code"]) == (403, "scope_denied")
    own = await customer.key(scopes=frozenset({Scope.WEBHOOKS}))
    assert (await done(customer, "GET", key=own))["data"] == []


async def test_what_is_not_there_and_what_is_somebody_elses_are_the_same(
    customer: Customer, installation: Installation
) -> None:
    other = await installation.customer()
    theirs = (await done(other, "POST", json={"url": URL}))["id"]
    for method, path in (
        ("GET", "/{}"),
        ("PATCH", "/{}"),
        ("DELETE", "/{}"),
        ("POST", "/{}/test"),
        ("POST", "/{}/rotate"),
        ("GET", "/{}/secret"),
        ("GET", "/deliveries/{}"),
        ("POST", "/deliveries/{}/replay"),
    ):
        options: dict[str, Any] = {"json": {"enabled": False}} if method == "PATCH" else {}
        errors = [
            await refused(customer, method, path.format(one), **options) for one in (theirs, NOBODY, "x")
        ]
        told = {(error["status"], error["code"], error["message"]) for error in errors}
        assert len(told) == 1
        assert told.pop()[:2] == (404, "not_found")
    assert (await done(other, "GET", f"/{theirs}"))["status"] == "enabled"


async def test_a_project_sees_its_own_and_the_organization_sees_all(customer: Customer) -> None:
    project_id = await customer.project("game")
    key = await customer.key(project_id=project_id)
    theirs = await done(customer, "POST", json={"url": URL}, key=key)
    ours = await done(customer, "POST", json={"url": URL})
    assert (theirs["project_id"], ours["project_id"]) == (project_id.hex, None)
    assert [one["id"] for one in (await done(customer, "GET", key=key))["data"]] == [theirs["id"]]
    assert len((await done(customer, "GET"))["data"]) == 2
    assert (await refused(customer, "DELETE", f"/{ours['id']}", key=key))["status"] == 404


async def test_secrets_are_of_one_owner_each_and_rotate(customer: Customer) -> None:
    key = await customer.key(project_id=await customer.project("game"))
    endpoint = await done(customer, "POST", json={"url": URL})
    path = f"/{endpoint['id']}"
    first = await done(customer, "GET", f"{path}/secret")
    assert first | {"secret": ""} == {
        "object": "webhook_secret",
        "secret": "",
        "version": 1,
        "previous_valid_until": None,
    }
    assert await done(customer, "GET", f"{path}/secret") == first
    ours, theirs = await done(customer, "GET", "/secret"), await done(customer, "GET", "/secret", key=key)
    assert len({first["secret"], ours["secret"], theirs["secret"]}) == 3
    for place, before in ((path, first), ("/secret", ours)):
        rotated = await done(customer, "POST", f"{place}/rotate")
        read = await done(customer, "GET", "/secret" if place == "/secret" else f"{place}/secret")
        assert rotated == read
        assert rotated["version"] == 2
        assert rotated["secret"] != before["secret"]
        assert rotated["previous_valid_until"] is not None
    assert await done(customer, "GET", "/secret", key=key) == theirs


async def test_a_test_is_sent_now_signed_and_its_outcome_is_the_answer(
    teller: Customer, receiver: Receiver
) -> None:
    endpoint = await done(teller, "POST", json={"url": receiver.url("/in"), "events": ["job.failed"]})
    path = f"/{endpoint['id']}"
    secret = (await done(teller, "GET", f"{path}/secret"))["secret"]
    receiver.answers["/in"] = [200, 500]
    told = await done(teller, "POST", f"{path}/test")
    (message,) = receiver.received
    assert message.verified(secret)["type"] == "webhook.test"
    assert message.headers["webhook-id"] == told["webhook_id"]
    assert (told["event"], told["state"], told["kind"]) == ("webhook.test", "delivered", "webhook")
    assert (told["endpoint_id"], told["url"], told["job_id"]) == (endpoint["id"], endpoint["url"], None)
    (attempt,) = told["attempts"]
    assert (attempt["n"], attempt["status"], attempt["error"]) == (1, 200, None)
    assert attempt["answer"] == "thank you"
    assert attempt["latency_ms"] >= 0
    failed = await done(teller, "POST", f"{path}/test")
    assert (failed["state"], failed["attempts"][0]["status"]) == ("exhausted", 500)
    assert await done(teller, "GET", f"/deliveries/{failed['id']}") == failed
    error = await refused(teller, "POST", f"/deliveries/{failed['id']}/replay")
    assert (error["status"], error["code"]) == (409, "not_replayable")


async def test_a_test_of_a_receiver_that_is_not_there_says_so(teller: Customer) -> None:
    endpoint = await done(teller, "POST", json={"url": "http://127.0.0.1:1/in"})
    told = await done(teller, "POST", f"/{endpoint['id']}/test")
    (attempt,) = told["attempts"]
    assert (attempt["status"], attempt["error"]) == (None, "the URL's host takes no connection")
    assert attempt["answer"] is None


async def delivered(customer: Customer, count: int, **params: Any) -> list[dict[str, Any]]:
    """That many deliveries that have ended, newest first."""
    async with asyncio.timeout(10):
        while True:
            page = (await done(customer, "GET", "/deliveries", params=params or None))["data"]
            if len([one for one in page if one["completed_at"]]) == count:
                return page
            await asyncio.sleep(0.02)


async def test_deliveries_are_listed_filtered_and_replayed(
    teller: Customer, receiver: Receiver, open_installation: Installation
) -> None:
    endpoint = await done(teller, "POST", json={"url": receiver.url("/in"), "events": EVENTS})
    good, bad = await teller.submitted(), await teller.submitted()
    await open_installation.finish(good["id"])
    await open_installation.finish(bad["id"], error=JobErrorCode.TIMEOUT)
    second, first = await delivered(teller, 2)
    assert [(one["job_id"], one["event"], one["state"]) for one in (first, second)] == [
        (good["id"], "job.completed", "delivered"),
        (bad["id"], "job.failed", "delivered"),
    ]
    assert (first["endpoint_id"], first["attempt_count"], first["replay_of"]) == (endpoint["id"], 1, None)
    job = await teller.job(good["id"])
    told = {message.json["data"]["id"]: message.json["data"] for message in receiver.received}
    assert told.keys() == {good["id"], bad["id"]}
    assert (told[job["id"]]["status"], told[job["id"]]["cost"]) == ("completed", job["cost"])

    async def listed(**params: Any) -> list[str]:
        return [one["id"] for one in (await done(teller, "GET", "/deliveries", params=params))["data"]]

    assert await listed(job_id=good["id"]) == [first["id"]]
    assert await listed(endpoint_id=endpoint["id"]) == [second["id"], first["id"]]
    assert await listed(endpoint_id=NOBODY) == []
    assert await listed(state="pending") == []
    page = await done(teller, "GET", "/deliveries", params={"limit": 1})
    assert (page["data"][0]["id"], page["has_more"]) == (second["id"], True)
    assert await listed(cursor=page["next_cursor"]) == [first["id"]]

    replayed = await done(teller, "POST", f"/deliveries/{first['id']}/replay")
    assert (replayed["replay_of"], replayed["webhook_id"]) == (first["id"], first["webhook_id"])
    await delivered(teller, 3)
    sent = [message.headers["webhook-id"] for message in receiver.received]
    assert sorted(sent[:2]) == sorted([first["webhook_id"], second["webhook_id"]])
    assert sent[2:] == [first["webhook_id"]]
    details = await done(teller, "GET", f"/deliveries/{first['id']}")
    assert [attempt["status"] for attempt in details["attempts"]] == [200]
    await done(teller, "DELETE", f"/{endpoint['id']}")
    error = await refused(teller, "POST", f"/deliveries/{first['id']}/replay")
    assert (error["status"], error["code"]) == (409, "not_replayable")


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"job_id": "x"}, "job_id"),
        ({"endpoint_id": "x"}, "endpoint_id"),
        ({"state": "lost"}, "state"),
    ],
)
async def test_a_filter_that_cannot_be_meant_is_refused(
    customer: Customer, params: dict[str, Any], param: str
) -> None:
    error = await refused(customer, "GET", "/deliveries", params=params)
    assert (error["status"], error["param"]) == (400, param)


async def test_no_line_of_the_log_holds_a_url_or_a_secret(teller: Customer, receiver: Receiver) -> None:
    with structlog.testing.capture_logs() as lines:
        endpoint = await done(teller, "POST", json={"url": receiver.url("/in?token=hidden")})
        secret = (await done(teller, "GET", f"/{endpoint['id']}/secret"))["secret"]
        await done(teller, "POST", f"/{endpoint['id']}/test")
        await refused(teller, "PATCH", f"/{endpoint['id']}", json={"url": "http://hidden:hidden@a.example/"})
    assert "webhooks.attempt" in {line["event"] for line in lines}
    assert "hidden" not in str(lines)
    assert secret not in str(lines)
