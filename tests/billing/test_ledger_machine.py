"""Random lives of a ledger, step by step equal to a model of a few integers, and always provable."""

import asyncio
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import billing
from tests.factories import Conn, open_shop

PERIODS = ("day", "month", "total")
MODELS = ("sandbox", "ace-step-1.5-xl")


class ModelBudget(msgspec.Struct):
    """What a budget should say."""

    limit: int
    spent: int = 0
    held: int = 0


class ModelHold(msgspec.Struct):
    """What a hold should know; the price is the one of its birth."""

    amount: int
    nano_per_second: int
    subject: uuid.UUID
    is_open: bool = True


class LedgerMachine(RuleBasedStateMachine):
    """One customer with three capped subjects."""

    dsn: str
    references = Bundle("references")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.conn: Conn = self.runner.run(asyncpg.connect(self.dsn))
        self.account_id = uuid.uuid4()
        self.posted = 0
        self.prices: dict[str, int] = {}
        self.budgets: dict[tuple[uuid.UUID, str], ModelBudget] = {}
        self.subjects: list[uuid.UUID] = []
        self.holds: dict[uuid.UUID, ModelHold] = {}

    def teardown(self) -> None:
        self.runner.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        found = await billing.verify(self.conn)
        await self.conn.close()
        assert found == []

    @initialize(limits=st.lists(st.sampled_from([10**6, 5 * 10**7, 10**9]), min_size=3, max_size=3))
    def open_account(self, limits: list[int]) -> None:
        self.runner.run(self._open_account(limits))

    async def _open_account(self, limits: list[int]) -> None:
        await open_shop(self.conn)
        await billing.open_account(self.conn, self.account_id)
        for model in MODELS:
            price = (await billing.read_price_book(self.conn)).find(model, self.account_id)
            assert price is not None
            self.prices[model] = price.nano_per_second
        for limit, period in zip(limits, PERIODS, strict=True):
            subject = uuid.uuid4()
            self.subjects.append(subject)
            self.budgets[subject, period] = ModelBudget(limit)
            await billing.set_budget(
                self.conn,
                account_id=self.account_id,
                subject=subject,
                scope="key",
                period=period,
                limit_nano=limit,
            )
        await self._grant(10**8)

    @rule(amount=st.sampled_from([1, 999, 10**7, 10**8]))
    def grant(self, amount: int) -> None:
        self.runner.run(self._grant(amount))

    async def _grant(self, amount: int) -> None:
        async with self.conn.transaction():
            account = await billing.grant(
                self.conn, account_id=self.account_id, amount_nano=amount, reason="a gift"
            )
        self.posted += amount
        assert account.posted_nano == self.posted

    @rule(model=st.sampled_from(MODELS), nano=st.sampled_from([0, 1, 333, 250_000, 10**6]))
    def change_price(self, model: str, nano: int) -> None:
        self.runner.run(
            billing.set_price(self.conn, model=model, nano_per_second=nano, account_id=self.account_id)
        )
        self.prices[model] = nano

    @rule(
        target=references,
        model=st.sampled_from(MODELS),
        ms=st.sampled_from([1, 999, 5_000, 60_000, 240_000]),
        subject=st.integers(0, 2),
    )
    def reserve(self, model: str, ms: int, subject: int) -> uuid.UUID:
        return self.runner.run(self._reserve(model, ms, self.subjects[subject]))

    async def _reserve(self, model: str, ms: int, subject: uuid.UUID) -> uuid.UUID:
        """As admission does it; a refusal leaves a reference that no hold has."""
        reference = uuid.uuid4()
        price = (await billing.read_price_book(self.conn)).find(model, self.account_id)
        assert price is not None
        assert price.nano_per_second == self.prices[model]
        amount = price.cost_nano(ms)
        async with self.conn.transaction():
            account = (await billing.lock_accounts(self.conn, {self.account_id}))[self.account_id]
            budgets = await billing.lock_budgets(self.conn, subjects=[subject])
            fits = all(amount <= place.available_nano for place in (account, *budgets))
            assert fits == self._model_fits(amount, subject)
            if fits:
                assert all(place.reserve(amount) for place in (account, *budgets))
                hold = billing.Hold(
                    reference=reference,
                    account_id=self.account_id,
                    price_version_id=price.id,
                    amount_nano=amount,
                    deadline_at=datetime.now(UTC) + timedelta(hours=1),
                    budget_ids=tuple(budget.id for budget in budgets),
                )
                await billing.write_holds(self.conn, [hold], accounts=[account], budgets=budgets)
        if fits:
            self.holds[reference] = ModelHold(amount, price.nano_per_second, subject)
            for budget in self._budgets_of(subject):
                budget.held += amount
        return reference

    def _model_fits(self, amount: int, subject: uuid.UUID) -> bool:
        room = [self.posted - self._held(), *(b.limit - b.spent - b.held for b in self._budgets_of(subject))]
        return amount <= min(room)

    @rule(
        reference=references,
        frames=st.sampled_from([1, 48, 44_101, 5 * 48_000, 300 * 48_000]),
        rate=st.sampled_from([44_100, 48_000]),
    )
    def settle(self, reference: uuid.UUID, frames: int, rate: int) -> None:
        self.runner.run(self._settle(reference, frames, rate))

    async def _settle(self, reference: uuid.UUID, frames: int, rate: int) -> None:
        delivery = billing.Delivery(reference=reference, frames=frames, sample_rate=rate)
        hold = self._open_hold(reference)
        if hold is None:
            await self._refused(billing.settle(self.conn, [delivery]))
            return
        async with self.conn.transaction():
            charge = (await billing.settle(self.conn, [delivery]))[reference]
        ms = -(-frames * 1000 // rate)
        cost = min(-(-ms * hold.nano_per_second // 1000), hold.amount)
        assert (charge.billed_ms, charge.cost_nano) == (ms, cost)
        self.posted -= cost
        self._close_hold(hold, spent=cost)

    @rule(reference=references)
    def release(self, reference: uuid.UUID) -> None:
        self.runner.run(self._release(reference))

    @rule(reference=consumes(references))
    def release_and_forget(self, reference: uuid.UUID) -> None:
        self.runner.run(self._release(reference))

    async def _release(self, reference: uuid.UUID) -> None:
        hold = self._open_hold(reference)
        if hold is None:
            await self._refused(billing.release(self.conn, [reference]))
            return
        async with self.conn.transaction():
            await billing.release(self.conn, [reference])
        self._close_hold(hold, spent=0)

    async def _refused(self, step: "asyncio.Future[object] | object") -> None:
        with pytest.raises(billing.LedgerConflict):
            async with self.conn.transaction():
                await step  # type: ignore[misc]

    @rule(period=st.sampled_from(PERIODS))
    def let_time_pass(self, period: str) -> None:
        self.runner.run(
            self.conn.execute(
                """
                UPDATE budget SET period_start = period_start - interval '40 days'
                 WHERE account_id = $1 AND period = $2
                """,
                self.account_id,
                period,
            )
        )
        for (_, its_period), budget in self.budgets.items():
            if its_period == period != "total":
                budget.spent = 0

    @invariant()
    def the_books_are_what_the_model_says(self) -> None:
        if self.subjects:
            self.runner.run(self._compare())

    async def _compare(self) -> None:
        account = await billing.read_account(self.conn, self.account_id)
        assert (account.posted_nano, account.held_nano) == (self.posted, self._held())
        assert account.available_nano >= 0
        async with self.conn.transaction():
            for row in await billing.lock_budgets(self.conn, subjects=self.subjects):
                model = self.budgets[row.subject, row.period]
                assert (row.limit_nano, row.spent_nano, row.held_nano) == (
                    model.limit,
                    model.spent,
                    model.held,
                )

    def _held(self) -> int:
        return sum(hold.amount for hold in self.holds.values() if hold.is_open)

    def _open_hold(self, reference: uuid.UUID) -> ModelHold | None:
        hold = self.holds.get(reference)
        return hold if hold is not None and hold.is_open else None

    def _budgets_of(self, subject: uuid.UUID) -> Iterator[ModelBudget]:
        return (budget for (owner, _), budget in self.budgets.items() if owner == subject)

    def _close_hold(self, hold: ModelHold, *, spent: int) -> None:
        hold.is_open = False
        for budget in self._budgets_of(hold.subject):
            budget.held -= hold.amount
            budget.spent += spent


def live_through(dsn: str, examples: int, steps: int) -> None:
    machine = type("Machine", (LedgerMachine,), {"dsn": dsn})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_the_ledger_lives_as_its_model(database: str) -> None:
    live_through(database, examples=60, steps=40)


@pytest.mark.slow
def test_the_ledger_lives_as_its_model_for_long(database: str) -> None:
    live_through(database, examples=400, steps=60)
