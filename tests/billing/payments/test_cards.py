"""The saved card: kept from a page, followed when it changes, forgotten when its owner says so."""

import uuid

import pytest

from billing import payments
from tests.billing.payments.shop import PAGES, Shop
from tests.providers.stripe.cards import DECLINED, GOOD

MASTERCARD = "5555555555554444"


async def card(shop: Shop, account: uuid.UUID) -> payments.Card | None:
    return await payments.read_card(shop.pool, shop.processor, account)


def attached(shop: Shop) -> list[str]:
    return [one["id"] for one in shop.stripe.account.payment_methods.where() if one["customer"] is not None]


async def test_no_card_is_saved_at_first(shop: Shop) -> None:
    assert await card(shop, await shop.account()) is None


async def test_a_card_is_saved_without_a_payment(shop: Shop) -> None:
    account = await shop.account()
    method = await shop.save_card(account)
    assert await card(shop, account) == payments.Card(brand="visa", last4="4242", exp_month=12, exp_year=2034)
    assert attached(shop) == [method]
    assert await shop.posted(account) == 0


async def test_a_card_is_saved_with_a_payment_if_asked(shop: Shop) -> None:
    account = await shop.account()
    await shop.paid(account, 20, save_card=True)
    found = await card(shop, account)
    assert found is not None
    assert found.last4 == "4242"
    assert len(attached(shop)) == 1


async def test_a_card_is_not_saved_without_being_asked(shop: Shop) -> None:
    account = await shop.account()
    await shop.paid(account, 20)
    assert await card(shop, account) is None
    assert attached(shop) == []


async def test_reading_the_card_finds_the_one_that_was_just_saved(shop: Shop) -> None:
    account = await shop.account()
    page = await payments.open_setup(shop.pool, shop.processor, account, **PAGES)
    assert await card(shop, account) is None
    shop.control.pay(page.ref)
    assert await card(shop, account) is None  # asked a moment ago
    await shop.conn.execute("UPDATE processor_customer SET asked_at = asked_at - interval '4 seconds'")
    assert await card(shop, account) is not None
    assert await shop.conn.fetchval("SELECT setup_ref FROM processor_customer") is None


async def test_a_page_that_expired_saves_nothing_and_is_not_asked_about_again(shop: Shop) -> None:
    account = await shop.account()
    page = await payments.open_setup(shop.pool, shop.processor, account, **PAGES)
    shop.control.expire(page.ref)
    assert await card(shop, account) is None
    assert await shop.conn.fetchval("SELECT setup_ref FROM processor_customer") is None


@pytest.mark.parametrize("kind", ["checkout.session.completed", "setup_intent.succeeded"])
async def test_an_event_saves_the_card(shop: Shop, kind: str) -> None:
    account = await shop.account()
    page = await payments.open_setup(shop.pool, shop.processor, account, **PAGES)
    shop.control.pay(page.ref)
    assert await shop.receive(shop.events(kind)[0]) == "card saved"
    assert await card(shop, account) is not None


async def test_a_declined_card_is_not_saved(shop: Shop) -> None:
    account = await shop.account()
    page = await payments.open_setup(shop.pool, shop.processor, account, **PAGES)
    shop.control.decline(page.ref, DECLINED)
    for event in shop.control.events():
        await shop.receive(event)
    assert await card(shop, account) is None


async def test_another_card_replaces_the_first_here_and_there(shop: Shop) -> None:
    account = await shop.account()
    first = await shop.save_card(account)
    second = await shop.save_card(account, MASTERCARD)
    found = await card(shop, account)
    assert found is not None
    assert found.brand == "mastercard"
    assert first != second
    assert attached(shop) == [second]


