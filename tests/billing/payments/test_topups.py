"""A payment is booked once, whoever tells us of it, how often and in which order, or if nobody does."""

import asyncio

import pytest

from billing import payments
from tests.billing.payments.shop import PAGES, USD, Shop
from tests.providers.stripe.cards import DECLINED


async def test_a_paid_page_is_credit(shop: Shop) -> None:
    account = await shop.account()
    payment = await shop.order(account, 20)
    assert (payment.status, payment.kind, payment.amount_nano) == ("pending", "checkout", 20 * USD)
    assert payment.url == shop.page(payment)["url"]
    intent = shop.pay(payment)
    assert await shop.sync(intent) == ("top_up",)
    assert await shop.posted(account) == 20 * USD
    booked = await shop.payment(intent)
    assert (booked.id, booked.status, booked.url) == (payment.id, "paid", None)
    assert booked.receipt_url == shop.stripe.account.charges.where(payment_intent=intent)[0]["receipt_url"]


async def test_the_page_says_what_is_paid_and_by_whom(shop: Shop) -> None:
    account = await shop.account()
    page = shop.page(await shop.order(account, 50))
    assert (page["mode"], page["amount_total"], page["currency"]) == ("payment", 5000, "usd")
    assert (page["success_url"], page["cancel_url"]) == (PAGES["success_url"], PAGES["cancel_url"])
    assert page["payment_method_types"] == ["card"]
    customer = shop.stripe.account.customers.get(page["customer"])
    assert customer["metadata"] == {"antiphon_organization": account.hex}


async def test_every_top_up_of_an_organization_is_the_same_customers(shop: Shop) -> None:
    account = await shop.account()
    shop.stripe.faults.add("slow", method="POST", path="/v1/customers", times=99, seconds=0.05)
    made = await asyncio.gather(*(shop.order(account) for _ in range(10)))
    assert len({one.id for one in made}) == 10
    assert len({shop.page(one)["customer"] for one in made}) == 1
    assert len(shop.stripe.account.customers.where()) == 1


@pytest.mark.parametrize("nano", [0, -USD, USD - 10_000_000, 10_000 * USD + 10_000_000, 10**19])
async def test_amounts_out_of_range_are_refused(shop: Shop, nano: int) -> None:
    order = payments.TopUpOrder(account_id=await shop.account(), amount_nano=nano, **PAGES)
    with pytest.raises(payments.PaymentRefused, match="between 1 and 10000 USD") as refusal:
        await payments.start_top_up(shop.pool, shop.processor, order)
    assert refusal.value.suggestion in {"1", "10000"}
    assert shop.stripe.account.sessions.where() == []


async def test_fractions_of_a_cent_are_refused(shop: Shop) -> None:
    order = payments.TopUpOrder(account_id=await shop.account(), amount_nano=5 * USD + 1, **PAGES)
    with pytest.raises(payments.PaymentRefused, match="whole cents") as refusal:
        await payments.start_top_up(shop.pool, shop.processor, order)
    assert refusal.value.suggestion == "5"


@pytest.mark.parametrize("usd", [1, 10_000])
async def test_both_ends_of_the_range_can_be_paid(shop: Shop, usd: int) -> None:
    account = await shop.account()
    await shop.paid(account, usd)
    assert await shop.posted(account) == usd * USD


async def test_the_same_key_is_the_same_top_up(shop: Shop) -> None:
    account = await shop.account()
    same = {"idempotency_key": "k", "request_hash": b"h"}
    first = await shop.order(account, **same)
    again = await asyncio.gather(*(shop.order(account, **same) for _ in range(5)))
    assert {(one.id, one.url) for one in again} == {(first.id, first.url)}
    assert len(shop.stripe.account.sessions.where()) == 1


async def test_requests_at_once_with_one_key_make_one_page(shop: Shop) -> None:
    account = await shop.account()
    orders = (shop.order(account, idempotency_key="k", request_hash=b"h") for _ in range(8))
    made = await asyncio.gather(*orders)
    assert len({(one.id, one.checkout_ref) for one in made}) == 1
    assert len(shop.stripe.account.sessions.where()) == 1


async def test_a_key_with_another_request_is_refused(shop: Shop) -> None:
    account = await shop.account()
    await shop.order(account, idempotency_key="k", request_hash=b"h")
    with pytest.raises(payments.KeyReused):
        await shop.order(account, idempotency_key="k", request_hash=b"other")


async def test_a_key_belongs_to_its_organization(shop: Shop) -> None:
    first, second = await shop.account(), await shop.account()
    one = await shop.order(first, idempotency_key="k", request_hash=b"h")
    other = await shop.order(second, idempotency_key="k", request_hash=b"other")
    assert one.id != other.id


