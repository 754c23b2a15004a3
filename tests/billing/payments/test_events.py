"""Events come twice, at once, in reverse, days late, early, or never; they only say where to look."""

import asyncio
import random

import pytest

from billing import payments
from tests.billing.payments.shop import SECRET, USD, Shop


async def all_of(shop: Shop, *, reverse: bool = False) -> list[str]:
    """Deliver every event so far; what each led to."""
    events = shop.control.events()
    return [await shop.receive(event) for event in (reversed(events) if reverse else events)]


async def test_an_event_books_the_payment(shop: Shop) -> None:
    account = await shop.account()
    shop.pay(await shop.order(account))
    (event,) = shop.events("payment_intent.succeeded")
    assert await shop.receive(event) == "top_up"
    assert await shop.posted(account) == 20 * USD
    row = await shop.conn.fetchrow("SELECT * FROM processor_event")
    assert (row["event_ref"], row["object_ref"]) == (event["id"], event["data"]["object"]["id"])
    assert row["processed_at"] is not None


@pytest.mark.parametrize("kind", ["checkout.session.completed", "charge.succeeded", "payment_intent.created"])
async def test_any_event_of_a_payment_will_do(shop: Shop, kind: str) -> None:
    account = await shop.account()
    shop.pay(await shop.order(account))
    (event,) = shop.events(kind)
    assert await shop.receive(event) == "top_up"
    assert await shop.posted(account) == 20 * USD


async def test_the_second_delivery_asks_nobody(shop: Shop) -> None:
    shop.pay(await shop.order(await shop.account()))
    (event,) = shop.events("payment_intent.succeeded")
    await shop.receive(event)
    shop.stripe.faults.add("server_error", times=99)
    assert await shop.receive(event) == "known already"


async def test_fifty_deliveries_at_once_book_once_and_ask_little(shop: Shop) -> None:
    account = await shop.account()
    shop.pay(await shop.order(account))
    (event,) = shop.events("payment_intent.succeeded")
    shop.stripe.faults.add("slow", method="GET", path="/v1/payment_intents", times=1000, seconds=0)
    outcomes = await asyncio.gather(*(shop.receive(event) for _ in range(50)))
    assert "top_up" in outcomes
    assert await shop.posted(account) == 20 * USD
    (counted,) = shop.stripe.faults.report()
    assert counted["times"] >= 998


async def test_fifty_deliveries_to_several_processes_book_once(shop: Shop) -> None:
    account = await shop.account()
    shop.pay(await shop.order(account))
    (event,) = shop.events("payment_intent.succeeded")
    inboxes = [payments.Inbox(shop.pool, shop.processor) for _ in range(5)]
    await asyncio.gather(*(shop.receive(event, inbox=inboxes[n % 5]) for n in range(50)))
    assert await shop.count("top_up") == 1
    assert await shop.posted(account) == 20 * USD


async def test_a_whole_life_in_reverse_is_booked_the_same(shop: Shop) -> None:
    account = await shop.account()
    intent = shop.pay(await shop.order(account))
    refund = shop.control.refund(intent, 500)
    shop.control.fail_refund(refund["id"])
    shop.control.refund(intent, 300)
    dispute = shop.control.dispute(intent, 700)
    shop.control.end_dispute(dispute["id"], "won")
    await all_of(shop, reverse=True)
    assert await shop.posted(account) == 17 * USD
    assert set(await all_of(shop)) == {"known already", "about nothing that we know"}


