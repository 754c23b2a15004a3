"""Refunds: some or all of a charge given back, at once, later, or in the end not at all."""

import stripe.params as described
from tests.providers.stripe.collection import Call, Collection, Json, change, merged, operation
from tests.providers.stripe.ids import random_text
from tests.providers.stripe.refusals import Refusal, missing_parameter


class Refunds(Collection):
    kind = "refund"
    prefix = "re"
    lacks = ("livemode",)
    references = {
        "charge": "charge",
        "payment_intent": "payment_intent",
        "balance_transaction": "balance_transaction",
        "failure_balance_transaction": "balance_transaction",
        "customer": "customer",
    }

    @operation(
        "POST /v1/refunds", described.RefundCreateParams, "charge payment_intent amount reason metadata"
    )
    def create(self, call: Call) -> Json:
        return self.make(
            self._charge(call),
            call.get("amount"),
            reason=call.get("reason"),
            metadata=merged({}, call.get("metadata", {})),
        )

    def _charge(self, call: Call) -> Json:
        if "charge" in call.params:
            return self.account.charges.get(call.params["charge"], "charge")
        if "payment_intent" not in call.params:
            raise missing_parameter("payment_intent")
        intent = self.account.payment_intents.get(call.params["payment_intent"], "payment_intent")
        if intent["status"] != "succeeded":
            raise Refusal(
                f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
                code="payment_intent_unexpected_state",
                param="payment_intent",
            )
        return self.account.charges.get(intent["latest_charge"])

    def make(
        self,
        charge: Json,
        amount: int | None = None,
        *,
        reason: str | None = None,
        metadata: dict[str, str] | None = None,
        pending: bool = False,
    ) -> Json:
        """Give some of a charge back. Without an amount: all that is left."""
        left = charge["amount"] - charge["amount_refunded"]
        amount = left if amount is None else amount
        self._check(charge, amount, left)
        card = self.account.payment_methods.card_of(
            self.account.payment_methods.get(charge["payment_method"])
        )
        pending = pending or card.refund == "pends"
        refund = self.add(_fields(charge, amount) | {"metadata": metadata or {}, "reason": reason})
        if pending:
            refund |= {"status": "pending", "pending_reason": "processing"}
        refund["balance_transaction"] = self._book(refund, -amount, "refund")
        before = self.account.charges.give_back(charge, amount)
        self.account.events.record("charge.refunded", charge, before)
        self.account.events.record("refund.created", refund)
        if card.refund == "fails_later":
            self.fail(refund)
        return refund

    def _check(self, charge: Json, amount: int, left: int) -> None:
        if charge["status"] != "succeeded":
            raise Refusal(
                f"Charge {charge['id']} was not paid.", code="charge_not_refundable", param="charge"
            )
        if any(not one["is_charge_refundable"] for one in self.account.disputes.where(charge=charge["id"])):
            raise Refusal(
                f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed"
            )
        if left == 0:
            raise Refusal(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
        if amount < 1:
            raise Refusal(
                "This value must be greater than or equal to 1.",
                code="parameter_invalid_integer",
                param="amount",
            )
        if amount > left:
            raise Refusal(
                f"Refund amount (${amount / 100:.2f}) is greater than unrefunded amount on charge"
                f" (${left / 100:.2f})",
                param="amount",
            )

    def _book(self, refund: Json, amount: int, type: str) -> str:  # noqa: A002 - Stripe's own name
        return self.account.balance.book(refund, amount, type=type, description="REFUND FOR CHARGE")["id"]

    def settle(self, refund: Json) -> Json:
        """The bank took the money: a pending refund has come through."""
        self._of_status(refund, "pending")
        return self._update(refund, status="succeeded", pending_reason=None)

    def fail(self, refund: Json, reason: str = "expired_or_canceled_card") -> Json:
        """The bank sent the money back: it is on Stripe's account again."""
        self._of_status(refund, "pending", "succeeded")
        returned = self._book(refund, refund["amount"], "refund_failure")
        charge = self.account.charges.get(refund["charge"])
        before = self.account.charges.give_back(charge, -refund["amount"])
        self._update(
            refund,
            status="failed",
            pending_reason=None,
            failure_reason=reason,
            failure_balance_transaction=returned,
        )
        self.account.events.record("refund.failed", refund)
        self.account.events.record("charge.updated", charge, before)
        return refund

    @staticmethod
    def _of_status(refund: Json, *statuses: str) -> None:
        if refund["status"] not in statuses:
            raise Refusal(f"Refund {refund['id']} is {refund['status']}.")

    def _update(self, refund: Json, **fields: object) -> Json:
        before = change(refund, **fields)
        self.account.events.record("charge.refund.updated", refund, before)
        self.account.events.record("refund.updated", refund, before)
        return refund

    @operation("GET /v1/refunds/{id}", described.RefundRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("GET /v1/refunds", described.RefundListParams, "charge payment_intent")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/refunds", "charge", "payment_intent")

    @operation("POST /v1/refunds/{id}", described.RefundUpdateParams, "metadata")
    def update(self, call: Call) -> Json:
        refund = self.get(call.id)
        if "metadata" in call.params:
            self._update(refund, metadata=merged(refund["metadata"], call.params["metadata"]))
        return refund


def _fields(charge: Json, amount: int) -> Json:
    reference = {"reference": random_text(10).upper(), "reference_status": "available"}
    return {
        "amount": amount,
        "charge": charge["id"],
        "currency": charge["currency"],
        "destination_details": {
            "card": reference | {"reference_type": "acquirer_reference_number", "type": "refund"},
            "type": "card",
        },
        "payment_intent": charge["payment_intent"],
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }
