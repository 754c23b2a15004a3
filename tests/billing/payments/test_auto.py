"""Automatic top-ups charge a card once, whoever tries and whatever breaks, and stop where they should."""

import asyncio
import socket
import uuid

import pytest

from billing import payments
from tests.billing.payments.dying import doomed
from tests.billing.payments.shop import USD, Shop
from tests.billing.till import must_hold, spend, told
from tests.factories import until
from tests.providers.stripe.cards import ASKS_ALWAYS, DECLINED_LATER, GOOD, NO_FUNDS
from tests.providers.stripe.faults import When

STOLEN = "4000000000009979"


async def customer(shop: Shop, *, card: str = GOOD, **rule: int) -> uuid.UUID:
    """An organization with an empty balance, a saved card and a rule."""
    account = await shop.account()
    await shop.save_card(account, card)
    await shop.automate(account, **rule)
    return account


def charges(shop: Shop) -> int:
    """That the provider made, successful or not."""
    return len(shop.stripe.account.payment_intents.where())


async def begun(shop: Shop) -> bool:
    return bool(await shop.conn.fetchval("SELECT EXISTS (SELECT FROM payment WHERE kind = 'automatic')"))


async def told_the_provider(shop: Shop) -> bool:
    """Its fault has befallen the request."""
    return shop.stripe.faults.report() == []


async def charged(shop: Shop) -> bool:
    return charges(shop) == 1


async def spend_all(shop: Shop, account: uuid.UUID) -> None:
    if left := await shop.posted(account):
        await spend(shop.conn, account, left)


async def let_pass(shop: Shop, what: str) -> None:
    await shop.conn.execute(
        "UPDATE payment SET asked_at = asked_at - $1::text::interval, "
        "created_at = created_at - $1::text::interval",
        what,
    )
    await shop.conn.execute("UPDATE auto_top_up SET next_try_at = next_try_at - $1::text::interval", what)


async def test_a_low_balance_is_topped_up(shop: Shop) -> None:
    account = await customer(shop)
    assert await shop.run() == 1
    assert await shop.posted(account) == 20 * USD
    (payment,) = await shop.automatic(account)
    assert (payment.status, payment.amount_nano) == ("paid", 20 * USD)
    (intent,) = shop.stripe.account.payment_intents.where()
    assert (intent["amount"], intent["customer"]) == (2000, shop.stripe.account.customers.where()[0]["id"])
    assert payment.receipt_url is not None


async def test_a_balance_at_the_threshold_is_left_alone(shop: Shop) -> None:
    account = await customer(shop, threshold_nano=20 * USD)
    await shop.run()
    assert await shop.run() == 0
    await spend(shop.conn, account, 1)
    assert await shop.run() == 1
    assert await shop.posted(account) == 40 * USD - 1


async def test_what_is_held_is_not_available(shop: Shop) -> None:
    account = await customer(shop)
    await shop.run()
    await must_hold(shop.conn, account, 16 * USD)
    assert await shop.run() == 1
    assert await shop.posted(account) == 40 * USD


async def test_twenty_at_once_charge_once(shop: Shop) -> None:
    account = await customer(shop)
    await asyncio.gather(*(shop.run() for _ in range(20)))
    assert charges(shop) == 1
    assert len(await shop.automatic(account)) == 1
    assert await shop.posted(account) == 20 * USD


async def test_many_organizations_at_once_are_charged_once_each(shop: Shop) -> None:
    accounts = [await customer(shop) for _ in range(6)]
    await asyncio.gather(*(shop.run() for _ in range(5)))
    assert [await shop.posted(account) for account in accounts] == [20 * USD] * 6
    assert charges(shop) == 6


async def test_without_a_rule_or_a_card_nothing_is_charged(shop: Shop) -> None:
    await shop.save_card(await shop.account())
    without_card = await shop.account()
    with pytest.raises(payments.CardMissing):
        await shop.automate(without_card)
    assert await shop.run() == 0


