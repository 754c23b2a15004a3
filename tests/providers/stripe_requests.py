"""Requests to Stripe that many tests make, and patience for what happens beside them."""

from collections.abc import Callable
from typing import Any

from stripe import PaymentIntent, StripeClient
from stripe.checkout import Session

from tests import factories

SUCCESS = "https://shop.example/paid?session={CHECKOUT_SESSION_ID}"
CANCEL = "https://shop.example/credits"
NO_REDIRECTS = {"enabled": True, "allow_redirects": "never"}


def checkout(amount: int = 2000, **more: Any) -> dict[str, Any]:
    price = {"currency": "usd", "unit_amount": amount, "product_data": {"name": "Credit"}}
    items = [{"price_data": price, "quantity": 1}]
    return {"mode": "payment", "line_items": items, "success_url": SUCCESS, "cancel_url": CANCEL} | more


async def open_session(client: StripeClient, amount: int = 2000, **more: Any) -> Session:
    return await client.v1.checkout.sessions.create_async(checkout(amount, **more))


def charge_of(customer: str, method: str, amount: int = 1000, **more: Any) -> dict[str, Any]:
    """Parameters of a payment in the customer's absence."""
    return {
        "amount": amount,
        "currency": "usd",
        "customer": customer,
        "payment_method": method,
        "confirm": True,
        "off_session": True,
        "automatic_payment_methods": NO_REDIRECTS,
    } | more


async def charge(
    client: StripeClient, customer: str, method: str, amount: int = 1000, **more: Any
) -> PaymentIntent:
    return await client.v1.payment_intents.create_async(charge_of(customer, method, amount, **more))


async def until(fact: Callable[[], bool]) -> None:
    async def is_so() -> bool:
        return fact()

    await factories.until(is_so)
