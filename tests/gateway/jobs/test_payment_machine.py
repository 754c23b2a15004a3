"""Random lives with a payment provider whose events come twice, in any order, late or never."""

import contextlib
import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

import billing
from billing import payments
from gateway.embedded import EmbeddedPostgres
from tests.billing import till
from tests.billing.payments.shop import PAGES, Json, Shop, open_shop
from tests.factories import USD
from tests.gateway.jobs.test_money_machine import MoneyMachine
from tests.providers.stripe import Refusal

CENT = USD // 100
ELSEWHERE = {"known already", "about nothing that we know"}
"""What an event comes to that nobody looked into."""
cents = st.sampled_from([1, 50, 100])
NOT_TAKEN = ("warning_", "prevented")


class Order(msgspec.Struct):
    """A page on which a customer may pay."""

    payment: payments.Payment
    intent: str | None = None
    """Once it is paid."""


class PaymentMachine(MoneyMachine):
    """The money comes from the stand-in; the model looks at what that has in store, not at what was sent."""

    shop: Shop

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[Order] = []

    async def _open_gateway(self) -> None:
        await super()._open_gateway()
        self.shop = await self.exit.enter_async_context(open_shop(self.dsn))
        await self._limit("organization", 0, "month", None)
        await self._limit("key", 1, "day", None)
        await self._change_price(2 * CENT)
        self.price = 2 * CENT
        for _ in range(2):
            await self._order(1)
        self.orders[0].intent = self.shop.pay(self.orders[0].payment)

    async def _close_gateway(self) -> None:
        """What nobody was told of is found by comparing; then nothing is left to find."""
        compared = [await self._reconcile() for _ in range(2)]
        assert compared[0].agrees
        assert [one for one in compared[1].differences if one.problem != "unfinished"] == []
        for order in self.orders:
            self._follow_payment(order.intent)
        while await self._in_books(till.sweep) + await self._in_books(till.collect):
            pass
        while self.ledger.sweep() + self.ledger.collect():
            pass
        account = await self.bench.jobs.balance(self.keys[0])
        purse = self.ledger.purses[0]
        assert (account.posted_nano, account.owed_nano) == (purse.posted, purse.owed)
        await super()._close_gateway()

    async def _reconcile(self) -> payments.Reconciliation:
        return await payments.reconcile(self.shop.pool, self.shop.processor, since=datetime.now(UTC))

    async def _in_books(self, step: Any) -> Any:
        async with self.pool.acquire() as conn:
            return await step(conn)

    @rule(nano=st.sampled_from([2 * CENT, CENT // 3]))
    def change_price(self, nano: int) -> None:
        self.price = nano
        self.runner.run(self._change_price(nano))

    @rule(limit=st.sampled_from([None, None, USD]), period=st.sampled_from(billing.BUDGET_PERIODS))
    def limit(self, limit: int | None, period: str) -> None:
        self.runner.run(self._limit("project", 0, period, limit))

    @rule(usd=st.sampled_from([1, 5]))
    def order_credit(self, usd: int) -> None:
        self.runner.run(self._order(usd))

    async def _order(self, usd: int) -> None:
        order = payments.TopUpOrder(account_id=self.organization_id, amount_nano=usd * USD, **PAGES)
        self.orders.append(Order(await payments.start_top_up(self.shop.pool, self.shop.processor, order)))

    @precondition(lambda self: any(order.intent is None for order in self.orders))
    @rule(is_told=st.booleans())
    def pay(self, *, is_told: bool) -> None:
        """Press the button; the provider may say so at once, later, or never."""
        order = next(order for order in self.orders if order.intent is None)
        order.intent = self.shop.pay(order.payment)
        if is_told:
            self._hear([self.shop.events("payment_intent.succeeded")[-1]])

    @precondition(lambda self: self._paid())
    @rule(data=st.data(), what=st.sampled_from(["refund", "dispute", "dispute", "ask"]), amount=cents)
    def take_back(self, data: st.DataObject, what: str, amount: int) -> None:
        """In the dashboard, or by a bank; if there is still so much of the payment."""
        intent = data.draw(st.sampled_from(self._paid()))
        with contextlib.suppress(Refusal):
            if what == "refund":
                self.shop.control.refund(intent, amount, pending=data.draw(st.booleans()))
            else:
                self.shop.control.dispute(intent, amount, inquiry=what == "ask")

    @precondition(lambda self: self._open_objects())
    @rule(data=st.data(), end=st.sampled_from(["won", "lost", "escalated", "dropped"]))
    def decide(self, data: st.DataObject, end: Any) -> None:
        """How a dispute, or a refund under way, came out."""
        ref = data.draw(st.sampled_from(self._open_objects()))
        with contextlib.suppress(Refusal):
            if ref.startswith("re_"):
                fails = end in {"lost", "dropped"}
                (self.shop.control.fail_refund if fails else self.shop.control.settle_refund)(ref)
            else:
                self.shop.control.end_dispute(ref, end)

    @precondition(lambda self: self.shop.control.events())
    @rule(data=st.data(), count=st.integers(1, 5))
    def hear_from_the_provider(self, data: st.DataObject, count: int) -> None:
        """Of anything that ever happened, in any order, and again."""
        known = self.shop.control.events()
        places = data.draw(st.lists(st.integers(0, len(known) - 1), min_size=count, max_size=count))
        self._hear([known[place] for place in places])

    @precondition(lambda self: self._paid())
    @rule(data=st.data())
    def come_back_from_the_page(self, data: st.DataObject) -> None:
        """The customer's browser is as good a messenger as any."""
        intent = data.draw(st.sampled_from(self._paid()))
        self.runner.run(self.shop.sync(intent))
        self._follow_payment(intent)

    @precondition(lambda self: self._paid())
    @rule(data=st.data(), amount=st.none() | cents, force=st.booleans())
    def order_a_refund(self, data: st.DataObject, amount: int | None, *, force: bool) -> None:
        order = data.draw(st.sampled_from([order for order in self.orders if order.intent]))
        if ("top_up", order.intent) not in self.ledger.booked:
            with pytest.raises(payments.PaymentRefused):
                self.runner.run(self._refund(order.payment.id, amount, force=force))
            return
        self._follow_payment(order.intent)
        owed, free = self.ledger.purses[0].owed, self.ledger.purses[0].free
        with contextlib.suppress(payments.PaymentRefused, payments.ProcessorRefused):
            done = self.runner.run(self._refund(order.payment.id, amount, force=force))
            assert force or done.amount_nano <= free
        self._follow_payment(order.intent)
        assert force or self.ledger.purses[0].owed == owed

    async def _refund(
        self, payment_id: uuid.UUID, amount: int | None, *, force: bool
    ) -> payments.RefundOrder:
        nano = None if amount is None else amount * CENT
        return await payments.refund_payment(
            self.shop.pool, self.shop.processor, payment_id, amount_nano=nano, force=force
        )

    def _hear(self, events: list[Json]) -> None:
        for event in events:
            if self.runner.run(self.shop.receive(event)) not in ELSEWHERE:
                about = event["data"]["object"]
                is_intent = event["type"].startswith("payment_intent.")
                self._follow_payment(about["id" if is_intent else "payment_intent"])

    def _follow_payment(self, intent: str | None) -> None:
        """Book in the model what stands at the provider; objects as it lists them, the newest first."""
        if intent not in self._paid():
            return
        store = self.shop.stripe.account
        received = store.payment_intents.get(intent)["amount_received"]
        self.ledger.receive("top_up", 0, received * CENT, intent)
        for refund in store.refunds.where(payment_intent=intent):
            if refund["status"] != "failed":
                self.ledger.take_back("payment_refund", 0, refund["amount"] * CENT, refund["id"], intent)
            elif ("payment_refund", refund["id"]) in self.ledger.booked:
                self.ledger.receive("payment_refund_failed", 0, refund["amount"] * CENT, refund["id"])
        for dispute in store.disputes.where(payment_intent=intent):
            if not dispute["status"].startswith(NOT_TAKEN):
                self.ledger.take_back("dispute", 0, dispute["amount"] * CENT, dispute["id"], intent)
            if dispute["status"] == "won":
                self.ledger.receive("dispute_won", 0, dispute["amount"] * CENT, dispute["id"])

    def _paid(self) -> list[str]:
        return [order.intent for order in self.orders if order.intent]

    def _open_objects(self) -> list[str]:
        store = self.shop.stripe.account
        return [one["id"] for one in (*store.refunds.where(), *store.disputes.where())]


def live_through(postgres: EmbeddedPostgres, template: str, *, examples: int, steps: int) -> None:
    """Each life with a database and a provider of its own."""
    run_state_machine_as_test(
        type("Machine", (PaymentMachine,), {"postgres": postgres, "template": template}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_payments_and_their_events_live_as_their_model(
    postgres: EmbeddedPostgres, template_database: str
) -> None:
    live_through(postgres, template_database, examples=10, steps=40)


@pytest.mark.slow
def test_payments_and_their_events_live_as_their_model_for_long(
    postgres: EmbeddedPostgres, template_database: str
) -> None:
    live_through(postgres, template_database, examples=80, steps=60)
