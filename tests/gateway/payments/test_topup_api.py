"""Top-ups over HTTP: asked for, paid at Stripe, found on the balance; refused in one clear sentence."""

import asyncio
from typing import Any

import pytest

from gateway.auth.principal import Scope
from tests.gateway.api.installation import Installation
from tests.gateway.payments.shop import Shop

USD20 = "20.000000000"


async def test_a_top_up_is_paid_and_on_the_balance(shop: Shop) -> None:
    top_up = await shop.top_up("20")
    assert top_up["object"] == "topup"
    assert (top_up["kind"], top_up["status"], top_up["amount_usd"]) == ("checkout", "pending", USD20)
    assert top_up["url"].startswith(shop.stripe.url)
    assert top_up["receipt_url"] is None
    shop.pay(top_up)
    await shop.stripe.deliveries.settled()
    assert await shop.balance() == USD20
    paid = await shop.read(f"/v1/topups/{top_up['id']}")
    assert (paid["status"], paid["url"], paid["error"]) == ("paid", None, None)
    assert paid["receipt_url"].startswith(f"{shop.stripe.url}/receipts/")
    assert paid["finished_at"] > paid["created_at"]


async def test_songs_can_be_ordered_with_what_was_paid(shop: Shop) -> None:
    assert (await shop.customer.submit()).status_code == 402
    shop.pay(await shop.top_up("1"))
    await shop.stripe.deliveries.settled()
    assert (await shop.customer.submit()).status_code == 202


async def test_without_any_event_reading_the_top_up_is_enough(shop: Shop) -> None:
    shop.stripe.deliveries.usual(lose=True)
    top_up = await shop.top_up()
    shop.pay(top_up)
    assert (await shop.read(f"/v1/topups/{top_up['id']}"))["status"] == "paid"
    assert await shop.balance() == USD20


@pytest.mark.parametrize(
    ("amount", "shown"), [("5", "5"), (5, "5"), (5.25, "5.25"), ("5.50", "5.5"), ("1", "1")]
)
async def test_amounts_are_texts_or_numbers(shop: Shop, amount: object, shown: str) -> None:
    top_up = await shop.top_up(amount)
    assert float(top_up["amount_usd"]) == float(shown)
    session = shop.stripe.account.sessions.get(shop.session_of(top_up))
    assert session["amount_total"] == round(float(shown) * 100)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "amount_usd"),
        ({"amount_usd": None}, "amount_usd"),
        ({"amount_usd": "free"}, "amount_usd"),
        ({"amount_usd": True}, "amount_usd"),
        ({"amount_usd": ["5"]}, "amount_usd"),
        ({"amount_usd": "-5"}, "amount_usd"),
        ({"amount_usd": "0.99"}, "amount_usd"),
        ({"amount_usd": "5.001"}, "amount_usd"),
        ({"amount_usd": "10000.01"}, "amount_usd"),
        ({"amount_usd": "9" * 40}, "amount_usd"),
        ({"amount_usd": "20" + " " * 40 + ".5"}, "amount_usd"),
        ({"amount_usd": "5", "amount": 5}, "amount"),
        ({"amount_usd": "5", "save_card": "yes"}, "save_card"),
        ({"amount_usd": "5", "success_url": "javascript:alert(1)"}, "success_url"),
        ({"amount_usd": "5", "success_url": "https://a.example/ b"}, "success_url"),
        ({"amount_usd": "5", "success_url": "https://"}, "success_url"),
        ({"amount_usd": "5", "success_url": "http://[::1"}, "success_url"),
        ({"amount_usd": "5", "cancel_url": "https://a.example/" + "a" * 2048}, "cancel_url"),
        ({"amount_usd": "5", "cancel_url": 5}, "cancel_url"),
    ],
)
async def test_what_cannot_be_used_is_named(shop: Shop, body: dict[str, Any], param: str) -> None:
    answer = await shop.call("POST", "/v1/topups", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["charged"], error["retryable"]) == (param, False, False)
    assert shop.stripe.account.sessions.where() == []


async def test_the_page_leads_to_a_page_of_ours_unless_told_otherwise(shop: Shop) -> None:
    session = shop.stripe.account.sessions.get(shop.session_of(await shop.top_up()))
    for name in ("success_url", "cancel_url"):
        assert session[name].startswith(str(shop.installation.http.base_url))
        page = await shop.installation.http.get(session[name])
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "You can close this page." in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
    theirs = {
        "success_url": "https://band.example/ok?s={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://b.example/",
    }
    session = shop.stripe.account.sessions.get(shop.session_of(await shop.top_up(body=theirs)))
    assert {name: session[name] for name in theirs} == theirs


