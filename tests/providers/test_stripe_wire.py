"""The wire: forms, keys, versions, errors, pages of lists, idempotency."""

import asyncio
from typing import Any

import httpx
import pytest
import stripe

from tests.providers.stripe import API_KEY, StandIn, forms
from tests.providers.stripe.collection import Json
from tests.providers.stripe_requests import charge_of, checkout, open_session, until

DAY = 24 * 3600


@pytest.fixture
async def http(stripe_stand_in: StandIn) -> Any:
    """Requests by hand, for what the package does not send."""
    async with httpx.AsyncClient(
        base_url=stripe_stand_in.url, headers={"authorization": f"Bearer {API_KEY}"}
    ) as client:
        yield client


def test_brackets_make_hashes_and_arrays() -> None:
    form = "a=1&b[c][d]=x%26y&b[e][0][f]=1&b[e][1][f]=2&g[]=u&g[]=v&h[10]=k&h[2]=j&i="

    assert forms.decode(form) == {
        "a": "1",
        "b": {"c": {"d": "x&y"}, "e": [{"f": "1"}, {"f": "2"}]},
        "g": ["u", "v"],
        "h": ["j", "k"],
        "i": "",
    }


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"amount": 500, "currency": "usd", "colour": "red"}, "colour", "parameter_unknown"),
        (
            {
                "amount": 500,
                "currency": "usd",
                "automatic_payment_methods": {"enabled": True, "colour": "red"},
            },
            "automatic_payment_methods[colour]",
            "parameter_unknown",
        ),
        ({"amount": 500}, "currency", "parameter_missing"),
        (
            {"amount": 500, "currency": "usd", "automatic_payment_methods": {"allow_redirects": "never"}},
            "automatic_payment_methods[enabled]",
            "parameter_missing",
        ),
        ({"amount": "5.5", "currency": "usd"}, "amount", "parameter_invalid_integer"),
        ({"amount": 500, "currency": "usd", "confirm": "perhaps"}, "confirm", None),
        ({"amount": 500, "currency": "usd", "setup_future_usage": "never"}, "setup_future_usage", None),
        ({"amount": 500, "currency": "usd", "customer": ""}, "customer", "parameter_invalid_empty"),
        ({"amount": 500, "currency": "usd", "customer": {"id": "a"}}, "customer", None),
        ({"amount": 500, "currency": "usd", "metadata": ["a"]}, "metadata", None),
        ({"amount": 500, "currency": "xyz"}, "currency", None),
        ({"amount": 49, "currency": "usd"}, "amount", "amount_too_small"),
        ({"amount": 100_000_000, "currency": "usd"}, "amount", "amount_too_large"),
        ({"amount": 500, "currency": "usd", "customer": "cus_nobody"}, "customer", "resource_missing"),
        ({"amount": 500, "currency": "usd", "off_session": True}, "off_session", None),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(
    stripe_stand_in: StandIn, params: Json, param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await stripe_stand_in.client().v1.payment_intents.create_async(params)

    error = refused.value
    assert (error.http_status, error.param, error.code) == (400, param, code)
    assert error.request_id.startswith("req_")
    assert stripe_stand_in.account.payment_intents.where() == []


async def test_a_parameter_in_an_array_is_refused_by_its_whole_name(stripe_stand_in: StandIn) -> None:
    params = checkout()
    params["line_items"][0]["price_data"]["colour"] = "red"

    with pytest.raises(stripe.InvalidRequestError) as refused:
        await stripe_stand_in.client().v1.checkout.sessions.create_async(params)

    assert refused.value.param == "line_items[0][price_data][colour]"


async def test_a_parameter_that_the_stand_in_would_ignore_is_refused_loudly(stripe_stand_in: StandIn) -> None:
    with pytest.raises(stripe.APIError, match=r"does not implement 'shipping\.name'") as refused:
        await stripe_stand_in.client().v1.payment_intents.create_async(
            {"amount": 500, "currency": "usd", "shipping": {"name": "A", "address": {"line1": "B"}}}
        )

    assert refused.value.http_status == 501


async def test_a_missing_object_is_404(stripe_stand_in: StandIn) -> None:
    with pytest.raises(stripe.InvalidRequestError) as missing:
        await stripe_stand_in.client().v1.payment_intents.retrieve_async("pi_nothing")

    error = missing.value
    assert (error.http_status, error.code, error.param) == (404, "resource_missing", "intent")
    assert error.user_message == "No such payment_intent: 'pi_nothing'"


async def test_an_address_that_does_not_exist_is_404(http: httpx.AsyncClient) -> None:
    for answer in (await http.get("/v1/unicorns"), await http.put("/v1/customers")):
        assert answer.status_code == 404
        assert answer.json()["error"]["message"].startswith("Unrecognized request URL")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"authorization": ""}, "You did not provide an API key."),
        ({"authorization": "Basic ?"}, "You did not provide an API key."),
        ({"authorization": "Bearer sk_test_somebody_else_1234"}, "Invalid API Key provided: sk_test_*"),
        ({"authorization": "Bearer pk_test_1"}, "This API call cannot be made with a publishable API key."),
    ],
)
async def test_without_the_secret_key_nothing_is_done(
    http: httpx.AsyncClient, headers: dict[str, str], message: str
) -> None:
    answer = await http.get("/v1/customers", headers=headers)

    assert answer.status_code == 401
    assert answer.json()["error"]["message"].startswith(message)
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_the_package_raises_an_authentication_error(stripe_stand_in: StandIn) -> None:
    stripe_stand_in.api_key = "sk_test_of_another_account"

    with pytest.raises(stripe.AuthenticationError):
        await stripe_stand_in.client().v1.customers.list_async()