@pytest.mark.parametrize("seed", range(6))
async def test_a_whole_life_in_any_order_and_number_is_booked_the_same(shop: Shop, seed: int) -> None:
    account = await shop.account()
    intent = shop.pay(await shop.order(account))
    dice, inboxes = random.Random(seed), [payments.Inbox(shop.pool, shop.processor) for _ in range(2)]
    steps = [
        lambda: shop.control.refund(intent, 500),
        lambda: shop.control.fail_refund(shop.stripe.account.refunds.where()[-1]["id"]),
        lambda: shop.control.refund(intent, 200),
        lambda: shop.control.dispute(intent, 700),
        lambda: shop.control.end_dispute(shop.stripe.account.disputes.where()[0]["id"], "won"),
    ]
    for step in (lambda: None, *steps):
        step()
        events = dice.choices(shop.control.events(), k=6)
        await asyncio.gather(*(shop.receive(event, inbox=dice.choice(inboxes)) for event in events))
    await shop.receive(shop.control.events()[-1], inbox=payments.Inbox(shop.pool, shop.processor))
    assert await shop.posted(account) == 18 * USD
    booked = await shop.payment(intent)
    assert (booked.refunded_nano, booked.disputed_nano) == (2 * USD, 0)


async def test_an_event_before_our_own_answer_finds_its_top_up(shop: Shop) -> None:
    # The page was made, our process died before it could note which page it was, the customer paid.
    account = await shop.account()
    payment = await shop.order(account)
    intent = shop.pay(payment)
    await shop.conn.execute(
        "UPDATE payment SET checkout_ref = NULL, url = NULL, expires_at = NULL, status = 'created'"
    )
    await shop.receive(shop.events("payment_intent.succeeded")[0])
    assert (await shop.payment(intent)).id == payment.id
    assert (await shop.payment(intent)).status == "paid"


async def test_an_event_days_late_changes_nothing_that_was_found_out(shop: Shop) -> None:
    account = await shop.account()
    payment = await shop.order(account)
    shop.pay(payment)
    await payments.read_top_up(shop.pool, shop.processor, account, payment.id)
    shop.control.advance(3 * 24 * 3600)
    assert await shop.receive(shop.events("payment_intent.succeeded")[0]) == "nothing new"
    assert await shop.posted(account) == 20 * USD


async def test_amounts_and_owners_of_an_event_are_not_believed(shop: Shop) -> None:
    account, other = await shop.account(), await shop.account()
    rich = await shop.order(other, 1)
    intent = shop.pay(await shop.order(account))
    (event,) = shop.events("payment_intent.succeeded")
    lie = {
        "amount": 1_000_000,
        "amount_received": 1_000_000,
        "customer": shop.page(rich)["customer"],
        "metadata": {"antiphon_payment": rich.id.hex, "antiphon_organization": other.hex},
    }
    event = event | {"data": {"object": event["data"]["object"] | lie}}
    await shop.receive(event)
    assert await shop.posted(account) == 20 * USD
    assert await shop.posted(other) == 0
    assert (await shop.payment(intent)).account_id == account


async def test_an_expired_page_is_told(shop: Shop) -> None:
    account = await shop.account()
    payment = await shop.order(account)
    shop.control.advance(25 * 3600)
    assert await shop.receive(shop.events("checkout.session.expired")[0]) == "page followed"
    (found,) = await payments.list_payments(shop.pool, account, limit=1)
    assert (found.id, found.status) == (payment.id, "expired")


@pytest.mark.parametrize("age", [301, 24 * 3600])
async def test_an_old_signature_is_refused(shop: Shop, age: int) -> None:
    shop.pay(await shop.order(await shop.account()))
    with pytest.raises(payments.EventRefused, match="tolerance"):
        await shop.receive(shop.control.events()[-1], age_s=age)
    assert await shop.count("top_up") == 0


async def test_a_signature_within_the_tolerance_is_taken(shop: Shop) -> None:
    shop.pay(await shop.order(await shop.account()))
    assert await shop.receive(shop.control.events()[-1], age_s=290) == "top_up"


