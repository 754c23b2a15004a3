"""Deliveries as their owners see them, tests and replays; and when they are forgotten."""

import asyncio
import uuid
from datetime import timedelta

import pytest

from gateway.auth.principal import Principal
from gateway.errors import NotFound, NotReplayable, RateLimitExceeded
from gateway.webhooks import claims, deliveries, outbox
from gateway.webhooks.deliveries import (
    DeliveryFilter,
    forget_old,
    list_deliveries,
    read_delivery,
    replay,
)
from gateway.webhooks.endpoints import EndpointChanges, delete_endpoint, read_endpoint, update_endpoint
from gateway.webhooks.rotation import endpoint_secret
from tests.factories import new_key, new_project, until
from tests.gateway.webhooks.conftest import Office, ended_job
from tests.gateway.webhooks.receiver import Receiver
from tests.workbench import Workbench

URL = "https://hooks.example/here"


async def note(office: Office, principal: Principal, count: int = 1) -> None:
    event = outbox.Event(organization_id=principal.organization_id, type="balance.low", payload={})
    async with office.pool.acquire() as conn, conn.transaction():
        await outbox.note_events(conn, [event] * count)


async def pages(office: Office, principal: Principal, limit: int, **wanted: object) -> list[uuid.UUID]:
    found: list[uuid.UUID] = []
    before = None
    while True:
        chosen = DeliveryFilter(limit=limit, before=before, **wanted)  # type: ignore[arg-type]
        page, before = await list_deliveries(office.pool, principal, chosen)
        found += [one.id for one in page]
        if before is None:
            return found


async def test_pages_go_from_the_newest_to_the_oldest_without_gaps(bench: Workbench, office: Office) -> None:
    customer, stranger = await bench.customer(), await bench.customer()
    await office.endpoint(customer, URL)
    await note(office, customer, 7)
    every = [row["id"] for row in await office.rows("webhook_delivery")]
    for limit in (3, 7, 100):
        assert await pages(office, customer, limit) == every[::-1]
    assert await pages(office, stranger, 10) == []