async def test_late_news_of_an_older_card_does_not_bring_it_back(shop: Shop) -> None:
    account = await shop.account()
    older = await payments.open_setup(shop.pool, shop.processor, account, **PAGES)
    old_setup = shop.control.pay(older.ref, GOOD)["setup_intent"]
    shop.control.advance(60)
    await shop.save_card(account, MASTERCARD)
    await payments.sync_setup(shop.pool, shop.processor, old_setup)
    found = await card(shop, account)
    assert found is not None
    assert found.brand == "mastercard"


async def test_a_card_is_removed_here_and_there(shop: Shop) -> None:
    account = await shop.account()
    await shop.save_card(account)
    shop.control.save_card(shop.stripe.account.customers.where()[0]["id"], MASTERCARD)
    await shop.automate(account)
    await payments.remove_card(shop.pool, shop.processor, account)
    assert await card(shop, account) is None
    assert attached(shop) == []
    rule = await shop.rule(account)
    assert (rule.enabled, rule.disabled_reason) == (False, "card_removed")
    with pytest.raises(payments.CardMissing):
        await payments.remove_card(shop.pool, shop.processor, account)


async def test_late_news_does_not_bring_a_removed_card_back(shop: Shop) -> None:
    account = await shop.account()
    intent = await shop.paid(account, 20, save_card=True)
    await shop.save_card(account)
    await payments.remove_card(shop.pool, shop.processor, account)
    for event in shop.control.events():
        await shop.receive(event)
    await shop.sync(intent)
    assert await card(shop, account) is None


async def test_a_card_stays_while_the_provider_cannot_forget_it(shop: Shop) -> None:
    account = await shop.account()
    await shop.save_card(account)
    shop.stripe.faults.add("rate_limit", times=99)
    with pytest.raises(payments.ProcessorUnavailable):
        await payments.remove_card(shop.pool, shop.processor, account)
    assert await card(shop, account) is not None


async def test_a_card_taken_away_in_the_dashboard_is_forgotten(shop: Shop) -> None:
    account = await shop.account()
    method = await shop.save_card(account)
    await shop.automate(account)
    await shop.stripe.client().v1.payment_methods.detach_async(method)
    assert await shop.receive(shop.events("payment_method.detached")[0]) == "card followed"
    assert await card(shop, account) is None
    assert (await shop.rule(account)).disabled_reason == "card_missing"


async def test_events_about_cards_that_are_not_in_use_change_nothing(shop: Shop) -> None:
    account = await shop.account()
    await shop.save_card(account)
    await shop.save_card(account, MASTERCARD)
    (attached_event, *_) = shop.events("payment_method.attached")
    assert await shop.receive(attached_event) == "no saved card of ours"
    assert await card(shop, account) is not None


async def test_a_renewed_card_shows_its_new_date(shop: Shop) -> None:
    account = await shop.account()
    method = await shop.save_card(account)
    at_stripe = shop.stripe.account.payment_methods.get(method)
    at_stripe["card"] = at_stripe["card"] | {"exp_year": 2039}
    shop.stripe.account.events.record("payment_method.automatically_updated", at_stripe)
    assert await shop.receive(shop.events("payment_method.automatically_updated")[0]) == "card followed"
    found = await card(shop, account)
    assert found is not None
    assert found.exp_year == 2039


async def test_a_customer_deleted_at_the_provider_can_save_a_card_again(shop: Shop) -> None:
    account = await shop.account()
    await shop.save_card(account)
    await shop.automate(account)
    await shop.stripe.client().v1.customers.delete_async(shop.stripe.account.customers.where()[0]["id"])
    await shop.save_card(account, MASTERCARD)
    found = await card(shop, account)
    assert found is not None
    assert found.brand == "mastercard"
    assert (await shop.rule(account)).disabled_reason == "card_missing"


async def test_two_organizations_have_two_cards(shop: Shop) -> None:
    first, second = await shop.account(), await shop.account()
    await shop.save_card(first)
    await shop.save_card(second, MASTERCARD)
    await payments.remove_card(shop.pool, shop.processor, first)
    assert await card(shop, first) is None
    assert await card(shop, second) is not None
