"""Customers at the provider, and the card that each of them has saved."""

import uuid
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import asyncpg
import msgspec
import structlog

from billing.accounts import lock_accounts
from billing.connection import Connection
from billing.payments import automation
from billing.payments.errors import CardMissing, ObjectMissing, PaymentError
from billing.payments.processor import Card, Method, Page, Processor, Setup

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

log = structlog.get_logger(__name__)

ASK_AGAIN_AFTER: Final = timedelta(seconds=3)
"""How often the provider is asked, at most, on behalf of people who look at a page."""

_CARD = msgspec.json.Decoder(Card)


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """An account's customer at the provider."""

    account_id: uuid.UUID
    ref: str
    method_ref: str | None
    card: Card | None


async def read_customer(conn: Connection, account_id: uuid.UUID) -> Customer | None:
    """None before the first top-up."""
    row = await conn.fetchrow(
        """
        SELECT account_id, customer_ref, payment_method_ref, card::text FROM processor_customer
         WHERE account_id = $1
        """,
        account_id,
    )
    if row is None:
        return None
    return Customer(
        account_id=row[0], ref=row[1], method_ref=row[2], card=_CARD.decode(row[3]) if row[3] else None
    )


async def ensure_customer(
    pool: Pool, processor: Processor, account_id: uuid.UUID, *, instead_of: str | None = None
) -> str:
    """The reference of the account's customer, made now if need be.

    `instead_of` names one that the provider does not know any more: somebody deleted it there.
    """
    async with pool.acquire() as conn:
        known = await read_customer(conn, account_id)
    if known is not None and known.ref != instead_of:
        return known.ref
    key = f"antiphon-customer-{account_id.hex}" + (f"-{instead_of}" if instead_of else "")
    ref = await processor.create_customer(account_id, key=key)
    async with pool.acquire() as conn, conn.transaction():
        await lock_accounts(conn, {account_id})
        known = await read_customer(conn, account_id)
        if known is None:
            await conn.execute(
                "INSERT INTO processor_customer (account_id, customer_ref) VALUES ($1, $2)", account_id, ref
            )
        elif known.ref == instead_of:
            await automation.disable(conn, account_id, "card_missing")
            await conn.execute(
                """
                UPDATE processor_customer SET customer_ref = $2, payment_method_ref = NULL, card = NULL
                 WHERE account_id = $1
                """,
                account_id,
                ref,
            )
        else:
            return known.ref
    return ref


async def open_setup(
    pool: Pool, processor: Processor, account_id: uuid.UUID, *, success_url: str, cancel_url: str
) -> Page:
    """A page on which a card is saved, without a payment."""
    customer_ref = await ensure_customer(pool, processor, account_id)
    key = uuid.uuid4().hex
    try:
        page = await processor.open_setup_page(
            customer_ref, key=key, success_url=success_url, cancel_url=cancel_url
        )
    except ObjectMissing:
        customer_ref = await ensure_customer(pool, processor, account_id, instead_of=customer_ref)
        page = await processor.open_setup_page(
            customer_ref, key=f"{key}-again", success_url=success_url, cancel_url=cancel_url
        )
    await pool.execute(
        "UPDATE processor_customer SET setup_ref = $2, asked_at = NULL WHERE account_id = $1",
        account_id,
        page.ref,
    )
    return page


async def read_card(pool: Pool, processor: Processor, account_id: uuid.UUID) -> Card | None:
    """The saved card; where one is just being saved, the provider is asked whether it is done."""
    setup_ref = await pool.fetchval(
        """
        UPDATE processor_customer SET asked_at = now()
         WHERE account_id = $1 AND setup_ref IS NOT NULL
           AND (asked_at IS NULL OR asked_at < now() - $2::interval)
        RETURNING setup_ref
        """,
        account_id,
        ASK_AGAIN_AFTER,
    )
    if setup_ref is not None:
        try:
            await _follow_setup(pool, processor, setup_ref)
        except PaymentError as error:
            log.warning("payments.setup_unknown", error=str(error))
    async with pool.acquire() as conn:
        customer = await read_customer(conn, account_id)
    return customer.card if customer else None