async def test_a_rule_that_is_off_charges_nothing(shop: Shop) -> None:
    account = await customer(shop)
    await shop.automate(account, enabled=False)
    assert await shop.run() == 0
    assert charges(shop) == 0


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"threshold_nano": None}, "threshold_usd"),
        ({"amount_nano": None}, "amount_usd"),
        ({"amount_nano": 20_000 * USD}, "amount_usd"),
        ({"amount_nano": USD + 1}, "amount_usd"),
        ({"threshold_nano": 1}, "threshold_usd"),
        ({"daily_cap_nano": 19 * USD}, "daily_cap_usd"),
        ({"monthly_cap_nano": 19 * USD}, "monthly_cap_usd"),
    ],
)
async def test_rules_that_make_no_sense_are_refused(
    shop: Shop, changes: dict[str, int | None], param: str
) -> None:
    account = await customer(shop)
    with pytest.raises(payments.PaymentRefused) as refusal:
        await shop.automate(account, **changes)
    assert refusal.value.param == param


async def test_the_daily_cap_holds_until_tomorrow(shop: Shop) -> None:
    account = await customer(shop, daily_cap_nano=45 * USD)
    for _ in range(4):
        await shop.run()
        await spend_all(shop, account)
    assert charges(shop) == 2
    assert await told(shop.conn, account, "auto_top_up") == ["auto_top_up.capped"]
    tomorrow = await shop.conn.fetchval("SELECT date_trunc('day', now(), 'UTC') + interval '1 day'")
    assert (await shop.rule(account)).next_try_at == tomorrow
    await let_pass(shop, "1 day")
    await shop.run()
    assert charges(shop) == 3


async def test_the_monthly_cap_holds_until_next_month(shop: Shop) -> None:
    account = await customer(shop, monthly_cap_nano=45 * USD, daily_cap_nano=1000 * USD)
    for _ in range(4):
        await shop.run()
        await spend_all(shop, account)
    assert charges(shop) == 2
    next_month = await shop.conn.fetchval("SELECT date_trunc('month', now(), 'UTC') + interval '1 month'")
    assert (await shop.rule(account)).next_try_at == next_month


async def test_a_cap_holds_under_many_hands(shop: Shop) -> None:
    account = await customer(shop, daily_cap_nano=60 * USD, threshold_nano=10_000 * USD)
    for _ in range(3):
        await asyncio.gather(*(shop.run() for _ in range(12)))
    assert await shop.posted(account) == 60 * USD
    assert charges(shop) == 3


async def test_raising_a_cap_counts_at_once(shop: Shop) -> None:
    account = await customer(shop, daily_cap_nano=20 * USD)
    await shop.run()
    await spend(shop.conn, account, 20 * USD)
    assert await shop.run() == 0
    await shop.automate(account, daily_cap_nano=40 * USD)
    assert await shop.run() == 1


async def test_payments_by_hand_do_not_count_for_the_caps(shop: Shop) -> None:
    account = await customer(shop, daily_cap_nano=20 * USD)
    await shop.paid(account, 100)
    await spend(shop.conn, account, 100 * USD)
    assert await shop.run() == 1


async def test_a_declined_card_is_tried_less_and_less_and_then_no_more(shop: Shop) -> None:
    account = await customer(shop, card=DECLINED_LATER)
    for pause in ("1 hour", "4 hours"):
        assert await shop.run() == 1
        assert await shop.run() == 0
        await let_pass(shop, f"{pause} -1 minute")
        assert await shop.run() == 0
        await let_pass(shop, "2 minutes")
    assert (await shop.rule(account)).failures == 2
    assert await shop.run() == 1
    rule = await shop.rule(account)
    assert (rule.enabled, rule.disabled_reason, rule.failures) == (False, "too_many_failures", 3)
    assert await told(shop.conn, account, "payment") == ["payment.failed"] * 3
    assert await told(shop.conn, account, "auto") == ["auto_top_up.disabled"]
    assert await shop.posted(account) == 0
    assert {one.error_code for one in await shop.automatic(account)} == {"generic_decline"}


