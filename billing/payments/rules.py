"""The rule of an automatic top-up: when, how much, and how much at most."""

import uuid
from datetime import datetime

import msgspec

from billing.accounts import lock_accounts
from billing.connection import Connection
from billing.payments.cards import read_customer
from billing.payments.errors import CardMissing, PaymentRefused
from billing.payments.topups import check_amount


class AutoTopUp(msgspec.Struct, frozen=True, kw_only=True):
    """An account's rule."""

    enabled: bool = False
    threshold_nano: int | None = None
    amount_nano: int | None = None
    daily_cap_nano: int | None = None
    """The most that is charged automatically in a day, by UTC; None: no cap."""
    monthly_cap_nano: int | None = None
    failures: int = 0
    next_try_at: datetime | None = None
    disabled_reason: str | None = None


async def read_auto_top_up(conn: Connection, account_id: uuid.UUID) -> AutoTopUp:
    """The account's rule; one that is off if nobody made any."""
    row = await conn.fetchrow(
        """
        SELECT enabled, threshold_nano, amount_nano, daily_cap_nano, monthly_cap_nano, failures, next_try_at,
               disabled_reason
          FROM auto_top_up WHERE account_id = $1
        """,
        account_id,
    )
    return AutoTopUp(**row) if row is not None else AutoTopUp()


async def set_auto_top_up(conn: Connection, account_id: uuid.UUID, rule: AutoTopUp) -> AutoTopUp:
    """Make or change the rule, in the caller's transaction; earlier failures do not count any more.

    Raises PaymentRefused for amounts that make no sense, CardMissing for one without a saved card.
    """
    await lock_accounts(conn, {account_id})
    if rule == AutoTopUp():
        return rule  # switching off what never was
    _check(rule)
    customer = await read_customer(conn, account_id)
    if rule.enabled and (customer is None or customer.method_ref is None):
        raise CardMissing("no card is saved: save one first")
    await conn.execute(
        """
        INSERT INTO auto_top_up (account_id, enabled, threshold_nano, amount_nano, daily_cap_nano,
                                 monthly_cap_nano)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (account_id) DO UPDATE
           SET enabled = $2, threshold_nano = $3, amount_nano = $4, daily_cap_nano = $5,
               monthly_cap_nano = $6, failures = 0, next_try_at = NULL, disabled_reason = NULL
        """,
        account_id,
        rule.enabled,
        rule.threshold_nano,
        rule.amount_nano,
        rule.daily_cap_nano,
        rule.monthly_cap_nano,
    )
    return await read_auto_top_up(conn, account_id)


def _check(rule: AutoTopUp) -> None:
    for name in ("threshold", "amount"):
        if getattr(rule, f"{name}_nano") is None:
            raise PaymentRefused(f"{name}_usd is required", param=f"{name}_usd")
        check_amount(getattr(rule, f"{name}_nano"), param=f"{name}_usd")
    for name in ("daily_cap", "monthly_cap"):
        cap = getattr(rule, f"{name}_nano")
        if cap is not None and cap < (rule.amount_nano or 0):
            raise PaymentRefused(
                f"{name}_usd is below amount_usd: nothing would ever be charged", param=f"{name}_usd"
            )
