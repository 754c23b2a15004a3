"""Automatic top-ups: a saved card is charged when the balance falls below a threshold.

One payment of an account is under way at most, whoever tries: a unique index says so. Its row is committed
before the provider is told, and is the idempotency key; whoever finds it unfinished goes on with it.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from billing import notices
from billing.accounts import Account, lock_accounts
from billing.connection import Connection
from billing.money import format_usd
from billing.payments import automation
from billing.payments.cards import Pool, read_customer
from billing.payments.errors import ObjectMissing, PaymentError, ProcessorRefused
from billing.payments.processor import NANO_PER_CENT, ChargeOrder, Processor
from billing.payments.rules import AutoTopUp, read_auto_top_up
from billing.payments.syncing import sync_payment

log = structlog.get_logger(__name__)

AT_ONCE: Final = 20
LEASE: Final = timedelta(seconds=60)
"""After which an unfinished payment is somebody else's to go on with; longer than any call takes."""
GIVE_UP: Final = timedelta(hours=1)
"""After which a charge is not sent again: by then the provider's own lists say whether there was one."""


class _Charge(msgspec.Struct, frozen=True, kw_only=True):
    """A payment whose row is there, and what to tell the provider."""

    account_id: uuid.UUID
    order: ChargeOrder
    created_at: datetime
    age: timedelta
    intent_ref: str | None = None

    @property
    def is_new(self) -> bool:
        return self.age < LEASE


async def run_auto_top_ups(pool: Pool, processor: Processor) -> int:
    """Charge the cards of accounts that have run low, and go on with what others left unfinished.

    Safe in any number of processes. Returns how many payments it was at.
    """
    charges = await _take_unfinished(pool)
    due = await pool.fetch(
        """
        SELECT s.account_id
          FROM auto_top_up s
          JOIN account a ON a.id = s.account_id
          JOIN processor_customer c ON c.account_id = s.account_id
         WHERE s.enabled AND (s.next_try_at IS NULL OR s.next_try_at <= now())
           AND a.posted_nano - a.held_nano < s.threshold_nano AND a.owed_nano = 0
           AND c.payment_method_ref IS NOT NULL
           AND NOT EXISTS (SELECT FROM payment p WHERE p.account_id = s.account_id
                              AND p.kind = 'automatic' AND p.finished_at IS NULL)
         LIMIT $1
        """,
        AT_ONCE,
    )
    for row in due:
        async with pool.acquire() as conn, conn.transaction():
            charge = await _begin(conn, row["account_id"])
        if charge is not None:
            charges.append(charge)
    await _all(_carry_out(pool, processor, charge) for charge in charges)
    return len(charges)


async def _begin(conn: Connection, account_id: uuid.UUID) -> _Charge | None:
    """Write the row, if everything still says so under the account's lock."""
    account = (await lock_accounts(conn, {account_id}))[account_id]
    rule = await read_auto_top_up(conn, account_id)
    customer = await read_customer(conn, account_id)
    if customer is None or customer.method_ref is None or not await _is_due(conn, account, rule):
        return None
    amount = rule.amount_nano or 0
    if not await _is_within_caps(conn, account_id, rule, amount):
        return None
    row = await conn.fetchrow(
        """
        INSERT INTO payment (id, account_id, kind, amount_nano, payment_method_ref, asked_at)
        VALUES ($1, $2, 'automatic', $3, $4, now()) RETURNING id, created_at
        """,
        uuid.uuid4(),
        account_id,
        amount,
        customer.method_ref,
    )
    if row is None:
        raise LookupError("an INSERT with RETURNING returns its row")
    order = ChargeOrder(
        payment_id=row["id"],
        customer_ref=customer.ref,
        method_ref=customer.method_ref,
        amount_cents=amount // NANO_PER_CENT,
    )
    return _Charge(account_id=account_id, order=order, created_at=row["created_at"], age=timedelta())


async def _is_due(conn: Connection, account: Account, rule: AutoTopUp) -> bool:
    if not rule.enabled or account.owed_nano > 0:
        return False
    if account.posted_nano - account.held_nano >= (rule.threshold_nano or 0):
        return False
    return not await conn.fetchval(
        """
        SELECT EXISTS (SELECT FROM payment WHERE account_id = $1 AND kind = 'automatic'
                          AND finished_at IS NULL)
            OR EXISTS (SELECT FROM auto_top_up WHERE account_id = $1 AND next_try_at > now())
        """,
        account.id,
    )


