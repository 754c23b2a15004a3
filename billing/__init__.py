"""Money without music: the ledger's front door. It never heard of jobs, models' sound or HTTP.

Amounts are integer nano-USD; every function works inside the caller's transaction.
"""

from billing.accounts import Account, lock_accounts, open_account, read_account
from billing.budgets import BUDGET_PERIODS, Budget, create_budget, lock_budgets
from billing.connection import Connection
from billing.errors import AccountMissing, BillingError, LedgerConflict, MoneyFormatError, PriceMissing
from billing.ledger import Charge, Delivery, Hold, grant, release, settle, write_holds
from billing.models import (
    APPEND_ONLY,
    HOUSE_ACCOUNTS,
    NAMING_CONVENTION,
    REVENUE,
    hold,
    metadata,
    price_version,
)
from billing.money import billed_ms, ceil_div, cost_nano, format_usd, parse_usd
from billing.pricing import Price, PriceBook, SeedPrice, read_price_book, seed_prices, set_price
from billing.totals import Totals, read_totals
from billing.verify import Violation, count_entries, run_checks, verify

__all__ = [
    "APPEND_ONLY",
    "BUDGET_PERIODS",
    "HOUSE_ACCOUNTS",
    "NAMING_CONVENTION",
    "REVENUE",
    "Account",
    "AccountMissing",
    "BillingError",
    "Budget",
    "Charge",
    "Connection",
    "Delivery",
    "Hold",
    "LedgerConflict",
    "MoneyFormatError",
    "Price",
    "PriceBook",
    "PriceMissing",
    "SeedPrice",
    "Totals",
    "Violation",
    "billed_ms",
    "ceil_div",
    "cost_nano",
    "count_entries",
    "create_budget",
    "format_usd",
    "grant",
    "hold",
    "lock_accounts",
    "lock_budgets",
    "metadata",
    "open_account",
    "parse_usd",
    "price_version",
    "read_account",
    "read_price_book",
    "read_totals",
    "release",
    "run_checks",
    "seed_prices",
    "set_price",
    "settle",
    "verify",
    "write_holds",
]
