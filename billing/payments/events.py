"""What the provider tells us. It is only believed about which of its objects has news."""

import structlog

from billing.connection import Connection
from billing.payments.cards import Pool, sync_method, sync_setup
from billing.payments.errors import ObjectMissing, PaymentError
from billing.payments.flights import Flights
from billing.payments.processor import Event, Processor
from billing.payments.syncing import sync_page, sync_payment

log = structlog.get_logger(__name__)

UNKNOWN_TO_US = "no page of ours"


class Inbox:
    """Receives events; each is remembered, looked into once, and answered when what it tells is booked."""

    def __init__(self, pool: Pool, processor: Processor) -> None:
        self._pool = pool
        self._processor = processor
        self._flights: Flights[str] = Flights()

    async def receive(self, body: bytes, signature: str | None) -> str:
        """What came of it. Raises EventRefused, and ProcessorUnavailable or a database's error if it has
        to be sent again.
        """
        event = self._processor.read_event(body, signature)
        if event is None:
            return "about nothing that we know"
        if await self._is_processed(event):
            return "known already"
        try:
            outcome = await self._look_into(event)
        except ObjectMissing as error:
            outcome = f"missing at the provider: {error}"
        except PaymentError as error:
            log.warning("payments.event_waits", event_ref=event.ref, kind=event.kind, error=str(error))
            raise
        await self._pool.execute(
            "UPDATE processor_event SET processed_at = now(), outcome = $2 WHERE event_ref = $1",
            event.ref,
            outcome,
        )
        return outcome

    async def close(self) -> None:
        """Wait for what is under way."""
        await self._flights.land()

    async def _is_processed(self, event: Event) -> bool:
        return bool(
            await self._pool.fetchval(
                """
                WITH fresh AS (
                    INSERT INTO processor_event (event_ref, kind, object_ref) VALUES ($1, $2, $3)
                    ON CONFLICT (event_ref) DO NOTHING
                )
                SELECT processed_at IS NOT NULL FROM processor_event WHERE event_ref = $1
                """,
                event.ref,
                event.kind,
                event.object_ref,
            )
        )

    async def _look_into(self, event: Event) -> str:
        if event.object_kind == "payment_method":
            return await self._flights.join(event.object_ref, lambda: self._method(event.object_ref))
        intent_ref, setup_ref = event.intent_ref, event.setup_ref
        if intent_ref is not None:
            return await self._flights.join(intent_ref, lambda: self._payment(intent_ref))
        if setup_ref is not None:
            return await self._flights.join(setup_ref, lambda: self._setup(setup_ref))
        if event.object_kind == "checkout.session":
            return await self._flights.join(event.object_ref, lambda: self._page(event.object_ref))
        return "about a payment of another kind"

    async def _payment(self, intent_ref: str) -> str:
        return (await sync_payment(self._pool, self._processor, intent_ref)).outcome

    async def _setup(self, setup_ref: str) -> str:
        return await sync_setup(self._pool, self._processor, setup_ref) or "card saved"

    async def _method(self, method_ref: str) -> str:
        return await sync_method(self._pool, self._processor, method_ref) or "card followed"

    async def _page(self, page_ref: str) -> str:
        payment_id = await self._pool.fetchval("SELECT id FROM payment WHERE checkout_ref = $1", page_ref)
        if payment_id is None:
            return UNKNOWN_TO_US
        await sync_page(self._pool, self._processor, payment_id, page_ref)
        return "page followed"


async def forget_old_events(conn: Connection, *, days: int = 90) -> int:
    """Stripe sends an event again for three days; what we remember is for people, for a quarter."""
    return int(
        await conn.fetchval(
            """
            WITH gone AS (
                DELETE FROM processor_event WHERE event_ref IN (
                    SELECT event_ref FROM processor_event
                     WHERE received_at < now() - make_interval(days => $1) ORDER BY received_at LIMIT 1000)
                RETURNING 1
            )
            SELECT count(*) FROM gone
            """,
            days,
        )
    )