async def test_a_page_is_filtered_by_endpoint_job_and_state(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    await note(office, customer)
    await office.deliver()
    job_id = await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    (first, *_) = every = [row["id"] for row in await office.rows("webhook_delivery")]
    assert len(every) == 3
    assert await pages(office, customer, 10, state="delivered") == [first]
    assert len(await pages(office, customer, 10, job_id=job_id)) == 2
    assert len(await pages(office, customer, 10, endpoint_id=endpoint.id)) == 2
    both = await pages(office, customer, 10, endpoint_id=endpoint.id, job_id=job_id)
    (found, _) = await list_deliveries(office.pool, customer, DeliveryFilter(job_id=job_id, state="pending"))
    assert {one.url for one in found} == {receiver.url("/e"), receiver.url("/mine")}
    assert [one.endpoint_id for one in found if one.id in both] == [endpoint.id]
    assert await pages(office, customer, 10, endpoint_id=uuid.uuid4()) == []


async def test_a_delivery_is_read_with_its_attempts(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.answers["/mine"] = [503]
    job_id = await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    await office.deliver()
    (delivery_id,) = await pages(office, customer, 10)
    delivery, attempts = await read_delivery(office.pool, customer, delivery_id)
    assert delivery.webhook_id == receiver.received[0].headers["webhook-id"]
    assert (delivery.event, delivery.job_id, delivery.state) == ("job.completed", job_id, "pending")
    assert delivery.next_attempt_at is not None
    ((n, status, answer),) = [(one.n, one.status, one.answer) for one in attempts]
    assert (n, status, answer) == (1, 503, "thank you")
    assert attempts[0].latency_ms >= 0


async def test_keys_of_a_project_see_its_deliveries_only(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    async with bench.pool.acquire() as conn:
        project_id = await new_project(conn, customer.organization_id, "red")
        red = await new_key(conn, customer.organization_id, project_id=project_id)
    await office.endpoint(customer, URL + "/all")
    await office.endpoint(red, URL + "/red")
    await ended_job(bench, red, webhook_url=URL + "/own")
    (seen, _) = await list_deliveries(office.pool, red, DeliveryFilter())
    assert {one.url for one in seen} == {URL + "/red", URL + "/own"}
    (every, _) = await list_deliveries(office.pool, customer, DeliveryFilter())
    (hidden,) = [one for one in every if one.url == URL + "/all"]
    for act in (read_delivery, replay):
        with pytest.raises(NotFound):
            await act(office.pool, red, hidden.id)


async def test_a_replay_is_a_new_delivery_with_the_same_webhook_id(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    await office.deliver()
    (first,) = await pages(office, customer, 10)
    again = await replay(office.pool, customer, first)
    assert (again.replay_of, again.state, again.attempts) == (first, "pending", 0)
    await office.deliver()
    assert len(receiver.received) == 2
    assert len({message.headers["webhook-id"] for message in receiver.received}) == 1
    assert await office.states() == ["delivered"] * 2


async def test_a_second_replay_is_the_first_one_while_that_waits(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    await office.endpoint(customer, receiver.url("/e"))
    receiver.answers["/e"] = [200, 500]
    await note(office, customer)
    await office.deliver()
    (told,) = await pages(office, customer, 9)
    first = await replay(office.pool, customer, told)
    await office.deliver()  # it fails, and waits
    second = await replay(office.pool, customer, told)
    assert second.id == first.id
    await office.deliver()
    assert await office.states() == ["delivered", "delivered"]
    assert (await replay(office.pool, customer, told)).id != first.id


async def test_a_replay_of_what_waits_makes_it_due(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.answers["/mine"] = [500]
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    await office.deliver()
    (waiting,) = await pages(office, customer, 10)
    assert (await replay(office.pool, customer, waiting)).id == waiting
    await office.deliver()
    assert await office.states() == ["delivered"]


async def test_a_replay_of_what_is_under_way_sends_nothing_twice(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.hangs.add("/mine")
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))

    async def is_under_way() -> bool:
        return bool(receiver.received)

    async with office.running():
        await until(is_under_way)
        (there,) = await pages(office, customer, 10)
        assert (await replay(office.pool, customer, there)).id == there
        await office.deliver(office.new_deliverer())
    assert len(receiver.received) == 1


async def test_what_cannot_be_replayed_says_why(bench: Workbench, office: Office, receiver: Receiver) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    await note(office, customer)
    await office.deliver()
    (sent,) = await pages(office, customer, 10)
    tested, _ = await office.deliverer.test_send(customer, endpoint.id)
    with pytest.raises(NotReplayable, match="test"):
        await replay(office.pool, customer, tested.id)
    await update_endpoint(office.pool, customer, endpoint.id, EndpointChanges(enabled=False))
    with pytest.raises(NotReplayable, match="disabled"):
        await replay(office.pool, customer, sent)
    with pytest.raises(NotFound):
        await replay(office.pool, customer, uuid.uuid4())


async def test_a_test_is_sent_at_once_and_tells_how_it_went(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"), events=["job.failed"])
    delivery, attempt = await office.deliverer.test_send(customer, endpoint.id)
    assert attempt is not None
    assert (delivery.event, delivery.state, attempt.status) == ("webhook.test", "delivered", 200)
    secret = await endpoint_secret(office.pool, office.secrets, customer, endpoint.id)
    body = receiver.received[0].verified(secret.value)
    assert body["type"] == "webhook.test"
    assert body["data"]["endpoint_id"] == endpoint.id.hex


async def test_a_test_that_fails_is_not_repeated_and_costs_the_endpoint_nothing(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    receiver.answers["/e"] = [500, 410]
    for status, state in ((500, "exhausted"), (410, "dropped")):
        delivery, attempt = await office.deliverer.test_send(customer, endpoint.id)
        assert attempt is not None
        assert (delivery.state, attempt.status) == (state, status)
    assert await read_endpoint(office.pool, customer, endpoint.id) == endpoint
    await office.pass_time()
    await office.deliver()
    assert len(receiver.received) == 2


async def test_a_disabled_endpoint_can_be_tested(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    await update_endpoint(office.pool, customer, endpoint.id, EndpointChanges(enabled=False))
    delivery, _ = await office.deliverer.test_send(customer, endpoint.id)
    assert delivery.state == "delivered"


async def test_one_test_of_an_endpoint_is_under_way_at_a_time(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    receiver.hangs.add("/e")
    first = asyncio.create_task(office.deliverer.test_send(customer, endpoint.id))

    async def is_under_way() -> bool:
        return bool(receiver.received)

    await until(is_under_way)
    with pytest.raises(RateLimitExceeded):
        await office.deliverer.test_send(customer, endpoint.id)
    assert len(await office.rows("webhook_event")) == 1
    receiver.closing.set()
    delivery, _ = await first
    assert delivery.state == "delivered"


async def test_of_two_tests_that_begin_at_once_one_is_sent(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    async with office.pool.acquire() as conn, conn.transaction():
        event_id = await outbox.note_test(
            conn, organization_id=customer.organization_id, project_id=None, endpoint_id=endpoint.id
        )
        first = uuid.uuid4()
        assert await claims.claim_test(conn, delivery_id=first, event_id=event_id, endpoint_id=endpoint.id)
        second = asyncio.create_task(office.deliverer.test_send(customer, endpoint.id))

        async def waits_or_is_sent() -> bool:
            waiting = await office.pool.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return second.done() or waiting == 1

        await until(waits_or_is_sent)
    with pytest.raises(RateLimitExceeded):
        await second
    assert receiver.received == []


async def test_a_test_whose_process_was_killed_ends_without_another(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    receiver.hangs.add("/e")
    test = asyncio.create_task(office.deliverer.test_send(customer, endpoint.id))

    async def is_under_way() -> bool:
        return bool(receiver.received)

    await until(is_under_way)
    test.cancel()
    with pytest.raises(asyncio.CancelledError):
        await test
    await office.pool.execute(
        "UPDATE webhook_delivery SET lease_until = now() - interval '1 s', next_attempt_at = now()"
    )
    await office.deliver()
    assert await office.states() == ["exhausted"]
    assert len(receiver.received) == 1


async def forget(office: Office) -> list[int]:
    """As often as the deliverer does it: until there was nothing."""
    found = [1]
    while found[-1]:
        async with office.pool.acquire() as conn, conn.transaction():
            found.append(await forget_old(conn))
    return found[1:]


async def test_what_ended_a_month_ago_is_forgotten_with_its_events_and_attempts(
    bench: Workbench, office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await bench.customer()
    await office.endpoint(customer, receiver.url("/e"))
    receiver.answers["/e"] = [200, 500]
    await note(office, customer, 2)
    await office.deliver()
    assert await forget(office) == [0]
    # As if it were an hour more than a month later.
    monkeypatch.setattr(deliveries, "RETENTION", timedelta(hours=-1))
    assert await forget(office) == [1, 1, 0]
    (waiting,) = await office.rows("webhook_delivery")
    assert waiting["state"] == "pending"
    assert [row["id"] for row in await office.rows("webhook_event")] == [waiting["event_id"]]
    assert [row["delivery_id"] for row in await office.rows("webhook_attempt")] == [waiting["id"]]


async def test_a_deleted_endpoint_is_forgotten_when_no_delivery_needs_it_any_more(
    bench: Workbench, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await bench.customer()
    kept, told, untold = [await office.endpoint(customer, URL) for _ in range(3)]
    await office.pool.execute("UPDATE webhook_endpoint SET events = '{}' WHERE id = $1", untold.id)
    await note(office, customer)
    for endpoint in (told, untold):
        await delete_endpoint(office.pool, customer, endpoint.id)
    assert await forget(office) == [0]
    await office.pool.execute(
        "UPDATE webhook_delivery SET state = 'pending', completed_at = NULL, next_attempt_at = now()"
    )
    monkeypatch.setattr(deliveries, "RETENTION", timedelta(hours=-1))
    assert await forget(office) == [1, 0]
    assert {row["id"] for row in await office.rows("webhook_endpoint")} == {kept.id, told.id}