async def test_the_key_may_come_by_basic_authentication(stripe_stand_in: StandIn) -> None:
    async with httpx.AsyncClient(auth=(API_KEY, "")) as client:
        assert (await client.get(f"{stripe_stand_in.url}/v1/customers")).status_code == 200


async def test_only_the_version_of_the_package_is_spoken(http: httpx.AsyncClient) -> None:
    spoken = await http.get("/v1/customers")
    assert spoken.headers["stripe-version"] == stripe.api_version

    for version in ("2020-08-27", "soon"):
        answer = await http.get("/v1/customers", headers={"stripe-version": version})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == f"Invalid Stripe API version: {version}"


async def test_lists_are_walked_newest_first_without_gaps(stripe_stand_in: StandIn) -> None:
    customers = stripe_stand_in.client().v1.customers
    made = [(await customers.create_async({"name": str(number)})).id for number in range(7)]

    first = await customers.list_async({"limit": 3})
    walked = [one.id async for one in first.auto_paging_iter()]
    back = await customers.list_async({"ending_before": made[1], "limit": 2})

    assert (first.has_more, first.url) == (True, "/v1/customers")
    assert walked == made[::-1]
    assert [one.id for one in back.data] == [made[3], made[2]]
    assert back.has_more


async def test_lists_are_filtered_by_time_and_fields(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client().v1
    now = stripe_stand_in.control.advance(-3 * DAY)
    old = await client.customers.create_async({"email": "a@b.example"})
    stripe_stand_in.control.advance(3 * DAY)
    new = await client.customers.create_async({"email": "a@b.example"})
    await client.customers.create_async({"email": "c@d.example"})

    late = await client.customers.list_async({"created": {"gte": now + DAY}, "email": "a@b.example"})
    early = await client.customers.list_async({"created": {"lt": now + DAY}})
    exact = await client.customers.list_async({"created": old.created})

    assert [one.id for one in late.data] == [new.id]
    assert [one.id for one in early.data] == [one.id for one in exact.data] == [old.id]


@pytest.mark.parametrize("limit", [0, 101])
async def test_a_page_has_1_to_100_objects(stripe_stand_in: StandIn, limit: int) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await stripe_stand_in.client().v1.charges.list_async({"limit": limit})

    assert refused.value.param == "limit"


async def test_a_cursor_must_exist(stripe_stand_in: StandIn) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await stripe_stand_in.client().v1.charges.list_async({"starting_after": "ch_nothing"})

    assert (refused.value.param, refused.value.code) == ("starting_after", "resource_missing")


@pytest.mark.parametrize("path", ["amount_total", "payment_intent.amount", "a.b.c.d.e"])
async def test_what_is_no_reference_cannot_be_expanded(stripe_stand_in: StandIn, path: str) -> None:
    client = stripe_stand_in.client()
    session = await open_session(client)
    stripe_stand_in.control.pay(session.id)

    with pytest.raises(stripe.InvalidRequestError, match="expand"):
        await client.v1.checkout.sessions.retrieve_async(session.id, {"expand": [path]})


async def test_nothing_is_done_that_could_not_be_answered(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client().v1
    customer = await client.customers.create_async()
    card = stripe_stand_in.control.save_card(customer.id)["id"]
    wrong = charge_of(customer.id, card)
    no_way_back = {name: value for name, value in wrong.items() if name != "automatic_payment_methods"}

    for params in (
        wrong | {"expand": ["latest_charge.colour"]},
        wrong | {"allowed_payment_method_types": ["us_bank_account"]},
        wrong | {"payment_method": "pm_nothing"},
        no_way_back,
    ):
        with pytest.raises(stripe.InvalidRequestError):
            await client.payment_intents.create_async(params)

    assert stripe_stand_in.account.payment_intents.where() == []


async def test_a_new_object_is_answered_expanded(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client().v1
    customer = await client.customers.create_async()
    card = stripe_stand_in.control.save_card(customer.id)["id"]

    paid = await client.payment_intents.create_async(
        charge_of(customer.id, card, expand=["latest_charge.refunds", "customer"])
    )

    assert (paid.latest_charge.refunds.data, paid.customer.id) == ([], customer.id)


async def test_an_expanded_answer_leaves_the_object_as_it_was(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    session = await open_session(client)
    stripe_stand_in.control.pay(session.id)

    params = {"expand": ["payment_intent.latest_charge", "line_items"]}
    expanded = await client.v1.checkout.sessions.retrieve_async(session.id, params)
    plain = await client.v1.checkout.sessions.retrieve_async(session.id)

    assert expanded.payment_intent.latest_charge.amount == expanded.line_items.data[0].amount_total == 2000
    assert plain.payment_intent == expanded.payment_intent.id
    assert "line_items" not in plain


async def test_a_repeated_request_is_answered_and_not_done_again(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    customer = await client.v1.customers.create_async()
    card = stripe_stand_in.control.save_card(customer.id)["id"]
    once = {"idempotency_key": "top-up-1"}

    first = await client.v1.payment_intents.create_async(charge_of(customer.id, card), once)
    again = await client.v1.payment_intents.create_async(charge_of(customer.id, card), once)

    assert first.id == again.id
    assert len(stripe_stand_in.account.charges.where()) == 1
    assert "idempotent-replayed" not in first.last_response.headers
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert again.last_response.headers["original-request"] == first.last_response.request_id
    assert again.last_response.request_id != first.last_response.request_id
    (event,) = stripe_stand_in.control.events("payment_intent.succeeded")
    assert event["request"] == {"id": first.last_response.request_id, "idempotency_key": "top-up-1"}


async def test_a_declined_payment_is_declined_again_under_its_key(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client()
    customer = await client.v1.customers.create_async()
    card = stripe_stand_in.control.save_card(customer.id, "pm_card_chargeCustomerFail")["id"]
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            await client.v1.payment_intents.create_async(
                charge_of(customer.id, card), {"idempotency_key": "k"}
            )
        stripe_stand_in.control.turn_card(card, "pm_card_visa")

    assert declined.value.headers["idempotent-replayed"] == "true"
    assert len(stripe_stand_in.account.charges.where()) == 1


async def test_the_order_of_parameters_is_not_part_of_a_request(http: httpx.AsyncClient) -> None:
    key = {"idempotency-key": "k"}
    first = await http.post("/v1/customers", data={"name": "A", "email": "a@b.example"}, headers=key)
    again = await http.post("/v1/customers", data={"email": "a@b.example", "name": "A"}, headers=key)

    assert first.json()["id"] == again.json()["id"]


async def test_a_key_is_for_one_body_and_one_endpoint(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client().v1
    once = {"idempotency_key": "k"}
    await client.customers.create_async({"name": "A"}, once)

    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        await client.customers.create_async({"name": "B"}, once)
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        await client.payment_intents.create_async({"amount": 500, "currency": "usd"}, once)

    assert len(stripe_stand_in.account.customers.where()) == 1


async def test_a_key_is_free_again_after_a_day_or_a_request_that_was_not_read(
    stripe_stand_in: StandIn,
) -> None:
    customers = stripe_stand_in.client().v1.customers
    once = {"idempotency_key": "k"}
    with pytest.raises(stripe.InvalidRequestError):
        await customers.create_async({"colour": "red"}, once)
    first = await customers.create_async({"name": "A"}, once)

    stripe_stand_in.control.advance(DAY)
    second = await customers.create_async({"name": "A"}, once)

    assert first.id != second.id


async def test_a_key_in_use_is_a_conflict(stripe_stand_in: StandIn) -> None:
    customers = stripe_stand_in.client().v1.customers
    once = {"idempotency_key": "k"}
    stripe_stand_in.faults.add("slow", path="/v1/customers", seconds=600)
    slow = asyncio.create_task(customers.create_async({"name": "A"}, once))
    await until(lambda: not stripe_stand_in.faults.report())

    with pytest.raises(stripe.APIError) as conflict:
        await customers.create_async({"name": "A"}, once)
    stripe_stand_in.faults.clear()

    assert (conflict.value.http_status, conflict.value.error.code) == (409, "idempotency_key_in_use")
    assert (await slow).name == "A"
    assert len(stripe_stand_in.account.customers.where()) == 1
