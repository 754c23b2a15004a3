"""Top-ups: a customer pays on the provider's page. Our row is written first, then the page is made."""

import uuid
from datetime import datetime
from typing import Final

import asyncpg
import msgspec
import structlog

from billing.connection import Connection
from billing.money import NANO_PER_USD, format_usd
from billing.payments.cards import ASK_AGAIN_AFTER, Pool, ensure_customer
from billing.payments.errors import (
    KeyReused,
    ObjectMissing,
    PaymentError,
    PaymentMissing,
    PaymentRefused,
    ProcessorRefused,
)
from billing.payments.processor import NANO_PER_CENT, Page, PageOrder, Processor
from billing.payments.syncing import sync_page

log = structlog.get_logger(__name__)

LEAST_NANO: Final = 1 * NANO_PER_USD
MOST_NANO: Final = 10_000 * NANO_PER_USD
PRESETS_NANO: Final = tuple(usd * NANO_PER_USD for usd in (5, 10, 20, 50, 100))

_COLUMNS: Final = (
    "id, account_id, kind, status, amount_nano, refunded_nano, disputed_nano, request_hash, success_url, "
    "cancel_url, save_card, checkout_ref, intent_ref, url, expires_at, receipt_url, error_code, "
    "error_message, created_at, finished_at"
)


class TopUpOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer wants to pay, and where the page leads afterwards."""

    account_id: uuid.UUID
    amount_nano: int
    success_url: str
    cancel_url: str
    save_card: bool = False
    idempotency_key: str | None = None
    request_hash: bytes | None = None
    """Of the whole request; the same key with another one is refused."""


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment of an account, by whatever way."""

    id: uuid.UUID
    account_id: uuid.UUID
    kind: str
    status: str
    amount_nano: int
    refunded_nano: int
    disputed_nano: int
    request_hash: bytes | None
    success_url: str | None
    cancel_url: str | None
    save_card: bool
    checkout_ref: str | None
    intent_ref: str | None
    url: str | None
    expires_at: datetime | None
    receipt_url: str | None
    error_code: str | None
    error_message: str | None
    created_at: datetime
    finished_at: datetime | None

    @property
    def left_nano(self) -> int:
        """What can still be refunded."""
        return self.amount_nano - self.refunded_nano - self.disputed_nano if self.status == "paid" else 0


def check_amount(amount_nano: int, *, param: str = "amount_usd") -> None:
    """Raise PaymentRefused unless a card can be charged this."""
    if amount_nano % NANO_PER_CENT:
        raise PaymentRefused(
            f"{param} must be whole cents",
            param=param,
            suggestion=_usd(max(amount_nano - amount_nano % NANO_PER_CENT, LEAST_NANO)),
        )
    if not LEAST_NANO <= amount_nano <= MOST_NANO:
        raise PaymentRefused(
            f"{param} must be between {_usd(LEAST_NANO)} and {_usd(MOST_NANO)} USD",
            param=param,
            suggestion=_usd(min(max(amount_nano, LEAST_NANO), MOST_NANO)),
        )


async def start_top_up(pool: Pool, processor: Processor, order: TopUpOrder) -> Payment:
    """A payment with a page to pay on. With the same idempotency key: the same payment.

    Raises KeyReused if the key came with another request before.
    """
    check_amount(order.amount_nano)
    payment = await _insert_or_find(pool, order)
    if order.idempotency_key is not None and payment.request_hash != order.request_hash:
        raise KeyReused("this idempotency key was used with another request")
    if payment.checkout_ref is not None or payment.finished_at is not None:
        return payment
    try:
        page = await _open_page(pool, processor, payment)
    except ProcessorRefused:
        # What was never sent leaves nothing behind: the next request may do better.
        await pool.execute("DELETE FROM payment WHERE id = $1 AND checkout_ref IS NULL", payment.id)
        raise
    row = await pool.fetchrow(
        f"""
        UPDATE payment SET checkout_ref = $2, url = $3, expires_at = $4, status = 'pending'
         WHERE id = $1 AND finished_at IS NULL RETURNING {_COLUMNS}
        """,  # noqa: S608 - constants
        payment.id,
        page.ref,
        page.url,
        page.expires_at,
    )
    return _payment(row) if row is not None else await find_payment(pool, payment.account_id, payment.id)


