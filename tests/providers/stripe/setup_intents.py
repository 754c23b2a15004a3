"""Setup intents: a card saved for later, without a payment."""

import stripe.params as described
from tests.providers.stripe.cards import Decline
from tests.providers.stripe.collection import Call, Collection, Json, change, merged, operation
from tests.providers.stripe.ids import random_text
from tests.providers.stripe.payment_intents import KINDS
from tests.providers.stripe.refusals import Refusal

OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")


class SetupIntents(Collection):
    kind = "setup_intent"
    prefix = "seti"
    references = {"customer": "customer", "payment_method": "payment_method"}

    @operation(
        "POST /v1/setup_intents",
        described.SetupIntentCreateParams,
        "customer payment_method allowed_payment_method_types automatic_payment_methods usage confirm"
        " metadata description return_url",
    )
    def create(self, call: Call) -> Json:
        given, customer = call.get("payment_method"), call.get("customer")
        method = self.account.payment_methods.usable(given, customer) if given else None
        intent = self.make(
            customer=customer,
            metadata=merged({}, call.get("metadata", {})),
            description=call.get("description"),
            types=call.get("allowed_payment_method_types"),
            redirects=call.get("automatic_payment_methods", {}).get("allow_redirects", "always"),
            usage=call.get("usage", "off_session"),
        )
        if method:
            change(intent, payment_method=method["id"], status="requires_confirmation")
        if call.get("confirm"):
            return self._confirm(intent)
        return intent

    def make(
        self,
        *,
        customer: str | None,
        metadata: dict[str, str],
        description: str | None = None,
        types: list[str] | None = None,
        redirects: str = "always",
        usage: str = "off_session",
    ) -> Json:
        if customer:
            self.account.customers.living(customer)
        intent = self.add(
            {
                "application": None,
                "allowed_payment_method_types": types,
                "automatic_payment_methods": {"allow_redirects": redirects, "enabled": True},
                "cancellation_reason": None,
                "customer": customer,
                "customer_account": None,
                "description": description,
                "excluded_payment_method_types": None,
                "flow_directions": None,
                "last_setup_error": None,
                "latest_attempt": None,
                "mandate": None,
                "metadata": metadata,
                "next_action": None,
                "on_behalf_of": None,
                "payment_method": None,
                "payment_method_configuration_details": None,
                "payment_method_options": {
                    "card": {"mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
                },
                "payment_method_types": types or list(KINDS),
                "single_use_mandate": None,
                "status": "requires_payment_method",
                "usage": usage,
            }
        )
        intent["client_secret"] = f"{intent['id']}_secret_{random_text(25)}"
        self.account.events.record("setup_intent.created", intent)
        return intent

    def _confirm(self, intent: Json) -> Json:
        if intent["payment_method"] is None:
            raise _unexpected(
                intent,
                "You cannot confirm this SetupIntent because it's missing a payment method. Update the"
                " SetupIntent with a payment method and then confirm it again.",
            )
        method = self.account.payment_methods.get(intent["payment_method"])
        if declined := self.attempt(intent, method):
            raise Refusal(
                declined.message,
                status=402,
                type="card_error",
                code=declined.code,
                decline_code=declined.decline_code,
                setup_intent=intent,
                payment_method=method,
            )
        return intent

    def attempt(self, intent: Json, method: Json, *, authenticated: bool = False) -> Decline | None:
        """Save the card, if its issuer lets it be saved."""
        card = self.account.payment_methods.card_of(method)
        change(intent, payment_method=method["id"], next_action=None)
        if card.authenticates != "never" and not authenticated:
            action = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}
            change(intent, status="requires_action", next_action=action)
            self.account.events.record("setup_intent.requires_action", intent)
            return None
        if card.declines and not card.saves:
            return self._fail(intent, method, card.declines)
        self.account.payment_methods.set_up(method, intent["customer"], redisplay="limited")
        change(intent, last_setup_error=None, status="succeeded")
        self.account.events.record("setup_intent.succeeded", intent)
        return None

    def _fail(self, intent: Json, method: Json, decline: Decline) -> Decline:
        error: Json = {
            "code": decline.code,
            "doc_url": f"https://stripe.com/docs/error-codes/{decline.code.replace('_', '-')}",
            "message": decline.message,
            "payment_method": dict(method),
            "type": "card_error",
        }
        if decline.decline_code:
            error["decline_code"] = decline.decline_code
        change(intent, last_setup_error=error, payment_method=None, status="requires_payment_method")
        self.account.events.record("setup_intent.setup_failed", intent)
        return decline

    @operation(
        "POST /v1/setup_intents/{id}/confirm", described.SetupIntentConfirmParams, "payment_method return_url"
    )
    def confirm(self, call: Call) -> Json:
        intent = self.get(call.id)
        if intent["status"] not in OPEN:
            raise _unexpected(
                intent, f"You cannot confirm this SetupIntent because it has a status of {intent['status']}."
            )
        if given := call.get("payment_method"):
            intent["payment_method"] = self.account.payment_methods.usable(given, intent["customer"])["id"]
        return self._confirm(intent)

    @operation("POST /v1/setup_intents/{id}/cancel", described.SetupIntentCancelParams, "cancellation_reason")
    def cancel(self, call: Call) -> Json:
        return self.call_off(self.get(call.id), call.get("cancellation_reason"))

    def call_off(self, intent: Json, reason: str | None) -> Json:
        if intent["status"] not in OPEN:
            raise _unexpected(
                intent, f"You cannot cancel this SetupIntent because it has a status of {intent['status']}."
            )
        change(intent, cancellation_reason=reason, next_action=None, status="canceled")
        self.account.events.record("setup_intent.canceled", intent)
        return intent

    @operation("GET /v1/setup_intents/{id}", described.SetupIntentRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("GET /v1/setup_intents", described.SetupIntentListParams, "customer payment_method")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/setup_intents", "customer", "payment_method")


def _unexpected(intent: Json, message: str) -> Refusal:
    return Refusal(message, code="setup_intent_unexpected_state", setup_intent=intent)
