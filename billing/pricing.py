"""Append-only, effective-dated prices per model, and per account where one was agreed.

A version may be dated ahead; it counts from its moment on, and no process has to be told. A job freezes
the version that was in force when it was admitted, and settlement recomputes from it.
"""

import math
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import asyncpg
import msgspec

from billing import money
from billing.connection import Connection
from billing.errors import PriceMissing, PriceRefused

MAX_NANO_PER_SECOND: Final = 1_000 * money.NANO_PER_USD
"""1,000 USD: an hour of music still fits into a bigint a thousand times."""
MAX_AHEAD: Final = timedelta(days=3653)
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOCK: Final = 0x70726963  # "pric"
"""Advisory: versions are appended one after the other, so that the last one is the one in force."""
_PPM_PER_PERCENT: Final = money.PPM // 100


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """One price version; amounts in nano-USD per second of delivered audio."""

    id: uuid.UUID
    model: str
    account_id: uuid.UUID | None
    """None: the list price; else it counts for this account alone."""
    nano_per_second: int
    """Before the discount."""
    was_nano_per_second: int | None
    discount_ppm: int
    withdrawn: bool = False
    """From then on the account pays the list price again; the amounts are those that ended."""
    effective_from: datetime = _EVER

    @property
    def net_nano_per_second(self) -> int:
        """What is charged; exact, because a discount that leaves a fraction is refused."""
        return money.ceil_div(self.nano_per_second * (money.PPM - self.discount_ppm), money.PPM)

    @property
    def discount_percent(self) -> str:
        """The discount as people write it: '12.5'."""
        return format_percent(self.discount_ppm)

    def cost_nano(self, duration_ms: int) -> int:
        """What `duration_ms` of delivered audio costs."""
        return money.cost_nano(
            duration_ms=duration_ms, nano_per_second=self.nano_per_second, discount_ppm=self.discount_ppm
        )


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """What an account pays for a model, and the next moment from which a second costs it something else."""

    price: Price
    next_price: Price | None = None
    changes_at: datetime | None = None


class SeedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A list price that the catalog proposes for a model without any."""

    model: str
    nano_per_second: int
    was_nano_per_second: int | None = None


class PriceState(StrEnum):
    """Where a version stands in time."""

    IN_FORCE = "in_force"
    SCHEDULED = "scheduled"
    PAST = "past"
    REPLACED = "replaced"
    """Another one of the same moment was appended later."""


class PriceBook(msgspec.Struct, frozen=True):
    """The versions in force when it was read and all later ones, keyed by (model, account or None).

    Those of a key are in the order in which they take effect.
    """

    read_at: datetime
    versions: dict[tuple[str, uuid.UUID | None], tuple[Price, ...]]

    def find(self, model: str, account_id: uuid.UUID, at: datetime | None = None) -> Price | None:
        """The account's own price, else the list price, else None; at that moment, or when it was read.

        A clock behind the database's does not bring back what was over when the book was read.
        """
        moment = self.read_at if at is None else max(at, self.read_at)
        own = _last_from(self.versions.get((model, account_id), ()), moment)
        if own is not None and not own.withdrawn:
            return own
        return _last_from(self.versions.get((model, None), ()), moment)

    def rate(self, model: str, account_id: uuid.UUID, at: datetime | None = None) -> Rate | None:
        """The price at that moment, and what it changes to as far as that is known."""
        price = self.find(model, account_id, at)
        if price is None:
            return None
        moment = self.read_at if at is None else max(at, self.read_at)
        versions = (*self.versions.get((model, account_id), ()), *self.versions.get((model, None), ()))
        for later in sorted({v.effective_from for v in versions if v.effective_from > moment}):
            following = self.find(model, account_id, later)
            if following is not None and following.net_nano_per_second != price.net_nano_per_second:
                return Rate(price=price, next_price=following, changes_at=later)
        return Rate(price=price)


async def read_price_book(conn: Connection) -> PriceBook:
    """Of each (model, account) the version that took effect last, and those that will."""
    read_at = await conn.fetchval("SELECT clock_timestamp()")
    rows = await conn.fetch(
        """
        (SELECT DISTINCT ON (model, account_id) * FROM price_version
          WHERE effective_from <= $1
          ORDER BY model, account_id, effective_from DESC, created_at DESC, id DESC)
        UNION ALL
        (SELECT * FROM price_version WHERE effective_from > $1)
        ORDER BY effective_from, created_at, id
        """,
        read_at,
    )
    versions: dict[tuple[str, uuid.UUID | None], list[Price]] = {}
    for row in rows:
        price = _price_of(row)
        versions.setdefault((price.model, price.account_id), []).append(price)
    return PriceBook(read_at, {key: tuple(found) for key, found in versions.items()})


async def read_price_history(
    conn: Connection, account_id: uuid.UUID | None
) -> list[tuple[Price, PriceState]]:
    """Every version of the list, or of the prices agreed with one account: by model, the last one first."""
    now = await conn.fetchval("SELECT clock_timestamp()")
    rows = await conn.fetch(
        """
        SELECT * FROM price_version WHERE account_id IS NOT DISTINCT FROM $1
         ORDER BY model, effective_from DESC, created_at DESC, id DESC
        """,
        account_id,
    )
    prices = [_price_of(row) for row in rows]
    states = []
    for price, newer in zip(prices, [None, *prices], strict=False):
        is_newest = newer is None or newer.model != price.model
        if not is_newest and newer is not None and newer.effective_from == price.effective_from:
            states.append(PriceState.REPLACED)
        elif price.effective_from > now:
            states.append(PriceState.SCHEDULED)
        elif is_newest or (newer is not None and newer.effective_from > now):
            states.append(PriceState.IN_FORCE)
        else:
            states.append(PriceState.PAST)
    return list(zip(prices, states, strict=True))


async def set_price(
    conn: Connection,
    *,
    model: str,
    nano_per_second: int,
    was_nano_per_second: int | None = None,
    account_id: uuid.UUID | None = None,
    discount_ppm: int = 0,
    effective_from: datetime | None = None,
) -> Price:
    """Append a version that takes effect at once, or at a moment ahead; jobs admitted before keep theirs.

    Raises PriceRefused, saying what would do.
    """
    _check_amounts(nano_per_second, was_nano_per_second, discount_ppm)
    now = await _open_book(conn)
    price = Price(
        id=uuid.uuid4(),
        model=model,
        account_id=account_id,
        nano_per_second=nano_per_second,
        was_nano_per_second=was_nano_per_second,
        discount_ppm=discount_ppm,
        effective_from=_checked_start(effective_from, now),
    )
    await _append(conn, price, now)
    return price


async def withdraw_price(
    conn: Connection, *, model: str, account_id: uuid.UUID, effective_from: datetime | None = None
) -> Price:
    """End an account's own price, at once or at a moment ahead: from then on it pays the list price.

    Versions that were dated later still take effect. Raises PriceMissing if there is nothing to end.
    """
    now = await _open_book(conn)
    starts_at = _checked_start(effective_from, now)
    row = await conn.fetchrow(
        """
        SELECT * FROM price_version
         WHERE model = $1 AND account_id = $2 AND effective_from <= $3
         ORDER BY effective_from DESC, created_at DESC, id DESC LIMIT 1
        """,
        model,
        account_id,
        starts_at,
    )
    if row is None or row["withdrawn"]:
        raise PriceMissing(f"no price of its own for {model} would be in force then")
    changes = {"id": uuid.uuid4(), "withdrawn": True, "effective_from": starts_at}
    ended = msgspec.structs.replace(_price_of(row), **changes)
    await _append(conn, ended, now)
    return ended


async def seed_prices(conn: Connection, seeds: Iterable[SeedPrice]) -> int:
    """Give every model without any list price the one of the catalog; returns how many were new."""
    await _open_book(conn)
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


def format_percent(ppm: int) -> str:
    """125_000 -> '12.5'; exact."""
    whole, fraction = divmod(ppm, _PPM_PER_PERCENT)
    return f"{whole}.{fraction:04d}".rstrip("0").rstrip(".")


def _price_of(row: "asyncpg.Record") -> Price:
    return Price(**{name: row[name] for name in Price.__struct_fields__})


def _last_from(versions: Sequence[Price], moment: datetime) -> Price | None:
    return next((price for price in reversed(versions) if price.effective_from <= moment), None)


def _check_amounts(nano_per_second: int, was_nano_per_second: int | None, discount_ppm: int) -> None:
    if not 0 <= nano_per_second <= MAX_NANO_PER_SECOND:
        most = money.format_usd(MAX_NANO_PER_SECOND)
        raise PriceRefused(f"a price is from 0 to {most} USD per second")
    if was_nano_per_second is not None and not (nano_per_second < was_nano_per_second <= MAX_NANO_PER_SECOND):
        raise PriceRefused("a former price is shown struck through: it must be more than the new one")
    if not 0 <= discount_ppm <= money.PPM:
        raise PriceRefused("a discount is from 0 to 100 %")
    # Else the rate card could only show about what is charged: a second has no fraction of a nano-USD.
    if nano_per_second * discount_ppm % money.PPM:
        step = money.PPM // math.gcd(nano_per_second, money.PPM)
        below = discount_ppm // step * step
        raise PriceRefused(
            f"{format_percent(discount_ppm)} % off {money.format_usd(nano_per_second)} USD is no whole "
            "number of nano-USD per second; the nearest discounts that give one are "
            f"{format_percent(below)} % and {format_percent(below + step)} %"
        )


async def _open_book(conn: Connection) -> datetime:
    """The moment of writing; nobody else writes until the end of the caller's transaction.

    It is no lock on the table, for which the product's role would need the right to change the past.
    """
    await conn.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    moment: datetime = await conn.fetchval("SELECT clock_timestamp()")
    return moment


def _checked_start(effective_from: datetime | None, now: datetime) -> datetime:
    """Raises PriceRefused for a moment that is over: what was in force then was charged."""
    if effective_from is None:
        return now
    if not now <= effective_from <= now + MAX_AHEAD:
        raise PriceRefused("a price takes effect now or later, at most ten years ahead")
    return effective_from


async def _append(conn: Connection, price: Price, now: datetime) -> None:
    await conn.execute(
        """
        INSERT INTO price_version
               (id, model, account_id, nano_per_second, was_nano_per_second, discount_ppm, withdrawn,
                effective_from, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        price.id,
        price.model,
        price.account_id,
        price.nano_per_second,
        price.was_nano_per_second,
        price.discount_ppm,
        price.withdrawn,
        price.effective_from,
        now,
    )