async def test_a_forged_signature_is_refused(shop: Shop) -> None:
    shop.pay(await shop.order(await shop.account()))
    with pytest.raises(payments.EventRefused):
        await shop.receive(shop.control.events()[-1], secret="whsec_of_somebody_else")
    assert await shop.count("top_up") == 0
    assert await shop.conn.fetchval("SELECT count(*) FROM processor_event") == 0


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        (b"{}", None),
        (b"{}", ""),
        (b"{}", "t=1"),
        (b"{}", "t=x,v1=y"),
        (b"{}", "t=99999999999999999999,v1=y"),
        (b"{}", "t=1,v1=\xe9"),
        (b"{}", "," * 5000),
        (b"\xff\xfe", "t=1,v1=y"),
        (b"", "t=1,v1=y"),
    ],
)
async def test_what_is_no_signature_is_refused(shop: Shop, body: bytes, signature: str | None) -> None:
    assert shop.till.inbox is not None
    with pytest.raises(payments.EventRefused):
        await shop.till.inbox.receive(body, signature)


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", "null", '{"id": 1}', "[" * 100_000, '{"id":"e","type":"t"}']
)
async def test_what_is_signed_and_no_event_is_refused(shop: Shop, body: str) -> None:
    import stripe  # noqa: PLC0415 - to sign as Stripe does

    assert shop.till.inbox is not None
    header = stripe.WebhookSignature.generate_signature_header(body, SECRET)
    with pytest.raises(payments.EventRefused):
        await shop.till.inbox.receive(body.encode(), header)


async def test_kinds_of_events_that_we_do_not_know_are_answered(shop: Shop) -> None:
    assert await shop.receive(
        {"id": "evt_1", "type": "price.created", "data": {"object": {"id": "price_1", "object": "price"}}}
    ) == ("about nothing that we know")
    assert await shop.conn.fetchval("SELECT count(*) FROM processor_event") == 0


async def test_an_event_about_something_that_the_provider_does_not_have_is_recorded(shop: Shop) -> None:
    event = {
        "id": "evt_1",
        "type": "payment_intent.succeeded",
        "data": {"object": {"id": "pi_of_nobody", "object": "payment_intent"}},
    }
    assert (await shop.receive(event)).startswith("missing at the provider")
    assert await shop.receive(event) == "known already"


async def test_events_about_customers_of_something_else_are_recorded(shop: Shop) -> None:
    client = shop.stripe.client()
    stranger = await client.v1.customers.create_async({})
    await client.v1.payment_intents.create_async(
        {
            "amount": 700,
            "currency": "usd",
            "customer": stranger.id,
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
    )
    assert await shop.receive(shop.events("payment_intent.succeeded")[0]) == "a customer of something else"
    assert await shop.conn.fetchval("SELECT outcome FROM processor_event") == "a customer of something else"


@pytest.mark.parametrize("kind", ["server_error", "drop", "rate_limit", "garbage"])
async def test_an_event_waits_for_a_provider_that_is_away(shop: Shop, kind: str) -> None:
    account = await shop.account()
    shop.pay(await shop.order(account))
    (event,) = shop.events("payment_intent.succeeded")
    shop.stripe.faults.add(kind, times=99)
    with pytest.raises(payments.ProcessorUnavailable):
        await shop.receive(event)
    assert await shop.conn.fetchval("SELECT processed_at FROM processor_event") is None
    shop.stripe.faults.clear()
    assert await shop.receive(event) == "top_up"
    assert await shop.posted(account) == 20 * USD


async def test_an_answer_that_never_comes_is_given_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.pay(await shop.order(await shop.account()))
    monkeypatch.setattr("billing.payments.stripe_client.DEADLINE_SECONDS", 0.2)
    shop.stripe.faults.add("slow", seconds=30, times=9)
    with pytest.raises(payments.ProcessorUnavailable, match="did not answer within"):
        await shop.receive(shop.events("payment_intent.succeeded")[0])


async def test_old_events_are_forgotten(shop: Shop) -> None:
    shop.pay(await shop.order(await shop.account()))
    for event in shop.control.events():
        await shop.receive(event)
    count = await shop.conn.fetchval("SELECT count(*) FROM processor_event")
    await shop.conn.execute(
        "UPDATE processor_event SET received_at = received_at - interval '91 days' WHERE kind LIKE 'charge%'"
    )
    assert await payments.forget_old_events(shop.conn) == 1
    assert await shop.conn.fetchval("SELECT count(*) FROM processor_event") == count - 1
