"""Payments, songs, refunds, disputes, debts, cards and automatic top-ups of the same account at once."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable

import pytest

import billing
from billing import payments
from tests.billing.payments.shop import USD, Shop
from tests.billing.till import charge, collect, hold, release

ROUNDS = 25


async def sing(shop: Shop, account: uuid.UUID, dice: random.Random) -> None:
    """Hold something, then charge or release it."""
    async with shop.pool.acquire() as conn:
        reference = await hold(conn, account, nano := dice.randint(1, 3 * USD))
        if reference is not None:
            await (charge(conn, reference, nano) if dice.random() < 0.7 else release(conn, reference))


async def collect_debts(shop: Shop) -> None:
    async with shop.pool.acquire() as conn:
        await collect(conn)


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
async def test_nobody_waits_for_each_other_forever_and_every_cent_is_where_it_belongs(
    shop: Shop, seed: int
) -> None:
    dice = random.Random(seed)
    accounts = [await shop.account(gift=USD) for _ in range(2)]
    for account in accounts:
        await shop.save_card(account)
        await shop.automate(account, threshold_nano=2 * USD, amount_nano=5 * USD)
        async with shop.pool.acquire() as conn:  # sets the price, which is nobody's concern here
            assert await hold(conn, account, 1) is not None
    intents = {account: [shop.pay(await shop.order(account, 5)) for _ in range(4)] for account in accounts}

    def moves(account: uuid.UUID) -> list[Callable[[], Awaitable[object]]]:
        return [
            lambda: sing(shop, account, dice),
            lambda: sing(shop, account, dice),
            lambda: shop.sync(dice.choice(intents[account])),
            lambda: shop.receive(
                dice.choice(shop.control.events()), inbox=payments.Inbox(shop.pool, shop.processor)
            ),
            shop.run,
            lambda: collect_debts(shop),
            lambda: shop.automate(account, threshold_nano=2 * USD, amount_nano=5 * USD),
            lambda: payments.look_again(shop.pool, shop.processor),
        ]

    for number in range(ROUNDS):
        for account in accounts:
            if number == ROUNDS // 4:
                shop.control.refund(intents[account][0], 200)
            if number == ROUNDS // 2:
                shop.control.fail_refund(shop.control.refund(intents[account][1], 300)["id"])
                shop.control.dispute(intents[account][2], 400)
        todo = [dice.choice(moves(account)) for account in accounts for _ in range(6)]
        await asyncio.gather(*(move() for move in todo))
    for account in accounts:
        for intent in intents[account]:
            await shop.sync(intent)
    found = await payments.reconcile(shop.pool, shop.processor, since=shop.beginning, dry_run=True)
    assert found.differences == []
    assert any([await shop.automatic(account) for account in accounts])
    clearing = (await billing.read_account(shop.conn, billing.STRIPE_CLEARING)).posted_nano
    at_stripe = sum(
        one["amount_received"] for one in shop.stripe.account.payment_intents.where(status="succeeded")
    )
    assert -clearing == (at_stripe - 2 * 200 - 2 * 400) * payments.NANO_PER_CENT