async def test_a_success_forgets_the_failures(shop: Shop) -> None:
    account = await customer(shop)
    method = await shop.conn.fetchval("SELECT payment_method_ref FROM processor_customer")
    shop.control.turn_card(method, NO_FUNDS)
    await shop.run()
    assert (await shop.rule(account)).failures == 1
    shop.control.turn_card(method, GOOD)
    await let_pass(shop, "1 hour")
    await shop.run()
    rule = await shop.rule(account)
    assert (rule.failures, rule.next_try_at) == (0, None)
    assert await shop.posted(account) == 20 * USD


@pytest.mark.parametrize(
    ("card", "reason"), [(ASKS_ALWAYS, "authentication_required"), (STOLEN, "stolen_card")]
)
async def test_a_card_that_cannot_be_charged_alone_ends_it_at_once(
    shop: Shop, card: str, reason: str
) -> None:
    account = await customer(shop)
    method = await shop.conn.fetchval("SELECT payment_method_ref FROM processor_customer")
    shop.control.turn_card(method, card)
    await shop.run()
    rule = await shop.rule(account)
    assert (rule.enabled, rule.disabled_reason) == (False, reason)
    assert await shop.run() == 0
    assert await told(shop.conn, account, "auto") == ["auto_top_up.disabled"]


async def test_saving_another_rule_starts_over(shop: Shop) -> None:
    account = await customer(shop)
    method = await shop.conn.fetchval("SELECT payment_method_ref FROM processor_customer")
    shop.control.turn_card(method, STOLEN)
    await shop.run()
    shop.control.turn_card(method, GOOD)
    await shop.automate(account)
    rule = await shop.rule(account)
    assert (rule.enabled, rule.disabled_reason, rule.failures) == (True, None, 0)
    assert await shop.run() == 1


async def test_a_card_that_is_gone_at_the_provider_ends_it(shop: Shop) -> None:
    account = await customer(shop)
    method = await shop.conn.fetchval("SELECT payment_method_ref FROM processor_customer")
    await shop.stripe.client().v1.payment_methods.detach_async(method)
    await shop.run()
    assert not (await shop.rule(account)).enabled or (await shop.rule(account)).failures == 1
    assert [one.status for one in await shop.automatic(account)] == ["failed"]


async def test_who_owes_after_a_dispute_is_not_charged_again(shop: Shop) -> None:
    account = await customer(shop)
    await shop.run()
    await spend(shop.conn, account, 18 * USD)
    (payment,) = await shop.automatic(account)
    assert payment.intent_ref is not None
    shop.control.dispute(payment.intent_ref)
    await shop.sync(payment.intent_ref)
    rule = await shop.rule(account)
    assert (rule.enabled, rule.disabled_reason) == (False, "dispute")
    await shop.automate(account)
    assert await shop.run() == 0
    assert charges(shop) == 1


async def test_a_crash_before_the_provider_was_told_is_gone_on_with(shop: Shop) -> None:
    account = await customer(shop)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        async with doomed(shop.dsn, url, shop.stripe.api_key):
            await until(lambda: begun(shop))
    assert charges(shop) == 0
    assert await shop.run() == 0  # somebody may still be at it
    await let_pass(shop, "61 seconds")
    await asyncio.gather(*(shop.run() for _ in range(10)))
    assert charges(shop) == 1
    assert await shop.posted(account) == 20 * USD


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_after_the_provider_was_told_is_gone_on_with(shop: Shop, when: When) -> None:
    account = await customer(shop)
    shop.stripe.faults.add("slow", when, method="POST", path="/v1/payment_intents", seconds=60)
    async with doomed(shop.dsn, shop.stripe.url, shop.stripe.api_key):
        await until(lambda: told_the_provider(shop))
    shop.stripe.faults.clear()
    await until(lambda: charged(shop))
    assert await shop.posted(account) == 0
    await let_pass(shop, "61 seconds")
    await asyncio.gather(*(shop.run() for _ in range(10)))
    assert (charges(shop), await shop.posted(account)) == (1, 20 * USD)


