"""Whatever nobody told us is found and booked; whatever differs is named."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

import billing
from billing import payments
from tests.billing.payments.shop import USD, Shop
from tests.billing.till import pay, take


async def reconcile(shop: Shop, *, days: int = 35, dry_run: bool = False) -> payments.Reconciliation:
    since = datetime.now(UTC) - timedelta(days=days)
    return await payments.reconcile(shop.pool, shop.processor, since=since, dry_run=dry_run)


def named(found: payments.Reconciliation) -> list[tuple[str, str, bool]]:
    return sorted((one.problem, one.kind, one.closed) for one in found.differences)


async def whole_life(shop: Shop, account: uuid.UUID) -> str:
    """Paid 20, refunded 3, a refund of 5 failed, a dispute of 7 was won; nobody told us anything."""
    intent = shop.pay(await shop.order(account))
    shop.control.fail_refund(shop.control.refund(intent, 500)["id"])
    shop.control.refund(intent, 300)
    shop.control.end_dispute(shop.control.dispute(intent, 700)["id"], "won")
    return intent


async def test_books_that_agree_have_nothing_to_say(shop: Shop) -> None:
    intent = await shop.paid(await shop.account())
    shop.control.refund(intent, 300)
    await shop.sync(intent)
    found = await reconcile(shop)
    assert (found.agrees, found.differences, found.objects, found.others) == (True, [], 2, 0)
    (day,) = found.days
    assert (day.at_processor_nano, day.in_books_nano) == (17 * USD, 17 * USD)


async def test_what_nobody_told_us_is_booked(shop: Shop) -> None:
    account = await shop.account()
    await whole_life(shop, account)
    found = await reconcile(shop)
    assert found.agrees
    assert named(found) == [
        ("not_booked", "dispute", True),
        ("not_booked", "dispute_won", True),
        ("not_booked", "payment_refund", True),
        ("not_booked", "top_up", True),
    ]
    assert await shop.posted(account) == 17 * USD
    assert (await reconcile(shop)).differences == []
    clearing = (await billing.read_account(shop.conn, billing.STRIPE_CLEARING)).posted_nano
    assert sum(day.at_processor_nano for day in found.days) == -clearing == 17 * USD


async def test_a_dry_run_books_nothing(shop: Shop) -> None:
    account = await shop.account()
    await whole_life(shop, account)
    found = await reconcile(shop, dry_run=True)
    assert not found.agrees
    assert {one.closed for one in found.differences} == {False}
    assert await shop.posted(account) == 0
    assert await shop.count("top_up") == 0
    (day,) = found.days
    assert (day.at_processor_nano, day.in_books_nano) == (17 * USD, 0)


async def test_a_refund_that_failed_after_it_was_booked_is_found(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account)
    refund = shop.control.refund(intent, 500)
    await shop.sync(intent)
    shop.control.fail_refund(refund["id"])
    assert named(await reconcile(shop)) == [("not_booked", "payment_refund_failed", True)]
    assert await shop.posted(account) == 20 * USD


async def test_what_is_in_the_books_alone_is_named(shop: Shop) -> None:
    account = await shop.account()
    await shop.paid(account)
    await pay(shop.conn, account, 3 * USD, "pi_of_nobody")
    await take(shop.conn, account, 1 * USD, "re_of_nobody", kind="payment_refund", payment="pi_of_nobody")
    found = await reconcile(shop)
    assert not found.agrees
    assert named(found) == [
        ("not_at_processor", "payment_refund", False),
        ("not_at_processor", "top_up", False),
    ]
    (day,) = found.days
    assert (day.at_processor_nano, day.in_books_nano) == (20 * USD, 22 * USD)


async def test_an_amount_that_differs_is_named(shop: Shop) -> None:
    account = await shop.account()
    intent = shop.pay(await shop.order(account))
    await pay(shop.conn, account, 19 * USD, intent)
    found = await reconcile(shop)
    (one,) = found.differences
    assert (one.problem, one.ref, one.at_processor_nano, one.in_books_nano) == (
        "amount",
        intent,
        20 * USD,
        19 * USD,
    )
    assert not found.agrees


async def test_other_currencies_are_named(shop: Shop) -> None:
    account = await shop.account()
    await shop.order(account)
    await shop.stripe.client().v1.payment_intents.create_async(
        {
            "amount": 700,
            "currency": "eur",
            "customer": shop.stripe.account.customers.where()[0]["id"],
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
    )
    found = await reconcile(shop)
    assert named(found) == [("currency", "payment in eur", False)]
    assert await shop.posted(account) == 0


async def test_customers_of_something_else_are_only_counted(shop: Shop) -> None:
    client = shop.stripe.client()
    stranger = await client.v1.customers.create_async({})
    intent = await client.v1.payment_intents.create_async(
        {
            "amount": 700,
            "currency": "usd",
            "customer": stranger.id,
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
    )
    shop.control.refund(intent.id, 100)
    found = await reconcile(shop)
    assert (found.agrees, found.objects, found.others) == (True, 0, 2)
    assert await shop.count("top_up") == 0


async def test_events_that_are_days_late_count_on_the_day_of_the_payment(shop: Shop) -> None:
    shop.control.advance(-3 * 24 * 3600)
    account = await shop.account()
    intent = shop.pay(await shop.order(account))
    shop.control.advance(2 * 24 * 3600)
    shop.control.refund(intent, 500)
    shop.control.advance(24 * 3600)
    await shop.sync(intent)
    found = await reconcile(shop)
    assert found.agrees
    assert [(day.at_processor_nano, day.in_books_nano) for day in found.days] == [
        (20 * USD, 20 * USD),
        (-5 * USD, -5 * USD),
    ]
    assert [day.day for day in found.days] == [
        datetime.now(UTC).date() - timedelta(days=3),
        datetime.now(UTC).date() - timedelta(days=1),
    ]


async def test_what_is_older_than_the_lists_is_asked_for_one_by_one(shop: Shop) -> None:
    shop.control.advance(-10 * 24 * 3600)
    account = await shop.account()
    intent = await shop.paid(account)
    shop.control.end_dispute(shop.control.dispute(intent, 700)["id"], "won")
    await shop.sync(intent)
    shop.control.advance(10 * 24 * 3600)
    await pay(shop.conn, account, USD, "pi_of_nobody")
    found = await reconcile(shop, days=2)
    assert (found.objects, named(found)) == (0, [("not_at_processor", "top_up", False)])


async def test_pages_that_expired_unpaid_are_closed(shop: Shop) -> None:
    account = await shop.account()
    payment = await shop.order(account)
    shop.control.advance(25 * 3600)
    await shop.conn.execute("UPDATE payment SET expires_at = now() - interval '1 hour'")
    assert named(await reconcile(shop, dry_run=True)) == [("unfinished", "checkout", False)]
    assert named(await reconcile(shop)) == [("unfinished", "checkout", True)]
    (found,) = await payments.list_payments(shop.pool, account, limit=1)
    assert (found.id, found.status) == (payment.id, "expired")


async def test_more_than_a_page_of_everything_is_compared(shop: Shop) -> None:
    account = await shop.account()
    await shop.order(account, 1)
    client, customer = shop.stripe.client(), shop.stripe.account.customers.where()[0]["id"]
    for _ in range(103):
        intent = await client.v1.payment_intents.create_async(
            {
                "amount": 100,
                "currency": "usd",
                "customer": customer,
                "payment_method": "pm_card_visa",
                "confirm": True,
                "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
            }
        )
        shop.control.refund(intent.id, 50)
    found = await reconcile(shop)
    assert (found.agrees, found.objects, len(found.differences)) == (True, 206, 206)
    assert await shop.posted(account) == 103 * USD // 2


async def test_a_provider_that_is_away_is_an_error_not_an_empty_list(shop: Shop) -> None:
    shop.stripe.faults.add("rate_limit", times=9)
    with pytest.raises(payments.ProcessorUnavailable):
        await reconcile(shop)
