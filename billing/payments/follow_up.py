"""Payments that somebody began and that nobody has told us the end of."""

from datetime import timedelta
from typing import Final

import structlog

from billing.payments.cards import Pool
from billing.payments.errors import PaymentError
from billing.payments.processor import Processor
from billing.payments.syncing import close_unpaid, sync_page

log = structlog.get_logger(__name__)

SOONEST: Final = timedelta(minutes=5)
LATEST: Final = timedelta(hours=6)
UNSENT_FOR: Final = timedelta(days=1)
AT_ONCE: Final = 20


async def look_again(pool: Pool, processor: Processor) -> int:
    """Ask about payments that wait, less and less often; returns how many there were.

    An event may never come, and a customer never come back from the page where they paid.
    """
    rows = await pool.fetch(
        """
        UPDATE payment p SET asked_at = now()
          FROM (SELECT id FROM payment
                 WHERE kind = 'checkout' AND finished_at IS NULL
                   AND now() - coalesce(asked_at, created_at)
                       >= least(greatest(coalesce(asked_at, created_at) - created_at, $1::interval),
                                $2::interval)
                 ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED) t
         WHERE p.id = t.id
        RETURNING p.id, p.checkout_ref, now() - p.created_at AS age
        """,
        SOONEST,
        LATEST,
        AT_ONCE,
    )
    for row in rows:
        if row["checkout_ref"] is None:
            if row["age"] > UNSENT_FOR:
                await close_unpaid(pool, row["id"], code="not_sent", message="no page was ever made")
            continue
        try:
            await sync_page(pool, processor, row["id"], row["checkout_ref"])
        except PaymentError as error:
            log.warning("payments.page_unknown", payment=row["id"].hex, error=str(error))
    return len(rows)
