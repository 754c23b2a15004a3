"""Payments against the stand-in, driven through the unmodified `stripe` package over real sockets."""

import time
from typing import Any

import httpx
import pytest
import stripe

from tests.providers.stripe import Refusal, StandIn
from tests.providers.stripe.cards import (
    ASKS_ALWAYS,
    ASKS_ONCE,
    BANK_ACCOUNT,
    DECLINED_LATER,
    EMPTY_BANK_ACCOUNT,
    NO_FUNDS,
    REFUND_FAILS,
    REFUND_PENDS,
)
from tests.providers.stripe.collection import Json
from tests.providers.stripe_requests import CANCEL, SUCCESS, charge, charge_of, checkout, open_session

DAY = 24 * 3600


async def _customer(stand_in: StandIn, card: str | None = None) -> tuple[str, str]:
    """A customer, and a saved card of theirs if one is named."""
    customer = await stand_in.client().v1.customers.create_async({"email": "a@b.example"})
    return customer.id, stand_in.control.save_card(customer.id, card)["id"] if card else ""


async def _paid(stand_in: StandIn, amount: int = 2000, card: str = "pm_card_visa") -> stripe.PaymentIntent:
    customer, method = await _customer(stand_in, card)
    return await charge(stand_in.client(), customer, method, amount)


def _net(stand_in: StandIn) -> int:
    return sum(booked["net"] for booked in stand_in.account.balance.where())


def _types(stand_in: StandIn) -> list[str]:
    return [event["type"] for event in stand_in.control.events()]


async def test_a_customer_pays_on_the_page_and_is_sent_back(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    session = await open_session(client, 2500, client_reference_id="account-7", metadata={"top_up": "9"})

    async with httpx.AsyncClient() as browser:
        page = await browser.get(session.url)
        pressed = await browser.post(f"{session.url}/pay", data={"card": "4242 4242 4242 4242"})
        gone = await browser.get(session.url)

    assert "$25.00" in page.text
    assert "Credit" in page.text
    assert pressed.status_code == 303
    assert pressed.headers["location"] == SUCCESS.replace("{CHECKOUT_SESSION_ID}", session.id)
    assert "complete" in gone.text
    paid = await client.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["payment_intent"]})
    assert (paid.status, paid.payment_status, paid.amount_total) == ("complete", "paid", 2500)
    assert (paid.client_reference_id, paid.metadata["top_up"], paid.url) == ("account-7", "9", None)
    assert (paid.payment_intent.status, paid.payment_intent.amount_received) == ("succeeded", 2500)


