"""POST /webhooks/stripe: what Stripe signed is booked before it is answered; nobody else is believed."""

import asyncio
import time

import httpx
import pytest

from tests.gateway.api.installation import Installation
from tests.gateway.payments.shop import WEBHOOK_SECRET, Shop
from tests.providers.stripe.deliveries import signature

USD20 = "20.000000000"
PATH = "/webhooks/stripe"


async def post(shop: Shop, body: str, **headers: str) -> httpx.Response:
    return await shop.installation.http.post(PATH, content=body.encode(), headers=headers)


async def signed(shop: Shop, body: str) -> httpx.Response:
    header = signature(body, WEBHOOK_SECRET, int(time.time()))
    return await post(shop, body, **{"stripe-signature": header})


async def test_every_event_of_a_payment_is_answered_when_it_is_booked(shop: Shop) -> None:
    shop.pay(await shop.top_up())
    attempts = await shop.stripe.deliveries.settled()
    assert {attempt.status for attempt in attempts} == {200}
    assert {"payment_intent.succeeded", "customer.created"} <= {attempt.type for attempt in attempts}
    assert await shop.balance() == USD20


async def test_events_twice_and_in_reverse_are_booked_once(shop: Shop) -> None:
    top_up = await shop.top_up()
    await shop.stripe.deliveries.settled()
    shop.stripe.deliveries.hold()
    intent = shop.pay(top_up)
    shop.stripe.control.refund(intent, 500)
    dispute = shop.stripe.control.dispute(intent, 700)
    shop.stripe.control.end_dispute(dispute["id"], "won")
    attempts = await shop.stripe.deliveries.release(reverse=True, copies=2)
    assert len(attempts) > 10
    assert {attempt.status for attempt in attempts} == {200}
    assert await shop.balance() == "15.000000000"


async def test_fifty_deliveries_at_once_are_booked_once(shop: Shop) -> None:
    shop.stripe.deliveries.usual(lose=True)
    shop.pay(await shop.top_up())
    (event,) = shop.stripe.control.events("payment_intent.succeeded")
    attempts = await asyncio.gather(*(shop.stripe.deliveries.deliver(event) for _ in range(50)))
    assert {attempt.status for attempt in attempts} == {200}
    assert await shop.balance() == USD20


async def test_stripe_being_away_is_503_until_it_is_back(shop: Shop) -> None:
    top_up = await shop.top_up()
    await shop.stripe.deliveries.settled()
    shop.stripe.faults.add("rate_limit", method="GET", times=999)
    shop.pay(top_up)
    attempts = await shop.stripe.deliveries.settled()
    assert [attempt.status for attempt in attempts if attempt.type == "payment_intent.succeeded"] == [503]
    assert await shop.balance() == "0.000000000"
    shop.stripe.faults.clear()
    shop.stripe.control.advance(10)
    attempts = await shop.stripe.deliveries.settled()
    assert [one.status for one in attempts if one.type == "payment_intent.succeeded"] == [503, 200]
    assert await shop.balance() == USD20


@pytest.mark.parametrize("how", [{"forged": True}, {"age_s": 301}, {"alter": {"amount": 1}}])
async def test_what_stripe_did_not_sign_just_now_is_refused(shop: Shop, how: dict[str, object]) -> None:
    shop.stripe.deliveries.usual(lose=True)
    shop.pay(await shop.top_up())
    (event,) = shop.stripe.control.events("payment_intent.succeeded")
    (attempt,) = await shop.stripe.control.deliver(event["id"], **how)  # type: ignore[arg-type]
    assert attempt.status == 400
    assert await shop.balance() == "0.000000000"


async def test_no_signature_is_refused_without_telling_much(shop: Shop) -> None:
    for headers in ({}, {"stripe-signature": "t=1,v1=00"}, {"stripe-signature": "nonsense"}):
        answer = await post(shop, "{}", **headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "Stripe-Signature")
        assert WEBHOOK_SECRET not in answer.text


async def test_events_that_are_nothing_to_us_are_answered(shop: Shop) -> None:
    body = '{"id": "evt_1", "type": "invoice.paid", "data": {"object": {"id": "in_1", "object": "invoice"}}}'
    answer = await signed(shop, body)
    assert (answer.status_code, answer.json()["received"]) == (200, True)


async def test_a_body_beyond_the_limit_is_refused(shop: Shop) -> None:
    answer = await signed(shop, '{"id": "' + "x" * 1_000_001 + '"}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")


async def test_no_key_of_ours_is_asked_for_or_of_use(shop: Shop) -> None:
    answer = await post(shop, "{}", authorization=f"Bearer {shop.customer.live_key}")
    assert answer.status_code == 400


async def test_without_a_stripe_key_nothing_is_there(without_payments: Installation) -> None:
    answer = await without_payments.http.post(PATH, content=b"{}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