async def _is_within_caps(conn: Connection, account_id: uuid.UUID, rule: AutoTopUp, amount_nano: int) -> bool:
    """If a cap would be passed: say so once, and look again when its window is over."""
    row = await conn.fetchrow(
        """
        SELECT coalesce(sum(amount_nano) FILTER (WHERE created_at >= today), 0)::bigint AS day,
               coalesce(sum(amount_nano), 0)::bigint AS month
          FROM (SELECT date_trunc('day', now(), 'UTC') AS today,
                       date_trunc('month', now(), 'UTC') AS this_month) w
          LEFT JOIN payment p ON p.account_id = $1 AND p.created_at >= this_month AND p.kind = 'automatic'
                             AND p.status IN ('created', 'pending', 'paid')
        """,
        account_id,
    )
    for window, cap in (("month", rule.monthly_cap_nano), ("day", rule.daily_cap_nano)):
        if cap is None or row is None or row[window] + amount_nano <= cap:
            continue
        await conn.execute(
            f"""
            UPDATE auto_top_up
               SET next_try_at = date_trunc('{window}', now(), 'UTC') + interval '1 {window}'
             WHERE account_id = $1
            """,  # noqa: S608 - one of two words
            account_id,
        )
        facts = {"window": window, "cap_usd": format_usd(cap), "charged_usd": format_usd(row[window])}
        await notices.note(conn, account_id, "auto_top_up.capped", facts)
        return False
    return True


async def _take_unfinished(pool: Pool) -> list[_Charge]:
    """Payments that somebody has begun and left: now ours for as long as a lease."""
    rows = await pool.fetch(
        """
        UPDATE payment p SET asked_at = now()
          FROM (SELECT id FROM payment
                 WHERE kind = 'automatic' AND finished_at IS NULL AND asked_at < now() - $1::interval
                 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED) t, processor_customer c
         WHERE p.id = t.id AND c.account_id = p.account_id
        RETURNING p.id, p.account_id, p.amount_nano, p.payment_method_ref, p.created_at, p.intent_ref,
                  c.customer_ref, now() - p.created_at AS age
        """,
        LEASE,
        AT_ONCE,
    )
    return [
        _Charge(
            account_id=row["account_id"],
            order=ChargeOrder(
                payment_id=row["id"],
                customer_ref=row["customer_ref"],
                method_ref=row["payment_method_ref"],
                amount_cents=row["amount_nano"] // NANO_PER_CENT,
            ),
            created_at=row["created_at"],
            age=row["age"],
            intent_ref=row["intent_ref"],
        )
        for row in rows
    ]


async def _carry_out(pool: Pool, processor: Processor, charge: _Charge) -> None:
    """Have the card charged, once, and book what became of it."""
    try:
        intent_ref = charge.intent_ref
        if intent_ref is None and not charge.is_new:
            intent_ref = await processor.find_charge(charge.order, since=charge.created_at)
            if intent_ref is None and charge.age > GIVE_UP:
                await _close(pool, charge, "not_sent", "the provider could not be asked in time")
                return
        if intent_ref is None:
            intent_ref = await processor.charge(charge.order)
        await sync_payment(pool, processor, intent_ref)
    except ProcessorRefused as refusal:
        code = "card_missing" if isinstance(refusal, ObjectMissing) else refusal.code or "refused"
        await _close(pool, charge, code, str(refusal), counts=True)
    except PaymentError as error:
        log.warning("payments.auto_top_up_waits", payment=charge.order.payment_id.hex, error=str(error))


async def _close(pool: Pool, charge: _Charge, code: str, message: str, *, counts: bool = False) -> None:
    """No payment came of it at the provider."""
    async with pool.acquire() as conn, conn.transaction():
        await lock_accounts(conn, {charge.account_id})
        status = await conn.execute(
            """
            UPDATE payment SET status = 'failed', finished_at = now(), error_code = $2, error_message = $3
             WHERE id = $1 AND finished_at IS NULL
            """,
            charge.order.payment_id,
            code,
            message,
        )
        if counts and status != "UPDATE 0":
            await automation.failed(
                conn,
                charge.account_id,
                payment_id=charge.order.payment_id,
                amount_nano=charge.order.amount_cents * NANO_PER_CENT,
                code=code,
                message=message,
            )


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """All at once; what goes wrong with one does not stop the others."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for error in results:
        if isinstance(error, BaseException):
            raise error
