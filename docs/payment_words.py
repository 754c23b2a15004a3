"""Meanings of the fields of payments, and values for examples; a part of `api_words`."""

# ruff: noqa: INP001 - a module beside files that are no Python
from typing import Any, Final

from example_marks import BUILT

TOP_UP_ID: Final = "5f2b8f0c7f3e4a2d9c1e6a7b8d9e0f1a"
_PAGE: Final = "https://checkout.stripe.com/c/pay/cs_live_a1B2c3"
_RECEIPT: Final = "https://pay.stripe.com/receipts/payment/CAcaFwoVYWNjdF8x"
_OF_A_CAP: Final = "The most that is charged automatically in a UTC {}; null: no cap."

PAYMENT_OBJECTS: Final = {
    "TopUpView": "A payment into the balance: on the provider's page, automatic, or found at the provider "
    "(`external`). See [payments](payments.md).",
}
PAYMENT_FIELDS: Final[dict[str, dict[str, tuple[str, Any]]]] = {
    "TopUpView": {
        "object": ("Kind of object.", "topup"),
        "id": ("Id of the payment.", TOP_UP_ID),
        "kind": ("How it is paid.", "checkout"),
        "status": ("Where it stands; `paid`, `failed` and `expired` are final.", "paid"),
        "amount_usd": ("What is paid.", "20.00".ljust(12, "0")),
        "refunded_usd": ("What was given back of it.", "0.000000000"),
        "disputed_usd": ("What the customer's bank took back of it.", "0.000000000"),
        "url": ("Where it is paid; null when it is over.", None),
        "expires_at": ("Until when it can be paid there.", "2026-11-22T08:05:48.000Z"),
        "receipt_url": ("The provider's receipt, once it is paid.", _RECEIPT),
        "error": ("Why the last try with a card failed.", None),
        "created_at": ("When it was asked for, UTC.", "2026-11-21T08:05:48.239Z"),
        "finished_at": ("When it was paid, failed or expired.", "2026-11-21T08:06:31.004Z"),
    },
    "TopUpErrorView": {
        "code": ("For programs, as the payment provider has it.", "insufficient_funds"),
        "message": ("For people.", "Your card has insufficient funds."),
    },
    "TopUpList": {
        "object": ("Kind of object.", "list"),
        "data": ("The payments.", BUILT),
        "has_more": ("Whether there are older ones.", False),
        "next_cursor": ("`cursor` of the next page; null on the last.", None),
    },
    "TopUpOptions": {
        "object": ("Kind of object.", "topup_options"),
        "currency": ("Of all amounts.", "usd"),
        "presets_usd": (
            "What people choose most.",
            [f"{usd}.000000000" for usd in (5, 10, 20, 50, 100)],
        ),
        "min_usd": ("The least.", "1.000000000"),
        "max_usd": ("The most at once.", "10000.000000000"),
        "step_usd": ("Amounts are multiples of it.", "0.010000000"),
    },
    "PaymentMethodView": {
        "object": ("Kind of object.", "payment_method"),
        "card": ("The saved card; null: none.", None),
    },
    "CardView": {
        "brand": ("Whose card.", "visa"),
        "last4": ("Its last digits.", "4242"),
        "exp_month": ("Month of its expiry.", 12),
        "exp_year": ("Year of its expiry.", 2034),
    },
    "PaymentMethodSetup": {
        "object": ("Kind of object.", "payment_method_setup"),
        "url": ("Where the card is entered.", _PAGE),
        "expires_at": ("Until when.", "2026-11-22T08:05:48.000Z"),
    },
    "AutoTopUpView": {
        "object": ("Kind of object.", "auto_topup"),
        "enabled": ("Whether the saved card is charged.", True),
        "threshold_usd": ("When less than this is available.", "1.000000000"),
        "amount_usd": ("What is charged then.", "20.000000000"),
        "daily_cap_usd": (_OF_A_CAP.format("day"), "60.000000000"),
        "monthly_cap_usd": (_OF_A_CAP.format("month"), "200.000000000"),
        "failures": ("Declined charges in a row.", 0),
        "next_try_at": ("After a decline, or at a cap: not before.", None),
        "disabled_reason": ("Why it was switched off, if we did that.", None),
    },
}
PAYMENT_CHANGES: Final[dict[str, dict[str, Any]]] = {
    "POST /v1/topups": {"status": "pending", "url": _PAGE, "receipt_url": None, "finished_at": None},
}
PAYMENT_OTHERS: Final = {
    "/payments/thanks": "A page for people who have paid, or saved a card.",
    "/payments/back": "A page for people who left the payment provider's page.",
    "/webhooks/stripe": "Events of Stripe's, signed; see [payments](payments.md).",
}
