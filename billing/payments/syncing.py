"""Ask the provider how a payment stands, and book it: the one way in which money comes into the books."""

import uuid

from billing.payments.booking import Booked, book
from billing.payments.cards import Pool, forget_replaced
from billing.payments.errors import ObjectMissing
from billing.payments.processor import Processor


async def sync_payment(pool: Pool, processor: Processor, intent_ref: str) -> Booked:
    """Bring the books to where the provider is with this payment. Safe at any time, by anybody.

    The provider is asked first, with no transaction open.
    """
    intent = await processor.read_intent(intent_ref)
    async with pool.acquire() as conn, conn.transaction():
        booked = await book(conn, intent)
    await forget_replaced(processor, booked.replaced_card)
    return booked


async def sync_page(pool: Pool, processor: Processor, payment_id: uuid.UUID, page_ref: str) -> None:
    """Follow a page to pay on: to its payment if there is one, to its end if it has expired."""
    try:
        page = await processor.read_page(page_ref)
    except ObjectMissing:
        await close_unpaid(pool, payment_id, code="page_missing", message="the page is gone at the provider")
        return
    if page.intent_ref is not None:
        await sync_payment(pool, processor, page.intent_ref)
    if page.status == "expired":
        await close_unpaid(pool, payment_id)


async def close_unpaid(
    pool: Pool, payment_id: uuid.UUID, *, code: str | None = None, message: str | None = None
) -> None:
    """Nobody will pay this any more. If somebody does, it is booked all the same."""
    await pool.execute(
        """
        UPDATE payment SET status = 'expired', finished_at = now(), url = NULL,
                           error_code = coalesce($2, error_code), error_message = coalesce($3, error_message)
         WHERE id = $1 AND finished_at IS NULL
        """,
        payment_id,
        code,
        message,
    )
