"""Money that was paid, and what a payment provider takes back or gives again.

Every object at the provider (a payment, a refund, a dispute) is booked once, whoever reports it and
how often: all of these take the lock of the clearing account before they look whether it is booked.
"""

import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from billing import notices
from billing.accounts import Account, lock_accounts
from billing.connection import Connection
from billing.errors import LedgerConflict
from billing.grants import GRANT_KINDS, Grant, add, drain, read_grants, write_grants
from billing.models import COGS_EXPENSE, COGS_PAYABLE, RECEIVABLE, STRIPE_CLEARING, VARIANCE
from billing.money import format_usd
from billing.postings import Posting, is_booked, post, without_zeros

_TAKING: Final = ("payment_refund", "dispute")
_GIVING: Final = ("payment_refund_failed", "dispute_won")


class ProviderCost(msgspec.Struct, frozen=True):
    """What a provider charges us for one attempt, in nano-USD."""

    reference: uuid.UUID
    attempt: int
    amount_nano: int
    is_possible: bool = False
    """Nobody knows whether it will be charged: it goes to variance until somebody does."""


async def top_up(conn: Connection, *, account_id: uuid.UUID, amount_nano: int, external_ref: str) -> bool:
    """Credit a payment that has arrived; what is owed is paid from it first. False: booked already."""
    return await _receive(
        conn, kind="top_up", account_id=account_id, amount_nano=amount_nano, external_ref=external_ref
    )


async def give_again(
    conn: Connection, *, account_id: uuid.UUID, kind: str, external_ref: str, amount_nano: int
) -> bool:
    """The provider returns what it had taken: a dispute was won, a refund failed. False: booked already."""
    if kind not in _GIVING:
        raise LedgerConflict(f"{kind} gives nothing again")
    return await _receive(
        conn, kind=kind, account_id=account_id, amount_nano=amount_nano, external_ref=external_ref
    )


async def take_back(
    conn: Connection,
    *,
    account_id: uuid.UUID,
    kind: str,
    external_ref: str,
    amount_nano: int,
    top_up_ref: str,
) -> bool:
    """The provider took money back: a refund or a dispute of the payment `top_up_ref`. False: booked already.

    What the free balance does not cover is owed: nothing new is held until it is paid.
    """
    if kind not in _TAKING or amount_nano <= 0:
        raise LedgerConflict(f"{kind} of {amount_nano} takes nothing back")
    accounts = await lock_accounts(conn, {account_id, STRIPE_CLEARING, RECEIVABLE})
    if await is_booked(conn, kind, external_ref):
        return False
    account = accounts[account_id]
    taken = min(amount_nano, max(account.posted_nano - account.held_nano, 0))
    changed = drain(await _taking_order(conn, account_id, top_up_ref), taken)
    short = amount_nano - taken
    legs = ((account_id, -taken), (RECEIVABLE, -short), (STRIPE_CLEARING, amount_nano))
    await post(
        conn,
        [Posting(kind=kind, external_ref=external_ref, reason=top_up_ref, legs=without_zeros(legs))],
        accounts,
    )
    await write_grants(conn, changed)
    if kind == "dispute":
        await notices.note(
            conn, account_id, "dispute.opened", {"amount_usd": format_usd(amount_nano), "id": external_ref}
        )
    if short:
        await _change_debt(conn, account, short)
    return True


async def collect_debts(conn: Connection) -> int:
    """Pay what is owed from balances that have become free since; returns how many accounts paid some."""
    owing = await conn.fetch(
        "SELECT id FROM account WHERE owed_nano > 0 AND posted_nano > held_nano ORDER BY id LIMIT 200"
    )
    if not owing:
        return 0
    accounts = await lock_accounts(conn, {RECEIVABLE, *(row["id"] for row in owing)})
    grants = await read_grants(conn, accounts)
    postings, changed, paid = [], [], []
    for account in (a for a in accounts.values() if a.is_customer):
        amount = min(account.owed_nano, max(account.posted_nano - account.held_nano, 0))
        if amount > 0:
            changed += drain(grants.get(account.id, ()), amount)
            postings.append(Posting(kind="debt_payment", legs=((account.id, -amount), (RECEIVABLE, amount))))
            paid.append((account, amount))
    if postings:
        await post(conn, postings, accounts)
    await write_grants(conn, changed)
    for account, amount in paid:
        await _change_debt(conn, account, -amount)
    return len(paid)


async def book_provider_costs(conn: Connection, costs: Sequence[ProviderCost]) -> None:
    """Book what providers charge us; each attempt once. The accounts of costs are locked last of all."""
    charged = {_cost_ref(cost): cost for cost in reversed(costs) if cost.amount_nano > 0}
    if not charged:
        return
    sides = {ref: VARIANCE if cost.is_possible else COGS_EXPENSE for ref, cost in charged.items()}
    accounts = await lock_accounts(conn, {COGS_PAYABLE, *sides.values()})
    known = await conn.fetch(
        "SELECT external_ref FROM transfer WHERE kind = 'provider_cost' AND external_ref = ANY($1)",
        list(charged),
    )
    for row in known:
        del charged[row["external_ref"]]
    postings = [
        Posting(
            kind="provider_cost",
            external_ref=ref,
            legs=((sides[ref], -cost.amount_nano), (COGS_PAYABLE, cost.amount_nano)),
        )
        for ref, cost in charged.items()
    ]
    if postings:
        await post(conn, postings, accounts)


def _cost_ref(cost: ProviderCost) -> str:
    return f"{cost.reference.hex}:{cost.attempt}"


async def _receive(
    conn: Connection, *, kind: str, account_id: uuid.UUID, amount_nano: int, external_ref: str
) -> bool:
    if amount_nano <= 0:
        raise LedgerConflict(f"{kind} is a positive amount")
    accounts = await lock_accounts(conn, {account_id, STRIPE_CLEARING, RECEIVABLE})
    if await is_booked(conn, kind, external_ref):
        return False
    account = accounts[account_id]
    debt = min(account.owed_nano, amount_nano)
    legs = ((account_id, amount_nano - debt), (RECEIVABLE, debt), (STRIPE_CLEARING, -amount_nano))
    posting = Posting(kind=kind, external_ref=external_ref, legs=without_zeros(legs))
    await add(conn, posting, accounts, account_id, kind="paid")
    if debt:
        await _change_debt(conn, account, -debt)
    return True


async def _taking_order(conn: Connection, account_id: uuid.UUID, top_up_ref: str) -> list[Grant]:
    """First what this payment gave, then other paid credit, last what was a gift."""
    source = await conn.fetchval(
        "SELECT id FROM transfer WHERE kind = 'top_up' AND external_ref = $1", top_up_ref
    )
    grants = (await read_grants(conn, [account_id])).get(account_id, [])
    return sorted(grants, key=lambda one: (one.transfer_id != source, -GRANT_KINDS.index(one.kind)))


async def _change_debt(conn: Connection, account: Account, change_nano: int) -> None:
    before = account.owed_nano
    account.owed_nano += change_nano
    await conn.execute("UPDATE account SET owed_nano = $2 WHERE id = $1", account.id, account.owed_nano)
    owed = {"owed_usd": format_usd(account.owed_nano)}
    if before == 0:
        await notices.note(conn, account.id, "account.frozen", owed)
    elif account.owed_nano == 0:
        await notices.note(conn, account.id, "account.unfrozen", owed)
