"""Stripe, through its own package. The only module that imports it, itself imported by `open_till` alone:
the package takes 0.3 s and 12 MB, which only a process with a key should pay.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import stripe

from billing.payments import stripe_objects as wire
from billing.payments.errors import (
    EventRefused,
    ObjectMissing,
    PaymentError,
    ProcessorDenied,
    ProcessorRefused,
    ProcessorUnavailable,
)
from billing.payments.processor import (
    CURRENCY,
    ChargeOrder,
    Dispute,
    Event,
    Intent,
    Method,
    Movement,
    Page,
    PageOrder,
    Refund,
    Setup,
)

TRY_SECONDS: Final = 8.0
DEADLINE_SECONDS: Final = 20.0
"""For one call with its retries, and with waiting for its turn."""
RETRIES: Final = 2
AT_ONCE: Final = 16
"""Far below what Stripe lets one account do in a second."""
TOLERANCE_SECONDS: Final = 300
LIST_PAGE: Final = 100
EARLIER: Final = timedelta(minutes=10)
"""How far Stripe's clock may be behind ours."""

Answer = TypeVar("Answer")


class StripeProcessor:
    """A `Processor`."""

    def __init__(self, *, secret_key: str, webhook_secret: str | None, base_url: str | None) -> None:
        self._webhook_secret = webhook_secret
        self._http = stripe.HTTPXClient(timeout=TRY_SECONDS)
        client = stripe.StripeClient(
            secret_key,
            http_client=self._http,
            max_network_retries=RETRIES,
            base_addresses={"api": base_url} if base_url else {},
        )
        self._api = client.v1
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def create_customer(self, account_id: uuid.UUID, *, key: str) -> str:
        """The organization's id stands in the customer's metadata, for people at Stripe's dashboard."""
        customer = await self._call(
            lambda: self._api.customers.create_async(
                {"metadata": {"antiphon_organization": account_id.hex}}, {"idempotency_key": key}
            )
        )
        return customer.id

    async def open_page(self, order: PageOrder) -> Page:
        """A Checkout session; cards only, because other ways to pay take days to succeed or fail."""
        ours = {wire.PAYMENT_ID: order.payment_id.hex}
        intent: dict[str, Any] = {"metadata": ours, "description": "Prepaid credit"}
        if order.save_card:
            intent["setup_future_usage"] = "off_session"
        params: Any = {
            "mode": "payment",
            "customer": order.customer_ref,
            "client_reference_id": order.payment_id.hex,
            "metadata": ours,
            "allowed_payment_method_types": ["card"],
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": CURRENCY,
                        "unit_amount": order.amount_cents,
                        "product_data": {"name": "Prepaid credit"},
                    },
                }
            ],
            "payment_intent_data": intent,
            "success_url": order.success_url,
            "cancel_url": order.cancel_url,
        }
        # With the customer in the key: one who was deleted and made anew gets a new page.
        key = f"antiphon-page-{order.payment_id.hex}-{order.customer_ref}"
        return await self._open_page(params, key)

    async def open_setup_page(
        self, customer_ref: str, *, key: str, success_url: str, cancel_url: str
    ) -> Page:
        """A Checkout session in setup mode."""
        params: Any = {
            "mode": "setup",
            "customer": customer_ref,
            "currency": CURRENCY,
            "allowed_payment_method_types": ["card"],
            "success_url": success_url,
            "cancel_url": cancel_url,
        }
        return await self._open_page(params, f"antiphon-setup-{key}")

    async def _open_page(self, params: Any, key: str) -> Page:
        session = await self._call(
            lambda: self._api.checkout.sessions.create_async(params, {"idempotency_key": key})
        )
        return wire.page_of(session.to_dict())

    async def read_page(self, ref: str) -> Page:
        """A Checkout session."""
        session = await self._call(lambda: self._api.checkout.sessions.retrieve_async(ref))
        return wire.page_of(session.to_dict())

    async def read_intent(self, ref: str) -> Intent:
        """A payment intent, and what was taken back of it if there was something to take back."""
        intent = (
            await self._call(
                lambda: self._api.payment_intents.retrieve_async(
                    ref, {"expand": ["latest_charge", "payment_method"]}
                )
            )
        ).to_dict()
        refunds: list[Refund] = []
        disputes: list[Dispute] = []
        if intent["amount_received"] > 0:
            of_it = {"payment_intent": ref, "limit": LIST_PAGE}
            refunds = [wire.refund_of(one) async for one in self._walk(self._api.refunds.list_async, of_it)]
            if (intent.get("latest_charge") or {}).get("disputed"):
                found = self._walk(self._api.disputes.list_async, of_it)
                disputes = [wire.dispute_of(one) async for one in found]
        return wire.intent_of(intent, refunds, disputes)

    async def read_setup(self, ref: str) -> Setup:
        """A setup intent."""
        setup = await self._call(
            lambda: self._api.setup_intents.retrieve_async(ref, {"expand": ["payment_method"]})
        )
        return wire.setup_of(setup.to_dict())

    async def read_method(self, ref: str) -> Method:
        """A payment method."""
        method = await self._call(lambda: self._api.payment_methods.retrieve_async(ref))
        return wire.method_of(method.to_dict())

    async def charge(self, order: ChargeOrder) -> str:
        """A payment intent, confirmed off session. One that was declined is told of in the error."""
        params: Any = {
            "amount": order.amount_cents,
            "currency": CURRENCY,
            "customer": order.customer_ref,
            "payment_method": order.method_ref,
            "allowed_payment_method_types": ["card"],
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            "confirm": True,
            "off_session": True,
            "description": "Prepaid credit, automatic",
            "metadata": {wire.PAYMENT_ID: order.payment_id.hex},
        }
        key = f"antiphon-charge-{order.payment_id.hex}"
        try:
            intent = await self._call(
                lambda: self._api.payment_intents.create_async(params, {"idempotency_key": key})
            )
        except _Declined as declined:
            return declined.intent_ref
        return intent.id

    async def find_charge(self, order: ChargeOrder, *, since: datetime) -> str | None:
        """By our id in the metadata, among the payments of that customer."""
        of_customer = {
            "customer": order.customer_ref,
            "created": {"gte": int((since - EARLIER).timestamp())},
            "limit": LIST_PAGE,
        }
        async for intent in self._walk(self._api.payment_intents.list_async, of_customer):
            if wire.our_id(intent, wire.PAYMENT_ID) == order.payment_id:
                return str(intent["id"])
        return None

    async def refund(
        self, intent_ref: str, *, order_id: uuid.UUID, amount_cents: int, reason: str | None
    ) -> str:
        """Stripe knows three reasons only; ours goes into the metadata."""
        metadata = {wire.ORDER_ID: order_id.hex} | ({"reason": reason[:500]} if reason else {})
        refund = await self._call(
            lambda: self._api.refunds.create_async(
                {"payment_intent": intent_ref, "amount": amount_cents, "metadata": metadata},
                {"idempotency_key": f"antiphon-refund-{order_id.hex}"},
            )
        )
        return refund.id

    async def detach(self, method_ref: str) -> None:
        """A card that is gone already is gone."""
        try:
            await self._call(lambda: self._api.payment_methods.detach_async(method_ref))
        except ProcessorRefused:
            if (await self.read_method(method_ref)).customer_ref is not None:
                raise

    async def detach_all(self, customer_ref: str) -> None:
        """The one in use, and any that was left over."""
        of_customer = {"customer": customer_ref, "type": "card", "limit": LIST_PAGE}
        found = self._walk(self._api.payment_methods.list_async, of_customer)
        for ref in [method["id"] async for method in found]:
            await self.detach(ref)

    async def list_movements(self, since: datetime) -> AsyncIterator[Movement]:
        """Three lists, newest first, page by page."""
        params = {"created": {"gte": int(since.timestamp())}, "limit": LIST_PAGE}
        api = self._api
        for listed in (api.payment_intents.list_async, api.refunds.list_async, api.disputes.list_async):
            async for one in self._walk(listed, params):
                movement = wire.movement_of(one)
                if movement is not None:
                    yield movement

    def read_event(self, body: bytes, signature: str | None) -> Event | None:
        """With the signature checked against the raw body, and its time against ours."""
        try:
            stripe.WebhookSignature.verify_header(body, signature, self._webhook_secret, TOLERANCE_SECONDS)
        except stripe.SignatureVerificationError as error:
            raise EventRefused(error.user_message or "the signature does not fit") from error
        except (ValueError, TypeError) as error:  # a body that is no UTF-8, a signature beyond ASCII
            raise EventRefused("body and signature cannot be read") from error
        return wire.event_of(body)

    async def close(self) -> None:
        """Close connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _walk(
        self, listed: Callable[[Any], Awaitable[Any]], params: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """All objects of a list; each page is a call with a deadline of its own."""
        more = True
        while more:
            asked = params
            page = (await self._call(lambda: listed(asked))).to_dict()  # noqa: B023 - awaited in this round
            for one in page["data"]:
                yield one
            more = page["has_more"]
            if more:
                params = params | {"starting_after": page["data"][-1]["id"]}

    async def _call(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), self._turns:
                return await call()
        except TimeoutError as error:
            raise ProcessorUnavailable(f"Stripe did not answer within {DEADLINE_SECONDS:g} s") from error
        except stripe.StripeError as error:
            raise _translated(error) from error


class _Declined(ProcessorRefused):
    """A card was refused; the payment intent says why, now and whenever it is read."""

    def __init__(self, message: str, *, code: str | None, intent_ref: str) -> None:
        super().__init__(message, code=code)
        self.intent_ref = intent_ref


def _translated(error: stripe.StripeError) -> PaymentError:
    """Our error for one of Stripe's. Its text is for people; bodies and headers stay behind."""
    text, code = error.user_message or type(error).__name__, error.code
    if isinstance(error, stripe.AuthenticationError | stripe.PermissionError):
        return ProcessorDenied(f"Stripe does not accept our key for this: {text}")
    if isinstance(error, stripe.CardError):
        details: Any = error.json_body
        intent = details["error"].get("payment_intent") if details else None
        if intent:
            return _Declined(text, code=code, intent_ref=intent["id"])
        return ProcessorRefused(text, code=code)
    if isinstance(error, stripe.InvalidRequestError):
        kind = ObjectMissing if code == "resource_missing" else ProcessorRefused
        return kind(text, code=code, param=error.param)
    if isinstance(error, stripe.IdempotencyError):
        return ProcessorRefused(text, code="idempotency_error")
    return ProcessorUnavailable(f"Stripe could not be asked: {' '.join(text.split())}")
