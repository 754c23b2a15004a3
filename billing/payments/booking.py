"""What the provider says about a payment, booked: whatever of it the books do not have yet.

The same payment can be booked again and again, by anybody, in any order of what happened to it: every
object at the provider (payment, refund, dispute) is booked once, in the commit that says so of its row.
"""

import uuid
from typing import Final

import asyncpg
import msgspec

from billing.accounts import lock_accounts
from billing.connection import Connection
from billing.funding import give_again, take_back, top_up
from billing.models import RECEIVABLE, STRIPE_CLEARING
from billing.payments import automation
from billing.payments.cards import keep_card
from billing.payments.processor import CURRENCY, NANO_PER_CENT, Intent
from billing.postings import is_booked

NOT_OURS: Final = "a customer of something else"
NOTHING_NEW: Final = "nothing new"

_COLUMNS: Final = "id, account_id, kind, status, save_card, amount_nano, finished_at"


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """What was booked just now: kinds of transfers. Or why nothing ever will be."""

    kinds: tuple[str, ...] = ()
    ignored: str | None = None
    replaced_card: str | None = None
    """To be forgotten at the provider."""

    @property
    def outcome(self) -> str:
        """In words."""
        return self.ignored or ", ".join(self.kinds) or NOTHING_NEW


async def book(conn: Connection, intent: Intent) -> Booked:
    """Book a payment as it stands at the provider; in a transaction of its own.

    Whose it is follows from our own row, else from the customer: never from what a message says.
    """
    account_id = await conn.fetchval(
        """
        SELECT coalesce((SELECT account_id FROM payment WHERE intent_ref = $1),
                        (SELECT account_id FROM processor_customer WHERE customer_ref = $2))
        """,
        intent.ref,
        intent.customer_ref,
    )
    if account_id is None:
        return Booked(ignored=NOT_OURS)
    if intent.currency != CURRENCY:
        return Booked(ignored=f"paid in {intent.currency}")
    await lock_accounts(conn, {account_id, STRIPE_CLEARING, RECEIVABLE})
    payment = await _find_payment(conn, account_id, intent)
    if payment is None:
        return Booked(ignored="nothing was paid")
    kinds = await _move_money(conn, account_id, payment["id"], intent)
    replaced = None
    if intent.is_paid and payment["status"] != "paid":
        await _mark_paid(conn, payment, intent)
        if payment["save_card"]:
            replaced = await keep_card(conn, account_id, intent.method, chosen_at=intent.created_at)
    elif payment["finished_at"] is None:
        await _mark_unpaid(conn, payment, intent)
    return Booked(kinds=tuple(kinds), replaced_card=replaced)


async def _find_payment(conn: Connection, account_id: uuid.UUID, intent: Intent) -> asyncpg.Record | None:
    """Our row, under the lock of its account; made now for a payment that began somewhere else."""
    row = await conn.fetchrow(
        f"SELECT {_COLUMNS} FROM payment WHERE intent_ref = $1",  # noqa: S608 - constants
        intent.ref,
    )
    if row is None and intent.payment_id is not None:
        row = await conn.fetchrow(
            f"""
            UPDATE payment SET intent_ref = $3
             WHERE id = $1 AND account_id = $2 AND intent_ref IS NULL RETURNING {_COLUMNS}
            """,  # noqa: S608 - constants
            intent.payment_id,
            account_id,
            intent.ref,
        )
    if row is None and intent.is_paid:
        row = await conn.fetchrow(
            f"""
            INSERT INTO payment (id, account_id, kind, amount_nano, intent_ref)
            VALUES ($1, $2, 'external', $3, $4) RETURNING {_COLUMNS}
            """,  # noqa: S608 - constants
            uuid.uuid4(),
            account_id,
            intent.received_cents * NANO_PER_CENT,
            intent.ref,
        )
    return row


