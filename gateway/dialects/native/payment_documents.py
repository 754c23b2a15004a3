"""What OpenAPI says about payments, beyond what the types of bodies and answers say."""

from dataclasses import dataclass
from typing import Any, Final

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIType, Operation, Parameter, Schema

from gateway.dialects.native.answer_document import Facts
from gateway.dialects.native.documents import ERRORS, Specs
from gateway.dialects.native.errors import ErrorEnvelope
from gateway.dialects.native.payment_views import (
    MAX_URL_CHARACTERS,
    AutoTopUpBody,
    PaymentMethodBody,
    TopUpBody,
)
from gateway.dialects.native.strict_bodies import KnownBodies
from gateway.dialects.native.submit_headers import SubmitOperation


def _spec(description: str) -> ResponseSpec:
    return ResponseSpec(data_container=ErrorEnvelope, description=description, generate_examples=False)


PAYMENT_ERRORS: Final[Specs] = ERRORS | {
    403: _spec("The key lacks the scope `billing`, is a test key, or belongs to a project."),
    503: _spec("This installation takes no payments, or the payment provider cannot be reached."),
}
_BODY_ERRORS: Final[Specs] = PAYMENT_ERRORS | {
    413: _spec("The body is too large."),
    415: _spec("The body is not JSON."),
}
START_ERRORS: Final[Specs] = _BODY_ERRORS | {422: _spec("The Idempotency-Key was used with another body.")}
CHANGE_ERRORS: Final[Specs] = _BODY_ERRORS | {409: _spec("No card is saved.")}
READ_TOP_UP_ERRORS: Final[Specs] = PAYMENT_ERRORS | {404: _spec("The organization has no such top-up.")}
REMOVE_CARD_ERRORS: Final[Specs] = PAYMENT_ERRORS | {404: _spec("No card is saved.")}

_KEY: Final = next(
    one.schema
    for one in SubmitOperation().parameters or ()
    if isinstance(one, Parameter) and one.name == "Idempotency-Key"
)


@dataclass
class TopUpOperation(Operation):
    """The one header field that a top-up honours."""

    def __post_init__(self) -> None:
        self.parameters = [
            *(self.parameters or ()),
            Parameter(
                name="Idempotency-Key",
                param_in="header",
                description="1 to 255 printable ASCII characters of your choice; with the same key, the same "
                "body is one top-up, however often it is sent.",
                schema=_KEY,
                required=False,
            ),
        ]


_AMOUNT: Final = [
    Schema(
        type=OpenAPIType.STRING, pattern=r"^(10000(\.0{1,2})?|[1-9][0-9]{0,3}(\.[0-9]{1,2})?)$", max_length=8
    ),
    Schema(type=OpenAPIType.NUMBER, minimum=1, maximum=10_000, multiple_of=0.01),
]
_CAP: Final = [
    Schema(type=OpenAPIType.STRING, pattern=r"^[1-9][0-9]{0,8}(\.[0-9]{1,9})?$", max_length=19),
    Schema(type=OpenAPIType.NUMBER, minimum=1),
    Schema(type=OpenAPIType.NULL),
]
_URL: Final[Facts] = {"max_length": MAX_URL_CHARACTERS, "pattern": "^https?://[!-~]+$"}
_PAGES: Final[dict[str, tuple[str, Facts]]] = {
    "success_url": ("Where the page leads when it is done; left out, a small page of ours.", _URL),
    "cancel_url": ("Where it leads when it is left.", _URL),
}
_FIELDS: Final[dict[Any, dict[str, tuple[str, Facts]]]] = {
    TopUpBody: {
        "amount_usd": (
            "USD in whole cents, 1 to 10,000, as text or number.",
            {"one_of": None, "any_of": _AMOUNT, "examples": ["20.00"]},
        ),
        "save_card": ("Keep the card for automatic top-ups.", {}),
        **_PAGES,
    },
    PaymentMethodBody: _PAGES,
    AutoTopUpBody: {
        "enabled": ("Whether the card is charged at all.", {}),
        "threshold_usd": (
            "Charge when less than this is available; USD in whole cents, 1 to 10,000.",
            {"one_of": None, "any_of": _AMOUNT, "examples": ["5"]},
        ),
        "amount_usd": (
            "How much; USD in whole cents, 1 to 10,000.",
            {"one_of": None, "any_of": _AMOUNT, "examples": ["20"]},
        ),
        "daily_cap_usd": (
            "The most in a UTC day, at least the amount; null: no cap.",
            {"one_of": None, "any_of": _CAP, "examples": ["60"]},
        ),
        "monthly_cap_usd": (
            "The most in a UTC month, at least the amount; null: no cap.",
            {"one_of": None, "any_of": _CAP, "examples": ["200"]},
        ),
    },
}
_EXAMPLES: Final[dict[Any, dict[str, Any]]] = {
    TopUpBody: {"amount_usd": "20.00", "save_card": True},
    PaymentMethodBody: {},
    AutoTopUpBody: {
        "enabled": True,
        "threshold_usd": "1.00",
        "amount_usd": "20.00",
        "daily_cap_usd": "60.00",
        "monthly_cap_usd": "200.00",
    },
}
PAYMENT_BODIES: Final[KnownBodies] = {body: (_FIELDS[body], _EXAMPLES[body]) for body in _FIELDS}
