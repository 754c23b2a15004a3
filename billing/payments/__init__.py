"""Money in: what a payment provider says becomes postings of the ledger. The second front door of billing.

The provider's package is imported by `open_till` alone, in processes that have a key for it.
"""

from billing.models import metadata
from billing.payments import models as _models
from billing.payments.auto import run_auto_top_ups
from billing.payments.booking import Booked
from billing.payments.cards import open_setup, read_card, remove_card, sync_setup
from billing.payments.errors import (
    CardMissing,
    EventRefused,
    KeyReused,
    ObjectMissing,
    PaymentError,
    PaymentMissing,
    PaymentRefused,
    ProcessorDenied,
    ProcessorRefused,
    ProcessorUnavailable,
)
from billing.payments.events import Inbox, forget_old_events
from billing.payments.follow_up import look_again
from billing.payments.processor import NANO_PER_CENT, Card, Processor
from billing.payments.reconciling import Day, Difference, Reconciliation, reconcile
from billing.payments.refunds import RefundOrder, refund_payment
from billing.payments.rules import AutoTopUp, read_auto_top_up, set_auto_top_up
from billing.payments.syncing import sync_payment
from billing.payments.till import Till, open_till
from billing.payments.topups import (
    LEAST_NANO,
    MOST_NANO,
    PRESETS_NANO,
    Payment,
    TopUpOrder,
    list_payments,
    read_top_up,
    start_top_up,
)

PAYMENT_KINDS = _models.PAYMENT_KINDS
PAYMENT_STATUSES = _models.UNFINISHED + _models.FINISHED

__all__ = [
    "LEAST_NANO",
    "MOST_NANO",
    "NANO_PER_CENT",
    "PAYMENT_KINDS",
    "PAYMENT_STATUSES",
    "PRESETS_NANO",
    "AutoTopUp",
    "Booked",
    "Card",
    "CardMissing",
    "Day",
    "Difference",
    "EventRefused",
    "Inbox",
    "KeyReused",
    "ObjectMissing",
    "Payment",
    "PaymentError",
    "PaymentMissing",
    "PaymentRefused",
    "Processor",
    "ProcessorDenied",
    "ProcessorRefused",
    "ProcessorUnavailable",
    "Reconciliation",
    "RefundOrder",
    "Till",
    "TopUpOrder",
    "forget_old_events",
    "list_payments",
    "look_again",
    "metadata",
    "open_setup",
    "open_till",
    "read_auto_top_up",
    "read_card",
    "read_top_up",
    "reconcile",
    "refund_payment",
    "remove_card",
    "run_auto_top_ups",
    "set_auto_top_up",
    "start_top_up",
    "sync_payment",
    "sync_setup",
]
