"""What can go wrong with money that comes in.

PaymentError
├── ProcessorUnavailable     no answer in time, or "not now"            -> time; it may have been done
│   └── ProcessorDenied      our key is not accepted, or may not do it  -> the operator
├── ProcessorRefused         the provider will not do this; `param`     -> whoever asked
│   └── ObjectMissing        there is no such object at the provider
├── EventRefused             forged, changed or old                     -> whoever sent it
└── PaymentRefused           a rule of ours; nothing was sent           -> whoever asked
    ├── PaymentMissing
    ├── CardMissing          no card is saved
    └── KeyReused            an idempotency key with another request
"""

from billing.errors import BillingError


class PaymentError(BillingError):
    """Base of everything this package raises."""


class ProcessorUnavailable(PaymentError):
    """The payment provider did not answer, or not with a result."""


class ProcessorDenied(ProcessorUnavailable):
    """The payment provider does not accept our key for this."""


class ProcessorRefused(PaymentError):
    """The payment provider will not do this, now or later."""

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class ObjectMissing(ProcessorRefused):
    """The payment provider has no such object."""


class EventRefused(PaymentError):
    """This is no event of the payment provider, or not a recent one."""


class PaymentRefused(PaymentError):
    """It must not be done."""

    def __init__(self, message: str, *, param: str | None = None, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.suggestion = suggestion


class PaymentMissing(PaymentRefused):
    """No such payment of this account."""


class CardMissing(PaymentRefused):
    """The account has no saved card."""


class KeyReused(PaymentRefused):
    """The idempotency key was used with another request."""
