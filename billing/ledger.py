"""Holds, settlements and releases: double entry, in batches, in the caller's transaction.

Nothing here commits. The caller opens one transaction, locks, decides, writes and commits, so that
a job and its money are never seen apart. Rows are locked in the order hold, account, budget, each
by id: two callers may wait for each other, but never in a circle.
"""

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from billing import money
from billing.accounts import Account, lock_accounts, write_accounts
from billing.budgets import Budget, lock_budgets, write_budgets
from billing.connection import Connection
from billing.errors import LedgerConflict
from billing.grants import drain, read_grants, write_grants
from billing.models import REVENUE, VARIANCE
from billing.postings import Posting, post


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money kept for one job: the most that it can cost."""

    reference: uuid.UUID
    account_id: uuid.UUID
    price_version_id: uuid.UUID
    amount_nano: int
    deadline_at: datetime
    budget_ids: tuple[uuid.UUID, ...] = ()


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What was delivered for a job: frames of the stored file, nobody's word."""

    reference: uuid.UUID
    frames: int
    sample_rate: int


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What a delivery cost; `cost_nano` never exceeds the hold."""

    reference: uuid.UUID
    account_id: uuid.UUID
    price_version_id: uuid.UUID
    frames: int
    sample_rate: int
    billed_ms: int
    cost_nano: int
    due_nano: int
    """What it would have cost without a hold to keep to."""

    @property
    def is_over(self) -> bool:
        """More was delivered than was held for."""
        return self.due_nano > self.cost_nano


class _OpenHold(msgspec.Struct, frozen=True):
    reference: uuid.UUID
    account_id: uuid.UUID
    amount_nano: int
    budget_ids: list[uuid.UUID]
    price_version_id: uuid.UUID
    nano_per_second: int
    discount_ppm: int


async def write_holds(
    conn: Connection, holds: Sequence[Hold], *, accounts: Collection[Account], budgets: Collection[Budget]
) -> None:
    """Insert the holds and write back the accounts and budgets on which they were reserved.

    `accounts` and `budgets` were locked in this transaction and already carry the reservations.
    """
    await conn.execute(
        """
        INSERT INTO hold (reference, account_id, price_version_id, amount_nano, deadline_at, budget_ids)
        SELECT r, a, p, n, d, coalesce(string_to_array(nullif(b, ''), ',')::uuid[], '{}')
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[], $6::text[])
               AS t (r, a, p, n, d, b)
        """,
        [h.reference for h in holds],
        [h.account_id for h in holds],
        [h.price_version_id for h in holds],
        [h.amount_nano for h in holds],
        [h.deadline_at for h in holds],
        [",".join(map(str, h.budget_ids)) for h in holds],
    )
    await write_accounts(conn, accounts)
    await write_budgets(conn, budgets)


async def settle(
    conn: Connection, deliveries: Sequence[Delivery], *, undelivered: Sequence[uuid.UUID] = ()
) -> dict[uuid.UUID, Charge]:
    """Charge each delivery min(price x delivered, hold), once; give back what is held for `undelivered`.

    Both in one call, because locking the accounts of one after those of the other could wait in a circle.
    Raises LedgerConflict if a hold is not open.
    """
    references = [*(d.reference for d in deliveries), *undelivered]
    if not references:
        return {}
    holds = await _lock_open_holds(conn, references)
    charges = [_charge(holds[d.reference], d) for d in deliveries]
    ours = {REVENUE} if charges else set()
    if any(charge.is_over for charge in charges):
        ours.add(VARIANCE)
    accounts = await lock_accounts(conn, ours | {h.account_id for h in holds.values()})
    budgets = await _budgets_of(conn, holds.values())
    for charge in charges:
        _unhold(holds[charge.reference], accounts, budgets, spent_nano=charge.cost_nano)
    for reference in undelivered:
        _unhold(holds[reference], accounts, budgets, spent_nano=0)
    if undelivered:
        await _close_holds(conn, undelivered, state="released")
    if charges:
        await _book(conn, charges, accounts)
    else:
        await write_accounts(conn, accounts.values())
    await write_budgets(conn, budgets.values())
    return {charge.reference: charge for charge in charges}


async def release(conn: Connection, references: Sequence[uuid.UUID]) -> None:
    """Give the held money back, uncharged. Raises LedgerConflict if a hold is not open."""
    await settle(conn, (), undelivered=references)


async def _book(conn: Connection, charges: Sequence[Charge], accounts: dict[uuid.UUID, Account]) -> None:
    spent: dict[uuid.UUID, int] = {}
    for charge in charges:
        spent[charge.account_id] = spent.get(charge.account_id, 0) + charge.cost_nano
    grants = await read_grants(conn, spent)
    changed = [one for owner, nano in spent.items() for one in drain(grants.get(owner, ()), nano)]
    await _close_holds(conn, [charge.reference for charge in charges], state="settled")
    await _insert_usage(conn, charges)
    await post(conn, [_settlement(charge) for charge in charges], accounts)
    await write_grants(conn, changed)


def _settlement(charge: Charge) -> Posting:
    """What was delivered beyond the hold is earned, but nobody pays it: variance."""
    legs = ((charge.account_id, -charge.cost_nano), (REVENUE, charge.due_nano))
    over = ((VARIANCE, charge.cost_nano - charge.due_nano),) if charge.is_over else ()
    # Its id is the job's: unique by nature, and in the order of creation, which keeps the indexes small.
    return Posting(id=charge.reference, kind="settle", reference=charge.reference, legs=(*legs, *over))


async def _lock_open_holds(conn: Connection, references: Sequence[uuid.UUID]) -> dict[uuid.UUID, _OpenHold]:
    rows = await conn.fetch(
        """
        SELECT h.reference, h.account_id, h.amount_nano, h.budget_ids,
               h.price_version_id, p.nano_per_second, p.discount_ppm, h.state
          FROM hold h JOIN price_version p ON p.id = h.price_version_id
         WHERE h.reference = ANY($1)
         ORDER BY h.reference FOR UPDATE OF h
        """,
        references,
    )
    # The state is compared here: an index of open holds would be read through, all those that have
    # been closed since the last vacuum included.
    holds = {row[0]: _OpenHold(*row[:-1]) for row in rows if row["state"] == "open"}
    if len(holds) != len(references):
        raise LedgerConflict("a hold is closed already, unknown, or named twice")
    return holds


async def _budgets_of(conn: Connection, holds: Collection[_OpenHold]) -> dict[uuid.UUID, Budget]:
    ids = {budget_id for hold in holds for budget_id in hold.budget_ids}
    return {budget.id: budget for budget in await lock_budgets(conn, ids=ids)} if ids else {}


def _charge(hold: _OpenHold, delivery: Delivery) -> Charge:
    billed_ms = money.billed_ms(frames=delivery.frames, sample_rate=delivery.sample_rate)
    cost = money.cost_nano(
        duration_ms=billed_ms, nano_per_second=hold.nano_per_second, discount_ppm=hold.discount_ppm
    )
    return Charge(
        reference=hold.reference,
        account_id=hold.account_id,
        price_version_id=hold.price_version_id,
        frames=delivery.frames,
        sample_rate=delivery.sample_rate,
        billed_ms=billed_ms,
        cost_nano=min(cost, hold.amount_nano),
        due_nano=cost,
    )


def _unhold(
    hold: _OpenHold,
    accounts: dict[uuid.UUID, Account],
    budgets: dict[uuid.UUID, Budget],
    *,
    spent_nano: int,
) -> None:
    accounts[hold.account_id].held_nano -= hold.amount_nano
    for budget_id in hold.budget_ids:
        if (budget := budgets.get(budget_id)) is not None:  # else it was lifted meanwhile
            budget.held_nano -= hold.amount_nano
            budget.spent_nano += spent_nano


async def _close_holds(conn: Connection, references: Sequence[uuid.UUID], *, state: str) -> None:
    await conn.execute(
        "UPDATE hold SET state = $2, closed_at = now() WHERE reference = ANY($1)", references, state
    )


async def _insert_usage(conn: Connection, charges: Sequence[Charge]) -> None:
    await conn.execute(
        """
        INSERT INTO usage_record
               (reference, account_id, price_version_id, frames, sample_rate, billed_ms, cost_nano)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::int[], $6::bigint[],
                             $7::bigint[])
        """,
        [c.reference for c in charges],
        [c.account_id for c in charges],
        [c.price_version_id for c in charges],
        [c.frames for c in charges],
        [c.sample_rate for c in charges],
        [c.billed_ms for c in charges],
        [c.cost_nano for c in charges],
    )
