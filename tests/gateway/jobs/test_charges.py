"""Any charge can be recomputed from the frames that were delivered and the price version of its job.

The sums are done anew here, with fractions, from the tables alone: nothing of the product is asked.
"""

import json
import math
import random
import uuid
from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction
from typing import Any

import msgspec

import billing
from gateway.auth.principal import Principal
from gateway.config_watch import bump_revision
from tests.factories import USD, Conn, violations
from tests.workbench import Workbench

CREDIT = 1_000 * USD
PRICES = (
    (1, 0),
    (7, 0),
    (299_999, 0),
    (8, 125_000),
    (1_000, 1_000_000),
    (250_000, 333_332),
    (300_000, 333_330),
    (1_000_000, 1),
)
"""Nano-USD per second, and the discount in millionths."""


class Market(msgspec.Struct):
    """A shop that changes its prices while customers order, and workers that deliver as they can."""

    bench: Workbench
    dice: random.Random
    customers: list[Principal]

    async def change_a_price(self) -> None:
        """Of the list or of one customer; now or in a moment; or back to the list."""
        account_id = self.dice.choice([None, *(c.organization_id for c in self.customers)])
        async with self.bench.pool.acquire() as conn, conn.transaction():
            now = await conn.fetchval("SELECT clock_timestamp()")
            effective_from = self.dice.choice([None, None, now + timedelta(milliseconds=40)])
            if account_id is not None and self.dice.random() < 0.4:
                await self._withdraw(conn, account_id)
            else:
                await self._set(conn, account_id=account_id, effective_from=effective_from)
            await bump_revision(conn)
        await self.bench.jobs._prices._watch.refresh()

    async def _set(self, conn: Conn, **where: Any) -> None:
        nano, discount = self.dice.choice(PRICES)
        await billing.set_price(conn, model="sandbox", nano_per_second=nano, discount_ppm=discount, **where)

    async def _withdraw(self, conn: Conn, account_id: uuid.UUID) -> None:
        own = [p for p, s in await billing.read_price_history(conn, account_id) if s == "in_force"]
        if own and not own[0].withdrawn:
            await billing.withdraw_price(conn, model="sandbox", account_id=account_id)

    async def order(self) -> None:
        """Songs of an odd length."""
        n = self.dice.choice([1, 1, 3, 8])
        await self.bench.submit(self.dice.choice(self.customers), seconds=self.dice.uniform(5, 9), n=n)

    async def work(self) -> None:
        """Deliver all songs of a job, or less of them, or more than was ordered; or nothing."""
        for claim in await self.bench.claim():
            if self.dice.random() < 0.1:
                await self.bench.fail(claim)
            else:
                share = self.dice.choice([1.0, 1.0, self.dice.random(), 1.0 + self.dice.random() / 1_000])
                ordered = claim.request.n * claim.request.frames
                await self.bench.deliver(claim, frames=max(math.floor(ordered * share), 8))


async def test_every_charge_of_a_ledger_follows_from_frames_and_version(
    bench: Workbench, database: str
) -> None:
    market = Market(
        bench=bench,
        dice=random.Random(20_261_121),
        customers=[await bench.customer(credit_nano=CREDIT) for _ in range(3)],
    )
    for _ in range(25):
        await market.change_a_price()
        for _ in range(6):
            await market.order()
        for _ in range(4):
            await market.work()
    while await bench.pool.fetchval("SELECT EXISTS (SELECT FROM job WHERE status = 'queued')"):
        await market.work()

    charges = [charge async for charge in _recomputed(bench)]
    assert len(charges) > 100
    # It was a lively market: many versions, discounts, own prices, less and more than was ordered.
    assert len({charge["version"] for charge in charges}) > 15
    for fact in ("discounted", "own", "short", "over", "several"):
        assert len([charge for charge in charges if charge[fact]]) > 5, fact
    earned = sum(charge["due"] for charge in charges)
    assert await _posted(bench, billing.REVENUE) == earned
    for customer in market.customers:
        paid = sum(c["paid"] for c in charges if c["account"] == customer.organization_id)
        assert await bench.balance(customer) == (CREDIT - paid, 0)
    assert await violations(database) == []


async def _recomputed(bench: Workbench) -> Any:
    """Each settlement of the ledger, after its sums were found to be right."""
    versions = await bench.pool.fetch("SELECT * FROM price_version WHERE model = 'sandbox'")
    rows = await bench.pool.fetch(
        """
        SELECT t.id AS transfer_id, j.*, h.amount_nano AS hold_nano, h.price_version_id AS held_version_id
          FROM transfer t JOIN job j ON j.id = t.reference JOIN hold h ON h.reference = j.id
         WHERE t.kind = 'settle'
        """
    )
    for row in rows:
        version = _in_force(versions, row["organization_id"], row["created_at"])
        assert {row["price_version_id"], row["held_version_id"]} == {version["id"]}
        nano_per_ms = (
            Fraction(version["nano_per_second"], 1_000) * (1_000_000 - version["discount_ppm"]) / 1_000_000
        )
        request, tracks = json.loads(row["request"]), json.loads(row["result"])["tracks"]
        n = request.get("n", 1)
        assert (len(tracks), {track["master_sample_rate"] for track in tracks}) == (n, {48_000})
        billed_ms = math.ceil(Fraction(sum(track["frames"] for track in tracks), 48))
        due = math.ceil(billed_ms * nano_per_ms)
        assert row["length_ms"] == math.ceil(Fraction(n * request["frames"], 48))
        held = math.ceil(row["length_ms"] * nano_per_ms)
        paid = min(due, held)
        assert (row["billed_ms"], row["charged_nano"], row["hold_nano"]) == (billed_ms, paid, held)
        entries = await bench.pool.fetch(
            "SELECT account_id, amount_nano FROM entry WHERE transfer_id = $1", row["transfer_id"]
        )
        told = {entry["account_id"]: entry["amount_nano"] for entry in entries}
        assert told.pop(billing.VARIANCE, 0) == paid - due
        assert told == {row["organization_id"]: -paid, billing.REVENUE: due}
        yield {
            "version": version["id"],
            "account": row["organization_id"],
            "paid": paid,
            "due": due,
            "discounted": version["discount_ppm"] > 0,
            "own": version["account_id"] is not None,
            "short": paid < held,
            "over": due > held,
            "several": n > 1,
        }


def _in_force(versions: list[Any], account_id: uuid.UUID, at: Any) -> Any:
    """The last own version of before, unless it gave the list price back; else the last one of the list."""

    def last(owner: uuid.UUID | None) -> Iterator[Any]:
        found = [v for v in versions if v["account_id"] == owner and v["effective_from"] <= at]
        return iter(sorted(found, key=lambda v: (v["effective_from"], v["created_at"]), reverse=True))

    own = next(last(account_id), None)
    return own if own is not None and not own["withdrawn"] else next(last(None))


async def _posted(bench: Workbench, account_id: uuid.UUID) -> int:
    return await bench.pool.fetchval("SELECT posted_nano FROM account WHERE id = $1", account_id)
