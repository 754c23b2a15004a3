"""Everything that a process with a key of the payment provider works with."""

import asyncpg
import msgspec

from billing.payments.events import Inbox
from billing.payments.processor import Processor


class Till(msgspec.Struct, frozen=True, kw_only=True):
    """The database, the provider, and what it tells us."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    processor: Processor
    inbox: Inbox | None
    """None: nothing that is posted to us can be checked, so nothing is believed."""

    async def close(self) -> None:
        """Finish what was received, then close connections."""
        if self.inbox is not None:
            await self.inbox.close()
        await self.processor.close()


def open_till(
    pool: "asyncpg.Pool[asyncpg.Record]",
    *,
    secret_key: str,
    webhook_secret: str | None = None,
    base_url: str | None = None,
) -> Till:
    """Stripe, with this key; in the event loop that will use it."""
    from billing.payments.stripe_client import StripeProcessor  # noqa: PLC0415 - what it costs, only here

    processor = StripeProcessor(secret_key=secret_key, webhook_secret=webhook_secret, base_url=base_url)
    return Till(pool=pool, processor=processor, inbox=Inbox(pool, processor) if webhook_secret else None)
