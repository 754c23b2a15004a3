"""Charges: one attempt at moving money each."""

import stripe.params as described
from tests.providers.stripe.balance import payment_fee
from tests.providers.stripe.cards import Decline
from tests.providers.stripe.collection import Call, Collection, Json, as_list, change, operation
from tests.providers.stripe.payment_methods import CHECKS

APPROVED = {
    "advice_code": None,
    "network_advice_code": None,
    "network_decline_code": None,
    "network_status": "approved_by_network",
    "reason": None,
    "risk_level": "normal",
    "risk_score": 20,
    "seller_message": "Payment complete.",
    "type": "authorized",
}


class Charges(Collection):
    kind = "charge"
    prefix = "ch"
    references = {
        "balance_transaction": "balance_transaction",
        "failure_balance_transaction": "balance_transaction",
        "customer": "customer",
        "payment_intent": "payment_intent",
    }
    included = {"refunds": "refund"}

    def include(self, found: Json, name: str) -> Json:
        refunds = self.account.refunds.where(charge=found["id"])
        return as_list(refunds, f"/v1/charges/{found['id']}/{name}")

    def make(
        self, intent: Json, method: Json, decline: Decline | None = None, *, pending: bool = False
    ) -> Json:
        """Paid, refused by the issuer, or pending: then `settle` decides it."""
        charge = self.add(_taken(intent) | _paid_with(method) | _unused())
        if pending:
            charge |= {"paid": False, "status": "pending"}
            self.account.events.record("charge.pending", charge)
            return charge
        return self.settle(charge, decline)

    def settle(self, charge: Json, decline: Decline | None) -> Json:
        """The money came, with its fee booked, or it did not."""
        if decline:
            charge |= _refused(decline)
            self.account.events.record("charge.failed", charge)
            return charge
        charge |= {"paid": True, "status": "succeeded"}
        charge["receipt_url"] = f"{self.account.url}/receipts/{charge['id']}"
        booked = self.account.balance.book(
            charge,
            charge["amount"],
            type="charge",
            fee=payment_fee(charge["amount"], charge["payment_method_details"]["type"]),
            description=charge["description"],
        )
        charge["balance_transaction"] = booked["id"]
        self.account.events.record("charge.succeeded", charge)
        return charge

    def give_back(self, charge: Json, amount: int) -> Json:
        """Count a refund, or with a negative amount one that failed; what the fields were before."""
        refunded = charge["amount_refunded"] + amount
        return change(charge, amount_refunded=refunded, refunded=refunded == charge["amount"])

    @operation("GET /v1/charges/{id}", described.ChargeRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("GET /v1/charges", described.ChargeListParams, "customer payment_intent")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/charges", "customer", "payment_intent")

    @operation("POST /v1/charges/{id}", described.ChargeUpdateParams, "metadata description")
    def update(self, call: Call) -> Json:
        charge = self.get(call.id)
        self.set_metadata(charge, call)
        if "description" in call.params:
            charge["description"] = call.params["description"]
        return charge


def _paid_with(method: Json) -> Json:
    details = _by_card(method["card"]) if method["type"] == "card" else _by_bank(method["us_bank_account"])
    return {
        "billing_details": method["billing_details"],
        "payment_method": method["id"],
        "payment_method_details": {method["type"]: details, "type": method["type"]},
    }


def _by_card(card: Json) -> Json:
    known = "brand country exp_month exp_year fingerprint funding last4 regulated_status"
    return {name: card[name] for name in known.split()} | {
        "amount_authorized": None,
        "authorization_code": None,
        "checks": dict(CHECKS),
        "installments": None,
        "mandate": None,
        "network": card["brand"],
        "network_token": {"used": False},
        "network_transaction_id": None,
        "three_d_secure": None,
        "wallet": None,
    }


def _by_bank(account: Json) -> Json:
    known = "account_holder_type account_type bank_name fingerprint last4 routing_number"
    return {name: account[name] for name in known.split()} | {
        "expected_debit_date": None,
        "mandate": None,
        "payment_reference": None,
    }


def _taken(intent: Json) -> Json:
    return {
        "amount": intent["amount"],
        "amount_captured": intent["amount"],
        "amount_refunded": 0,
        "balance_transaction": None,
        "calculated_statement_descriptor": "ANTIPHON",
        "captured": True,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": None,
        "failure_message": None,
        "metadata": dict(intent["metadata"]),
        "outcome": dict(APPROVED),
        "paid": True,
        "payment_intent": intent["id"],
        "receipt_email": intent["receipt_email"],
        "receipt_url": None,
        "refunded": False,
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": "succeeded",
    }


def _refused(decline: Decline) -> Json:
    outcome = {
        "advice_code": decline.advice_code,
        "network_decline_code": "01",
        "network_status": "declined_by_network",
        "reason": decline.reason,
        "seller_message": "The bank did not return any further details with this decline.",
        "type": "issuer_declined",
    }
    return {
        "amount_captured": 0,
        "captured": False,
        "failure_code": decline.code,
        "failure_message": decline.message,
        "outcome": APPROVED | outcome,
        "paid": False,
        "status": "failed",
    }


def _unused() -> Json:
    """Fields of features that a card payment to one's own account does not touch."""
    return dict.fromkeys(
        (
            "application",
            "application_fee",
            "application_fee_amount",
            "failure_balance_transaction",
            "on_behalf_of",
            "receipt_number",
            "review",
            "shipping",
            "source",
            "source_transfer",
            "statement_descriptor",
            "transfer_data",
            "transfer_group",
        )
    ) | {"fraud_details": {}, "radar_options": {}}
