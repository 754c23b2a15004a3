"""Append-only, effective-dated prices per model, and per account where one was agreed.

A job freezes the version that was in force when it was admitted; settlement recomputes from it.
"""

import uuid
from collections.abc import Iterable

import msgspec

from billing import money
from billing.connection import Connection


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One price version; amounts in nano-USD per second of delivered audio."""

    id: uuid.UUID
    model: str
    account_id: uuid.UUID | None
    """None: the list price; else it counts for this account alone."""
    nano_per_second: int
    was_nano_per_second: int | None
    discount_ppm: int

    def cost_nano(self, duration_ms: int) -> int:
        """What `duration_ms` of delivered audio costs."""
        return money.cost_nano(
            duration_ms=duration_ms, nano_per_second=self.nano_per_second, discount_ppm=self.discount_ppm
        )


class SeedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A list price that the catalog proposes for a model without any."""

    model: str
    nano_per_second: int
    was_nano_per_second: int | None = None


class PriceBook(msgspec.Struct, frozen=True):
    """The prices in force at one moment, keyed by (model, account or None)."""

    prices: dict[tuple[str, uuid.UUID | None], Price]

    def find(self, model: str, account_id: uuid.UUID) -> Price | None:
        """The account's own price, else the list price, else None."""
        return self.prices.get((model, account_id)) or self.prices.get((model, None))


async def read_price_book(conn: Connection) -> PriceBook:
    """The versions in force now: of each (model, account) the one that took effect last."""
    rows = await conn.fetch(
        """
        SELECT DISTINCT ON (model, account_id)
               id, model, account_id, nano_per_second, was_nano_per_second, discount_ppm
          FROM price_version
         WHERE effective_from <= now()
         ORDER BY model, account_id, effective_from DESC, created_at DESC, id DESC
        """
    )
    return PriceBook({(row["model"], row["account_id"]): Price(**dict(row)) for row in rows})


async def set_price(
    conn: Connection,
    *,
    model: str,
    nano_per_second: int,
    was_nano_per_second: int | None = None,
    account_id: uuid.UUID | None = None,
) -> uuid.UUID:
    """Append a version that takes effect at once; jobs admitted before keep theirs."""
    version_id = uuid.uuid4()
    await conn.execute(
        """
        INSERT INTO price_version
               (id, model, account_id, nano_per_second, was_nano_per_second, effective_from, created_at)
        VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp())
        """,
        version_id,
        model,
        account_id,
        nano_per_second,
        was_nano_per_second,
    )
    return version_id


async def seed_prices(conn: Connection, seeds: Iterable[SeedPrice]) -> int:
    """Give every model without any list price the one of the catalog; returns how many were new."""
    await conn.execute("LOCK TABLE price_version IN SHARE ROW EXCLUSIVE MODE")
    rows = await conn.fetch("SELECT DISTINCT model FROM price_version WHERE account_id IS NULL")
    priced = {row["model"] for row in rows}
    fresh = [seed for seed in seeds if seed.model not in priced]
    for seed in fresh:
        await set_price(
            conn,
            model=seed.model,
            nano_per_second=seed.nano_per_second,
            was_nano_per_second=seed.was_nano_per_second,
        )
    return len(fresh)
