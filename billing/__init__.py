"""Money without music: the ledger's front door. It never heard of jobs, models' sound or HTTP.

Amounts are integer nano-USD; every function works inside the caller's transaction.
"""

from billing.accounts import LEVELS, Account, lock_accounts, open_account, read_account, set_thresholds
from billing.budgets import (
    BUDGET_PERIODS,
    BUDGET_SCOPES,
    Budget,
    lock_budgets,
    read_budgets,
    remove_budget,
    set_budget,
)
from billing.connection import Connection
from billing.errors import AccountMissing, BillingError, LedgerConflict, MoneyFormatError, PriceMissing
from billing.funding import (
    ProviderCost,
    book_provider_costs,
    collect_debts,
    give_again,
    take_back,
    top_up,
)
from billing.grants import expire_due, grant, refund_usage
from billing.ledger import Charge, Delivery, Hold, release, settle, write_holds
from billing.models import (
    APPEND_ONLY,
    BREAKAGE,
    COGS_EXPENSE,
    COGS_PAYABLE,
    HOUSE_ACCOUNTS,
    NAMING_CONVENTION,
    PROMO_EXPENSE,
    RECEIVABLE,
    REVENUE,
    STRIPE_CLEARING,
    VARIANCE,
    hold,
    metadata,
    price_version,
)
from billing.money import billed_ms, ceil_div, cost_nano, format_usd, parse_usd
from billing.notices import Notice, note, take_untold
from billing.pricing import Price, PriceBook, SeedPrice, read_price_book, seed_prices, set_price
from billing.totals import Totals, read_totals
from billing.verify import Violation, count_entries, run_checks, verify

__all__ = [
    "APPEND_ONLY",
    "BREAKAGE",
    "BUDGET_PERIODS",
    "BUDGET_SCOPES",
    "COGS_EXPENSE",
    "COGS_PAYABLE",
    "HOUSE_ACCOUNTS",
    "LEVELS",
    "NAMING_CONVENTION",
    "PROMO_EXPENSE",
    "RECEIVABLE",
    "REVENUE",
    "STRIPE_CLEARING",
    "VARIANCE",
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
    "Notice",
    "Price",
    "PriceBook",
    "PriceMissing",
    "ProviderCost",
    "SeedPrice",
    "Totals",
    "Violation",
    "billed_ms",
    "book_provider_costs",
    "ceil_div",
    "collect_debts",
    "cost_nano",
    "count_entries",
    "expire_due",
    "format_usd",
    "give_again",
    "grant",
    "hold",
    "lock_accounts",
    "lock_budgets",
    "metadata",
    "note",
    "open_account",
    "parse_usd",
    "price_version",
    "read_account",
    "read_budgets",
    "read_price_book",
    "read_totals",
    "refund_usage",
    "release",
    "remove_budget",
    "run_checks",
    "seed_prices",
    "set_budget",
    "set_price",
    "set_thresholds",
    "settle",
    "take_back",
    "take_untold",
    "top_up",
    "verify",
    "write_holds",
]
