"""Every object that the stand-in answers is one that Stripe describes."""

from typing import Any

import pytest
import stripe

from tests.providers.stripe import StandIn, forms
from tests.providers.stripe.account import Account
from tests.providers.stripe.cards import ASKS_ALWAYS, BANK_ACCOUNT, DECLINED_LATER
from tests.providers.stripe_requests import NO_REDIRECTS, SUCCESS, charge, charge_of, open_session
from tests.providers.stripe_shapes import check, check_error, raw

KINDS = [
    "customers",
    "checkout.sessions",
    "payment_methods",
    "payment_intents",
    "setup_intents",
    "charges",
    "refunds",
    "disputes",
    "balance_transactions",
    "events",
]
OPERATIONS = [operation for kind in Account().kinds.values() for operation, _ in kind.operations()]


@pytest.fixture
async def busy(stripe_stand_in: StandIn) -> StandIn:
    """An account in which every kind of thing has happened."""
    client, control = stripe_stand_in.client(), stripe_stand_in.control
    customer = await client.v1.customers.create_async({"email": "a@b.example", "metadata": {"account": "1"}})
    session = await open_session(
        client, customer=customer.id, payment_intent_data={"setup_future_usage": "off_session"}
    )
    control.decline(session.id)
    control.pay(session.id)
    control.expire((await open_session(client, customer_email="c@d.example")).id)
    waiting = await open_session(client, customer_creation="always")
    control.pay(waiting.id, BANK_ACCOUNT)
    control.settle(waiting.id)
    saving = {"mode": "setup", "currency": "usd", "customer": customer.id, "success_url": SUCCESS}
    control.pay((await client.v1.checkout.sessions.create_async(saving)).id)
    card = control.save_card(customer.id, default=True)["id"]
    for number in (ASKS_ALWAYS, DECLINED_LATER):
        method = control.save_card(customer.id, number)["id"]
        with pytest.raises(stripe.CardError):
            await charge(client, customer.id, method)
    await client.v1.payment_intents.create_async(
        charge_of(customer.id, method, off_session=False, payment_method="pm_card_authenticationRequired")
        | {"return_url": "https://shop.example/back"}
    )
    await client.v1.setup_intents.create_async(
        {"customer": customer.id, "payment_method": card, "confirm": True}
    )
    await client.v1.setup_intents.create_async({"automatic_payment_methods": NO_REDIRECTS})
    paid = await charge(client, customer.id, card, 5000, metadata={"top_up": "2"})
    await client.v1.refunds.create_async({"payment_intent": paid.id, "amount": 700, "reason": "duplicate"})
    control.fail_refund(control.refund(paid.id, 300)["id"])
    control.settle_refund(control.refund(paid.id, 200, pending=True)["id"])
    control.end_dispute(control.dispute(paid.id)["id"], "won")
    control.end_dispute(control.dispute(session.id, 500, reason="duplicate", inquiry=True)["id"], "escalated")
    return stripe_stand_in


@pytest.mark.parametrize("kind", KINDS)
async def test_every_object_has_the_fields_and_types_that_stripe_describes(busy: StandIn, kind: str) -> None:
    service: Any = busy.client().v1
    for name in kind.split("."):
        service = getattr(service, name)

    listed = await service.list_async({"limit": 100})

    assert len(listed.data) > 1
    check(raw(listed))


async def test_every_event_holds_an_object_that_stripe_describes(busy: StandIn) -> None:
    events = busy.control.events()

    assert len({event["type"] for event in events}) >= 20
    for event in events:
        check(event["data"]["object"], event["type"])
        changed = event["data"].get("previous_attributes", {})
        assert changed.keys() <= event["data"]["object"].keys(), event["type"]


async def test_expanded_objects_are_those_that_stripe_describes(busy: StandIn) -> None:
    client = busy.client().v1
    deep = "data.payment_intent.latest_charge.balance_transaction"

    sessions = await client.checkout.sessions.list_async(
        {"expand": [deep, "data.line_items", "data.customer"]}
    )
    charges = await client.charges.list_async({"expand": ["data.refunds", "data.payment_intent"]})
    booked = await client.balance_transactions.list_async({"expand": ["data.source"], "limit": 100})

    assert {type(one.source) for one in booked.data} == {stripe.Charge, stripe.Refund, stripe.Dispute}
    for answer in (sessions, charges, booked):
        check(raw(answer))


async def test_errors_have_the_fields_that_stripe_describes(busy: StandIn) -> None:
    client = busy.client()
    customer = await client.v1.customers.create_async()
    broken = busy.control.save_card(customer.id, DECLINED_LATER)["id"]
    refused = []
    with pytest.raises(stripe.CardError) as declined:
        await charge(client, customer.id, broken)
    refused.append(declined.value)
    for params in ({"amount": 5}, {"amount": 1000, "currency": "usd", "colour": "red"}):
        with pytest.raises(stripe.InvalidRequestError) as wrong:
            await client.v1.payment_intents.create_async(params)
        refused.append(wrong.value)

    for error in refused:
        check_error(error.json_body["error"])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_the_stand_in_acts_only_on_parameters_that_stripe_describes(operation: Any) -> None:
    known, _ = forms.fields(operation.description)

    assert {name.split(".")[0] for name in operation.acts_on} <= known.keys()


REFUND = {
    "object": "refund",
    "id": "re_1",
    "amount": 5,
    "created": 1,
    "currency": "usd",
    "reason": "duplicate",
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"amount": "5"}, "refund.amount is '5'"),
        ({"amount": None}, "refund.amount is never null"),
        ({"reason": "bored"}, "refund.reason is 'bored'"),
        ({"colour": "red"}, "Refund has no ['colour']"),
        ({"metadata": {"a": 1}}, "refund.metadata.a is 1"),
        ({"destination_details": {"type": 3}}, "refund.destination_details.type is 3"),
    ],
)
def test_a_wrong_field_is_found(wrong: dict[str, Any], message: str) -> None:
    check(REFUND)

    with pytest.raises(AssertionError) as found:
        check(REFUND | wrong)
    assert message in str(found.value)


def test_a_missing_field_is_found() -> None:
    with pytest.raises(AssertionError) as found:
        check({name: value for name, value in REFUND.items() if name != "currency"})
    assert "refund.currency is required" in str(found.value)