async def test_a_declined_customer_sees_why_and_may_try_again(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    session = await open_session(client)

    async with httpx.AsyncClient() as browser:
        declined = await browser.post(f"{session.url}/pay", data={"card": NO_FUNDS})
        pressed = await browser.post(f"{session.url}/decline")
        still = await client.v1.checkout.sessions.retrieve_async(session.id)
        paid = await browser.post(f"{session.url}/pay")

    assert (declined.status_code, pressed.status_code) == (402, 402)
    assert 'role="alert">Your card has insufficient funds.' in declined.text
    assert (still.status, still.payment_status) == ("open", "unpaid")
    assert paid.status_code == 303
    (intent,) = stripe_stand_in.account.payment_intents.where()
    assert intent["status"] == "succeeded"
    assert [one["status"] for one in stripe_stand_in.account.charges.where()] == [
        "succeeded",
        "failed",
        "failed",
    ]


async def test_a_customer_who_leaves_pays_nothing(stripe_stand_in: StandIn) -> None:
    session = await open_session(stripe_stand_in.client())

    async with httpx.AsyncClient() as browser:
        left = await browser.post(f"{session.url}/leave")

    assert (left.status_code, left.headers["location"]) == (303, CANCEL)
    assert stripe_stand_in.account.sessions.get(session.id)["status"] == "open"
    assert _net(stripe_stand_in) == 0


async def test_text_of_a_shop_is_text_on_the_page(stripe_stand_in: StandIn) -> None:
    price = {"currency": "usd", "unit_amount": 900, "product_data": {"name": "<script>alert(1)</script>"}}
    session = await open_session(stripe_stand_in.client(), line_items=[{"price_data": price, "quantity": 2}])

    async with httpx.AsyncClient() as browser:
        page = await browser.get(session.url)

    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_a_paid_charge_has_a_receipt_page(stripe_stand_in: StandIn) -> None:
    intent = await _paid(stripe_stand_in, 1234)
    await stripe_stand_in.client().v1.refunds.create_async({"payment_intent": intent.id, "amount": 34})
    paid = await stripe_stand_in.client().v1.charges.retrieve_async(intent.latest_charge)

    async with httpx.AsyncClient() as browser:
        page = await browser.get(paid.receipt_url)

    assert "$12.34" in page.text
    assert "$0.34" in page.text


async def test_a_card_saved_at_checkout_pays_in_the_customers_absence(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    customer, _ = await _customer(stripe_stand_in)
    saves = {"setup_future_usage": "off_session"}
    session = await open_session(client, customer=customer, payment_intent_data=saves)
    stripe_stand_in.control.pay(session.id, ASKS_ONCE)

    (method,) = (await client.v1.customers.payment_methods.list_async(customer, {"type": "card"})).data
    again = await charge(client, customer, method.id, 700)

    assert (method.card.last4, method.allow_redisplay) == ("3155", "limited")
    assert (again.status, again.customer, again.amount_received) == ("succeeded", customer, 700)


async def test_a_card_not_meant_for_later_is_not_saved(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    customer, _ = await _customer(stripe_stand_in)
    stripe_stand_in.control.pay((await open_session(client, customer=customer)).id)

    assert (await client.v1.customers.payment_methods.list_async(customer)).data == []


async def test_a_customer_may_choose_to_save_the_card(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    customer, _ = await _customer(stripe_stand_in)
    offer = {"payment_method_save": "enabled"}
    session = await open_session(client, customer=customer, saved_payment_method_options=offer)

    async with httpx.AsyncClient() as browser:
        await browser.post(f"{session.url}/pay", data={"save": "true"})

    (method,) = (await client.v1.customers.payment_methods.list_async(customer)).data
    assert method.allow_redisplay == "always"


async def test_a_session_in_setup_mode_saves_a_card_and_takes_nothing(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    customer, _ = await _customer(stripe_stand_in)
    session = await client.v1.checkout.sessions.create_async(
        {"mode": "setup", "currency": "usd", "customer": customer, "success_url": SUCCESS}
    )
    stripe_stand_in.control.decline(session.id)
    stripe_stand_in.control.pay(session.id)

    done = await client.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["setup_intent"]})
    assert (done.status, done.payment_status, done.payment_intent) == (
        "complete",
        "no_payment_required",
        None,
    )
    assert done.setup_intent.status == "succeeded"
    assert (await charge(client, customer, done.setup_intent.payment_method)).status == "succeeded"
    assert "setup_intent.setup_failed" in _types(stripe_stand_in)


@pytest.mark.parametrize(
    ("card", "code", "decline_code"),
    [
        (DECLINED_LATER, "card_declined", "generic_decline"),
        (NO_FUNDS, "card_declined", "insufficient_funds"),
        (ASKS_ALWAYS, "authentication_required", "authentication_required"),
        ("4000000000000069", "expired_card", None),
    ],
)
async def test_a_refused_payment_is_a_card_error_that_holds_the_intent(
    stripe_stand_in: StandIn, card: str, code: str, decline_code: str | None
) -> None:
    client = stripe_stand_in.client()
    customer, method = await _customer(stripe_stand_in, "pm_card_visa")
    stripe_stand_in.control.turn_card(method, card)

    with pytest.raises(stripe.CardError) as refused:
        await charge(client, customer, method)

    error = refused.value.error
    assert (refused.value.http_status, refused.value.code, error.decline_code) == (402, code, decline_code)
    assert error.payment_method.id == method
    intent = await client.v1.payment_intents.retrieve_async(
        error.payment_intent.id, {"expand": ["latest_charge"]}
    )
    assert (intent.status, intent.last_payment_error.code) == ("requires_payment_method", code)
    assert (intent.latest_charge.id, intent.latest_charge.paid) == (error.charge, False)
    assert _types(stripe_stand_in)[-3:] == [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
    ]
    assert _net(stripe_stand_in) == 0


@pytest.mark.parametrize(
    ("button", "status"), [("complete", "succeeded"), ("fail", "requires_payment_method")]
)
async def test_a_present_customer_authenticates_on_the_banks_page(
    stripe_stand_in: StandIn, button: str, status: str
) -> None:
    client = stripe_stand_in.client()
    customer, method = await _customer(stripe_stand_in, ASKS_ALWAYS)
    asked = charge_of(customer, method) | {"return_url": "https://shop.example/back?a=1"}
    del asked["off_session"]
    intent = await client.v1.payment_intents.create_async(asked)
    assert (intent.status, intent.next_action.type) == ("requires_action", "redirect_to_url")

    page = intent.next_action.redirect_to_url.url
    async with httpx.AsyncClient() as browser:
        shown = await browser.get(page)
        pressed = await browser.post(f"{page}/{button}")

    assert "Is this payment yours?" in shown.text
    assert pressed.headers["location"].startswith(
        f"https://shop.example/back?a=1&payment_intent={intent.id}&"
    )
    assert (await client.v1.payment_intents.retrieve_async(intent.id)).status == status


async def test_an_intent_is_confirmed_updated_and_canceled(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    customer, method = await _customer(stripe_stand_in, "pm_card_visa")
    later = charge_of(customer, method, 900, confirm=False, metadata={"a": "1"})
    del later["off_session"]
    first = await client.v1.payment_intents.create_async(later)
    second = await client.v1.payment_intents.create_async(later)

    await client.v1.payment_intents.update_async(first.id, {"amount": 950, "metadata": {"a": "", "b": "2"}})
    paid = await client.v1.payment_intents.confirm_async(first.id, {"off_session": True})
    gone = await client.v1.payment_intents.cancel_async(second.id, {"cancellation_reason": "abandoned"})

    assert first.status == "requires_confirmation"
    assert (paid.status, paid.amount_received, paid.metadata.to_dict()) == ("succeeded", 950, {"b": "2"})
    assert (gone.status, gone.cancellation_reason) == ("canceled", "abandoned")
    for act in (client.v1.payment_intents.confirm_async, client.v1.payment_intents.cancel_async):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await act(first.id)
        assert refused.value.code == "payment_intent_unexpected_state"


async def test_a_confirmation_that_might_redirect_needs_a_return_url(stripe_stand_in: StandIn) -> None:
    customer, method = await _customer(stripe_stand_in, "pm_card_visa")
    params = charge_of(customer, method)
    del params["automatic_payment_methods"]

    with pytest.raises(stripe.InvalidRequestError, match="you must provide a `return_url`"):
        await stripe_stand_in.client().v1.payment_intents.create_async(params)


@pytest.mark.parametrize(
    ("account", "status", "outcome"),
    [(BANK_ACCOUNT, "paid", "succeeded"), (EMPTY_BANK_ACCOUNT, "unpaid", "failed")],
)
async def test_a_bank_account_pays_days_after_the_session_completed(
    stripe_stand_in: StandIn, account: str, status: str, outcome: str
) -> None:
    client = stripe_stand_in.client()
    session = await open_session(client, 5000, allowed_payment_method_types=["us_bank_account"])
    stripe_stand_in.control.pay(session.id, account)
    at_first = await client.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["payment_intent"]})

    stripe_stand_in.control.settle(session.id)

    assert (at_first.status, at_first.payment_status) == ("complete", "unpaid")
    assert at_first.payment_intent.status == "processing"
    assert (await client.v1.checkout.sessions.retrieve_async(session.id)).payment_status == status
    assert _types(stripe_stand_in)[-1] == f"checkout.session.async_payment_{outcome}"
    assert _net(stripe_stand_in) == (4960 if status == "paid" else 0)


async def test_a_session_for_cards_takes_no_bank_account(stripe_stand_in: StandIn) -> None:
    session = await open_session(stripe_stand_in.client(), allowed_payment_method_types=["card"])

    with pytest.raises(Refusal, match="not allowed for this PaymentIntent"):
        stripe_stand_in.control.pay(session.id, BANK_ACCOUNT)


async def test_refunds_never_exceed_what_is_left(stripe_stand_in: StandIn) -> None:
    refunds = stripe_stand_in.client().v1.refunds
    intent = await _paid(stripe_stand_in, 2000)

    part = await refunds.create_async({"payment_intent": intent.id, "amount": 1500, "metadata": {"a": "b"}})
    with pytest.raises(stripe.InvalidRequestError) as too_much:
        await refunds.create_async({"charge": intent.latest_charge, "amount": 501})
    rest = await refunds.create_async({"charge": intent.latest_charge})
    with pytest.raises(stripe.InvalidRequestError) as nothing:
        await refunds.create_async({"payment_intent": intent.id})

    assert (part.status, part.amount, part.charge) == ("succeeded", 1500, intent.latest_charge)
    assert (too_much.value.param, rest.amount) == ("amount", 500)
    assert "($5.01) is greater than unrefunded amount on charge ($5.00)" in str(too_much.value)
    assert nothing.value.code == "charge_already_refunded"
    paid = await stripe_stand_in.client().v1.charges.retrieve_async(
        intent.latest_charge, {"expand": ["refunds"]}
    )
    assert (paid.amount_refunded, paid.refunded, len(paid.refunds.data)) == (2000, True, 2)
    assert _net(stripe_stand_in) == -88  # Stripe keeps its fee


async def test_a_refund_in_the_dashboard_pends_and_then_fails(stripe_stand_in: StandIn) -> None:
    intent = await _paid(stripe_stand_in, 2000)
    refund = stripe_stand_in.control.refund(intent.id, 800, pending=True)
    assert (refund["status"], _net(stripe_stand_in)) == ("pending", 2000 - 88 - 800)

    stripe_stand_in.control.fail_refund(refund["id"])

    failed = await stripe_stand_in.client().v1.refunds.retrieve_async(refund["id"])
    assert (failed.status, failed.failure_reason) == ("failed", "expired_or_canceled_card")
    assert failed.failure_balance_transaction is not None
    assert stripe_stand_in.control.charge_of(intent.id)["amount_refunded"] == 0
    assert _net(stripe_stand_in) == 2000 - 88
    assert {"refund.failed", "charge.refund.updated", "charge.updated"} <= set(_types(stripe_stand_in))
    with pytest.raises(Refusal, match="is failed"):
        stripe_stand_in.control.settle_refund(refund["id"])


@pytest.mark.parametrize(("card", "status"), [(REFUND_PENDS, "pending"), (REFUND_FAILS, "failed")])
async def test_cards_whose_refunds_go_otherwise(stripe_stand_in: StandIn, card: str, status: str) -> None:
    intent = await _paid(stripe_stand_in, card=card)

    refund = await stripe_stand_in.client().v1.refunds.create_async({"payment_intent": intent.id})

    assert stripe_stand_in.account.refunds.get(refund.id)["status"] == status


async def test_a_lost_dispute_costs_the_payment_and_a_fee(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    intent = await _paid(stripe_stand_in, 2000)
    opened = stripe_stand_in.control.dispute(intent.id, reason="product_not_received")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.refunds.create_async({"payment_intent": intent.id})

    stripe_stand_in.control.end_dispute(opened["id"], "lost")

    dispute = await client.v1.disputes.retrieve_async(opened["id"])
    assert (dispute.status, dispute.amount, dispute.reason) == ("lost", 2000, "product_not_received")
    assert [booked.net for booked in dispute.balance_transactions] == [-3500]
    assert refused.value.code == "charge_disputed"
    assert _net(stripe_stand_in) == -88 - 1500
    assert _types(stripe_stand_in)[-3:] == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
    ]


async def test_a_won_dispute_gives_all_back(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    intent = await _paid(stripe_stand_in, 2000)
    opened = stripe_stand_in.control.dispute(intent.id)
    reviewed = await client.v1.disputes.update_async(
        opened["id"], {"evidence": {"uncategorized_text": "They listened to it."}}
    )

    stripe_stand_in.control.end_dispute(opened["id"], "won")

    assert (reviewed.status, reviewed.evidence_details.submission_count) == ("under_review", 1)
    assert (await client.v1.disputes.retrieve_async(opened["id"])).status == "won"
    assert _net(stripe_stand_in) == 2000 - 88
    assert _types(stripe_stand_in)[-2:] == ["charge.dispute.funds_reinstated", "charge.dispute.closed"]


async def test_an_inquiry_takes_nothing_until_it_becomes_a_chargeback(stripe_stand_in: StandIn) -> None:
    intent = await _paid(stripe_stand_in, 2000)
    dropped = stripe_stand_in.control.dispute(intent.id, inquiry=True)
    stripe_stand_in.control.end_dispute(dropped["id"], "dropped")
    asked = stripe_stand_in.control.dispute(intent.id, 600, inquiry=True)
    before = _net(stripe_stand_in)

    stripe_stand_in.control.end_dispute(asked["id"], "escalated")

    assert (dropped["status"], before) == ("warning_closed", 2000 - 88)
    assert (asked["status"], asked["is_charge_refundable"]) == ("needs_response", False)
    assert _net(stripe_stand_in) == 2000 - 88 - 600 - 1500
    with pytest.raises(Refusal, match="already closed"):
        stripe_stand_in.control.end_dispute(dropped["id"], "lost")


async def test_a_loss_can_be_accepted(stripe_stand_in: StandIn) -> None:
    intent = await _paid(stripe_stand_in, card="pm_card_createDispute")
    (dispute,) = (await stripe_stand_in.client().v1.disputes.list_async({"payment_intent": intent.id})).data

    closed = await stripe_stand_in.client().v1.disputes.close_async(dispute.id)

    assert closed.status == "lost"


async def test_the_balance_adds_up_to_what_the_charges_say(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    for amount in (500, 1999, 20_000):
        await _paid(stripe_stand_in, amount)
    await client.v1.refunds.create_async({"payment_intent": (await _paid(stripe_stand_in)).id, "amount": 250})

    booked = [one async for one in (await client.v1.balance_transactions.list_async()).auto_paging_iter()]
    charges = [one async for one in (await client.v1.charges.list_async({"limit": 2})).auto_paging_iter()]

    assert (
        sum(one.amount for one in booked)
        == sum(one.amount - one.amount_refunded for one in charges)
        == 24_249
    )
    assert {one.fee for one in booked if one.type == "charge"} == {45, 88, 610}
    assert {one.status for one in booked} == {"pending"}
    stripe_stand_in.control.advance(2 * DAY)
    assert (await client.v1.balance_transactions.retrieve_async(booked[0].id)).status == "available"


async def test_a_session_expires_by_stripes_clock(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    soon = await open_session(client, expires_at=int(time.time()) + 3600)
    late = await open_session(client)
    stripe_stand_in.control.decline(soon.id)

    stripe_stand_in.control.advance(2 * 3600)

    assert (await client.v1.checkout.sessions.retrieve_async(soon.id)).status == "expired"
    assert (await client.v1.checkout.sessions.retrieve_async(late.id)).status == "open"
    assert _types(stripe_stand_in)[-2:] == ["payment_intent.canceled", "checkout.session.expired"]
    with pytest.raises(Refusal, match="nobody can pay it any more"):
        stripe_stand_in.control.pay(soon.id)


async def test_a_session_can_be_expired_once(stripe_stand_in: StandIn) -> None:
    sessions = stripe_stand_in.client().v1.checkout.sessions
    session = await open_session(stripe_stand_in.client())

    assert (await sessions.expire_async(session.id)).status == "expired"
    with pytest.raises(stripe.InvalidRequestError, match="status of expired"):
        await sessions.expire_async(session.id)


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        (checkout(49), None, "amount_too_small"),
        (checkout(expires_at=1), "expires_at", None),
        (checkout(expires_at=int(time.time()) + 2 * DAY), "expires_at", None),
        (checkout(customer="cus_nobody"), "customer", "resource_missing"),
        (checkout(setup_intent_data={"description": "a"}), "setup_intent_data", None),
        ({"mode": "payment", "success_url": SUCCESS}, "line_items", "parameter_missing"),
        ({"mode": "setup", "success_url": SUCCESS}, "currency", "parameter_missing"),
    ],
)
async def test_a_session_that_makes_no_sense_is_refused(
    stripe_stand_in: StandIn, params: Json, param: str | None, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await stripe_stand_in.client().v1.checkout.sessions.create_async(params)

    assert (refused.value.param, refused.value.code) == (param, code)
    assert stripe_stand_in.account.sessions.where() == []


async def test_customers_are_made_changed_and_deleted(stripe_stand_in: StandIn) -> None:
    customers = stripe_stand_in.client().v1.customers
    made = await customers.create_async(
        {"name": "A", "metadata": {"a": "1", "b": "2"}, "payment_method": "pm_card_visa"}
    )
    (card,) = (await customers.payment_methods.list_async(made.id)).data

    changed = await customers.update_async(
        made.id,
        {
            "name": "B",
            "metadata": {"b": "", "c": "3"},
            "invoice_settings": {"default_payment_method": card.id},
        },
    )
    gone = await customers.delete_async(made.id)

    assert (changed.name, changed.metadata.to_dict()) == ("B", {"a": "1", "c": "3"})
    assert changed.invoice_settings.default_payment_method == card.id
    assert gone.deleted
    assert (await customers.retrieve_async(made.id)).deleted
    assert (await customers.list_async()).data == []
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await charge(stripe_stand_in.client(), made.id, card.id)
    assert refused.value.code == "resource_missing"
    updated = stripe_stand_in.control.events("customer.updated")[0]["data"]["previous_attributes"]
    assert (updated["name"], updated["metadata"]) == ("A", {"a": "1", "b": "2"})


async def test_a_card_belongs_to_one_customer(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    owner, card = await _customer(stripe_stand_in, "pm_card_visa")
    other, _ = await _customer(stripe_stand_in)

    with pytest.raises(stripe.InvalidRequestError, match="does not have a payment method"):
        await charge(client, other, card)
    with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
        await client.v1.payment_methods.attach_async(card, {"customer": other})
    detached = await client.v1.payment_methods.detach_async(card)
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        await charge(client, owner, card)

    assert detached.customer is None


async def test_a_card_that_the_bank_refuses_cannot_be_saved(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    customer, _ = await _customer(stripe_stand_in)
    card: dict[str, Any] = {"number": NO_FUNDS, "exp_month": 5, "exp_year": 2035, "cvc": "111"}
    method = await client.v1.payment_methods.create_async({"type": "card", "card": card})

    with pytest.raises(stripe.CardError) as refused:
        await client.v1.payment_methods.attach_async(method.id, {"customer": customer})

    assert refused.value.error.decline_code == "insufficient_funds"


async def test_a_setup_intent_saves_a_card(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    customer, _ = await _customer(stripe_stand_in)
    params = {"customer": customer, "payment_method": "pm_card_visa", "usage": "off_session"}
    intent = await client.v1.setup_intents.create_async(params)

    done = await client.v1.setup_intents.confirm_async(intent.id)

    assert (intent.status, done.status) == ("requires_confirmation", "succeeded")
    assert (await charge(client, customer, done.payment_method)).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.setup_intents.cancel_async(intent.id)
    assert refused.value.code == "setup_intent_unexpected_state"
