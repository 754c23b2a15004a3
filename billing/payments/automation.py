"""What becomes of automatic top-ups when a card was charged, or was not. In the caller's transaction."""

import uuid
from typing import Final

from billing import notices
from billing.connection import Connection
from billing.money import format_usd

MOST_FAILURES: Final = 3
FIRST_PAUSE_HOURS: Final = 1
PAUSE_GROWS_BY: Final = 4
HOPELESS: Final = frozenset(
    {
        "authentication_required",
        "card_missing",
        "expired_card",
        "lost_card",
        "pickup_card",
        "restricted_card",
        "stolen_card",
    }
)
"""Refusals after which trying again helps nobody: the customer has to do something."""
DO_NOT_TRY_AGAIN: Final = "do_not_try_again"


async def succeeded(conn: Connection, account_id: uuid.UUID) -> None:
    """The card was charged: what went wrong before does not count any more."""
    await conn.execute(
        """
        UPDATE auto_top_up SET failures = 0, next_try_at = NULL
         WHERE account_id = $1 AND (failures > 0 OR next_try_at IS NOT NULL)
        """,
        account_id,
    )


async def failed(
    conn: Connection,
    account_id: uuid.UUID,
    *,
    payment_id: uuid.UUID,
    amount_nano: int,
    code: str,
    message: str | None,
    advice: str | None = None,
) -> None:
    """The card was refused: say so, and try again later, at last not at all."""
    facts = {
        "id": payment_id.hex,
        "amount_usd": format_usd(amount_nano),
        "code": code,
        "message": message or "",
    }
    await notices.note(conn, account_id, "payment.failed", facts)
    failures = await conn.fetchval(
        """
        UPDATE auto_top_up
           SET failures = failures + 1,
               next_try_at = now() + make_interval(hours => ($2 * $3 ^ failures)::int)
         WHERE account_id = $1 RETURNING failures
        """,
        account_id,
        FIRST_PAUSE_HOURS,
        PAUSE_GROWS_BY,
    )
    if failures is None:
        return
    if code in HOPELESS or advice == DO_NOT_TRY_AGAIN:
        await disable(conn, account_id, code)
    elif failures >= MOST_FAILURES:
        await disable(conn, account_id, "too_many_failures")


async def disable(conn: Connection, account_id: uuid.UUID, reason: str) -> None:
    """Switch automatic top-ups off, if they are on, and say why."""
    status = await conn.execute(
        """
        UPDATE auto_top_up SET enabled = false, disabled_reason = $2, next_try_at = NULL
         WHERE account_id = $1 AND enabled
        """,
        account_id,
        reason,
    )
    if status != "UPDATE 0":
        await notices.note(conn, account_id, "auto_top_up.disabled", {"reason": reason})
