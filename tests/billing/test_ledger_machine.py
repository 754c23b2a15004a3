"""Random lives of a ledger, step by step equal to a model of plain integers, and always provable."""

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import billing
from billing import BUDGET_PERIODS, ProviderCost
from gateway.embedded import EmbeddedPostgres
from tests.billing import till
from tests.billing.ledger_model import GIVING, TAKING, Kept, LedgerModel
from tests.databases import fresh_database
from tests.factories import Conn, open_shop

MODELS = ("sandbox", "ace-step-1.5-xl")
PRICES = ((0, 0), (1, 0), (333, 0), (1_000, 250_000), (250_000, 0), (250_000, 1_000_000))
"""Nano-USD a second, and a discount in millionths that leaves no fraction."""
SUBJECTS = {"key one": "key", "key two": "key", "project": "project", "organization": "organization"}
CALLERS = (("key one", "project", "organization"), ("key two", "organization"))
"""Whose budgets a request counts against: one key belongs to the project, one does not."""
VERIFIED_EVERY = 12

purses = st.integers(0, 1)
given = st.sampled_from([1, 999, 10**6, 3 * 10**7, 10**8])
taken = st.sampled_from([1, 10**6, 3 * 10**7, 2 * 10**8])
lengths = st.sampled_from([1, 5_000, 60_000, 240_000])
performances = st.sampled_from([(1, 48_000), (44_101, 44_100), (50 * 48_000, 48_000), (250 * 48_000, 48_000)])
"""Frames, and how many of them are a second."""
names = st.integers(0, 5)
"""Of objects at the payment provider: few, so that they come twice and in any order."""


class CrashError(Exception):
    """What comes before the commit."""


