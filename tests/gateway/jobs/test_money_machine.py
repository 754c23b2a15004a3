"""Random lives of jobs while money comes, goes, expires and is disputed: both follow their models."""

import contextlib
import uuid
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

import billing
from gateway.auth.directory import KeyDirectory, KeyLimits, create_key, create_organization, revoke_key
from gateway.config_watch import ConfigWatch
from gateway.embedded import EmbeddedPostgres
from gateway.errors import (
    BudgetExceeded,
    ConcurrencyLimitExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidApiKey,
)
from gateway.jobs.queue import Claim
from gateway.jobs.service import Jobs
from tests.billing import till
from tests.billing.ledger_model import GIVING, TAKING, Kept, LedgerModel
from tests.databases import fresh_database
from tests.factories import NANO_PER_SECOND, PEPPER, SECRET_KEY, Pool, new_project, open_shop
from tests.gateway.jobs.test_job_machine import CREDIT, MAX_OPEN, JobMachine
from tests.workbench import Workbench

FINAL = ("completed", "failed", "canceled")
UNFINISHED = ("queued", "processing")
amounts = st.sampled_from([1, NANO_PER_SECOND, CREDIT // 2, 2 * CREDIT])
lengths = st.sampled_from([1, 10, 60])
EVER = 100_000
"""Days."""
names = st.integers(0, 3)
"""Of objects at the payment provider: few, so that they come twice and in any order."""


class Secret(msgspec.Struct, frozen=True):
    """A key as its owner has it."""

    id: uuid.UUID
    key: str
    is_limited: bool


class MoneyMachine(JobMachine):
    """The keys belong to one project, and are looked up as every request does; a revoked one is replaced."""

    postgres: EmbeddedPostgres
    template: str

    def __init__(self) -> None:
        super().__init__()
        self.exit = contextlib.AsyncExitStack()
        self.ledger = LedgerModel(purses=1)
        self.kept: dict[uuid.UUID, Kept] = {}
        self.delivered: dict[uuid.UUID, int] = {}
        """Seconds, by job."""
        self.secrets: list[Secret] = []
        self.in_use = [0, 1]
        """Which of the secrets stand for the two keys of the jobs' machine."""

    async def _open_gateway(self) -> None:
        self.dsn = await self.exit.enter_async_context(fresh_database(self.postgres, self.template))
        self.pool: Pool = await asyncpg.create_pool(self.dsn, min_size=1, max_size=3)
        self.clock = await till.open_clock(self.dsn, self.postgres.superuser_dsn)
        watch = ConfigWatch(self.pool)
        self.directory = KeyDirectory(pool=self.pool, watch=watch, secret_key=SECRET_KEY)
        self.bench = Workbench(self.pool, Jobs(pool=self.pool, watch=watch))
        async with self.pool.acquire() as conn:
            await open_shop(conn)
            self.organization_id = await create_organization(conn, name="An organization")
            self.project_id = await new_project(conn, self.organization_id, "a project")
        for is_limited in (False, True):
            await self._issue(is_limited=is_limited)
        await self._top_up(CREDIT)
        await self._limit("organization", 0, "month", 3 * CREDIT)
        await self._limit("key", 1, "day", CREDIT)

    async def _issue(self, *, is_limited: bool) -> None:
        limits = KeyLimits(max_open_jobs=MAX_OPEN if is_limited else None)
        async with self.pool.acquire() as conn, conn.transaction():
            key_id, key = await create_key(
                conn,
                pepper=PEPPER,
                organization_id=self.organization_id,
                name="a key",
                test=False,
                project_id=self.project_id,
                limits=limits,
            )
        self.secrets.append(Secret(key_id, key, is_limited))
        self.keys.append(await self.directory.authenticate(key, client_host=None))

    async def _close_gateway(self) -> None:
        async with self.exit:
            try:
                async with self.pool.acquire() as conn:
                    assert await till.faults(conn) == []
                await super()._close_gateway()
            finally:
                await self.clock.close()

    async def _submit(self, key: int, seconds: int, idempotency_key: str | None, *, is_retry: bool) -> None:
        number = self.in_use[key]
        self.keys[number] = await self.directory.authenticate(self.secrets[number].key, client_host=None)
        await super()._submit(number, seconds, idempotency_key, is_retry=is_retry)

    def _refusal(self, key: int, seconds: int, known: tuple[uuid.UUID, int] | None) -> type[Exception] | None:
        if known is not None:
            return None if known[1] == seconds else IdempotencyKeyReused
        unfinished = [job for job in self.model.values() if job.status in UNFINISHED and job.key == key]
        if self.secrets[key].is_limited and len(unfinished) >= MAX_OPEN:
            return ConcurrencyLimitExceeded
        most = seconds * self.price
        if any(most > cap.available for cap in self._caps_of(key)):
            return BudgetExceeded
        return InsufficientCredits if most > self.ledger.purses[0].available else None

    async def _revoke(self) -> None:
        """What the key has begun goes on."""
        revoked = self.secrets[self.in_use[1]]
        async with self.pool.acquire() as conn, conn.transaction():
            await revoke_key(conn, revoked.id)
        with pytest.raises(InvalidApiKey):
            await self.directory.authenticate(revoked.key, client_host=None)
        self.in_use[1] = len(self.secrets)
        await self._issue(is_limited=True)

    async def _deliver(self, claim: Claim, seconds: int, cost: int | None, *, retry: bool) -> None:
        if self._is_current(claim):
            self.delivered[claim.job_id] = seconds
        await super()._deliver(claim, seconds, cost, retry=retry)

    async def _top_up(self, amount: int) -> None:
        async with self.pool.acquire() as conn:
            await till.give(conn, self.organization_id, amount)
        self.ledger.grant(0, amount, None)

    @rule(key=st.integers(0, 1), seconds=lengths, delivered=lengths, count=st.integers(1, 3))
    def sing(self, key: int, seconds: int, delivered: int, count: int) -> None:
        """Whole lives, as far as there is money for them; also of jobs that have waited."""
        for _ in range(count):
            self.runner.run(self._submit(key, seconds, None, is_retry=False))
            self._follow()
        waiting = sum(job.status == "queued" for job in self.model.values())
        if waiting:
            self.claim(limit=waiting)
        for claim in self._claims(late=False):
            self.runner.run(self._deliver(claim, delivered, None, retry=False))
            self._follow()

    @rule(what=st.sampled_from([*TAKING, *GIVING, "top_up"]), amount=amounts, name=names, payment=names)
    def hear_from_the_provider(self, what: str, amount: int, name: int, payment: int) -> None:
        """Of a payment or of what became of it: perhaps again, perhaps before the payment is known."""
        owner, ref, paid = self.organization_id, str(name), str(payment)
        if what in TAKING:
            booked = self._do(till.take, owner, amount, ref, kind=what, payment=paid)
            assert booked == self.ledger.take_back(what, 0, amount, ref, paid)
        else:
            booked = (
                self._do(till.pay, owner, amount, ref)
                if what == "top_up"
                else self._do(till.return_again, owner, amount, ref, kind=what)
            )
            assert booked == self.ledger.receive(what, 0, amount, ref)

    @precondition(lambda self: any(kept.cost for kept in self.kept.values()))
    @rule(data=st.data())
    def give_back_a_charge(self, data: st.DataObject) -> None:
        """Once, whatever is asked."""
        charged = [job_id for job_id, kept in self.kept.items() if kept.cost]
        job_id = data.draw(st.sampled_from(charged))
        if self.ledger.refund_usage(self.kept[job_id]):
            self._do(till.refund, job_id)
        with pytest.raises(billing.LedgerConflict):
            self._do(till.refund, job_id)

    @rule(amount=amounts, days=st.sampled_from([1, 2]))
    def give_for_some_days(self, amount: int, days: int) -> None:
        self._do(till.give, self.organization_id, amount, days=days)
        self.ledger.grant(0, amount, days)

    @rule(days=st.sampled_from([1, 2, till.LONGER_THAN_A_MONTH]))
    def let_days_pass(self, days: int) -> None:
        self.ledger.let_days_pass(0, days)
        if days == till.LONGER_THAN_A_MONTH:
            self.runner.run(self._let_a_month_pass())
            self.ledger.caps.roll(0)
        else:
            self._do(till.let_days_pass, self.organization_id, days)

    async def _let_a_month_pass(self) -> None:
        """Also for the sums of every hour: first to where none is, for of each hour there is one."""
        async with self.clock.transaction():
            await till.let_a_month_pass(self.clock, self.organization_id)
            change = "UPDATE usage_hour SET hour = hour + $2::interval WHERE organization_id = $1"
            for days in (-EVER, EVER - till.LONGER_THAN_A_MONTH):
                await self.clock.execute(change, self.organization_id, timedelta(days=days))

    @precondition(lambda self: self.ledger.purses[0].owed or self.ledger.purses[0].lapsed)
    @rule()
    def keep_the_books(self) -> None:
        assert self._do(till.sweep) == self.ledger.sweep()
        assert self._do(till.collect) == self.ledger.collect()

    @rule(
        scope=st.sampled_from(billing.BUDGET_SCOPES),
        key=st.integers(0, 1),
        period=st.sampled_from(billing.BUDGET_PERIODS),
        limit=st.sampled_from([None, None, CREDIT // 2, 2 * CREDIT]),
    )
    def limit(self, scope: str, key: int, period: str, limit: int | None) -> None:
        """Or lift the limit."""
        self.runner.run(self._limit(scope, key, period, limit))

    async def _limit(self, scope: str, key: int, period: str, limit: int | None) -> None:
        number = self.in_use[key]
        subject, name = {
            "key": (self.secrets[number].id, f"0 key {number}"),
            "project": (self.project_id, "0 project"),
            "organization": (self.organization_id, "0 organization"),
        }[scope]
        async with self.pool.acquire() as conn:
            if limit is None:
                removed = await billing.remove_budget(conn, subject=subject, period=period)
                assert removed == self.ledger.caps.lift(name, period)
                return
            await billing.set_budget(
                conn,
                account_id=self.organization_id,
                subject=subject,
                scope=scope,
                period=period,
                limit_nano=limit,
            )
        self.ledger.caps.put(name, period, limit, None)

    async def _compare(self) -> None:
        self._follow()
        purse = self.ledger.purses[0]
        self.posted = purse.posted
        await super()._compare()
        async with self.pool.acquire() as conn:
            account = await billing.read_account(conn, self.organization_id)
            assert (account.owed_nano, account.available_nano) == (purse.owed, purse.available)
            left = await till.left(conn, self.organization_id)
            budgets = await billing.read_budgets(conn, self.organization_id)
            house = await conn.fetch("SELECT kind, posted_nano FROM account WHERE kind <> 'customer'")
        assert left == [(credit.kind, credit.left) for credit in purse.credits]
        assert {row["kind"]: row["posted_nano"] for row in house} == self.ledger.house
        assert sorted((b.limit_nano, b.spent_nano, b.held_nano) for b in budgets) == sorted(
            (cap.limit, cap.spent, cap.held) for cap in self.ledger.caps.values()
        )

    def _follow(self) -> None:
        """What became of the jobs in this step, as the books see it."""
        for job_id, job in self.model.items():
            if job_id not in self.kept:
                kept = self.kept[job_id] = Kept(0, job.held, job.price, 0, self._caps_of(job.key))
                self.ledger.hold(kept)
            kept = self.kept[job_id]
            if job.status not in FINAL or kept.state != "open":
                continue
            if job.status == "completed":
                due = kept.due(self.delivered[job_id] * 48_000, 48_000)
                assert self.ledger.settle([(kept, due)], []) == [job.charged]
            else:
                self.ledger.settle([], [kept])

    def _caps_of(self, key: int) -> list[Any]:
        return self.ledger.caps.of(f"0 key {key}", "0 project", "0 organization")

    def _do(self, step: Any, *arguments: Any, **options: Any) -> Any:
        """In a connection of the pool."""

        async def act() -> Any:
            async with self.pool.acquire() as conn:
                return await step(conn, *arguments, **options)

        return self.runner.run(act())


def live_through(postgres: EmbeddedPostgres, template: str, *, examples: int, steps: int) -> None:
    """Each life in a database of its own."""
    run_state_machine_as_test(
        type("Machine", (MoneyMachine,), {"postgres": postgres, "template": template}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.slow  # the machine of payments, which extends this one, is run each time
def test_jobs_and_their_money_live_as_their_models(
    postgres: EmbeddedPostgres, template_database: str
) -> None:
    live_through(postgres, template_database, examples=20, steps=40)


@pytest.mark.slow
def test_jobs_and_their_money_live_as_their_models_for_long(
    postgres: EmbeddedPostgres, template_database: str
) -> None:
    live_through(postgres, template_database, examples=150, steps=60)
