"""A gateway's half of payments without HTTP: a database, a till, and Stripe's stand-in behind a socket."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg

import billing
from billing import payments
from tests.billing.till import faults
from tests.factories import Conn, new_customer
from tests.providers.stripe import StandIn, running
from tests.providers.stripe.cards import GOOD
from tests.providers.stripe.deliveries import signature

Json = dict[str, Any]
USD = 1_000_000_000
SECRET = "whsec_of_the_tests"
PAGES = {"success_url": "https://music.example/thanks", "cancel_url": "https://music.example/back"}


class Shop:
    """Customers who pay, in one line each."""

    def __init__(self, dsn: str, stand_in: StandIn, till: payments.Till, conn: Conn) -> None:
        self.dsn = dsn
        self.stripe = stand_in
        self.control = stand_in.control
        self.till = till
        self.pool = till.pool
        self.processor = till.processor
        self.conn = conn
        self.beginning = datetime.now(UTC)

    async def account(self, *, gift: int = 0) -> uuid.UUID:
        return (await new_customer(self.conn, credit_nano=gift)).organization_id

    async def order(
        self, account_id: uuid.UUID, usd: int = 20, *, save_card: bool = False, **more: Any
    ) -> payments.Payment:
        """A top-up that waits to be paid."""
        order = payments.TopUpOrder(
            account_id=account_id, amount_nano=usd * USD, save_card=save_card, **PAGES, **more
        )
        return await payments.start_top_up(self.pool, self.processor, order)

    def page(self, payment: payments.Payment) -> Json:
        """The session at Stripe."""
        assert payment.checkout_ref is not None
        return self.stripe.account.sessions.get(payment.checkout_ref)

    def pay(self, payment: payments.Payment, card: str = GOOD) -> str:
        """The customer presses Pay; the payment intent."""
        assert payment.checkout_ref is not None
        return str(self.control.pay(payment.checkout_ref, card)["payment_intent"])

    async def paid(self, account_id: uuid.UUID, usd: int = 20, card: str = GOOD, **more: Any) -> str:
        """A top-up that was paid and booked; its payment intent."""
        intent = self.pay(await self.order(account_id, usd, **more), card)
        await self.sync(intent)
        return intent

    async def sync(self, intent: str) -> tuple[str, ...]:
        return (await payments.sync_payment(self.pool, self.processor, intent)).kinds

    async def receive(
        self, event: Json, *, secret: str = SECRET, age_s: int = 0, inbox: payments.Inbox | None = None
    ) -> str:
        """What a signed delivery of that event leads to."""
        body = json.dumps(event, indent=2)
        inbox = inbox or self.till.inbox
        assert inbox is not None
        return await inbox.receive(body.encode(), signature(body, secret, int(time.time()) - age_s))

    def events(self, kind: str) -> list[Json]:
        return self.control.events(kind)

    async def posted(self, account_id: uuid.UUID) -> int:
        return (await billing.read_account(self.conn, account_id)).posted_nano

    async def owed(self, account_id: uuid.UUID) -> int:
        return (await billing.read_account(self.conn, account_id)).owed_nano

    async def payment(self, intent: str) -> payments.Payment:
        """As it was booked."""
        row = await self.pool.fetchrow("SELECT id, account_id FROM payment WHERE intent_ref = $1", intent)
        return await payments.read_top_up(self.pool, self.processor, row["account_id"], row["id"])

    async def transfers(self, account_id: uuid.UUID) -> list[tuple[str, str | None]]:
        """What was booked with the provider's references, in order."""
        rows = await self.conn.fetch(
            """
            SELECT t.kind, t.external_ref FROM transfer t JOIN entry e ON e.transfer_id = t.id
             WHERE (e.account_id = $1 OR t.kind IN ('dispute', 'payment_refund')) AND t.kind <> 'settle'
             GROUP BY t.id HAVING bool_or(e.account_id = $1) OR bool_or(e.account_id = $2)
             ORDER BY min(e.id)
            """,
            account_id,
            billing.RECEIVABLE,
        )
        return [(row[0], row[1]) for row in rows]

    async def count(self, kind: str) -> int:
        return int(await self.conn.fetchval("SELECT count(*) FROM transfer WHERE kind = $1", kind))

    async def automatic(self, account_id: uuid.UUID) -> list[payments.Payment]:
        """Automatic payments, oldest first."""
        found = await payments.list_payments(self.pool, account_id, limit=100)
        return [one for one in found[::-1] if one.kind == "automatic"]

    async def save_card(self, account_id: uuid.UUID, card: str = GOOD) -> str:
        """Through a page in setup mode, as a customer does; the payment method."""
        page = await payments.open_setup(self.pool, self.processor, account_id, **PAGES)
        session = self.control.pay(page.ref, card)
        assert await payments.sync_setup(self.pool, self.processor, session["setup_intent"]) is None
        return str(
            await self.conn.fetchval(
                "SELECT payment_method_ref FROM processor_customer WHERE account_id = $1", account_id
            )
        )

    async def automate(self, account_id: uuid.UUID, **changes: Any) -> payments.AutoTopUp:
        """Below 5 USD another 20, unless told otherwise."""
        values: Json = {"enabled": True, "threshold_nano": 5 * USD, "amount_nano": 20 * USD}
        async with self.pool.acquire() as conn, conn.transaction():
            return await payments.set_auto_top_up(conn, account_id, payments.AutoTopUp(**(values | changes)))

    async def rule(self, account_id: uuid.UUID) -> payments.AutoTopUp:
        return await payments.read_auto_top_up(self.conn, account_id)

    async def run(self) -> int:
        return await payments.run_auto_top_ups(self.pool, self.processor)


@asynccontextmanager
async def open_shop(dsn: str) -> AsyncIterator[Shop]:
    """At its end nothing of the books is wrong."""
    async with running() as stand_in, asyncpg.create_pool(dsn, min_size=2, max_size=8) as pool:
        till = payments.open_till(
            pool, secret_key=stand_in.api_key, webhook_secret=SECRET, base_url=stand_in.url
        )
        async with pool.acquire() as conn:
            yield Shop(dsn, stand_in, till, conn)
            assert await faults(conn) == []
        await till.close()
