"""Refunds and disputes take back what was paid, once each; what is spent already is owed."""

import asyncio

import pytest

import billing
from billing import payments
from tests.billing.payments.shop import USD, Shop
from tests.billing.till import must_hold, release, spend, told
from tests.providers.stripe.cards import REFUND_FAILS, REFUND_PENDS


async def refund(
    shop: Shop, intent: str, usd: int | None = None, *, force: bool = False
) -> payments.RefundOrder:
    payment = await shop.payment(intent)
    amount = None if usd is None else usd * USD
    return await payments.refund_payment(
        shop.pool, shop.processor, payment.id, amount_nano=amount, reason="asked nicely", force=force
    )


async def test_a_partial_refund_leaves_the_rest(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    order = await refund(shop, intent, 5)
    assert await shop.posted(account) == 15 * USD
    (made,) = shop.stripe.account.refunds.where(payment_intent=intent)
    assert (order.refund_ref, made["amount"]) == (made["id"], 500)
    assert made["metadata"]["reason"] == "asked nicely"
    booked = await shop.payment(intent)
    assert (booked.refunded_nano, booked.left_nano, booked.status) == (5 * USD, 15 * USD, "paid")


async def test_without_an_amount_all_that_is_left_is_refunded(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    await refund(shop, intent, 5)
    assert (await refund(shop, intent)).amount_nano == 15 * USD
    assert await shop.posted(account) == 0
    with pytest.raises(payments.PaymentRefused, match=r"0\.000000000 USD can still be paid back"):
        await refund(shop, intent)


async def test_a_refund_is_booked_once_whoever_tells(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    await refund(shop, intent, 5)
    for event in shop.control.events():
        await shop.receive(event)
    await asyncio.gather(*(shop.sync(intent) for _ in range(10)))
    assert await shop.count("payment_refund") == 1
    assert await shop.posted(account) == 15 * USD


@pytest.mark.parametrize("usd", [21, 0, -1])
async def test_more_than_was_paid_is_not_refunded(shop: Shop, usd: int) -> None:
    intent = await shop.paid(await shop.account(gift=100 * USD), 20)
    with pytest.raises(payments.PaymentRefused, match=r"20\.000000000 USD can still be paid back"):
        await refund(shop, intent, usd)
    assert shop.stripe.account.refunds.where() == []


async def test_what_is_spent_is_only_refunded_by_force(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    await spend(shop.conn, account, 12 * USD)
    with pytest.raises(payments.PaymentRefused, match=r"only 8\.000000000 USD"):
        await refund(shop, intent)
    assert shop.stripe.account.refunds.where() == []
    await refund(shop, intent, force=True)
    assert (await shop.posted(account), await shop.owed(account)) == (0, 12 * USD)


async def test_what_is_held_is_not_free_for_a_refund(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    held = await must_hold(shop.conn, account, 15 * USD)
    with pytest.raises(payments.PaymentRefused, match=r"only 5\.000000000 USD"):
        await refund(shop, intent, 6)
    await refund(shop, intent, 5)
    await release(shop.conn, held)
    assert await shop.posted(account) == 15 * USD


async def test_a_refund_that_fails_gives_the_credit_again(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    order = await refund(shop, intent, 5)
    assert order.refund_ref is not None
    shop.control.fail_refund(order.refund_ref)
    assert await shop.sync(intent) == ("payment_refund_failed",)
    assert await shop.sync(intent) == ()
    assert await shop.posted(account) == 20 * USD
    assert (await shop.payment(intent)).left_nano == 20 * USD


async def test_a_refund_to_a_dead_card_comes_to_nothing(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20, REFUND_FAILS)
    await refund(shop, intent, 5)
    await shop.sync(intent)
    assert await shop.posted(account) == 20 * USD


async def test_a_pending_refund_is_taken_at_once(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20, REFUND_PENDS)
    order = await refund(shop, intent, 5)
    assert await shop.posted(account) == 15 * USD
    assert order.refund_ref is not None
    shop.control.settle_refund(order.refund_ref)
    assert await shop.sync(intent) == ()
    assert await shop.posted(account) == 15 * USD


@pytest.mark.parametrize("kind", ["drop", "garbage"])
async def test_an_order_without_an_answer_is_not_paid_twice(shop: Shop, kind: str) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    shop.stripe.faults.add(kind, "after", method="POST", path="/v1/refunds", times=9)
    with pytest.raises(payments.ProcessorUnavailable):
        await refund(shop, intent, 5)
    shop.stripe.faults.clear()
    order = await refund(shop, intent, 5)
    (made,) = shop.stripe.account.refunds.where(payment_intent=intent)
    assert order.refund_ref == made["id"]
    assert await shop.posted(account) == 15 * USD
    await refund(shop, intent, 5)
    assert await shop.posted(account) == 10 * USD


async def test_an_order_that_never_arrived_is_sent_again(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    shop.stripe.faults.add("drop", "before", method="POST", path="/v1/refunds", times=9)
    with pytest.raises(payments.ProcessorUnavailable):
        await refund(shop, intent, 5)
    shop.stripe.faults.clear()
    with pytest.raises(payments.PaymentRefused, match="its outcome is not known"):
        await refund(shop, intent, 7)
    await refund(shop, intent)
    assert await shop.posted(account) == 15 * USD


async def test_an_order_that_the_provider_broke_on_is_settled_by_its_list(shop: Shop) -> None:
    # Stripe answers its own failure to every repetition of that key, whether it acted or not.
    account = await shop.account()
    intent = await shop.paid(account, 20)
    shop.stripe.faults.add("server_error", "after", method="POST", path="/v1/refunds")
    with pytest.raises(payments.ProcessorUnavailable):
        await refund(shop, intent, 5)
    assert (await refund(shop, intent, 5)).refund_ref == shop.stripe.account.refunds.where()[0]["id"]
    assert await shop.posted(account) == 15 * USD


async def test_an_order_that_the_list_does_not_know_is_given_up_after_an_hour(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    shop.stripe.faults.add("drop", "before", method="POST", path="/v1/refunds", times=9)
    with pytest.raises(payments.ProcessorUnavailable):
        await refund(shop, intent, 5)
    shop.stripe.faults.clear()
    await shop.conn.execute("UPDATE refund_order SET created_at = created_at - interval '61 minutes'")
    await refund(shop, intent, 7)
    assert await shop.posted(account) == 13 * USD
    errors = [row[0] for row in await shop.conn.fetch("SELECT error FROM refund_order ORDER BY created_at")]
    assert errors == ["the provider could not be asked in time", None]


async def test_two_operators_at_once_refund_once(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    results = await asyncio.gather(*(refund(shop, intent) for _ in range(6)), return_exceptions=True)
    assert {type(one) for one in results} <= {payments.RefundOrder, payments.PaymentRefused}
    assert any(isinstance(one, payments.RefundOrder) for one in results)
    assert len(shop.stripe.account.refunds.where()) == 1
    assert await shop.posted(account) == 0


async def test_a_refund_in_the_dashboard_is_booked_too(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    shop.control.refund(intent, 400)
    for event in shop.control.events():
        await shop.receive(event)
    assert await shop.posted(account) == 16 * USD


async def test_an_unpaid_top_up_has_nothing_to_refund(shop: Shop) -> None:
    payment = await shop.order(await shop.account())
    with pytest.raises(payments.PaymentRefused, match="this payment is pending"):
        await payments.refund_payment(shop.pool, shop.processor, payment.id)


async def test_a_disputed_payment_is_not_refunded_besides(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    shop.control.dispute(intent, 500)
    with pytest.raises(payments.ProcessorRefused, match="charged back"):
        await refund(shop, intent, 3)
    assert await shop.posted(account) == 15 * USD
    assert await shop.conn.fetchval("SELECT error FROM refund_order") is not None


async def test_a_dispute_takes_what_is_there(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    shop.control.dispute(intent)
    assert await shop.sync(intent) == ("dispute",)
    assert await shop.sync(intent) == ()
    assert (await shop.posted(account), await shop.owed(account)) == (0, 0)
    assert await told(shop.conn, account, "dispute") == ["dispute.opened"]
    assert (await shop.payment(intent)).disputed_nano == 20 * USD


async def test_a_dispute_beyond_the_balance_is_owed_and_paid_by_the_next_top_up(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    await spend(shop.conn, account, 15 * USD)
    shop.control.dispute(intent)
    await shop.sync(intent)
    assert (await shop.posted(account), await shop.owed(account)) == (0, 15 * USD)
    assert (await billing.read_account(shop.conn, account)).available_nano == 0
    await shop.paid(account, 10)
    assert (await shop.posted(account), await shop.owed(account)) == (0, 5 * USD)
    await shop.paid(account, 10)
    assert (await shop.posted(account), await shop.owed(account)) == (5 * USD, 0)
    assert await told(shop.conn, account, "account") == ["account.frozen", "account.unfrozen"]


async def test_a_dispute_that_was_won_comes_back(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    dispute = shop.control.dispute(intent)
    await shop.sync(intent)
    shop.control.end_dispute(dispute["id"], "won")
    assert await shop.sync(intent) == ("dispute_won",)
    assert await shop.posted(account) == 20 * USD
    assert (await shop.payment(intent)).disputed_nano == 0


async def test_a_dispute_that_was_won_pays_what_it_had_left_owing(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    await spend(shop.conn, account, 15 * USD)
    dispute = shop.control.dispute(intent)
    await shop.sync(intent)
    shop.control.end_dispute(dispute["id"], "won")
    await shop.sync(intent)
    assert (await shop.posted(account), await shop.owed(account)) == (5 * USD, 0)


async def test_a_dispute_that_was_lost_changes_nothing_more(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    dispute = shop.control.dispute(intent, 1200)
    await shop.sync(intent)
    shop.control.end_dispute(dispute["id"], "lost")
    assert await shop.sync(intent) == ()
    assert await shop.posted(account) == 8 * USD


async def test_an_opened_and_won_dispute_that_comes_late_is_booked_in_one_go(shop: Shop) -> None:
    account = await shop.account()
    intent = shop.pay(await shop.order(account))
    shop.control.end_dispute(shop.control.dispute(intent)["id"], "won")
    assert await shop.sync(intent) == ("top_up", "dispute", "dispute_won")
    assert await shop.posted(account) == 20 * USD


async def test_an_inquiry_takes_nothing_until_it_becomes_a_dispute(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    inquiry = shop.control.dispute(intent, inquiry=True)
    assert await shop.sync(intent) == ()
    shop.control.end_dispute(inquiry["id"], "escalated")
    assert await shop.sync(intent) == ("dispute",)
    assert await shop.posted(account) == 0


async def test_an_inquiry_that_is_dropped_takes_nothing(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    inquiry = shop.control.dispute(intent, inquiry=True)
    shop.control.end_dispute(inquiry["id"], "dropped")
    assert await shop.sync(intent) == ()
    assert await shop.posted(account) == 20 * USD


async def test_jobs_under_way_keep_their_money_in_a_dispute(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20)
    held = await must_hold(shop.conn, account, 15 * USD)
    shop.control.dispute(intent)
    await shop.sync(intent)
    assert (await shop.posted(account), await shop.owed(account)) == (15 * USD, 15 * USD)
    await release(shop.conn, held)


async def test_money_moves_under_many_hands_at_once(shop: Shop) -> None:
    account = await shop.account()
    intents = [shop.pay(await shop.order(account, 10)) for _ in range(4)]
    shop.control.refund(intents[0], 300)
    shop.control.dispute(intents[1], 500)
    shop.control.fail_refund(shop.control.refund(intents[2], 200)["id"])
    await asyncio.gather(*(shop.sync(intent) for intent in intents * 6))
    assert await shop.posted(account) == 32 * USD
    assert await shop.count("top_up") == 4
