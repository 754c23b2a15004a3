"""What can go wrong with money.

BillingError
├── MoneyFormatError      an amount that is not a decimal number of dollars   -> the client or operator
├── PriceMissing          a model without a price version                     -> the operator
├── PriceRefused          a price version that could not be charged exactly   -> the operator
├── AccountMissing        an account that was never opened                    -> the operator
└── LedgerConflict        the books refuse a step, e.g. a second settlement   -> a defect, nothing was written
"""


class BillingError(Exception):
    """Base of everything this package raises."""


class MoneyFormatError(BillingError):
    """Not a decimal number of dollars with at most nine decimals."""


class PriceMissing(BillingError):
    """No price version is in force for this model."""


class PriceRefused(BillingError):
    """A price version that could not be charged or shown exactly, or that would change the past."""


class AccountMissing(BillingError):
    """No such account."""


class LedgerConflict(BillingError):
    """The books refuse this step; the transaction must be rolled back."""
