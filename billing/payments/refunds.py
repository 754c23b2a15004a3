"""Refunds that an operator orders. The order is written first, and is the idempotency key."""

import uuid
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from billing.accounts import lock_accounts
from billing.connection import Connection
from billing.money import format_usd
from billing.payments.cards import Pool
from billing.payments.errors import PaymentRefused, ProcessorRefused
from billing.payments.processor import NANO_PER_CENT, Processor
from billing.payments.syncing import sync_payment
from billing.payments.topups import Payment, find_payment

GIVE_UP: Final = timedelta(hours=1)
"""After which an order is not sent again: by then the provider's own list says whether it was carried out."""


class RefundOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order to pay back, and what came of it."""

    id: uuid.UUID
    payment_id: uuid.UUID
    amount_nano: int
    reason: str | None
    refund_ref: str | None
    error: str | None
    created_at: datetime


async def refund_payment(
    pool: Pool,
    processor: Processor,
    payment_id: uuid.UUID,
    *,
    amount_nano: int | None = None,
    reason: str | None = None,
    force: bool = False,
) -> RefundOrder:
    """Pay back some of a payment, without an amount all that is left of it, and book it.

    An order of before whose outcome was not known is found out about first: ordered again, the same
    refund is not paid twice. Raises PaymentRefused if the money is spent already, unless forced: then
    the account owes the rest.
    """
    payment = await find_payment(pool, None, payment_id)
    if payment.status != "paid" or payment.intent_ref is None:
        raise PaymentRefused(f"this payment is {payment.status}: there is nothing to pay back")
    await sync_payment(pool, processor, payment.intent_ref)
    done = await _settle_open_order(pool, processor, payment)
    if done is not None:
        left = (await find_payment(pool, None, payment_id)).left_nano
        if amount_nano == done.amount_nano or (amount_nano is None and left == 0):
            return done
    async with pool.acquire() as conn, conn.transaction():
        order = await _write_order(conn, payment_id, amount_nano, reason=reason, force=force)
    return await _carry_out(pool, processor, payment.intent_ref, order)


async def _settle_open_order(pool: Pool, processor: Processor, payment: Payment) -> RefundOrder | None:
    """Find out what became of an order that never got its answer; the order, if it was carried out."""
    order = _order(
        await pool.fetchrow(
            "SELECT * FROM refund_order WHERE payment_id = $1 AND finished_at IS NULL", payment.id
        )
    )
    if order is None or payment.intent_ref is None:
        return None
    intent = await processor.read_intent(payment.intent_ref)
    done = next((one.ref for one in intent.refunds if one.order_id == order.id), None)
    if done is not None:
        await sync_payment(pool, processor, payment.intent_ref)
        await _finish(pool, order.id, refund_ref=done)
        return msgspec.structs.replace(order, refund_ref=done)
    if datetime.now(order.created_at.tzinfo) - order.created_at > GIVE_UP:
        await _finish(pool, order.id, error="the provider could not be asked in time")
    return None


async def _write_order(
    conn: Connection, payment_id: uuid.UUID, amount_nano: int | None, *, reason: str | None, force: bool
) -> RefundOrder:
    """The order to carry out: the open one if there is one, which must be for the same amount."""
    payment = await find_payment(conn, None, payment_id)
    account = (await lock_accounts(conn, {payment.account_id}))[payment.account_id]
    payment = await find_payment(conn, None, payment_id)
    unfinished = _order(
        await conn.fetchrow(
            "SELECT * FROM refund_order WHERE payment_id = $1 AND finished_at IS NULL", payment_id
        )
    )
    if unfinished is not None:
        if amount_nano not in {None, unfinished.amount_nano}:
            raise PaymentRefused(
                f"a refund of {format_usd(unfinished.amount_nano)} USD was begun and its outcome is not "
                "known; order that one again first"
            )
        return unfinished
    amount = payment.left_nano if amount_nano is None else amount_nano
    _check(payment, amount, max(account.posted_nano - account.held_nano, 0), force=force)
    row = await conn.fetchrow(
        "INSERT INTO refund_order (id, payment_id, amount_nano, reason) VALUES ($1, $2, $3, $4) RETURNING *",
        uuid.uuid4(),
        payment_id,
        amount,
        reason,
    )
    order = _order(row)
    if order is None:
        raise LookupError("an INSERT with RETURNING returns its row")
    return order


def _check(payment: Payment, amount_nano: int, free_nano: int, *, force: bool) -> None:
    left = format_usd(payment.left_nano)
    if amount_nano <= 0 or amount_nano > payment.left_nano:
        raise PaymentRefused(f"of this payment {left} USD can still be paid back")
    if amount_nano % NANO_PER_CENT:
        raise PaymentRefused("a refund is whole cents")
    if amount_nano > free_nano and not force:
        cents = free_nano - free_nano % NANO_PER_CENT
        raise PaymentRefused(
            f"only {format_usd(cents)} USD are neither spent nor held; order at most that, or force it: "
            "then the organization owes the rest and nothing new is admitted until it is paid"
        )


async def _carry_out(pool: Pool, processor: Processor, intent_ref: str, order: RefundOrder) -> RefundOrder:
    try:
        refund_ref = await processor.refund(
            intent_ref,
            order_id=order.id,
            amount_cents=order.amount_nano // NANO_PER_CENT,
            reason=order.reason,
        )
    except ProcessorRefused as error:
        await _finish(pool, order.id, error=str(error))
        raise
    # Open until it is booked: who orders meanwhile sees either the order or less to refund.
    await sync_payment(pool, processor, intent_ref)
    await _finish(pool, order.id, refund_ref=refund_ref)
    return msgspec.structs.replace(order, refund_ref=refund_ref)


async def _finish(
    pool: Pool, order_id: uuid.UUID, *, refund_ref: str | None = None, error: str | None = None
) -> None:
    await pool.execute(
        """
        UPDATE refund_order SET refund_ref = $2, error = $3, finished_at = now()
         WHERE id = $1 AND finished_at IS NULL
        """,
        order_id,
        refund_ref,
        error,
    )


def _order(row: asyncpg.Record | None) -> RefundOrder | None:
    return None if row is None else msgspec.convert(dict(row), RefundOrder)
