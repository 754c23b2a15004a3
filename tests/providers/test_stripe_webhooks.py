"""Deliveries of the stand-in: signed as Stripe signs, and everything that happens to them on the way."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
import stripe
from stripe import SignatureVerificationError

from tests.providers.stripe import StandIn
from tests.providers.stripe_requests import open_session
from tests.providers.webhook_receiver import Receiver, receiving

SECRET = "whsec_of_the_receiver"
OF_A_PAYMENT = [
    "payment_intent.created",
    "charge.succeeded",
    "payment_intent.succeeded",
    "checkout.session.completed",
]
DAY = 24 * 3600


@pytest.fixture
async def receiver(stripe_stand_in: StandIn) -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        stripe_stand_in.deliveries.send_to(receiver.url, SECRET)
        yield receiver


async def _pay(stand_in: StandIn) -> None:
    stand_in.control.pay((await open_session(stand_in.client())).id)


async def test_every_event_is_delivered_signed_and_in_order(
    stripe_stand_in: StandIn, receiver: Receiver
) -> None:
    await _pay(stripe_stand_in)
    attempts = await stripe_stand_in.deliveries.settled()

    assert receiver.types(SECRET) == OF_A_PAYMENT
    assert [attempt.status for attempt in attempts] == [200] * 4
    event = receiver.event(3, SECRET)
    assert (event.api_version, event.pending_webhooks, event.data.object.payment_status) == (
        stripe.api_version,
        1,
        "paid",
    )
    assert receiver.headers[0]["user-agent"].startswith("Stripe/1.0")
    assert receiver.headers[0]["content-type"] == "application/json; charset=utf-8"
    listed = await stripe_stand_in.client().v1.events.list_async({"type": "checkout.session.completed"})
    assert [(one.id, one.pending_webhooks) for one in listed.data] == [(event.id, 0)]


async def test_an_event_shows_the_object_as_it_was_then(stripe_stand_in: StandIn, receiver: Receiver) -> None:
    await _pay(stripe_stand_in)
    charge = stripe_stand_in.account.charges.where()[0]
    stripe_stand_in.control.refund(charge["id"], 500)
    await stripe_stand_in.deliveries.settled()

    before, after = receiver.event(1, SECRET), receiver.event(4, SECRET)
    assert (before.type, before.data.object.amount_refunded) == ("charge.succeeded", 0)
    assert (after.type, after.data.object.amount_refunded) == ("charge.refunded", 500)
    assert after.data.previous_attributes.to_dict() == {"amount_refunded": 0}


async def test_a_delivery_of_somebody_else_is_refused(stripe_stand_in: StandIn, receiver: Receiver) -> None:
    await _pay(stripe_stand_in)
    await stripe_stand_in.deliveries.settled()
    (completed,) = stripe_stand_in.control.events("checkout.session.completed")
    receiver.received.clear()

    await stripe_stand_in.control.deliver(completed["id"], forged=True)
    await stripe_stand_in.control.deliver(completed["id"], alter={"amount_total": 1_000_000})
    await stripe_stand_in.control.deliver(completed["id"], age_s=301)
    await stripe_stand_in.control.deliver(completed["id"], age_s=200)

    assert json.loads(receiver.received[1][0])["data"]["object"]["amount_total"] == 1_000_000
    for place, words in enumerate(("No signatures found", "No signatures found", "outside the tolerance")):
        with pytest.raises(SignatureVerificationError, match=words):
            receiver.event(place, SECRET)
    assert receiver.event(3, SECRET).id == completed["id"]
    with pytest.raises(SignatureVerificationError):
        receiver.event(3, "whsec_of_another_endpoint")


async def test_a_failed_delivery_is_repeated_ever_more_slowly_until_it_succeeds(
    stripe_stand_in: StandIn, receiver: Receiver
) -> None:
    receiver.answers[:] = [500, 503, 400, 302]
    await stripe_stand_in.client().v1.customers.create_async()
    waits = []
    for _ in range(4):
        await stripe_stand_in.deliveries.settled()
        ((_, wait),) = stripe_stand_in.deliveries.retries()
        waits.append(wait)
        stripe_stand_in.control.advance(wait)
    await stripe_stand_in.deliveries.settled()

    assert [round(wait / 5) for wait in waits] == [1, 2, 4, 8]
    assert [attempt.status for attempt in stripe_stand_in.deliveries.attempts] == [500, 503, 400, 302, 200]
    assert stripe_stand_in.deliveries.retries() == []
    assert {receiver.event(place, SECRET).id for place in range(5)} == {
        stripe_stand_in.control.events()[0]["id"]
    }


async def test_an_endpoint_that_is_down_hears_of_it_later(stripe_stand_in: StandIn) -> None:
    async with receiving() as receiver:
        url = receiver.url
    stripe_stand_in.deliveries.send_to(url, SECRET)
    await stripe_stand_in.client().v1.customers.create_async()
    (failed,) = await stripe_stand_in.deliveries.settled()

    async with receiving() as receiver:
        stripe_stand_in.deliveries.send_to(receiver.url)
        stripe_stand_in.control.advance(60)
        await stripe_stand_in.deliveries.settled()

    assert (failed.status, failed.ok) == (None, False)
    assert "ConnectError" in (failed.error or "")
    assert receiver.types(SECRET) == ["customer.created"]


async def test_after_three_days_no_more_is_tried(stripe_stand_in: StandIn, receiver: Receiver) -> None:
    receiver.answers[:] = [500] * 100
    await stripe_stand_in.client().v1.customers.create_async()
    await stripe_stand_in.deliveries.settled()
    while stripe_stand_in.deliveries.retries():
        stripe_stand_in.control.advance(12 * 3600)
        await stripe_stand_in.deliveries.settled()

    assert 6 <= len(receiver.received) <= 8
    (event,) = (await stripe_stand_in.client().v1.events.list_async({"delivery_success": False})).data
    assert event.pending_webhooks == 1


async def test_deliveries_are_held_back_and_come_twice_in_reverse(
    stripe_stand_in: StandIn, receiver: Receiver
) -> None:
    stripe_stand_in.deliveries.hold()
    await _pay(stripe_stand_in)
    await stripe_stand_in.deliveries.settled()
    assert receiver.received == []

    await stripe_stand_in.deliveries.release(reverse=True, copies=2)
    await stripe_stand_in.client().v1.customers.create_async()
    await stripe_stand_in.deliveries.settled()

    twice = [name for name in OF_A_PAYMENT[::-1] for _ in range(2)]
    assert receiver.types(SECRET) == [*twice, "customer.created"]


async def test_dropped_events_never_come_and_can_still_be_listed(
    stripe_stand_in: StandIn, receiver: Receiver
) -> None:
    stripe_stand_in.deliveries.hold()
    await _pay(stripe_stand_in)
    assert stripe_stand_in.deliveries.drop() == 4
    await stripe_stand_in.client().v1.customers.create_async()
    await stripe_stand_in.deliveries.settled()

    assert receiver.types(SECRET) == ["customer.created"]
    listed = await stripe_stand_in.client().v1.events.list_async({"types": OF_A_PAYMENT})
    assert [event.type for event in listed.data] == OF_A_PAYMENT[::-1]


async def test_events_can_always_come_twice_late_or_never(
    stripe_stand_in: StandIn, receiver: Receiver
) -> None:
    customers = stripe_stand_in.client().v1.customers
    stripe_stand_in.deliveries.usual(copies=2, delay_s=2 * DAY)
    await customers.create_async({"name": "late"})
    stripe_stand_in.deliveries.usual(lose=True)
    await customers.create_async({"name": "never"})
    stripe_stand_in.deliveries.usual()
    await customers.create_async({"name": "now"})
    await stripe_stand_in.deliveries.settled()
    assert [receiver.event(0, SECRET).data.object["name"]] == ["now"]

    stripe_stand_in.control.advance(2 * DAY)
    await stripe_stand_in.deliveries.settled()

    names = [receiver.event(place, SECRET).data.object["name"] for place in range(len(receiver.received))]
    assert names == ["now", "late", "late"]


async def test_copies_can_come_all_at_once(stripe_stand_in: StandIn, receiver: Receiver) -> None:
    await stripe_stand_in.client().v1.customers.create_async()
    await stripe_stand_in.deliveries.settled()

    event = stripe_stand_in.control.events()[0]["id"]
    attempts = await stripe_stand_in.control.deliver(event, copies=5, at_once=True)

    assert [attempt.ok for attempt in attempts] == [True] * 5
    assert len(receiver.received) == 6


async def test_events_older_than_30_days_are_not_listed(stripe_stand_in: StandIn) -> None:
    await stripe_stand_in.client().v1.customers.create_async()
    stripe_stand_in.control.advance(31 * DAY)
    await stripe_stand_in.client().v1.customers.create_async()

    assert len((await stripe_stand_in.client().v1.events.list_async()).data) == 1


async def test_everything_can_be_controlled_over_http(stripe_stand_in: StandIn, receiver: Receiver) -> None:
    session = await open_session(stripe_stand_in.client())
    async with httpx.AsyncClient(base_url=f"{stripe_stand_in.url}/_control") as http:
        await http.post("/deliveries/hold")
        paid = (await http.post("/payments/pay", json={"session": session.id})).json()
        dispute = (await http.post("/payments/dispute", json={"payment": session.id, "inquiry": True})).json()
        over = (
            await http.post("/payments/end_dispute", json={"dispute": dispute["id"], "how": "dropped"})
        ).json()
        sent = (await http.post("/deliveries/release", json={"reverse": True})).json()
        await http.post("/faults/add", json={"kind": "rate_limit", "path": "/v1/charges", "times": 3})
        faults = (await http.post("/faults/report")).json()
        report = (await http.post("/deliveries/report")).json()
        wrong = [
            await http.post("/payments/pay", json={"session": session.id, "colour": "red"}),
            await http.post("/payments/pay", json={}),
            await http.post("/payments/end_dispute", json={"dispute": dispute["id"], "how": "drawn"}),
            await http.post("/faults/add", json={"kind": "rate_limit", "when": "after"}),
        ]
        nothing = await http.post("/payments/fly")

    assert (paid["payment_status"], over["status"]) == ("paid", "warning_closed")
    assert [attempt["type"] for attempt in sent] == receiver.types(SECRET)
    assert receiver.types(SECRET)[0] == "charge.dispute.closed"
    assert [(fault["kind"], fault["times"]) for fault in faults] == [("rate_limit", 3)]
    assert len(report["attempts"]) == len(sent)
    assert [answer.status_code for answer in wrong] == [400] * 4
    assert (nothing.status_code, "payments/pay" in nothing.text) == (404, True)
