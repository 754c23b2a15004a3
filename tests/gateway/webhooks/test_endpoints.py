"""Endpoints and secrets as their owners manage them."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.auth.principal import Principal
from gateway.errors import InvalidRequest, NotFound, TooManyEndpoints
from gateway.webhooks.endpoints import (
    MAX_ENDPOINTS,
    Endpoint,
    EndpointChanges,
    create_endpoint,
    delete_endpoint,
    list_endpoints,
    read_endpoint,
    update_endpoint,
)
from gateway.webhooks.rotation import (
    endpoint_secret,
    request_secret,
    rotate_endpoint_secret,
    rotate_request_secret,
)
from tests.factories import new_key, new_project
from tests.gateway.webhooks.conftest import Office
from tests.workbench import Workbench

URL = "https://hooks.example/here"


async def project_key(bench: Workbench, customer: Principal, name: str = "red") -> Principal:
    async with bench.pool.acquire() as conn:
        project_id = await new_project(conn, customer.organization_id, name)
        return await new_key(conn, customer.organization_id, project_id=project_id)


async def test_an_endpoint_is_what_was_asked_for(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    events = ["job.failed", "job.completed", "job.failed"]
    made = await office.endpoint(customer, URL, events=events, description="ours")
    assert made == await read_endpoint(office.pool, customer, made.id)
    assert (made.url, made.description, made.status) == (URL, "ours", "enabled")
    assert made.events == ("job.completed", "job.failed")
    assert (made.project_id, made.disabled_reason, made.secret_version) == (None, None, 1)


@pytest.mark.parametrize(
    ("events", "suggestion"),
    [(["job.complete"], "job.completed"), (["webhook.test"], None), ([], None), (["job.failed", "x"], None)],
)
async def test_an_event_that_there_is_not_is_refused_with_the_nearest_name(
    bench: Workbench, office: Office, events: list[str], suggestion: str | None
) -> None:
    customer = await bench.customer()
    with pytest.raises(InvalidRequest) as refusal:
        await office.endpoint(customer, URL, events=events)
    assert (refusal.value.param, refusal.value.suggestion) == ("events", suggestion)


@pytest.mark.parametrize("description", ["a" * 501, "a\x00b"])
async def test_a_description_has_bounds(bench: Workbench, office: Office, description: str) -> None:
    customer = await bench.customer()
    with pytest.raises(InvalidRequest) as refusal:
        await office.endpoint(customer, URL, description=description)
    assert refusal.value.param == "description"


async def test_an_organization_has_twenty_endpoints_at_most_however_many_ask_at_once(
    bench: Workbench, office: Office
) -> None:
    customer = await bench.customer()
    made = await asyncio.gather(
        *(office.endpoint(customer, URL) for _ in range(MAX_ENDPOINTS + 3)), return_exceptions=True
    )
    assert sum(isinstance(one, TooManyEndpoints) for one in made) == 3
    endpoints = await list_endpoints(office.pool, customer)
    assert [one.id for one in endpoints] == sorted(one.id for one in endpoints)
    assert len(endpoints) == MAX_ENDPOINTS
    await delete_endpoint(office.pool, customer, endpoints[0].id)
    await office.endpoint(customer, URL)


async def test_only_what_is_named_changes(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    made = await office.endpoint(customer, URL, events=["job.failed"], description="ours")
    changed = await update_endpoint(
        office.pool, customer, made.id, EndpointChanges(url=URL + "/2", events=None)
    )
    assert (changed.url, changed.events, changed.description) == (URL + "/2", None, "ours")
    assert await update_endpoint(office.pool, customer, made.id, EndpointChanges()) == changed
    for wrong in (EndpointChanges(events=["x"]), EndpointChanges(description="a" * 501)):
        with pytest.raises(InvalidRequest):
            await update_endpoint(office.pool, customer, made.id, wrong)


async def test_enabling_forgets_why_it_was_disabled(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    made = await office.endpoint(customer, URL)
    await office.pool.execute("UPDATE webhook_endpoint SET failing_since = now()")
    off = await update_endpoint(office.pool, customer, made.id, EndpointChanges(enabled=False))
    assert (off.status, off.disabled_reason) == ("disabled", "customer")
    on = await update_endpoint(office.pool, customer, made.id, EndpointChanges(enabled=True))
    assert (on.status, on.disabled_reason, on.failing_since) == ("enabled", None, None)


Act = Callable[[Office, Principal, uuid.UUID], Awaitable[Any]]
ACTS: dict[str, Act] = {
    "read": lambda o, p, i: read_endpoint(o.pool, p, i),
    "update": lambda o, p, i: update_endpoint(o.pool, p, i, EndpointChanges(enabled=False)),
    "rename": lambda o, p, i: update_endpoint(o.pool, p, i, EndpointChanges(url=URL)),
    "delete": lambda o, p, i: delete_endpoint(o.pool, p, i),
    "secret": lambda o, p, i: endpoint_secret(o.pool, o.secrets, p, i),
    "rotate": lambda o, p, i: rotate_endpoint_secret(o.pool, o.secrets, p, i),
    "test": lambda o, p, i: o.deliverer.test_send(p, i),
}


@pytest.mark.parametrize("act", ACTS)
async def test_what_is_foreign_deleted_or_unknown_does_not_exist(
    bench: Workbench, office: Office, act: str
) -> None:
    customer, stranger = await bench.customer(), await bench.customer()
    key = await project_key(bench, customer)
    mine = await office.endpoint(customer, URL)
    gone = await office.endpoint(customer, URL)
    await delete_endpoint(office.pool, customer, gone.id)
    for principal, endpoint_id in (
        (stranger, mine.id),
        (key, mine.id),
        (customer, gone.id),
        (customer, uuid.uuid4()),
    ):
        with pytest.raises(NotFound):
            await ACTS[act](office, principal, endpoint_id)
    assert await read_endpoint(office.pool, customer, mine.id) == mine


async def test_keys_of_a_project_see_their_projects_endpoints_and_the_organization_all(
    bench: Workbench, office: Office
) -> None:
    customer = await bench.customer()
    red, blue = await project_key(bench, customer, "red"), await project_key(bench, customer, "blue")
    made: dict[str, Endpoint] = {}
    for name, principal in (("all", customer), ("red", red), ("blue", blue)):
        made[name] = await create_endpoint(office.pool, principal, url=URL, events=None)
    assert made["red"].project_id == red.project_id
    assert await list_endpoints(office.pool, red) == [made["red"]]
    assert await list_endpoints(office.pool, customer) == list(made.values())


async def test_secrets_rotate_by_version_and_the_old_one_is_valid_for_a_day(
    bench: Workbench, office: Office
) -> None:
    customer = await bench.customer()
    made = await office.endpoint(customer, URL)
    first = await endpoint_secret(office.pool, office.secrets, customer, made.id)
    second = await rotate_endpoint_secret(office.pool, office.secrets, customer, made.id)
    assert await endpoint_secret(office.pool, office.secrets, customer, made.id) == second
    assert (first.version, first.old_until, second.version) == (1, None, 2)
    assert second.old_until is not None
    day = await office.pool.fetchval("SELECT $1 - now()", second.old_until)
    assert 23.9 * 3600 < day.total_seconds() < 24 * 3600
    assert first.value != second.value


async def test_the_secret_of_requests_is_the_organizations_or_the_projects(
    bench: Workbench, office: Office
) -> None:
    customer, stranger = await bench.customer(), await bench.customer()
    key = await project_key(bench, customer)
    before = {
        (await request_secret(office.pool, office.secrets, one)).value for one in (customer, key, stranger)
    }
    assert len(before) == 3
    for version in (2, 3):
        rotated = await rotate_request_secret(office.pool, office.secrets, customer)
        assert rotated.version == version
        assert rotated == await request_secret(office.pool, office.secrets, customer)
    assert (await request_secret(office.pool, office.secrets, key)).version == 1