async def read_top_up(
    pool: Pool, processor: Processor, account_id: uuid.UUID, payment_id: uuid.UUID
) -> Payment:
    """The payment; while it waits, the provider is asked, so that nobody depends on its messages.

    Raises PaymentMissing. If the provider cannot be asked, it is the payment as we know it.
    """
    page_ref = await pool.fetchval(
        """
        UPDATE payment SET asked_at = now()
         WHERE id = $1 AND account_id = $2 AND finished_at IS NULL AND checkout_ref IS NOT NULL
           AND (asked_at IS NULL OR asked_at < now() - $3::interval)
        RETURNING checkout_ref
        """,
        payment_id,
        account_id,
        ASK_AGAIN_AFTER,
    )
    if page_ref is not None:
        try:
            await sync_page(pool, processor, payment_id, page_ref)
        except PaymentError as error:
            log.warning("payments.page_unknown", payment=payment_id.hex, error=str(error))
    return await find_payment(pool, account_id, payment_id)


async def find_payment(
    pool: "Pool | Connection", account_id: uuid.UUID | None, payment_id: uuid.UUID
) -> Payment:
    """The payment as we know it; raises PaymentMissing. Without an account: anybody's."""
    row = await pool.fetchrow(
        f"SELECT {_COLUMNS} FROM payment WHERE id = $1 AND account_id = coalesce($2, account_id)",  # noqa: S608
        payment_id,
        account_id,
    )
    if row is None:
        raise PaymentMissing("there is no such payment")
    return _payment(row)


async def list_payments(
    pool: "Pool | Connection", account_id: uuid.UUID, *, limit: int, before: uuid.UUID | None = None
) -> list[Payment]:
    """Newest first; `before` is the last one of the page before."""
    rows = await pool.fetch(
        f"""
        SELECT {_COLUMNS} FROM payment
         WHERE account_id = $1
           AND ($3::uuid IS NULL
                OR (created_at, id) < (SELECT created_at, id FROM payment WHERE id = $3 AND account_id = $1))
         ORDER BY created_at DESC, id DESC LIMIT $2
        """,  # noqa: S608 - constants
        account_id,
        limit,
        before,
    )
    return [_payment(row) for row in rows]


async def _insert_or_find(pool: Pool, order: TopUpOrder) -> Payment:
    row = await pool.fetchrow(
        f"""
        INSERT INTO payment (id, account_id, kind, amount_nano, success_url, cancel_url, save_card,
                             idempotency_key, request_hash)
        VALUES ($1, $2, 'checkout', $3, $4, $5, $6, $7, $8)
        ON CONFLICT (account_id, idempotency_key) DO NOTHING RETURNING {_COLUMNS}
        """,  # noqa: S608 - constants
        uuid.uuid4(),
        order.account_id,
        order.amount_nano,
        order.success_url,
        order.cancel_url,
        order.save_card,
        order.idempotency_key,
        order.request_hash if order.idempotency_key is not None else None,
    )
    if row is None:
        row = await pool.fetchrow(
            f"SELECT {_COLUMNS} FROM payment WHERE account_id = $1 AND idempotency_key = $2",  # noqa: S608
            order.account_id,
            order.idempotency_key,
        )
    if row is None:
        raise PaymentMissing("the payment of this idempotency key was just withdrawn; send it again")
    return _payment(row)


async def _open_page(pool: Pool, processor: Processor, payment: Payment) -> Page:
    """With what the row says, so that a repeated call means the same page."""
    customer_ref = await ensure_customer(pool, processor, payment.account_id)
    order = PageOrder(
        payment_id=payment.id,
        customer_ref=customer_ref,
        amount_cents=payment.amount_nano // NANO_PER_CENT,
        success_url=payment.success_url or "",
        cancel_url=payment.cancel_url or "",
        save_card=payment.save_card,
    )
    try:
        return await processor.open_page(order)
    except ObjectMissing:
        other = await ensure_customer(pool, processor, payment.account_id, instead_of=customer_ref)
        return await processor.open_page(msgspec.structs.replace(order, customer_ref=other))


def _payment(row: asyncpg.Record) -> Payment:
    return msgspec.convert(dict(row), Payment)


def _usd(nano: int) -> str:
    return format_usd(nano).rstrip("0").rstrip(".")