async def sync_setup(pool: Pool, processor: Processor, setup_ref: str) -> str | None:
    """Keep the card of a setup that succeeded; returns why not, if not."""
    setup = await processor.read_setup(setup_ref)
    async with pool.acquire() as conn, conn.transaction():
        account_id = await conn.fetchval(
            "SELECT account_id FROM processor_customer WHERE customer_ref = $1", setup.customer_ref
        )
        if account_id is None:
            return "a customer of something else"
        await lock_accounts(conn, {account_id})
        if not _is_done(setup):
            return f"the setup is {setup.status}"
        replaced = await keep_card(conn, account_id, setup.method, chosen_at=setup.created_at)
    await forget_replaced(processor, replaced)
    return None


async def sync_method(pool: Pool, processor: Processor, method_ref: str) -> str | None:
    """Follow a saved card that was renewed by its bank, or taken away at the provider."""
    method = await processor.read_method(method_ref)
    async with pool.acquire() as conn, conn.transaction():
        row = await conn.fetchrow(
            "SELECT account_id, customer_ref FROM processor_customer WHERE payment_method_ref = $1",
            method_ref,
        )
        if row is None:
            return "no saved card of ours"
        await lock_accounts(conn, {row["account_id"]})
        if method.customer_ref != row["customer_ref"] or method.card is None:
            await _drop_card(conn, row["account_id"], method_ref)
            await automation.disable(conn, row["account_id"], "card_missing")
        else:
            await conn.execute(
                """
                UPDATE processor_customer SET card = $3::jsonb
                 WHERE account_id = $1 AND payment_method_ref = $2
                """,
                row["account_id"],
                method_ref,
                msgspec.json.encode(method.card).decode(),
            )
    return None


async def keep_card(
    conn: Connection, account_id: uuid.UUID, method: Method | None, *, chosen_at: datetime
) -> str | None:
    """Save a card of a locked account, unless a younger one was chosen or it is the customer's no more.

    Returns the card that it replaces, which is then to be forgotten at the provider.
    """
    if method is None or method.card is None:
        return None
    row = await conn.fetchrow(
        """
        SELECT payment_method_ref FROM processor_customer
         WHERE account_id = $1 AND customer_ref = $2 AND coalesce(card_chosen_at <= $3, true)
        """,
        account_id,
        method.customer_ref,
        chosen_at,
    )
    if row is None:
        return None
    await conn.execute(
        """
        UPDATE processor_customer SET payment_method_ref = $2, card = $3::jsonb, card_chosen_at = $4
         WHERE account_id = $1
        """,
        account_id,
        method.ref,
        msgspec.json.encode(method.card).decode(),
        chosen_at,
    )
    before = row["payment_method_ref"]
    return before if before != method.ref else None


async def forget_replaced(processor: Processor, method_ref: str | None) -> None:
    """Best effort: one that stays behind is forgotten with the others when the customer removes the card."""
    if method_ref is None:
        return
    try:
        await processor.detach(method_ref)
    except PaymentError as error:
        log.warning("payments.card_left_behind", error=str(error))


async def remove_card(pool: Pool, processor: Processor, account_id: uuid.UUID) -> None:
    """Forget the saved card, there and here; raises CardMissing. Automatic top-ups end with it."""
    async with pool.acquire() as conn:
        customer = await read_customer(conn, account_id)
    if customer is None or customer.method_ref is None:
        raise CardMissing("no card is saved")
    try:
        await processor.detach_all(customer.ref)
    except ObjectMissing as error:
        log.warning("payments.customer_missing", error=str(error))
    async with pool.acquire() as conn, conn.transaction():
        await lock_accounts(conn, {account_id})
        await _drop_card(conn, account_id, customer.method_ref)
        await automation.disable(conn, account_id, "card_removed")


async def _drop_card(conn: Connection, account_id: uuid.UUID, method_ref: str) -> None:
    """`card_chosen_at` stays: what was chosen before does not come back."""
    await conn.execute(
        """
        UPDATE processor_customer SET payment_method_ref = NULL, card = NULL
         WHERE account_id = $1 AND payment_method_ref = $2
        """,
        account_id,
        method_ref,
    )


async def _follow_setup(pool: Pool, processor: Processor, page_ref: str) -> None:
    try:
        page = await processor.read_page(page_ref)
        if page.status == "open":
            return
        if page.status == "complete" and page.setup_ref is not None:
            await sync_setup(pool, processor, page.setup_ref)
    except ObjectMissing:
        log.warning("payments.setup_missing", page=page_ref)
    await pool.execute("UPDATE processor_customer SET setup_ref = NULL WHERE setup_ref = $1", page_ref)


def _is_done(setup: Setup) -> bool:
    return setup.status == "succeeded" and setup.method is not None
