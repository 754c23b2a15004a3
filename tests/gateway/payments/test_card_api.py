"""The saved card and automatic top-ups over HTTP."""

from typing import Any

import pytest

from tests.factories import until
from tests.gateway.payments.shop import Shop
from tests.providers.stripe.cards import DECLINED_LATER

NOTHING: dict[str, Any] = {"object": "payment_method", "card": None}
CARD = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034}
RULE = {"enabled": True, "threshold_usd": "5", "amount_usd": "20"}


async def test_a_card_is_saved_shown_and_forgotten(shop: Shop) -> None:
    assert await shop.read("/v1/payment_method") == NOTHING
    answer = await shop.call("POST", "/v1/payment_method", json={"success_url": "https://band.example/"})
    assert answer.status_code == 201
    (page,) = shop.stripe.account.sessions.where(mode="setup")
    assert (answer.json()["object"], answer.json()["url"]) == ("payment_method_setup", page["url"])
    assert page["success_url"] == "https://band.example/"
    shop.stripe.control.pay(page["id"])
    await shop.stripe.deliveries.settled()
    assert await shop.read("/v1/payment_method") == NOTHING | {"card": CARD}
    answer = await shop.call("DELETE", "/v1/payment_method")
    assert (answer.status_code, answer.json()) == (200, NOTHING)
    assert await shop.read("/v1/payment_method") == NOTHING
    answer = await shop.call("DELETE", "/v1/payment_method")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_a_top_up_saves_the_card_if_asked(shop: Shop) -> None:
    shop.pay(await shop.top_up(body={"save_card": True}))
    await shop.stripe.deliveries.settled()
    assert (await shop.read("/v1/payment_method"))["card"] == CARD


async def test_automatic_top_ups_are_off_at_first(shop: Shop) -> None:
    off = await shop.read("/v1/auto_topup")
    assert (off["object"], off["enabled"], off["threshold_usd"], off["disabled_reason"]) == (
        "auto_topup",
        False,
        None,
        None,
    )
    answer = await shop.call("PUT", "/v1/auto_topup", json={"enabled": False})
    assert (answer.status_code, answer.json()) == (200, off)


async def test_automatic_top_ups_need_a_card(shop: Shop) -> None:
    answer = await shop.call("PUT", "/v1/auto_topup", json=RULE)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "no_saved_card")
    assert error["suggestion"] == "POST /v1/payment_method"


async def test_a_low_balance_is_topped_up_by_itself(shop: Shop) -> None:
    await shop.save_card()
    answer = await shop.call("PUT", "/v1/auto_topup", json=RULE | {"daily_cap_usd": 60})
    assert answer.status_code == 200
    assert answer.json() == {
        "object": "auto_topup",
        "enabled": True,
        "threshold_usd": "5.000000000",
        "amount_usd": "20.000000000",
        "daily_cap_usd": "60.000000000",
        "monthly_cap_usd": None,
        "failures": 0,
        "next_try_at": None,
        "disabled_reason": None,
    }

    async def topped_up() -> bool:
        return await shop.posted() == 20_000_000_000

    await until(topped_up)
    (payment,) = (await shop.read("/v1/topups"))["data"]
    assert (payment["kind"], payment["status"], payment["url"]) == ("automatic", "paid", None)


async def test_a_declined_automatic_top_up_is_told(shop: Shop) -> None:
    await shop.save_card(card=DECLINED_LATER)
    await shop.call("PUT", "/v1/auto_topup", json=RULE)

    async def failed() -> bool:
        return bool((await shop.read("/v1/auto_topup"))["failures"] == 1)

    await until(failed)
    rule = await shop.read("/v1/auto_topup")
    assert rule["enabled"]
    assert rule["next_try_at"] is not None
    (payment,) = (await shop.read("/v1/topups"))["data"]
    assert (payment["status"], payment["error"]["code"]) == ("failed", "generic_decline")


async def test_what_is_left_out_stays_and_null_lifts_a_cap(shop: Shop) -> None:
    await shop.save_card()
    off = RULE | {"enabled": False, "daily_cap_usd": "60", "monthly_cap_usd": "200"}
    await shop.call("PUT", "/v1/auto_topup", json=off)
    answer = await shop.call("PUT", "/v1/auto_topup", json={"amount_usd": "30", "daily_cap_usd": None})
    found = answer.json()
    assert (found["enabled"], found["amount_usd"], found["threshold_usd"]) == (
        False,
        "30.000000000",
        "5.000000000",
    )
    assert (found["daily_cap_usd"], found["monthly_cap_usd"]) == (None, "200.000000000")
    assert await shop.read("/v1/auto_topup") == found


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"enabled": True}, "threshold_usd"),
        ({"threshold_usd": "5"}, "amount_usd"),
        ({"daily_cap_usd": "5"}, "threshold_usd"),
        (RULE | {"amount_usd": "0.50"}, "amount_usd"),
        (RULE | {"amount_usd": None}, "amount_usd"),
        (RULE | {"threshold_usd": "x"}, "threshold_usd"),
        (RULE | {"daily_cap_usd": "19"}, "daily_cap_usd"),
        (RULE | {"monthly_cap_usd": -1}, "monthly_cap_usd"),
        (RULE | {"enabled": None}, "enabled"),
        (RULE | {"treshold_usd": "5"}, "treshold_usd"),
    ],
)
async def test_rules_that_make_no_sense_are_named(shop: Shop, body: dict[str, Any], param: str) -> None:
    await shop.save_card()
    answer = await shop.call("PUT", "/v1/auto_topup", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not (await shop.read("/v1/auto_topup"))["enabled"]
