"""A stateful stand-in for Stripe: API, checkout page and signed webhooks, over a real socket.

It speaks Stripe's wire format, in the API version of the `stripe` package that is installed, so that the
unmodified package drives it. All is kept in memory. It refuses what Stripe refuses, and answers 501 to a
parameter that Stripe knows and that it does not act on.

In a test:

    from tests.providers.stripe import StandIn, running

    @pytest.fixture
    async def stripe_stand_in() -> AsyncIterator[StandIn]:
        async with running() as stand_in:
            yield stand_in

    async def test_a_payment(stripe_stand_in: StandIn) -> None:
        secret = stripe_stand_in.deliveries.send_to("http://127.0.0.1:1234/webhooks/stripe")
        client = stripe_stand_in.client()               # or your own, with stripe_stand_in.url and .api_key
        session = await client.v1.checkout.sessions.create_async({...})
        stripe_stand_in.control.pay(session.id)         # the customer presses Pay
        await stripe_stand_in.deliveries.settled()      # all events were delivered once

The controls, all of them also as `POST /_control/{room}/{method}` with the arguments as a JSON object:

    control (room "payments")
        pay(session, card), decline(session), expire(session)    on the checkout page
        settle(payment)                                          one by bank account, days later
        save_card(customer, card), turn_card(method, card)       a saved card; make it fail later
        authenticate(intent, ok=)                                on the bank's page
        refund(payment, amount, pending=), settle_refund(re), fail_refund(re)     in the dashboard
        dispute(payment, amount, reason=, inquiry=), end_dispute(du, "won" | "lost" | "escalated" | "dropped")
        advance(seconds)                                         Stripe's clock: expiry, retries, days late
        events(type), deliver(event, copies=, at_once=, forged=, age_s=, alter=)
    deliveries
        send_to(url, secret)                                     returns the secret
        hold(), release(reverse=, copies=), drop()               back, in reverse, twice, never
        usual(copies=, delay_s=, lose=)                          from now on
        settled(), retries(), report()
    faults
        add("slow" | "drop" | "rate_limit" | "server_error" | "garbage", "before" | "after",
            method=, path=, times=, seconds=)                    before or after acting
        clear(), report()

`account` is the state itself: `account.customers`, `.sessions`, `.payment_intents`, `.charges`, `.refunds`,
`.disputes`, `.balance`, `.events`, each with `get(id)` and `where(field=value)`; objects are plain
dictionaries as they go over the wire. The test cards are in `cards`: GOOD, DECLINED, NO_FUNDS,
DECLINED_LATER, ASKS_ONCE, ASKS_ALWAYS, REFUND_PENDS, REFUND_FAILS.

Alone, for development; people pay at the session's `url`:

    python -m tests.providers.stripe --port 12111 \
        --webhook-url http://127.0.0.1:8000/webhooks/stripe --secret whsec_of_ours
"""

from tests.providers.stripe.refusals import Refusal
from tests.providers.stripe.running import API_KEY, StandIn, running, served

__all__ = ["API_KEY", "Refusal", "StandIn", "running", "served"]
