"""Payment methods: saved cards, and which test card stands behind each."""

from typing import TYPE_CHECKING

import stripe.params as described
from tests.providers.stripe.cards import BY_NUMBER, BY_TOKEN, Card
from tests.providers.stripe.collection import Call, Collection, Json, change, merged, operation
from tests.providers.stripe.ids import random_text
from tests.providers.stripe.refusals import Refusal

if TYPE_CHECKING:
    from tests.providers.stripe.account import Account

EXPIRES = (12, 2034)
NO_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
CHECKS = {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"}


class PaymentMethods(Collection):
    kind = "payment_method"
    prefix = "pm"
    references = {"customer": "customer"}

    def __init__(self, account: "Account") -> None:
        super().__init__(account)
        self._cards: dict[str, Card] = {}
        self._set_up: set[str] = set()
        self._used: set[str] = set()

    def make(self, card: Card, *, email: str | None = None, name: str | None = None) -> Json:
        method = self.add(
            {
                "allow_redisplay": "unspecified",
                "billing_details": {
                    "address": dict(NO_ADDRESS),
                    "email": email,
                    "name": name,
                    "phone": None,
                    "tax_id": None,
                },
                card.kind: _card(card) if card.kind == "card" else _bank_account(card),
                "customer": None,
                "customer_account": None,
                "type": card.kind,
            }
        )
        self._cards[method["id"]] = card
        return method

    def card_of(self, method: Json) -> Card:
        return self._cards[method["id"]]

    def turn(self, method: Json, card: Card) -> None:
        """From now on the saved card behaves as that test card does, as when its account runs dry."""
        self._cards[method["id"]] = card

    def resolve(self, id: str, param: str = "payment_method") -> Json:  # noqa: A002 - an API's id
        """The method of an id, or a new one where a test card's name stands in its place."""
        return self.make(BY_TOKEN[id]) if id in BY_TOKEN else self.get(id, param)

    def usable(self, id: str, customer: str | None) -> Json:  # noqa: A002 - an API's id
        """The method that a payment of that customer may use."""
        if customer:
            self.account.customers.living(customer)
        method = self.resolve(id)
        owner = method["customer"]
        if owner and customer is None:
            raise Refusal(
                "The payment method you provided is attached to a customer so for security purposes you"
                " must provide the customer in the request.",
                param="customer",
            )
        if owner and owner != customer:
            raise Refusal(
                f"The customer does not have a payment method with the ID {method['id']}. The payment"
                " method must be attached to the customer.",
                code="resource_missing",
                param="payment_method",
            )
        if owner is None and method["id"] in self._used:
            raise _used_up()
        return method

    def used(self, method: Json) -> None:
        self._used.add(method["id"])

    def is_set_up(self, method: Json) -> bool:
        return method["id"] in self._set_up

    def set_up(self, method: Json, customer: str | None, *, redisplay: str | None = None) -> None:
        """The customer agreed to later payments, and authenticated if the card asks for it once."""
        self._set_up.add(method["id"])
        if redisplay:
            method["allow_redisplay"] = redisplay
        if customer and method["customer"] is None:
            self._attach(method, customer)

    def _attach(self, method: Json, customer: str) -> None:
        change(method, customer=customer)
        self.account.events.record("payment_method.attached", method)

    def attach_to(self, id: str, customer: str, param: str | None = None) -> Json:  # noqa: A002 - an API's id
        method = self.make(BY_TOKEN[id]) if id in BY_TOKEN else self.get(id, param)
        self.account.customers.living(customer)
        if method["customer"] == customer:
            return method
        if method["customer"]:
            raise Refusal("The payment method you provided has already been attached to a customer.")
        if method["id"] in self._used:
            raise _used_up()
        card = self.card_of(method)
        if not card.saves and card.declines:
            raise Refusal(
                card.declines.message,
                status=402,
                type="card_error",
                code=card.declines.code,
                decline_code=card.declines.decline_code,
            )
        self._attach(method, customer)
        return method

    def release(self, method: Json) -> None:
        """Off its customer, and of no use any more."""
        customer = self.account.customers.get(method["customer"])
        settings = customer["invoice_settings"]
        if settings["default_payment_method"] == method["id"]:
            customer["invoice_settings"] = settings | {"default_payment_method": None}
        before = change(method, customer=None)
        self._used.add(method["id"])
        self.account.events.record("payment_method.detached", method, before)

    @operation(
        "POST /v1/payment_methods", described.PaymentMethodCreateParams, "type card metadata billing_details"
    )
    def create(self, call: Call) -> Json:
        if call.get("type") != "card":
            raise Refusal("The stand-in makes payment methods of type card.", status=501, type="api_error")
        number = call.get("card", {}).get("number", "")
        token = call.get("card", {}).get("token", "").replace("tok_", "pm_card_", 1)
        card = BY_NUMBER.get(number) or BY_TOKEN.get(token)
        if card is None:
            raise Refusal(
                "Your card number is incorrect.",
                status=402,
                type="card_error",
                code="incorrect_number",
                param="number",
            )
        billing = call.get("billing_details", {})
        method = self.make(card, email=billing.get("email"), name=billing.get("name"))
        method["metadata"] = merged({}, call.get("metadata", {}))
        return method

    @operation("GET /v1/payment_methods/{id}", described.PaymentMethodRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("GET /v1/payment_methods", described.PaymentMethodListParams, "customer type")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/payment_methods", "customer", "type")

    @operation("POST /v1/payment_methods/{id}/attach", described.PaymentMethodAttachParams, "customer")
    def attach(self, call: Call) -> Json:
        return self.attach_to(call.id, call.params["customer"])

    @operation("POST /v1/payment_methods/{id}/detach", described.PaymentMethodDetachParams)
    def detach(self, call: Call) -> Json:
        method = self.get(call.id)
        if method["customer"] is None:
            raise Refusal(
                "The payment method you provided is not attached to a customer so detachment is impossible."
            )
        self.release(method)
        return method


def _card(card: Card) -> Json:
    month, year = EXPIRES
    return {
        "brand": card.brand,
        "checks": dict(CHECKS),
        "country": "US",
        "display_brand": card.brand,
        "exp_month": month,
        "exp_year": year,
        "fingerprint": random_text(16),
        "funding": "credit",
        "generated_from": None,
        "last4": card.last4,
        "networks": {"available": [card.brand], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def _bank_account(card: Card) -> Json:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "STRIPE TEST BANK",
        "financial_connections_account": None,
        "fingerprint": random_text(16),
        "last4": card.last4,
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
        "status_details": {},
    }


def _used_up() -> Refusal:
    return Refusal(
        "The provided PaymentMethod was previously used with a PaymentIntent without Customer"
        " attachment, shared with a connected account without Customer attachment, or was detached from"
        " a Customer. It may not be used again. To use a PaymentMethod multiple times, you must attach"
        " it to a Customer first.",
    )
