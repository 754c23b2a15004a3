"""What a transfer of each kind may move: which accounts take part in it, one of each, and in which direction.

A shape is encoded as a set of bits and a number of legs, so that a million transfers are compared with
their shapes in one pass.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from billing.models import PER_JOB_KINDS

_PAYMENT: Final = (
    "customer+ stripe_clearing-",
    "customer+ receivable+ stripe_clearing-",
    "receivable+ stripe_clearing-",
)
_TAKEN_BACK: Final = (
    "customer- stripe_clearing+",
    "customer- receivable- stripe_clearing+",
    "receivable- stripe_clearing+",
)
SHAPES: Final[Mapping[str, Sequence[str]]] = {
    "grant": ("customer+ promo_expense-",),
    "settle": (
        "customer- revenue+",
        "customer0 revenue0",
        "customer- revenue+ variance-",
        "customer0 revenue+ variance-",
    ),
    "top_up": _PAYMENT,
    "usage_refund": ("customer+ revenue-",),
    "expiry": ("breakage+ customer-",),
    "payment_refund": _TAKEN_BACK,
    "payment_refund_failed": _PAYMENT,
    "dispute": _TAKEN_BACK,
    "dispute_won": _PAYMENT,
    "debt_payment": ("customer- receivable+",),
    "provider_cost": ("cogs_expense- cogs_payable+", "variance- cogs_payable+"),
}
"""By kind of transfer: kinds of accounts, each with the sign of its leg."""

GRANTED_BY: Final[Mapping[str, Sequence[str]]] = {
    "promotional": ("grant",),
    "refund": ("usage_refund",),
    "paid": ("top_up", "payment_refund_failed", "dispute_won"),
}
"""By kind of grant: the transfers from which one may come."""

NAMES_A_JOB: Final = ("settle", "usage_refund")
"""These have a reference."""
NAMES_AN_OBJECT: Final = (
    "top_up",
    "payment_refund",
    "payment_refund_failed",
    "dispute",
    "dispute_won",
    "provider_cost",
)
"""These have an external reference."""

_SIGNS: Final = "-0+"
_ACCOUNT_KINDS: Final = sorted(
    {leg[:-1] for shapes in SHAPES.values() for shape in shapes for leg in shape.split()}
)


def words(some: Sequence[str]) -> str:
    """A list in SQL."""
    return ", ".join(f"'{word}'" for word in some)


def _bit(leg: str) -> int:
    """Of one account kind and sign."""
    return _ACCOUNT_KINDS.index(leg[:-1]) * len(_SIGNS) + _SIGNS.index(leg[-1])


def _row(kind: str, legs: Sequence[str]) -> str:
    return f"('{kind}', {sum(1 << _bit(leg) for leg in legs)}, {len(legs)})"


SQL: Final[Mapping[str, str]] = {
    "account_bits": ", ".join(f"('{kind}', {n * len(_SIGNS)})" for n, kind in enumerate(_ACCOUNT_KINDS)),
    "shape_rows": ", ".join(_row(kind, shape.split()) for kind, some in SHAPES.items() for shape in some),
    "grant_rows": ", ".join(
        f"('{kind}', '{source}')" for kind, some in GRANTED_BY.items() for source in some
    ),
    "names_a_job": words(NAMES_A_JOB),
    "names_an_object": words(NAMES_AN_OBJECT),
    "per_job": words(PER_JOB_KINDS),
}
"""The same as rows and lists for queries. A leg's bit is that of its account plus 1 plus its sign."""
