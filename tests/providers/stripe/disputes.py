"""Disputes: a customer takes the money back through the bank."""

import stripe.params as described
from tests.providers.stripe.balance import DISPUTE_FEE
from tests.providers.stripe.collection import Call, Collection, Json, change, merged, operation
from tests.providers.stripe.refusals import Refusal

ANSWER_WITHIN_S = 9 * 24 * 3600
NETWORK_CODES = {"fraudulent": "10.4", "product_not_received": "13.1", "duplicate": "12.6.1"}
INQUIRY = ("warning_needs_response", "warning_under_review")
OPEN = ("needs_response", "under_review")
EVIDENCE_TEXTS = (
    "uncategorized_text product_description customer_name customer_email_address access_activity_log"
)
EVIDENCE = (
    *EVIDENCE_TEXTS.split(),
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
)


class Disputes(Collection):
    kind = "dispute"
    prefix = "du"
    references = {"charge": "charge", "payment_intent": "payment_intent"}

    def open(
        self, charge: Json, amount: int | None = None, *, reason: str = "fraudulent", inquiry: bool = False
    ) -> Json:
        """A chargeback takes the money at once; an inquiry only asks, and may become a chargeback."""
        if charge["status"] != "succeeded":
            raise Refusal(f"Charge {charge['id']} was not paid.")
        if charge["payment_method_details"]["type"] != "card":
            raise Refusal("The stand-in disputes payments by card.", status=501, type="api_error")
        left = charge["amount"] - charge["amount_refunded"]
        amount = left if amount is None else amount
        if not 1 <= amount <= left:
            raise Refusal(f"Only {left} cents of charge {charge['id']} can be disputed.", param="amount")
        dispute = self.add(self._fields(charge, amount, reason, inquiry=inquiry))
        before = change(charge, disputed=True)
        self.account.events.record("charge.updated", charge, before)
        self.account.events.record("charge.dispute.created", dispute)
        if not inquiry:
            self._withdraw(dispute)
        return dispute

    def _fields(self, charge: Json, amount: int, reason: str, *, inquiry: bool) -> Json:
        code = NETWORK_CODES.get(reason, "10.4")
        brand = charge["payment_method_details"]["card"]["brand"]
        return {
            "amount": amount,
            "balance_transactions": [],
            "charge": charge["id"],
            "currency": charge["currency"],
            "enhanced_eligibility_types": [],
            "evidence": dict.fromkeys(EVIDENCE) | {"enhanced_evidence": {}},
            "evidence_details": {
                "due_by": self.account.clock.now() + ANSWER_WITHIN_S,
                "enhanced_eligibility": {},
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
                "submission_method": "not_submitted",
            },
            "is_charge_refundable": inquiry,
            "network_reason_code": code,
            "payment_intent": charge["payment_intent"],
            "payment_method_details": {
                "card": {
                    "brand": brand,
                    "case_type": "inquiry" if inquiry else "chargeback",
                    "network": brand,
                    "network_reason_code": code,
                },
                "type": "card",
            },
            "reason": reason,
            "status": "warning_needs_response" if inquiry else "needs_response",
        }

    def _withdraw(self, dispute: Json) -> None:
        self._book(dispute, -dispute["amount"], DISPUTE_FEE, "dispute")
        self.account.events.record("charge.dispute.funds_withdrawn", dispute)

    def _book(self, dispute: Json, amount: int, fee: int, category: str) -> None:
        what = "Chargeback withdrawal" if amount < 0 else "Chargeback reversal"
        booked = self.account.balance.book(
            dispute,
            amount,
            type="adjustment",
            category=category,
            fee=fee,
            description=f"{what} for {dispute['charge']}",
        )
        dispute["balance_transactions"] = [*dispute["balance_transactions"], booked]

    def escalate(self, dispute: Json) -> Json:
        """An inquiry became a chargeback: now the money is taken."""
        self._of_status(dispute, INQUIRY)
        details = dispute["payment_method_details"]
        card = details["card"] | {"case_type": "chargeback"}
        self._update(
            dispute,
            status="needs_response",
            is_charge_refundable=False,
            payment_method_details=details | {"card": card},
        )
        self._withdraw(dispute)
        return dispute

    def win(self, dispute: Json) -> Json:
        """The bank decided for us: the money and the fee come back."""
        self._of_status(dispute, OPEN)
        self._book(dispute, dispute["amount"], -DISPUTE_FEE, "dispute_reversal")
        before = change(dispute, status="won")
        self.account.events.record("charge.dispute.funds_reinstated", dispute)
        self.account.events.record("charge.dispute.closed", dispute, before)
        return dispute

    def lose(self, dispute: Json) -> Json:
        """The bank decided for the customer, or we did not answer in time."""
        self._of_status(dispute, OPEN)
        return self._close(dispute, "lost")

    def drop(self, dispute: Json) -> Json:
        """An inquiry that came to nothing."""
        self._of_status(dispute, INQUIRY)
        return self._close(dispute, "warning_closed")

    def _close(self, dispute: Json, status: str) -> Json:
        before = change(dispute, status=status)
        self.account.events.record("charge.dispute.closed", dispute, before)
        return dispute

    @staticmethod
    def _of_status(dispute: Json, statuses: tuple[str, ...]) -> None:
        if dispute["status"] not in statuses:
            raise Refusal(f"This dispute is already closed, or of another kind: {dispute['status']}.")

    def _update(self, dispute: Json, **fields: object) -> Json:
        before = change(dispute, **fields)
        self.account.events.record("charge.dispute.updated", dispute, before)
        return dispute

    @operation("GET /v1/disputes/{id}", described.DisputeRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("GET /v1/disputes", described.DisputeListParams, "charge payment_intent")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/disputes", "charge", "payment_intent")

    @operation(
        "POST /v1/disputes/{id}",
        described.DisputeUpdateParams,
        "metadata submit " + " ".join(f"evidence.{name}" for name in EVIDENCE_TEXTS.split()),
    )
    def update(self, call: Call) -> Json:
        """Evidence is submitted unless told otherwise, and then the bank reviews it."""
        dispute = self.get(call.id)
        fields: Json = {}
        if "metadata" in call.params:
            fields["metadata"] = merged(dispute["metadata"], call.params["metadata"])
        if "evidence" in call.params:
            self._of_status(dispute, (*OPEN, *INQUIRY))
            fields["evidence"] = dispute["evidence"] | call.params["evidence"]
            submits = call.get("submit", True)
            details = dispute["evidence_details"]
            fields["evidence_details"] = details | {
                "has_evidence": True,
                "submission_count": details["submission_count"] + int(submits),
                "submission_method": "manual" if submits else details["submission_method"],
            }
            if submits:
                fields["status"] = dispute["status"].replace("needs_response", "under_review")
        return self._update(dispute, **fields) if fields else dispute

    @operation("POST /v1/disputes/{id}/close", described.DisputeCloseParams)
    def close(self, call: Call) -> Json:
        """We accept the loss."""
        return self.lose(self.get(call.id))
