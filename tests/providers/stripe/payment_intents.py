"""Payment intents: a sum to be paid, through as many attempts as it takes."""

from collections.abc import Sequence

import stripe.params as described
from tests.providers.stripe.cards import AUTHENTICATION_FAILED, NEEDS_AUTHENTICATION, Decline
from tests.providers.stripe.collection import Call, Collection, Json, change, merged, operation
from tests.providers.stripe.ids import random_text
from tests.providers.stripe.refusals import Refusal

CURRENCIES = ("usd", "eur", "gbp", "cad", "aud")
LEAST = 50
MOST = 99_999_999
KINDS = ("card", "us_bank_account")
OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")
CREATES = (
    "amount currency customer payment_method allowed_payment_method_types automatic_payment_methods"
    " confirm off_session setup_future_usage metadata description receipt_email"
    " statement_descriptor_suffix return_url error_on_requires_action"
)
CONFIRMS = "payment_method off_session return_url setup_future_usage receipt_email error_on_requires_action"
UPDATES = (
    "amount metadata description payment_method receipt_email setup_future_usage statement_descriptor_suffix"
)


class PaymentIntents(Collection):
    kind = "payment_intent"
    prefix = "pi"
    references = {"customer": "customer", "latest_charge": "charge", "payment_method": "payment_method"}

    @operation("POST /v1/payment_intents", described.PaymentIntentCreateParams, CREATES)
    def create(self, call: Call) -> Json:
        if call.get("off_session") is not None and not call.get("confirm"):
            raise Refusal(
                "The parameter `off_session` cannot be passed when creating a PaymentIntent unless"
                " `confirm` is set to true.",
                param="off_session",
            )
        method = self._method(call, call.get("customer"))
        redirects = call.get("automatic_payment_methods", {}).get("allow_redirects", "always")
        types = call.get("allowed_payment_method_types")
        if call.get("confirm"):
            _confirmable(call, method, redirects, types or KINDS)
        intent = self.make(
            **{
                name: call.get(name)
                for name in ("customer", "setup_future_usage", "description", "receipt_email")
            },
            amount=call.params["amount"],
            currency=call.params["currency"],
            metadata=merged({}, call.get("metadata", {})),
            statement_descriptor_suffix=call.get("statement_descriptor_suffix"),
            types=types,
            redirects=redirects,
        )
        if method:
            change(intent, payment_method=method["id"], status="requires_confirmation")
        self.account.events.record("payment_intent.created", intent)
        return self._confirm(intent, call) if call.get("confirm") else intent

    def make(
        self,
        *,
        amount: int,
        currency: str,
        customer: str | None,
        types: list[str] | None = None,
        redirects: str = "always",
        **fields: object,
    ) -> Json:
        """A new one without an attempt. Its event is the caller's, once it looks as it should."""
        check_sum(amount, currency)
        if customer:
            self.account.customers.living(customer)
        intent = self.add(
            {
                "amount": amount,
                "amount_capturable": 0,
                "amount_details": {"tip": {}},
                "amount_received": 0,
                "allowed_payment_method_types": types,
                "automatic_payment_methods": {"allow_redirects": redirects, "enabled": True},
                "canceled_at": None,
                "cancellation_reason": None,
                "capture_method": "automatic_async",
                "confirmation_method": "automatic",
                "currency": currency.lower(),
                "customer": customer,
                "customer_account": None,
                "last_payment_error": None,
                "latest_charge": None,
                "next_action": None,
                "payment_method": None,
                "payment_method_options": {
                    "card": {
                        "installments": None,
                        "mandate_options": None,
                        "network": None,
                        "request_three_d_secure": "automatic",
                    }
                },
                "payment_method_types": types or list(KINDS),
                "status": "requires_payment_method",
            }
            | _unused()
            | fields
        )
        intent["client_secret"] = f"{intent['id']}_secret_{random_text(25)}"
        return intent

    def _method(self, call: Call, customer: str | None) -> Json | None:
        given = call.get("payment_method")
        return self.account.payment_methods.usable(given, customer) if given else None

    def _confirm(self, intent: Json, call: Call) -> Json:
        """Attempt the payment as the API's caller asks; a declined one is an error with the intent in it."""
        method = self.account.payment_methods.get(intent["payment_method"])
        away = call.get("off_session") not in (None, False)
        declined = self.attempt(
            intent,
            method,
            away=away,
            return_url=call.get("return_url"),
            must_finish=bool(call.get("error_on_requires_action")),
        )
        if declined:
            raise Refusal(
                declined.message,
                status=402,
                type="card_error",
                code=declined.code,
                decline_code=declined.decline_code,
                advice_code=declined.advice_code,
                charge=intent["latest_charge"],
                payment_intent=intent,
                payment_method=method,
            )
        return intent

    def attempt(
        self,
        intent: Json,
        method: Json,
        *,
        away: bool = False,
        authenticated: bool = False,
        return_url: str | None = None,
        must_finish: bool = False,
    ) -> Decline | None:
        """Try to take the money. Away: nobody is there who could authenticate."""
        methods = self.account.payment_methods
        card = methods.card_of(method)
        change(intent, payment_method=method["id"], next_action=None)
        asks = card.authenticates == "always" or (
            card.authenticates == "unless_set_up" and not methods.is_set_up(method)
        )
        if asks and not authenticated:
            if away or must_finish:
                return self._fail(intent, method, NEEDS_AUTHENTICATION)
            return self._ask(intent, return_url)
        methods.used(method)
        if card.kind == "us_bank_account":
            return self._wait(intent, method)
        if card.declines:
            return self._fail(intent, method, card.declines)
        self._succeed(intent, method, self.account.charges.make(intent, method))
        if card.dispute:
            charge = self.account.charges.get(intent["latest_charge"])
            inquiry = card.dispute == "inquiry"
            reason = "fraudulent" if inquiry else card.dispute
            self.account.disputes.open(charge, reason=reason, inquiry=inquiry)
        return None

    def _wait(self, intent: Json, method: Json) -> None:
        """A bank account's payment takes days."""
        charge = self.account.charges.make(intent, method, pending=True)
        change(intent, latest_charge=charge["id"], status="processing")
        self.account.events.record("payment_intent.processing", intent)

    def settle(self, intent: Json) -> Decline | None:
        """The days are over: the bank account paid, or did not."""
        if intent["status"] != "processing":
            raise _unexpected(intent, f"This PaymentIntent is not processing: {intent['status']}.")
        method = self.account.payment_methods.get(intent["payment_method"])
        charge = self.account.charges.get(intent["latest_charge"])
        declined = self.account.payment_methods.card_of(method).declines
        self.account.charges.settle(charge, declined)
        if declined:
            return self._failed(intent, method, declined)
        self._succeed(intent, method, charge)
        return None

    def _ask(self, intent: Json, return_url: str | None) -> None:
        """The customer must authenticate first."""
        action: Json = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}
        if return_url:
            page = f"{self.account.url}/authenticate/{intent['id']}"
            action = {"type": "redirect_to_url", "redirect_to_url": {"return_url": return_url, "url": page}}
        change(intent, status="requires_action", next_action=action)
        self.account.events.record("payment_intent.requires_action", intent)

    def authenticate(self, intent: Json, *, ok: bool = True) -> Decline | None:
        """What the customer did on the bank's page."""
        if intent["status"] != "requires_action":
            raise _unexpected(intent, f"This PaymentIntent waits for no authentication: {intent['status']}.")
        method = self.account.payment_methods.get(intent["payment_method"])
        if ok:
            return self.attempt(intent, method, authenticated=True)
        return self._failed(intent, method, AUTHENTICATION_FAILED)

    def _fail(self, intent: Json, method: Json, decline: Decline) -> Decline:
        intent["latest_charge"] = self.account.charges.make(intent, method, decline)["id"]
        return self._failed(intent, method, decline)

    def _failed(self, intent: Json, method: Json, decline: Decline) -> Decline:
        error: Json = {
            "advice_code": decline.advice_code,
            "charge": intent["latest_charge"],
            "code": decline.code,
            "doc_url": f"https://stripe.com/docs/error-codes/{decline.code.replace('_', '-')}",
            "message": decline.message,
            "payment_method": dict(method),
            "type": "invalid_request_error" if decline is AUTHENTICATION_FAILED else "card_error",
        }
        if decline.decline_code:
            error["decline_code"] = decline.decline_code
        change(
            intent,
            last_payment_error=error,
            next_action=None,
            payment_method=None,
            status="requires_payment_method",
        )
        self.account.events.record("payment_intent.payment_failed", intent)
        return decline

    def _succeed(self, intent: Json, method: Json, charge: Json) -> None:
        if intent["setup_future_usage"]:
            self.account.payment_methods.set_up(method, intent["customer"], redisplay="limited")
        change(
            intent,
            amount_received=intent["amount"],
            last_payment_error=None,
            latest_charge=charge["id"],
            status="succeeded",
        )
        self.account.events.record("payment_intent.succeeded", intent)

    @operation("POST /v1/payment_intents/{id}/confirm", described.PaymentIntentConfirmParams, CONFIRMS)
    def confirm(self, call: Call) -> Json:
        intent = self.get(call.id)
        if intent["status"] not in OPEN:
            word = "it has already succeeded after being previously confirmed"
            reason = word if intent["status"] == "succeeded" else f"it has a status of {intent['status']}"
            raise _unexpected(intent, f"You cannot confirm this PaymentIntent because {reason}.")
        method = self._method(call, intent["customer"])
        if method is None and intent["payment_method"]:
            method = self.account.payment_methods.get(intent["payment_method"])
        redirects = intent["automatic_payment_methods"]["allow_redirects"]
        method = _confirmable(call, method, redirects, intent["payment_method_types"])
        given = {
            name: call.params[name] for name in ("setup_future_usage", "receipt_email") if name in call.params
        }
        change(intent, payment_method=method["id"], **given)
        return self._confirm(intent, call)

    @operation("POST /v1/payment_intents/{id}", described.PaymentIntentUpdateParams, UPDATES)
    def update(self, call: Call) -> Json:
        intent = self.get(call.id)
        settled = {"metadata", "description", "expand"}
        if intent["status"] not in OPEN and not settled.issuperset(call.params):
            raise _unexpected(
                intent,
                "This PaymentIntent's details could not be updated because it has a status of"
                f" {intent['status']}.",
            )
        check_sum(call.get("amount", intent["amount"]), intent["currency"])
        fields = {
            name: call.params[name] for name in UPDATES.split() if name in call.params and name != "metadata"
        }
        if method := self._method(call, intent["customer"]):
            fields |= {"payment_method": method["id"], "status": "requires_confirmation"}
        self.set_metadata(intent, call)
        change(intent, **fields)
        return intent

    @operation(
        "POST /v1/payment_intents/{id}/cancel", described.PaymentIntentCancelParams, "cancellation_reason"
    )
    def cancel(self, call: Call) -> Json:
        return self.call_off(self.get(call.id), call.get("cancellation_reason"))

    def call_off(self, intent: Json, reason: str | None) -> Json:
        if intent["status"] not in OPEN:
            raise _unexpected(
                intent,
                f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}."
                " Only a PaymentIntent with one of the following statuses may be canceled:"
                " requires_payment_method, requires_capture, requires_confirmation, requires_action,"
                " processing.",
            )
        change(
            intent,
            canceled_at=self.account.clock.now(),
            cancellation_reason=reason,
            next_action=None,
            status="canceled",
        )
        self.account.events.record("payment_intent.canceled", intent)
        return intent

    @operation("GET /v1/payment_intents/{id}", described.PaymentIntentRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("GET /v1/payment_intents", described.PaymentIntentListParams, "customer")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/payment_intents", "customer")


def check_sum(amount: int, currency: str) -> None:
    if currency.lower() not in CURRENCIES:
        raise Refusal(
            f"Invalid currency: {currency}. The stand-in supports these currencies: {', '.join(CURRENCIES)}",
            param="currency",
        )
    if amount < LEAST:
        raise Refusal(
            f"Amount must be at least $0.50 {currency.lower()}", code="amount_too_small", param="amount"
        )
    if amount > MOST:
        raise Refusal("Amount must be no more than $999,999.99", code="amount_too_large", param="amount")


def _confirmable(call: Call, method: Json | None, redirects: str, types: Sequence[str]) -> Json:
    """The method, or a refusal before anything is changed where no attempt can follow."""
    if method is None:
        raise Refusal(
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either"
            " update the PaymentIntent with a payment method and then confirm it again, or confirm it again"
            " directly with a payment method or ConfirmationToken.",
            code="payment_intent_unexpected_state",
        )
    check_kind(method["type"], types)
    if redirects == "always" and not call.get("return_url"):
        raise Refusal(
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because"
            " some of these payment methods might redirect your customer off of your page, you must provide"
            " a `return_url`. If you don't want to accept redirect-based payment methods, set"
            " `automatic_payment_methods[enabled]` to `true` and"
            " `automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and"
            " Payment Intents."
        )
    return method


def check_kind(kind: str, types: Sequence[str]) -> None:
    if kind not in types:
        raise Refusal(
            f"The PaymentMethod provided ({kind}) is not allowed for this PaymentIntent.",
            code="payment_intent_incompatible_payment_method",
            param="payment_method",
        )


def _unexpected(intent: Json, message: str) -> Refusal:
    return Refusal(message, code="payment_intent_unexpected_state", payment_intent=intent)


def _unused() -> Json:
    """Fields of features that a card payment to one's own account does not touch."""
    return dict.fromkeys(
        (
            "application",
            "application_fee_amount",
            "excluded_payment_method_types",
            "on_behalf_of",
            "payment_method_configuration_details",
            "processing",
            "review",
            "shipping",
            "source",
            "statement_descriptor",
            "statement_descriptor_suffix",
            "transfer_data",
            "transfer_group",
            "description",
            "receipt_email",
            "setup_future_usage",
        )
    )
