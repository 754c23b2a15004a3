"""A network and a service that misbehave, as the unmodified `stripe` package sees them."""

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import stripe

from tests.providers.stripe import API_KEY, Refusal, StandIn
from tests.providers.stripe_requests import open_session, until
from tests.providers.webhook_receiver import receiving

ROOT = Path(__file__).parents[2]


def _customers(stand_in: StandIn) -> int:
    return len(stand_in.account.customers.where())


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
async def test_a_dropped_connection_does_not_tell_what_was_done(
    stripe_stand_in: StandIn, when: str, made: int
) -> None:
    stripe_stand_in.faults.add("drop", when, method="POST", path="/v1/customers")

    with pytest.raises(stripe.APIConnectionError):
        await stripe_stand_in.client().v1.customers.create_async()

    assert _customers(stripe_stand_in) == made


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_packages_own_retry_makes_one_object(stripe_stand_in: StandIn, when: str) -> None:
    stripe_stand_in.faults.add("drop", when, path="/v1/customers", times=2)

    made = await stripe_stand_in.client(max_network_retries=2).v1.customers.create_async({"name": "A"})

    assert stripe_stand_in.account.customers.where()[0]["id"] == made.id
    assert _customers(stripe_stand_in) == 1
    assert ("idempotent-replayed" in made.last_response.headers) == (when == "after")


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
async def test_a_slow_answer_is_a_timeout(stripe_stand_in: StandIn, when: str, made: int) -> None:
    impatient = stripe_stand_in.client(http_client=stripe.HTTPXClient(timeout=0.2))
    stripe_stand_in.faults.add("slow", when, path="/v1/customers", seconds=600)

    with pytest.raises(stripe.APIConnectionError):
        await impatient.v1.customers.create_async({}, {"idempotency_key": "k"})
    assert _customers(stripe_stand_in) == made
    stripe_stand_in.faults.clear()

    await until(lambda: _customers(stripe_stand_in) == 1)  # what was slow before acting is done in the end
    await stripe_stand_in.client().v1.customers.create_async({}, {"idempotency_key": "k"})
    assert _customers(stripe_stand_in) == 1


async def test_over_the_rate_limit_nothing_is_done(stripe_stand_in: StandIn) -> None:
    customers = stripe_stand_in.client().v1.customers
    stripe_stand_in.faults.add("rate_limit")

    with pytest.raises(stripe.RateLimitError) as refused:
        await customers.create_async({}, {"idempotency_key": "k"})
    assert (refused.value.http_status, _customers(stripe_stand_in)) == (429, 0)

    await customers.create_async({}, {"idempotency_key": "k"})
    assert _customers(stripe_stand_in) == 1
    with pytest.raises(Refusal, match="never acted on"):
        stripe_stand_in.faults.add("rate_limit", "after")


async def test_an_error_before_acting_leaves_the_key_free(stripe_stand_in: StandIn) -> None:
    stripe_stand_in.faults.add("server_error")

    made = await stripe_stand_in.client(max_network_retries=1).v1.customers.create_async()

    assert stripe_stand_in.account.customers.where()[0]["id"] == made.id


async def test_an_error_after_acting_is_the_keys_answer_for_good(stripe_stand_in: StandIn) -> None:
    customers = stripe_stand_in.client(max_network_retries=2).v1.customers
    stripe_stand_in.faults.add("server_error", "after")

    for _ in range(2):
        with pytest.raises(stripe.APIError) as broken:
            await customers.create_async({"name": "A"}, {"idempotency_key": "k"})
        assert broken.value.http_status == 500

    assert broken.value.headers["idempotent-replayed"] == "true"
    assert _customers(stripe_stand_in) == 1


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
async def test_garbage_is_an_api_error(stripe_stand_in: StandIn, when: str, made: int) -> None:
    stripe_stand_in.faults.add("garbage", when)

    with pytest.raises(stripe.APIError, match="Invalid response body"):
        await stripe_stand_in.client().v1.customers.create_async()

    assert _customers(stripe_stand_in) == made


async def test_a_fault_befalls_only_what_it_names(stripe_stand_in: StandIn) -> None:
    client = stripe_stand_in.client().v1
    stripe_stand_in.faults.add("server_error", method="POST", path="/v1/refunds")

    await client.customers.create_async()
    await client.refunds.list_async()
    with pytest.raises(stripe.APIError):
        await client.refunds.create_async({"charge": "ch_1"})

    assert stripe_stand_in.faults.report() == []


async def test_the_stand_in_runs_alone() -> None:
    async with receiving() as receiver:
        command = [sys.executable, "-m", "tests.providers.stripe", "--port", "0"]
        command += ["--webhook-url", receiver.url, "--secret", "whsec_given"]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            lines = [(await process.stdout.readline()).decode() for _ in range(3)]
            settings = dict(line.strip().split("=", 1) for line in lines)
            http = stripe.HTTPXClient()
            client = stripe.StripeClient(
                settings["ANTIPHON_STRIPE_SECRET_KEY"],
                base_addresses={"api": settings["ANTIPHON_STRIPE_BASE_URL"]},
                http_client=http,
            )
            session = await open_session(client)
            await client.v1.customers.create_async()
            await until(lambda: bool(receiver.received))
            await http.close_async()
        finally:
            process.send_signal(signal.SIGTERM)
            code = await process.wait()

    assert settings["ANTIPHON_STRIPE_SECRET_KEY"] == API_KEY
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/c/pay/cs_test_\w+", session.url)
    assert receiver.event(0, "whsec_given").type == "customer.created"
    assert code == 0