class LedgerMachine(RuleBasedStateMachine):
    """Two customers, each with two keys, one of them in a project."""

    postgres: EmbeddedPostgres
    template: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.exit = contextlib.AsyncExitStack()
        self.model = LedgerModel(purses=2)
        self.accounts = [uuid.uuid4(), uuid.uuid4()]
        self.subjects = {
            (n, subject): organization if subject == "organization" else uuid.uuid4()
            for n, organization in enumerate(self.accounts)
            for subject in SUBJECTS
        }
        self.listed: dict[str, tuple[int, int]] = {}
        self.agreed: dict[tuple[str, int], tuple[int, int]] = {}
        self.holds: dict[uuid.UUID, Kept] = {}
        self.steps = 0

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(step)

    def teardown(self) -> None:
        self.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        async with self.exit:
            assert await till.faults(self.conn) == []

    @initialize()
    def open_accounts(self) -> None:
        self.run(self._open_accounts())

    async def _open_accounts(self) -> None:
        dsn = await self.exit.enter_async_context(fresh_database(self.postgres, self.template))
        self.conn: Conn = await asyncpg.connect(dsn)
        self.exit.push_async_callback(self.conn.close)
        self.clock: Conn = await till.open_clock(dsn, self.postgres.superuser_dsn)
        self.exit.push_async_callback(self.clock.close)
        await open_shop(self.conn)
        for model in MODELS:
            await self._set_price(model, PRICES[-2], None)
        for n, account_id in enumerate(self.accounts):
            await billing.open_account(self.conn, account_id)
            await self._begin(n)

    async def _begin(self, purse: int) -> None:
        """The first one pays, the second one is trusted; both have a gift for two days and two caps."""
        await self._set_thresholds(purse, 10**8, 10**7)
        if purse == 0:
            await till.pay(self.conn, self.accounts[purse], 10**8, self._ref(purse, 0))
            self.model.receive("top_up", purse, 10**8, self._ref(purse, 0))
        await till.give(self.conn, self.accounts[purse], 2 * 10**7, days=2)
        self.model.grant(purse, 2 * 10**7, 2)
        await self._set_budget(purse, "organization", "month", 3 * 10**8, 10**7)
        await self._set_budget(purse, "key one", "day", 10**8, 10**6)
        await self._trust(purse, purse * 10**8)

    @rule(purse=purses, amount=given, days=st.sampled_from([None, None, 1, 2, 30]))
    def grant(self, purse: int, amount: int, days: int | None) -> None:
        account = self.run(till.give(self.conn, self.accounts[purse], amount, days=days))
        self.model.grant(purse, amount, days)
        assert account.posted_nano == self.model.purses[purse].posted

    @rule(purse=purses, amount=given, name=names)
    def top_up(self, purse: int, amount: int, name: int) -> None:
        ref = self._ref(purse, name)
        booked = self.run(till.pay(self.conn, self.accounts[purse], amount, ref))
        assert booked == self.model.receive("top_up", purse, amount, ref)

    @rule(purse=purses, kind=st.sampled_from(TAKING), amount=taken, name=names, payment=names)
    def take_back(self, purse: int, kind: str, amount: int, name: int, payment: int) -> None:
        """Perhaps again, or of a payment that is not known yet."""
        ref, paid = self._ref(purse, name), self._ref(purse, payment)
        booked = self.run(till.take(self.conn, self.accounts[purse], amount, ref, kind=kind, payment=paid))
        assert booked == self.model.take_back(kind, purse, amount, ref, paid)

    @rule(purse=purses, kind=st.sampled_from(GIVING), amount=taken, name=names)
    def give_again(self, purse: int, kind: str, amount: int, name: int) -> None:
        """Perhaps again, or before it was taken."""
        ref = self._ref(purse, name)
        booked = self.run(till.return_again(self.conn, self.accounts[purse], amount, ref, kind=kind))
        assert booked == self.model.receive(kind, purse, amount, ref)

    @rule(
        purse=purses,
        caller=st.sampled_from(CALLERS),
        model=st.sampled_from(MODELS),
        ms=lengths,
        count=st.integers(1, 3),
    )
    def hold(self, purse: int, caller: tuple[str, ...], model: str, ms: int, count: int) -> None:
        for _ in range(count):
            self.run(self._hold(purse, caller, model, ms))

    @rule(purse=purses, caller=st.sampled_from(CALLERS), ms=lengths, delivery=performances)
    def sing(self, purse: int, caller: tuple[str, ...], ms: int, delivery: tuple[int, int]) -> None:
        """A whole life, however short."""
        reference = self.run(self._hold(purse, caller, MODELS[0], ms))
        if reference is not None:
            self.run(self._settle([reference], [], delivery))

    async def _hold(self, purse: int, caller: Sequence[str], model: str, ms: int) -> uuid.UUID | None:
        account_id, reference = self.accounts[purse], uuid.uuid4()
        price = (await billing.read_price_book(self.conn)).find(model, account_id)
        assert price is not None
        assert (price.nano_per_second, price.discount_ppm) == self.agreed.get(
            (model, purse), self.listed[model]
        )
        kept = Kept(
            purse,
            0,
            price.nano_per_second,
            price.discount_ppm,
            self.model.caps.of(*self._capped(purse, caller)),
        )
        kept.amount = kept.due(ms, 1000)
        async with self.conn.transaction():
            account = (await billing.lock_accounts(self.conn, {account_id}))[account_id]
            budgets = await billing.lock_budgets(
                self.conn, subjects=[self.subjects[purse, subject] for subject in caller]
            )
            fits = all(kept.amount <= place.available_nano for place in (account, *budgets))
            assert fits == self.model.fits(purse, kept.amount, kept.caps)
            if not fits:
                return None
            assert all(place.reserve(price.cost_nano(ms)) for place in (account, *budgets))
            hold = billing.Hold(
                reference=reference,
                account_id=account_id,
                price_version_id=price.id,
                amount_nano=kept.amount,
                deadline_at=datetime.now(UTC) + timedelta(hours=1),
                budget_ids=tuple(budget.id for budget in budgets),
            )
            await billing.write_holds(self.conn, [hold], accounts=[account], budgets=budgets)
        self.holds[reference] = kept
        self.model.hold(kept)
        return reference

    @precondition(lambda self: self._held("open"))
    @rule(data=st.data(), delivery=performances)
    def settle(self, data: st.DataObject, delivery: tuple[int, int]) -> None:
        """Several in one batch: some delivered, some not."""
        chosen = self._draw_holds(data, "open", 4)
        cut = data.draw(st.integers(0, len(chosen)))
        self.run(self._settle(chosen[:cut], chosen[cut:], delivery))

    async def _settle(
        self, delivered: Sequence[uuid.UUID], undelivered: Sequence[uuid.UUID], delivery: tuple[int, int]
    ) -> None:
        frames, rate = delivery
        deliveries = [billing.Delivery(reference=one, frames=frames, sample_rate=rate) for one in delivered]
        async with self.conn.transaction():
            charges = await billing.settle(self.conn, deliveries, undelivered=undelivered)
        kept = [self.holds[one] for one in delivered]
        costs = self.model.settle(
            [(one, one.due(frames, rate)) for one in kept], [self.holds[one] for one in undelivered]
        )
        assert [charges[one].cost_nano for one in delivered] == costs
        assert [charges[one].is_over for one in delivered] == [
            one.due(frames, rate) > one.amount for one in kept
        ]

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), state=st.sampled_from(["settled", "released"]))
    def end_again(self, data: st.DataObject, state: str) -> None:
        """What has ended, or was never there, ends for nobody, also not beside what has not."""
        ended = self._draw_holds(data, state, 1) or [uuid.uuid4()]
        batch = [*ended, *self._draw_holds(data, "open", 1)]
        delivery = billing.Delivery(reference=ended[0], frames=1, sample_rate=48_000)
        self.run(self._refused(lambda: billing.release(self.conn, batch)))
        self.run(self._refused(lambda: billing.settle(self.conn, [delivery], undelivered=batch[1:])))

    async def _refused(self, step: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(billing.LedgerConflict):
            async with self.conn.transaction():
                await step()

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), state=st.sampled_from(["settled", "settled", "released", "open"]))
    def refund_usage(self, data: st.DataObject, state: str) -> None:
        for reference in self._draw_holds(data, state, 1):
            if self.model.refund_usage(self.holds[reference]):
                self.run(till.refund(self.conn, reference))
            else:
                with pytest.raises(billing.LedgerConflict):
                    self.run(till.refund(self.conn, reference))

    @rule(purse=purses, days=st.sampled_from([1, 2, till.LONGER_THAN_A_MONTH]))
    def let_days_pass(self, purse: int, days: int) -> None:
        self.model.let_days_pass(purse, days)
        if days == till.LONGER_THAN_A_MONTH:
            self.run(till.let_a_month_pass(self.clock, self.accounts[purse]))
            self.model.caps.roll(purse)
        else:
            self.run(till.let_days_pass(self.conn, self.accounts[purse], days))

    @precondition(lambda self: any(purse.owed or purse.lapsed for purse in self.model.purses))
    @rule(sweep_first=st.booleans())
    def keep_the_books(self, *, sweep_first: bool) -> None:
        """What is due, and is over or owed."""
        if sweep_first:
            assert self.run(till.sweep(self.conn)) == self.model.sweep()
        assert self.run(till.collect(self.conn)) == self.model.collect()

    @rule(
        data=st.data(), purse=purses, what=st.sampled_from(["price", "budget", "warnings", "trust", "cost"])
    )
    def administer(self, data: st.DataObject, purse: int, what: str) -> None:
        match what:
            case "price":
                whose = data.draw(st.sampled_from([None, purse]))
                model, price = data.draw(st.sampled_from(MODELS)), data.draw(st.sampled_from(PRICES))
                self.run(self._set_price(model, price, whose))
            case "budget":
                self._change_budget(data, purse)
            case "warnings":
                low = data.draw(st.sampled_from([10**7, 10**8]))
                self.run(self._set_thresholds(purse, low, data.draw(st.sampled_from([0, 10**7]))))
            case "trust":
                self.run(self._trust(purse, data.draw(st.sampled_from([0, 10**8]))))
            case _:
                attempts = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
                self.run(self._book_costs(attempts, data.draw(st.sampled_from([0, 1, 777]))))

    async def _set_price(self, model: str, price: tuple[int, int], whose: int | None) -> None:
        async with self.conn.transaction():
            await billing.set_price(
                self.conn,
                model=model,
                nano_per_second=price[0],
                discount_ppm=price[1],
                account_id=None if whose is None else self.accounts[whose],
            )
        if whose is None:
            self.listed[model] = price
        else:
            self.agreed[model, whose] = price

    def _change_budget(self, data: st.DataObject, purse: int) -> None:
        subject, period = (
            data.draw(st.sampled_from(list(SUBJECTS))),
            data.draw(st.sampled_from(BUDGET_PERIODS)),
        )
        limit = data.draw(st.sampled_from([None, 0, 10**7, 10**9]))
        if limit is None:
            its = self.subjects[purse, subject]
            removed = self.run(billing.remove_budget(self.conn, subject=its, period=period))
            assert removed == self.model.caps.lift(*self._capped(purse, [subject]), period)
        else:
            alert = data.draw(st.sampled_from([None, 1, 10**7]))
            self.run(self._set_budget(purse, subject, period, limit, alert))

    async def _set_budget(self, purse: int, subject: str, period: str, limit: int, alert: int | None) -> None:
        await billing.set_budget(
            self.conn,
            account_id=self.accounts[purse],
            subject=self.subjects[purse, subject],
            scope=SUBJECTS[subject],
            period=period,
            limit_nano=limit,
            alert_nano=alert,
        )
        self.model.caps.put(*self._capped(purse, [subject]), period, limit, alert)

    async def _set_thresholds(self, purse: int, low: int, critical: int) -> None:
        account_id = self.accounts[purse]
        await billing.set_thresholds(self.conn, account_id, low_nano=low, critical_nano=critical)
        self.model.set_thresholds(purse, low, critical)

    async def _trust(self, purse: int, trust: int) -> None:
        """Unless it is in use."""
        its = self.model.purses[purse]
        if its.posted - its.held + trust >= 0:
            its.overdraft = trust
            change = "UPDATE account SET overdraft_nano = $2 WHERE id = $1"
            await self.conn.execute(change, self.accounts[purse], trust)

    async def _book_costs(self, attempts: Sequence[int], amount: int) -> None:
        costs = [ProviderCost(self.accounts[0], attempt, amount) for attempt in attempts]
        async with self.conn.transaction():
            await billing.book_provider_costs(self.conn, costs)
        for attempt in attempts:
            self.model.cost(str(attempt), amount)

    @precondition(lambda self: self._held("open"))
    @rule(data=st.data(), purse=purses)
    def crash(self, data: st.DataObject, purse: int) -> None:
        """Everything that can be done is done, and nothing of it committed."""
        held = self._draw_holds(data, "open", 2)
        self.run(self._crash(self.accounts[purse], held))

    async def _crash(self, account_id: uuid.UUID, held: Sequence[uuid.UUID]) -> None:
        ref = uuid.uuid4().hex
        deliveries = [billing.Delivery(reference=one, frames=999, sample_rate=48_000) for one in held]
        with contextlib.suppress(CrashError):
            async with self.conn.transaction():
                await billing.settle(self.conn, deliveries)
                await till.give(self.conn, account_id, 7, days=1)
                await till.pay(self.conn, account_id, 10**8, ref)
                await till.take(self.conn, account_id, 10**9, ref, payment=ref)
                await till.return_again(self.conn, account_id, 5, ref)
                await billing.collect_debts(self.conn)
                raise CrashError

    @invariant()
    def the_books_are_what_the_model_says(self) -> None:
        if self.listed:
            self.run(self._compare())

    async def _compare(self) -> None:
        for account_id, purse in zip(self.accounts, self.model.purses, strict=True):
            account = await billing.read_account(self.conn, account_id)
            found = (account.posted_nano, account.held_nano, account.owed_nano, account.level)
            assert found == (purse.posted, purse.held, purse.owed, purse.level)
            assert account.available_nano == purse.available
            assert await till.left(self.conn, account_id) == [(c.kind, c.left) for c in purse.credits]
            next_expiry = purse.next_expiry
            assert (account.next_expiry_at is None) == (next_expiry is None)
            assert bool(account.has_lapsed) == (next_expiry is not None and next_expiry <= 0)
        rows = await self.conn.fetch("SELECT kind, posted_nano FROM account WHERE kind <> 'customer'")
        assert {row["kind"]: row["posted_nano"] for row in rows} == self.model.house
        assert await self._budgets() == {
            (*key, cap.limit, cap.spent, cap.held, cap.is_told) for key, cap in self.model.caps.items()
        }
        told = Counter((self.accounts.index(n.account_id), n.kind) for n in await self._take_notices())
        assert told == Counter(self.model.notices)
        self.model.notices.clear()
        self.steps += 1
        if self.steps % VERIFIED_EVERY == 0:
            assert await till.faults(self.conn) == []

    async def _budgets(self) -> set[tuple[object, ...]]:
        names_of = {found: self._capped(*where)[0] for where, found in self._subjects()}
        return {
            (names_of[b.subject], b.period, b.limit_nano, b.spent_nano, b.held_nano, b.is_alerted)
            for account_id in self.accounts
            for b in await billing.read_budgets(self.conn, account_id)
        }

    def _subjects(self) -> list[tuple[tuple[int, list[str]], uuid.UUID]]:
        return [((n, [subject]), found) for (n, subject), found in self.subjects.items()]

    async def _take_notices(self) -> list[billing.Notice]:
        found: list[billing.Notice] = []
        async with self.conn.transaction():
            while some := await billing.take_untold(self.conn):
                found += some
        return found

    def _capped(self, purse: int, subjects: Sequence[str]) -> list[str]:
        return [f"{purse} {subject}" for subject in subjects]

    def _ref(self, purse: int, name: int) -> str:
        return f"{purse}-{name}"

    def _draw_holds(self, data: st.DataObject, state: str, count: int) -> list[uuid.UUID]:
        """So many in that state, if there are."""
        if not (known := self._held(state)):
            return []
        return data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=count, unique=True))

    def _held(self, state: str) -> list[uuid.UUID]:
        return [reference for reference, kept in self.holds.items() if kept.state == state]


def live_through(postgres: EmbeddedPostgres, template: str, *, examples: int, steps: int) -> None:
    """Each life in a database of its own."""
    machine = type("Machine", (LedgerMachine,), {"postgres": postgres, "template": template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_the_ledger_lives_as_its_model(postgres: EmbeddedPostgres, template_database: str) -> None:
    live_through(postgres, template_database, examples=30, steps=40)


@pytest.mark.slow
def test_the_ledger_lives_as_its_model_for_long(postgres: EmbeddedPostgres, template_database: str) -> None:
    live_through(postgres, template_database, examples=200, steps=80)
