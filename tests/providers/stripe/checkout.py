"""Checkout sessions: a hosted page on which a customer pays, or saves a card."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import stripe.params.checkout as described
from tests.providers.stripe.cards import Card, Decline
from tests.providers.stripe.collection import Call, Collection, Json, as_list, change, merged, operation
from tests.providers.stripe.ids import new_id
from tests.providers.stripe.payment_intents import KINDS, LEAST, check_kind, check_sum
from tests.providers.stripe.refusals import Refusal, missing_parameter

if TYPE_CHECKING:
    from tests.providers.stripe.account import Account

OPEN_S = 24 * 3600
SHORTEST_S = 30 * 60
CREATES = (
    "mode line_items.price_data.currency line_items.price_data.unit_amount"
    " line_items.price_data.product_data.name line_items.price_data.product_data.description"
    " line_items.quantity success_url cancel_url customer customer_email customer_creation"
    " client_reference_id metadata currency payment_intent_data.metadata"
    " payment_intent_data.setup_future_usage payment_intent_data.description"
    " payment_intent_data.receipt_email payment_intent_data.statement_descriptor_suffix"
    " setup_intent_data.metadata setup_intent_data.description allowed_payment_method_types expires_at"
    " submit_type ui_mode locale saved_payment_method_options.payment_method_save"
)


class Sessions(Collection):
    kind = "checkout.session"
    prefix = "cs_test"
    references = {"customer": "customer", "payment_intent": "payment_intent", "setup_intent": "setup_intent"}
    included = {"line_items": "item"}

    def __init__(self, account: "Account") -> None:
        super().__init__(account)
        self._items: dict[str, list[Json]] = {}
        self._intent_data: dict[str, Json] = {}

    def include(self, found: Json, name: str) -> Json:
        return as_list(self._items[found["id"]], f"/v1/checkout/sessions/{found['id']}/{name}")

    @operation("POST /v1/checkout/sessions", described.SessionCreateParams, CREATES)
    def create(self, call: Call) -> Json:
        mode = self._check(call)
        items = [_line_item(given, self.account.clock.now()) for given in call.get("line_items", [])]
        total = sum(item["amount_total"] for item in items) if items else None
        currency = items[0]["currency"] if items else call.get("currency")
        if mode == "payment":
            _check_total(total, currency)
        id_ = new_id(self.prefix)
        session = self.add(_fields(call, mode, total, currency, self.account.clock.now()), id_)
        session["url"] = f"{self.account.url}/c/pay/{id_}"
        self._items[id_] = items
        self._intent_data[id_] = call.get("payment_intent_data", {})
        if mode == "setup":
            data = call.get("setup_intent_data", {})
            session["setup_intent"] = self.account.setup_intents.make(
                customer=call.get("customer"),
                metadata=data.get("metadata", {}),
                description=data.get("description"),
                types=session["allowed_payment_method_types"],
            )["id"]
        return session

    def _check(self, call: Call) -> str:
        mode = call.get("mode")
        if mode is None:
            raise missing_parameter("mode")
        if mode == "subscription" or call.get("ui_mode", "hosted_page") != "hosted_page":
            raise Refusal("The stand-in hosts pages in mode payment or setup.", status=501, type="api_error")
        needs = {"payment": ("success_url", "line_items"), "setup": ("success_url",)}[mode]
        for name in needs:
            if not call.get(name):
                raise missing_parameter(name)
        if mode == "setup" and not call.get("currency") and not call.get("allowed_payment_method_types"):
            raise missing_parameter("currency")
        given_for = {"payment": "setup_intent_data", "setup": "payment_intent_data"}[mode]
        if given_for in call.params:
            raise Refusal(f"You can not pass `{given_for}` in `{mode}` mode.", param=given_for)
        if "customer" in call.params:
            self.account.customers.living(call.params["customer"])
            for name in ("customer_email", "customer_creation"):
                if name in call.params:
                    raise Refusal(
                        f"You may only specify one of these parameters: customer, {name}.", param=name
                    )
        self._check_expiry(call.get("expires_at"))
        return mode

    def _check_expiry(self, expires_at: int | None) -> None:
        now = self.account.clock.now()
        if expires_at is None:
            return
        if expires_at > now + OPEN_S:
            raise Refusal(
                "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.",
                param="expires_at",
            )
        if expires_at < now + SHORTEST_S:
            raise Refusal(
                "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation.",
                param="expires_at",
            )

    @operation("GET /v1/checkout/sessions/{id}", described.SessionRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("POST /v1/checkout/sessions/{id}", described.SessionUpdateParams, "metadata")
    def update(self, call: Call) -> Json:
        session = self.get(call.id)
        self.set_metadata(session, call)
        return session

    @operation("GET /v1/checkout/sessions", described.SessionListParams, "customer payment_intent status")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/checkout/sessions", "customer", "payment_intent", "status")

    @operation("GET /v1/checkout/sessions/{id}/line_items", described.SessionListLineItemsParams)
    def list_line_items(self, call: Call) -> Json:
        return self.include(self.get(call.id), "line_items")

    @operation("POST /v1/checkout/sessions/{id}/expire", described.SessionExpireParams)
    def expire(self, call: Call) -> Json:
        session = self.get(call.id)
        if session["status"] != "open":
            raise Refusal(
                'Only Checkout Sessions with a status in ["open"] can be expired.'
                f" This Checkout Session has a status of {session['status']}."
            )
        return self.end(session)

    def end(self, session: Json) -> Json:
        change(session, status="expired", url=None)
        if session["payment_intent"]:
            self.account.payment_intents.call_off(
                self.account.payment_intents.get(session["payment_intent"]), "automatic"
            )
        if session["setup_intent"]:
            self.account.setup_intents.call_off(self.account.setup_intents.get(session["setup_intent"]), None)
        self.account.events.record("checkout.session.expired", session)
        return session

    def expire_due(self) -> None:
        now = self.account.clock.now()
        for session in self.where(status="open"):
            if session["expires_at"] <= now:
                self.end(session)

    def complete(
        self,
        session: Json,
        card: Card,
        *,
        email: str | None = None,
        name: str | None = None,
        saves: bool = False,
    ) -> Decline | None:
        """The customer pressed Pay, and authenticated where the card asks for it."""
        if session["status"] != "open":
            raise Refusal(f"This Checkout Session is {session['status']}: nobody can pay it any more.")
        check_kind(card.kind, session["payment_method_types"])
        known = self.account.customers.find(session["customer"] or "") or {}
        email = email or session["customer_email"] or known.get("email") or "customer@example.com"
        method = self.account.payment_methods.make(card, email=email, name=name or known.get("name"))
        attempt = self._pay if session["mode"] == "payment" else self._save
        declined = attempt(session, method)
        if declined:
            return declined
        if saves and session["customer"]:
            self.account.payment_methods.set_up(method, session["customer"], redisplay="always")
        details = {"email": email, "name": name or known.get("name"), "phone": None, "tax_exempt": "none"}
        change(
            session,
            status="complete",
            url=None,
            payment_status=self._payment_status(session),
            customer_details=session["customer_details"] | details,
        )
        self.account.events.record("checkout.session.completed", session)
        return None

    def _payment_status(self, session: Json) -> str:
        if session["mode"] == "setup":
            return "no_payment_required"
        intent = self.account.payment_intents.get(session["payment_intent"])
        return "paid" if intent["status"] == "succeeded" else "unpaid"

    def settle(self, session: Json) -> Json:
        """The bank account that a completed session was paid with has decided."""
        intent = self.account.payment_intents.get(session["payment_intent"] or "", "payment_intent")
        declined = self.account.payment_intents.settle(intent)
        change(session, payment_status=self._payment_status(session))
        outcome = "failed" if declined else "succeeded"
        self.account.events.record(f"checkout.session.async_payment_{outcome}", session)
        return session

    def _pay(self, session: Json, method: Json) -> Decline | None:
        intents = self.account.payment_intents
        if session["payment_intent"] is None:
            self._make_customer(session, method)
            data = dict(self._intent_data[session["id"]])
            intent = intents.make(
                amount=session["amount_total"],
                currency=session["currency"],
                customer=session["customer"],
                types=session["allowed_payment_method_types"],
                metadata=dict(data.pop("metadata", {})),
                **data,
            )
            self.account.events.record("payment_intent.created", intent)
            session["payment_intent"] = intent["id"]
        return intents.attempt(intents.get(session["payment_intent"]), method, authenticated=True)

    def _make_customer(self, session: Json, method: Json) -> None:
        """A session without a customer makes one if told to, or if the card is to be used again."""
        again = self._intent_data[session["id"]].get("setup_future_usage")
        if session["customer"] is None and (again or session["customer_creation"] == "always"):
            details = method["billing_details"]
            made = self.account.customers.make(email=details["email"], name=details["name"])
            session["customer"] = made["id"]

    def _save(self, session: Json, method: Json) -> Decline | None:
        intents = self.account.setup_intents
        return intents.attempt(intents.get(session["setup_intent"]), method, authenticated=True)


def _check_total(total: int | None, currency: str) -> None:
    if (total or 0) < LEAST:
        raise Refusal(
            f"The Checkout Session's total amount due must add up to at least $0.50 {currency}",
            code="amount_too_small",
        )
    check_sum(total or 0, currency)


def _line_item(given: Mapping[str, Json], now: int) -> Json:
    price, quantity = given.get("price_data"), given.get("quantity", 1)
    if price is None:
        raise missing_parameter("line_items[0][price_data]")
    for name in ("unit_amount", "product_data"):
        if name not in price:
            raise missing_parameter(f"line_items[0][price_data][{name}]")
    total = price["unit_amount"] * quantity
    product = price["product_data"]
    return {
        "id": new_id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": total,
        "amount_tax": 0,
        "amount_total": total,
        "currency": price["currency"].lower(),
        "description": product["name"],
        "metadata": {},
        "price": {
            "id": new_id("price"),
            "object": "price",
            "active": False,
            "billing_scheme": "per_unit",
            "created": now,
            "currency": price["currency"].lower(),
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": None,
            "metadata": {},
            "nickname": None,
            "product": new_id("prod"),
            "recurring": None,
            "tax_behavior": "unspecified",
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "one_time",
            "unit_amount": price["unit_amount"],
            "unit_amount_decimal": str(price["unit_amount"]),
        },
        "quantity": quantity,
    }


def _fields(call: Call, mode: str, total: int | None, currency: str | None, now: int) -> Json:
    given = {
        name: call.get(name)
        for name in (
            "success_url",
            "cancel_url",
            "customer",
            "customer_email",
            "client_reference_id",
            "submit_type",
        )
    }
    email = call.get("customer_email")
    saving = call.get("saved_payment_method_options", {}).get("payment_method_save", "disabled")
    creation = call.get("customer_creation", "if_required") if mode == "payment" else None
    return (
        given
        | _defaults()
        | {
            "amount_subtotal": total,
            "amount_total": total,
            "currency": currency.lower() if currency else None,
            "customer_creation": None if call.get("customer") else creation,
            "customer_details": {
                "address": None,
                "business_name": None,
                "email": email,
                "individual_name": None,
                "name": None,
                "phone": None,
                "tax_exempt": "none",
                "tax_ids": None,
            },
            "expires_at": call.get("expires_at", now + OPEN_S),
            "locale": call.get("locale"),
            "metadata": merged({}, call.get("metadata", {})),
            "mode": mode,
            "allowed_payment_method_types": call.get("allowed_payment_method_types"),
            "payment_method_types": call.get("allowed_payment_method_types", list(KINDS)),
            "payment_status": "unpaid" if mode == "payment" else "no_payment_required",
            "saved_payment_method_options": {
                "allow_redisplay_filters": ["always"],
                "payment_method_remove": "disabled",
                "payment_method_save": saving,
            }
            if call.get("customer")
            else None,
            "status": "open",
            "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}
            if total is not None
            else None,
        }
    )


def _defaults() -> Json:
    """Fields of features that the stand-in has not, as they are on a plain session."""
    absent = dict.fromkeys(
        (
            "after_expiration",
            "allow_promotion_codes",
            "billing_address_collection",
            "client_secret",
            "collected_information",
            "consent",
            "consent_collection",
            "currency_conversion",
            "customer_account",
            "integration_identifier",
            "invoice",
            "origin_context",
            "payment_intent",
            "payment_link",
            "payment_method_configuration_details",
            "permissions",
            "recovered_from",
            "setup_intent",
            "shipping_address_collection",
            "shipping_cost",
            "subscription",
            "wallet_options",
        )
    )
    return absent | {
        "adaptive_pricing": {"enabled": False},
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "custom_fields": [],
        "custom_text": dict.fromkeys(
            ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")
        ),
        "discounts": [],
        "invoice_creation": None,
        "payment_method_collection": "if_required",
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "phone_number_collection": {"enabled": False},
        "shipping_options": [],
        "ui_mode": "hosted_page",
    }
