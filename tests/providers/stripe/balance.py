"""Balance transactions: what each movement did to the account's balance, with Stripe's fee."""

from collections.abc import Iterator

import stripe.params as described
from tests.providers.stripe.collection import Call, Collection, Json, operation

PAYS_OUT_AFTER_S = 2 * 24 * 3600
PER_MILLE, FIXED = 29, 30
BANK_PER_MILLE, BANK_MOST = 8, 500
DISPUTE_FEE = 1500


def payment_fee(amount: int, paid_with: str) -> int:
    """2.9 % and 30 cents for a card; 0.8 % and at most 5 dollars for a bank account. Rounded half up."""
    if paid_with == "us_bank_account":
        return min((amount * BANK_PER_MILLE + 500) // 1000, BANK_MOST)
    return (amount * PER_MILLE + 500) // 1000 + FIXED


class BalanceTransactions(Collection):
    kind = "balance_transaction"
    prefix = "txn"
    lacks = ("livemode", "metadata")
    references = {"source": "charge|refund|dispute"}

    def book(
        self,
        source: Json,
        amount: int,
        *,
        type: str,  # noqa: A002 - Stripe's own name
        category: str | None = None,
        fee: int = 0,
        description: str | None = None,
    ) -> Json:
        now = self.account.clock.now()
        details = {
            "amount": fee,
            "application": None,
            "currency": source["currency"],
            "description": "Dispute fee"
            if category and category.startswith("dispute")
            else "Stripe processing fees",
            "type": "stripe_fee",
        }
        return self.add(
            {
                "amount": amount,
                "available_on": now + PAYS_OUT_AFTER_S,
                "balance_type": "payments",
                "currency": source["currency"],
                "description": description,
                "exchange_rate": None,
                "fee": fee,
                "fee_details": [details] if fee else [],
                "net": amount - fee,
                "reporting_category": category or type,
                "source": source["id"],
                "status": "pending",
                "type": type,
            }
        )

    def find(self, id: str) -> Json | None:  # noqa: A002 - an API's id
        found = super().find(id)
        return self._ripened(found) if found else None

    def newest_first(self) -> Iterator[Json]:
        return map(self._ripened, super().newest_first())

    def _ripened(self, booked: Json) -> Json:
        if booked["available_on"] <= self.account.clock.now():
            booked["status"] = "available"
        return booked

    @operation("GET /v1/balance_transactions/{id}", described.BalanceTransactionRetrieveParams)
    def retrieve(self, call: Call) -> Json:
        return self.get(call.id)

    @operation("GET /v1/balance_transactions", described.BalanceTransactionListParams, "type currency source")
    def browse(self, call: Call) -> Json:
        return self.page(call, "/v1/balance_transactions", "type", "currency", "source")