async def test_the_same_key_and_body_are_one_top_up(shop: Shop) -> None:
    again = {"headers": {"idempotency-key": "k1"}}
    first = await shop.top_up("20", **again)
    assert [await shop.top_up("20", **again) for _ in range(2)] == [first, first]
    assert len(shop.stripe.account.sessions.where()) == 1
    other = await shop.call("POST", "/v1/topups", json={"amount_usd": "21"}, **again)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    bad = await shop.call(
        "POST", "/v1/topups", json={"amount_usd": "20"}, headers={"idempotency-key": "k" * 256}
    )
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_requests_at_once_with_one_key_are_one_top_up(shop: Shop) -> None:
    made = await asyncio.gather(*(shop.top_up(headers={"idempotency-key": "k"}) for _ in range(10)))
    assert len({one["id"] for one in made}) == 1
    assert len({one["url"] for one in made}) == 1
    assert len(shop.stripe.account.sessions.where()) == 1


async def test_the_options_are_what_can_be_paid(shop: Shop) -> None:
    options = await shop.read("/v1/topups/options")
    assert options["currency"] == "usd"
    assert [float(usd) for usd in options["presets_usd"]] == [5, 10, 20, 50, 100]
    assert (options["min_usd"], options["max_usd"]) == ("1.000000000", "10000.000000000")
    for usd in (*options["presets_usd"], options["min_usd"], options["max_usd"]):
        await shop.top_up(usd)


async def test_top_ups_are_listed_newest_first_in_pages(shop: Shop) -> None:
    made = [(await shop.top_up(str(usd)))["id"] for usd in range(1, 6)]
    first = await shop.read("/v1/topups?limit=3")
    assert [one["id"] for one in first["data"]] == made[:1:-1]
    assert (first["has_more"], first["next_cursor"]) == (True, made[2])
    second = await shop.read(f"/v1/topups?limit=3&cursor={first['next_cursor']}")
    assert [one["id"] for one in second["data"]] == made[1::-1]
    assert (second["has_more"], second["next_cursor"]) == (False, None)
    for query, param in (("limit=0", "limit"), ("limit=101", "limit"), ("cursor=x", "cursor")):
        answer = await shop.call("GET", f"/v1/topups?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_top_ups_of_others_are_not_there(shop: Shop) -> None:
    mine = await shop.top_up()
    stranger = await shop.installation.customer()
    for name in (mine["id"], "0" * 32, "nonsense"):
        answer = await stranger.get(f"/v1/topups/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert (await stranger.get("/v1/topups")).json()["data"] == []


async def test_a_declined_card_is_told(shop: Shop) -> None:
    top_up = await shop.top_up()
    shop.stripe.control.decline(shop.session_of(top_up))
    found = await shop.read(f"/v1/topups/{top_up['id']}")
    assert (found["status"], found["url"]) == ("pending", top_up["url"])
    assert found["error"] == {"code": "generic_decline", "message": "Your card was declined."}


async def test_stripe_being_away_is_503_and_worth_another_try(shop: Shop) -> None:
    shop.stripe.faults.add("rate_limit", times=9)
    answer = await shop.call("POST", "/v1/topups", json={"amount_usd": "5"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "5"
    assert "x-should-retry" not in answer.headers


CALLS = [
    ("GET", "/v1/topups/options"),
    ("GET", "/v1/topups"),
    ("POST", "/v1/topups"),
    ("GET", "/v1/topups/" + "0" * 32),
    ("GET", "/v1/payment_method"),
    ("POST", "/v1/payment_method"),
    ("DELETE", "/v1/payment_method"),
    ("GET", "/v1/auto_topup"),
    ("PUT", "/v1/auto_topup"),
]
BODY = {"POST": {"json": {"amount_usd": "5"}}, "PUT": {"json": {}}}


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_only_live_keys_of_the_organization_with_the_scope_move_money(
    shop: Shop, method: str, path: str
) -> None:
    keys = {
        "'billing'": await shop.customer.key(scopes=[Scope.GENERATE, Scope.READ]),
        "a test key moves no money": shop.customer.test_key,
        "belongs to a project": await shop.customer.key(project_id=await shop.customer.project("demo")),
    }
    for words, key in keys.items():
        answer = await shop.call(method, path, key=key, **BODY.get(method, {}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_denied")
        assert words in answer.json()["error"]["message"]
    assert (await shop.installation.http.request(method, path)).status_code == 401
    allowed = await shop.call(
        method, path, key=await shop.customer.key(scopes=[Scope.BILLING]), **BODY.get(method, {})
    )
    assert allowed.status_code in {200, 201, 400, 404}


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_without_a_stripe_key_the_answer_says_what_to_set(
    without_payments: Installation, method: str, path: str
) -> None:
    customer = await without_payments.customer()
    answer = await without_payments.http.request(
        method, path, headers=customer.headers(), **BODY.get(method, {})
    )
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "false")
    error = answer.json()["error"]
    assert (error["code"], error["retryable"]) == ("payments_unavailable", False)
    assert "ANTIPHON_STRIPE_SECRET_KEY" in error["message"]


async def test_without_a_stripe_key_songs_are_made_as_ever(without_payments: Installation) -> None:
    customer = await without_payments.customer()
    assert (await customer.submit()).status_code == 202
    assert (await customer.get("/v1/balance")).status_code == 200