async def test_a_call_that_is_still_under_way_is_not_made_twice(shop: Shop) -> None:
    # Who made it is dead, Stripe has not listed anything yet, and will act at last.
    account = await customer(shop)
    shop.stripe.faults.add("slow", "before", method="POST", path="/v1/payment_intents", seconds=60)
    async with doomed(shop.dsn, shop.stripe.url, shop.stripe.api_key):
        await until(lambda: told_the_provider(shop))
    await let_pass(shop, "61 seconds")
    await shop.run()
    shop.stripe.faults.clear()
    await until(lambda: charged(shop))
    await let_pass(shop, "61 seconds")
    await shop.run()
    assert (charges(shop), await shop.posted(account)) == (1, 20 * USD)


async def test_the_event_of_a_crashed_payment_finds_its_row(shop: Shop) -> None:
    account = await customer(shop)
    shop.stripe.faults.add("slow", "after", method="POST", path="/v1/payment_intents", seconds=60)
    async with doomed(shop.dsn, shop.stripe.url, shop.stripe.api_key):
        await until(lambda: charged(shop))
    assert await shop.receive(shop.events("payment_intent.succeeded")[0]) == "top_up"
    assert [one.status for one in await shop.automatic(account)] == ["paid"]


@pytest.mark.parametrize("kind", ["drop", "garbage", "server_error"])
async def test_an_answer_that_got_lost_is_found_again(shop: Shop, kind: str) -> None:
    account = await customer(shop)
    shop.stripe.faults.add(kind, "after", method="POST", path="/v1/payment_intents", times=9)
    await shop.run()
    shop.stripe.faults.clear()
    assert (charges(shop), await shop.posted(account)) == (1, 0)
    await let_pass(shop, "61 seconds")
    await shop.run()
    assert (charges(shop), await shop.posted(account)) == (1, 20 * USD)


async def test_a_dropped_connection_is_tried_again_with_the_same_key(shop: Shop) -> None:
    account = await customer(shop)
    shop.stripe.faults.add("drop", "after", method="POST", path="/v1/payment_intents")
    await shop.run()
    assert (charges(shop), await shop.posted(account)) == (1, 20 * USD)


async def test_a_provider_that_is_away_is_no_failure_of_the_card(shop: Shop) -> None:
    account = await customer(shop)
    shop.stripe.faults.add("rate_limit", times=99)
    await shop.run()
    await let_pass(shop, "61 seconds")
    await shop.run()
    assert (await shop.rule(account)).failures == 0
    assert [one.status for one in await shop.automatic(account)] == ["created"]
    shop.stripe.faults.clear()
    await let_pass(shop, "61 minutes")
    assert await shop.run() == 1
    assert [(one.status, one.error_code) for one in await shop.automatic(account)] == [("failed", "not_sent")]
    rule = await shop.rule(account)
    assert (rule.failures, rule.enabled) == (0, True)
    await shop.run()
    assert (charges(shop), await shop.posted(account)) == (1, 20 * USD)


async def test_a_wrong_key_is_no_failure_of_the_card(shop: Shop) -> None:
    account = await customer(shop)
    till = payments.open_till(shop.pool, secret_key="sk_test_of_nobody", base_url=shop.stripe.url)
    await payments.run_auto_top_ups(shop.pool, till.processor)
    assert (await shop.rule(account)).failures == 0
    await till.close()
    await let_pass(shop, "61 seconds")
    await shop.run()
    assert (charges(shop), await shop.posted(account)) == (1, 20 * USD)