@pytest.mark.parametrize("kind", ["drop", "server_error", "garbage"])
async def test_a_page_that_was_made_without_an_answer_is_found_by_the_same_key(shop: Shop, kind: str) -> None:
    account = await shop.account()
    shop.stripe.faults.add(kind, "after", method="POST", path="/v1/checkout/sessions", times=9)
    with pytest.raises(payments.ProcessorUnavailable):
        await shop.order(account, idempotency_key="k", request_hash=b"h")
    assert len(shop.stripe.account.sessions.where()) == 1
    shop.stripe.faults.clear()
    if kind == "server_error":  # Stripe keeps its own failure under the key for a day
        with pytest.raises(payments.ProcessorUnavailable):
            await shop.order(account, idempotency_key="k", request_hash=b"h")
        return
    payment = await shop.order(account, idempotency_key="k", request_hash=b"h")
    assert payment.checkout_ref == shop.stripe.account.sessions.where()[0]["id"]


async def test_a_dropped_connection_is_tried_again_without_a_second_page(shop: Shop) -> None:
    shop.stripe.faults.add("drop", "after", method="POST", path="/v1/checkout/sessions")
    payment = await shop.order(await shop.account())
    assert [one["id"] for one in shop.stripe.account.sessions.where()] == [payment.checkout_ref]


async def test_what_the_provider_refuses_leaves_nothing_behind(shop: Shop) -> None:
    account = await shop.account()
    order = payments.TopUpOrder(
        account_id=account, amount_nano=5 * USD, success_url="", cancel_url="https://b.example/"
    )
    with pytest.raises(payments.ProcessorRefused) as refusal:
        await payments.start_top_up(shop.pool, shop.processor, order)
    assert refusal.value.param == "success_url"
    assert await payments.list_payments(shop.pool, account, limit=10) == []


async def test_a_customer_deleted_at_the_provider_is_made_anew(shop: Shop) -> None:
    account = await shop.account()
    await shop.paid(account, 10)
    before = shop.stripe.account.customers.where()[0]["id"]
    await shop.stripe.client().v1.customers.delete_async(before)
    await shop.paid(account, 10)
    assert await shop.posted(account) == 20 * USD
    assert [one["id"] for one in shop.stripe.account.customers.where()] != [before]


async def test_reading_a_top_up_finds_that_it_was_paid(shop: Shop) -> None:
    account = await shop.account()
    payment = await shop.order(account)
    shop.pay(payment)
    found = await payments.read_top_up(shop.pool, shop.processor, account, payment.id)
    assert found.status == "paid"
    assert await shop.posted(account) == 20 * USD


async def test_many_readers_ask_the_provider_once(shop: Shop) -> None:
    account = await shop.account()
    payment = await shop.order(account)
    shop.stripe.faults.add("slow", method="GET", times=1000, seconds=0)
    readers = (payments.read_top_up(shop.pool, shop.processor, account, payment.id) for _ in range(20))
    assert {one.status for one in await asyncio.gather(*readers)} == {"pending"}
    (counted,) = shop.stripe.faults.report()
    assert counted["times"] == 999


async def test_reading_works_while_the_provider_is_away(shop: Shop) -> None:
    account = await shop.account()
    payment = await shop.order(account)
    shop.stripe.faults.add("server_error", times=99)
    found = await payments.read_top_up(shop.pool, shop.processor, account, payment.id)
    assert found == payment


async def test_a_page_that_expired_ends_the_top_up(shop: Shop) -> None:
    account = await shop.account()
    payment = await shop.order(account)
    shop.control.advance(25 * 3600)
    found = await payments.read_top_up(shop.pool, shop.processor, account, payment.id)
    assert (found.status, found.url) == ("expired", None)
    assert await shop.posted(account) == 0


async def test_a_declined_card_leaves_the_page_open_for_another(shop: Shop) -> None:
    account = await shop.account()
    payment = await shop.order(account)
    assert payment.checkout_ref is not None
    shop.control.decline(payment.checkout_ref, DECLINED)
    found = await payments.read_top_up(shop.pool, shop.processor, account, payment.id)
    assert (found.status, found.error_code, found.url) == ("pending", "generic_decline", payment.url)
    await shop.sync(shop.pay(payment))
    found = await payments.read_top_up(shop.pool, shop.processor, account, payment.id)
    assert (found.status, found.error_code) == ("paid", None)


async def test_nobody_reads_the_payments_of_others(shop: Shop) -> None:
    payment = await shop.order(await shop.account())
    stranger = await shop.account()
    with pytest.raises(payments.PaymentMissing):
        await payments.read_top_up(shop.pool, shop.processor, stranger, payment.id)
    assert await payments.list_payments(shop.pool, stranger, limit=10) == []