async def _move_money(
    conn: Connection, account_id: uuid.UUID, payment_id: uuid.UUID, intent: Intent
) -> list[str]:
    """The kinds of transfers that were booked; what of the payment is gone is counted in its row."""
    if not intent.is_paid:
        return []
    kinds = []
    amount = intent.received_cents * NANO_PER_CENT
    if await top_up(conn, account_id=account_id, amount_nano=amount, external_ref=intent.ref):
        kinds.append("top_up")
    refunded = await _book_refunds(conn, account_id, intent, kinds)
    disputed = await _book_disputes(conn, account_id, intent, kinds)
    if refunded or disputed:
        await conn.execute(
            """
            UPDATE payment SET refunded_nano = refunded_nano + $2, disputed_nano = disputed_nano + $3
             WHERE id = $1
            """,
            payment_id,
            refunded,
            disputed,
        )
    return kinds


async def _book_refunds(conn: Connection, account_id: uuid.UUID, intent: Intent, kinds: list[str]) -> int:
    """By how much what was refunded has grown; less if refunds failed."""
    change = 0
    for refund in intent.refunds:
        nano = refund.amount_cents * NANO_PER_CENT
        if not refund.has_failed:
            if await take_back(
                conn,
                account_id=account_id,
                kind="payment_refund",
                external_ref=refund.ref,
                amount_nano=nano,
                top_up_ref=intent.ref,
            ):
                kinds.append("payment_refund")
                change += nano
        elif await is_booked(conn, "payment_refund", refund.ref) and await give_again(
            conn,
            account_id=account_id,
            kind="payment_refund_failed",
            external_ref=refund.ref,
            amount_nano=nano,
        ):
            kinds.append("payment_refund_failed")
            change -= nano
    return change


async def _book_disputes(conn: Connection, account_id: uuid.UUID, intent: Intent, kinds: list[str]) -> int:
    """By how much what is disputed has grown; less if disputes were won."""
    change = 0
    for dispute in intent.disputes:
        nano = dispute.amount_cents * NANO_PER_CENT
        if not dispute.has_taken:
            continue
        if await take_back(
            conn,
            account_id=account_id,
            kind="dispute",
            external_ref=dispute.ref,
            amount_nano=nano,
            top_up_ref=intent.ref,
        ):
            kinds.append("dispute")
            change += nano
            # Whoever says that a charge was not theirs is not charged again without being asked.
            await automation.disable(conn, account_id, "dispute")
        if dispute.is_won and await give_again(
            conn, account_id=account_id, kind="dispute_won", external_ref=dispute.ref, amount_nano=nano
        ):
            kinds.append("dispute_won")
            change -= nano
    return change


async def _mark_paid(conn: Connection, payment: asyncpg.Record, intent: Intent) -> None:
    await conn.execute(
        """
        UPDATE payment SET status = 'paid', finished_at = now(), url = NULL, receipt_url = $2,
                           error_code = NULL, error_message = NULL
         WHERE id = $1
        """,
        payment["id"],
        intent.receipt_url,
    )
    if payment["kind"] == "automatic":
        await automation.succeeded(conn, payment["account_id"])


async def _mark_unpaid(conn: Connection, payment: asyncpg.Record, intent: Intent) -> None:
    """An automatic payment has had its one try; on a page, the customer may take another card."""
    is_over = intent.has_stopped if payment["kind"] == "automatic" else intent.status == "canceled"
    over_is = "failed" if payment["kind"] == "automatic" else "expired"
    await conn.execute(
        """
        UPDATE payment SET status = $2, error_code = $3, error_message = $4,
                           finished_at = CASE WHEN $5 THEN now() END, url = CASE WHEN NOT $5 THEN url END
         WHERE id = $1
        """,
        payment["id"],
        over_is if is_over else "pending",
        intent.error_code,
        intent.error_message,
        is_over,
    )
    if is_over and payment["kind"] == "automatic":
        await automation.failed(
            conn,
            payment["account_id"],
            payment_id=payment["id"],
            amount_nano=payment["amount_nano"],
            code=intent.error_code or intent.status,
            message=intent.error_message,
            advice=intent.advice,
        )
