"""What is in the answers about payments, for OpenAPI: by the names of their types and fields."""

from typing import Any, Final

from litestar.openapi.spec import OpenAPIType, Schema

from billing import payments
from gateway.dialects.native.documents import ID

Facts = dict[str, Any]

_ID: Final[Facts] = {"pattern": ID}
_USD: Final[Facts] = {"pattern": r"^[0-9]+\.[0-9]{9}$"}
_MOMENT: Final[Facts] = {"format": "date-time"}
_COUNT: Final[Facts] = {"minimum": 0}

PAYMENT_FACTS: Final[dict[str, dict[str, Facts]]] = {
    "TopUpView": {
        "object": {"const": "topup"},
        "id": _ID,
        "kind": {"enum": list(payments.PAYMENT_KINDS)},
        "status": {"enum": list(payments.PAYMENT_STATUSES)},
        "amount_usd": _USD,
        "refunded_usd": _USD,
        "disputed_usd": _USD,
        "url": {"format": "uri"},
        "expires_at": _MOMENT,
        "receipt_url": {"format": "uri"},
        "created_at": _MOMENT,
        "finished_at": _MOMENT,
    },
    "TopUpList": {"object": {"const": "list"}, "next_cursor": _ID},
    "TopUpOptions": {
        "object": {"const": "topup_options"},
        "currency": {"const": "usd"},
        "presets_usd": {"items": Schema(type=OpenAPIType.STRING, pattern=_USD["pattern"])},
        "min_usd": _USD,
        "max_usd": _USD,
        "step_usd": _USD,
    },
    "CardView": {"last4": {"pattern": "^[0-9]{4}$"}, "exp_month": {"minimum": 1, "maximum": 12}},
    "PaymentMethodView": {"object": {"const": "payment_method"}},
    "PaymentMethodSetup": {
        "object": {"const": "payment_method_setup"},
        "url": {"format": "uri"},
        "expires_at": _MOMENT,
    },
    "AutoTopUpView": {
        "object": {"const": "auto_topup"},
        "threshold_usd": _USD,
        "amount_usd": _USD,
        "daily_cap_usd": _USD,
        "monthly_cap_usd": _USD,
        "failures": _COUNT,
        "next_try_at": _MOMENT,
    },
}