async def test_pages_of_the_list_go_on_where_the_last_ended(shop: Shop) -> None:
    account = await shop.account()
    made = [(await shop.order(account)).id for _ in range(5)]
    first = await payments.list_payments(shop.pool, account, limit=2)
    second = await payments.list_payments(shop.pool, account, limit=2, before=first[-1].id)
    third = await payments.list_payments(shop.pool, account, limit=2, before=second[-1].id)
    assert [one.id for one in (*first, *second, *third)] == made[::-1]


async def test_a_payment_made_at_the_provider_for_a_customer_of_ours_is_credit_too(shop: Shop) -> None:
    account = await shop.account()
    await shop.paid(account, 10)
    customer = shop.stripe.account.customers.where()[0]["id"]
    intent = await shop.stripe.client().v1.payment_intents.create_async(
        {
            "amount": 700,
            "currency": "usd",
            "customer": customer,
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
    )
    assert await shop.sync(intent.id) == ("top_up",)
    assert await shop.sync(intent.id) == ()
    assert (await shop.payment(intent.id)).kind == "external"
    assert await shop.posted(account) == 17 * USD


async def test_payments_of_somebody_elses_customers_are_left_alone(shop: Shop) -> None:
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
            "metadata": {"antiphon_payment": (await shop.order(await shop.account())).id.hex},
        }
    )
    booked = await payments.sync_payment(shop.pool, shop.processor, intent.id)
    assert (booked.kinds, booked.ignored) == ((), "a customer of something else")
    assert await shop.count("top_up") == 0


async def test_other_currencies_are_not_booked(shop: Shop) -> None:
    account = await shop.account()
    await shop.order(account)
    customer = shop.stripe.account.customers.where()[0]["id"]
    intent = await shop.stripe.client().v1.payment_intents.create_async(
        {
            "amount": 700,
            "currency": "eur",
            "customer": customer,
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
    )
    booked = await payments.sync_payment(shop.pool, shop.processor, intent.id)
    assert (booked.kinds, booked.ignored) == ((), "paid in eur")
    assert await shop.posted(account) == 0


async def test_fifty_at_once_book_a_payment_once(shop: Shop) -> None:
    account = await shop.account()
    intent = shop.pay(await shop.order(account))
    booked = await asyncio.gather(*(shop.sync(intent) for _ in range(50)))
    assert sorted(booked, key=len)[-2:] == [(), ("top_up",)]
    assert await shop.posted(account) == 20 * USD


async def test_payments_that_nobody_tells_us_about_are_asked_for(shop: Shop) -> None:
    account = await shop.account()
    paid, waiting = await shop.order(account), await shop.order(account)
    shop.pay(paid)
    assert await payments.look_again(shop.pool, shop.processor) == 0
    await shop.conn.execute("UPDATE payment SET created_at = created_at - interval '6 minutes'")
    assert await payments.look_again(shop.pool, shop.processor) == 2
    assert await shop.posted(account) == 20 * USD
    assert await payments.look_again(shop.pool, shop.processor) == 0
    await shop.conn.execute(
        "UPDATE payment SET asked_at = asked_at - interval '7 minutes', "
        "created_at = created_at - interval '7 minutes'"
    )
    assert await payments.look_again(shop.pool, shop.processor) == 1
    assert (await payments.list_payments(shop.pool, account, limit=1))[0].id == waiting.id


async def test_a_top_up_that_was_never_sent_ends_after_a_day(shop: Shop) -> None:
    account = await shop.account()
    shop.stripe.faults.add("rate_limit", times=99)
    with pytest.raises(payments.ProcessorUnavailable):
        await shop.order(account)
    shop.stripe.faults.clear()
    await shop.conn.execute("UPDATE payment SET created_at = created_at - interval '25 hours'")
    await payments.look_again(shop.pool, shop.processor)
    (payment,) = await payments.list_payments(shop.pool, account, limit=10)
    assert (payment.status, payment.error_code) == ("expired", "not_sent")


async def test_an_unknown_key_is_told_from_an_outage(shop: Shop) -> None:
    till = payments.open_till(shop.pool, secret_key="sk_test_of_nobody", base_url=shop.stripe.url)
    order = payments.TopUpOrder(account_id=await shop.account(), amount_nano=5 * USD, **PAGES)
    with pytest.raises(payments.ProcessorDenied) as refusal:
        await payments.start_top_up(shop.pool, till.processor, order)
    assert "sk_test_of_nobody" not in str(refusal.value)
    assert till.inbox is None
    await till.close()
