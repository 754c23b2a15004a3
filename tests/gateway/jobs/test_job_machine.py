"""Random lives of jobs, with crashes and late workers: equal to a model, and the ledger always proves."""

import asyncio
import uuid
from typing import Any

import asyncpg
import msgspec
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
from gateway.auth.directory import KeyLimits, revoke_key
from gateway.auth.principal import Principal
from gateway.config_watch import ConfigWatch
from gateway.errors import (
    ConcurrencyLimitExceeded,
    IdempotencyKeyReused,
    InsufficientCredits,
    JobAlreadyFinal,
)
from gateway.jobs.queue import MAX_ATTEMPTS, Claim
from gateway.jobs.service import Jobs
from tests.factories import NANO_PER_SECOND, new_customer, new_key, new_order, open_shop, violations
from tests.workbench import Workbench, accept, send

CREDIT = 40_000_000
MAX_OPEN = 4
VARIATIONS = {10: 2, 60: 8}
"""Songs of orders of so many seconds; their lengths together are what is held, and what comes is charged."""
COSTS = st.sampled_from([None, 0, 3, 123_456])
"""What a provider says that it charges; None: nothing."""
_NO_LEASE_ENDS_BY_ITSELF = "UPDATE job SET lease_until = 'infinity' WHERE status = 'processing'"
"""Only a crash ends one, however slow the machine is that runs the test."""


class ModelJob(msgspec.Struct):
    """What a job should be."""

    price: int
    seconds: int
    held: int
    key: int
    status: str = "queued"
    cancel: bool = False
    attempts: int = 0
    fence: int = 0
    charged: int = 0
    deaths: int = 0
    at_risk: int = 0
    """What the open attempt may cost us: it was sent to a provider."""
    cost: int = 0
    """What providers charge us, all attempts together."""
    possible_cost: int = 0
    """What they may charge us: nobody knows."""

    def close_attempt(self, cost: int | None, *, completed: bool = False) -> None:
        """`cost`: as the provider told; None: it did not."""
        if cost is not None:
            self.cost += cost
        elif completed:
            self.cost += self.at_risk
        else:
            self.possible_cost += self.at_risk
        self.at_risk = 0


class JobMachine(RuleBasedStateMachine):
    """One organization with two live keys, one of them limited; and any number of workers."""

    dsn: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model: dict[uuid.UUID, ModelJob] = {}
        self.replays: dict[str, tuple[uuid.UUID, int]] = {}
        self.sent: dict[tuple[int, int], uuid.UUID] = {}
        """The newest job by API key and body, of those without an idempotency key."""
        self.claims: list[Claim] = []
        self.price = NANO_PER_SECOND
        self.posted = CREDIT
        self.keys: list[Principal] = []

    @initialize()
    def open_gateway(self) -> None:
        self.runner.run(self._open_gateway())

    async def _open_gateway(self) -> None:
        self.pool = await asyncpg.create_pool(self.dsn, min_size=1, max_size=3)
        watch = ConfigWatch(self.pool)
        self.bench = Workbench(self.pool, Jobs(pool=self.pool, watch=watch))
        async with self.pool.acquire() as conn:
            await open_shop(conn)
            # What earlier lives have left unfinished stays out of this one.
            await conn.execute("UPDATE job SET run_at = 'infinity' WHERE completed_at IS NULL")
            await conn.execute(_NO_LEASE_ENDS_BY_ITSELF)
            first = await new_customer(conn, credit_nano=CREDIT)
            limits = KeyLimits(max_open_jobs=MAX_OPEN)
            self.keys = [first, await new_key(conn, first.organization_id, limits=limits)]

    def teardown(self) -> None:
        if self.keys:
            self.runner.run(self._close_gateway())
        self.runner.close()

    async def _close_gateway(self) -> None:
        try:
            assert await violations(self.dsn) == []
        finally:
            await self.bench.jobs.close()
            await self.pool.close()

    @rule(
        key=st.integers(0, 1),
        seconds=st.sampled_from([5, 10, 60]),
        idempotency_key=st.none() | st.sampled_from(["one", "two"]),
        is_retry=st.booleans(),
    )
    def submit(self, key: int, seconds: int, idempotency_key: str | None, *, is_retry: bool) -> None:
        self.runner.run(self._submit(key, seconds, idempotency_key, is_retry=is_retry))

    async def _submit(self, key: int, seconds: int, idempotency_key: str | None, *, is_retry: bool) -> None:
        n = VARIATIONS.get(seconds, 1)
        order = new_order(
            seconds=seconds / n,
            n=n,
            open_length=n > 1,
            idempotency_key=idempotency_key,
            is_retry=is_retry,
            body=b"%d" % seconds,
        )
        submission = self.bench.jobs.submit(self.keys[key], order)
        known = self._known(key, seconds, idempotency_key, is_retry=is_retry)
        refusal = self._refusal(key, seconds, known)
        if refusal is not None:
            with pytest.raises(refusal):
                await submission
            return
        submitted = await submission
        assert submitted.replayed == (known is not None)
        if known is not None:
            assert submitted.job.id == known[0]
            return
        job = ModelJob(price=self.price, seconds=seconds, held=seconds * self.price, key=key)
        self.model[submitted.job.id] = job
        if idempotency_key is not None:
            self.replays[idempotency_key] = (submitted.job.id, seconds)
        else:
            self.sent[key, seconds] = submitted.job.id

    def _known(
        self, key: int, seconds: int, idempotency_key: str | None, *, is_retry: bool
    ) -> tuple[uuid.UUID, int] | None:
        """The job that this is a repeat of, and the length that was ordered then."""
        if idempotency_key is not None:
            return self.replays.get(idempotency_key)
        if is_retry and (key, seconds) in self.sent:
            return self.sent[key, seconds], seconds
        return None

    def _refusal(self, key: int, seconds: int, known: tuple[uuid.UUID, int] | None) -> type[Exception] | None:
        if known is not None:
            return None if known[1] == seconds else IdempotencyKeyReused
        unfinished = [job for job in self.model.values() if job.status in {"queued", "processing"}]
        if key == 1 and sum(job.key == 1 for job in unfinished) >= MAX_OPEN:
            return ConcurrencyLimitExceeded
        return InsufficientCredits if seconds * self.price > self.posted - self._held() else None

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def let_the_time_pass(self, data: st.DataObject) -> None:
        """A job was to be cancelled by now, unless it had ended."""
        job_id = data.draw(st.sampled_from(list(self.model)))
        self.runner.run(self._cancel_in_time(job_id))
        job = self.model[job_id]
        if job.status in {"queued", "processing"}:
            job.cancel = True
        if job.status == "queued":
            job.status = "canceled"
            job.close_attempt(None)

    async def _cancel_in_time(self, job_id: uuid.UUID) -> None:
        await self.pool.execute("UPDATE job SET cancel_at = now() - interval '1 s' WHERE id = $1", job_id)
        await self.bench.reap()

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.runner.run(self._cancel(data.draw(st.sampled_from(list(self.model)))))

    @precondition(lambda self: self._claims(late=False))
    @rule(data=st.data())
    def cancel_at_work(self, data: st.DataObject) -> None:
        self.runner.run(self._cancel(self._draw_claim(data, late=False).job_id))

    async def _cancel(self, job_id: uuid.UUID) -> None:
        job = self.model[job_id]
        canceling = self.bench.jobs.cancel(self.keys[0], job_id)
        if job.status in {"completed", "failed"}:
            with pytest.raises(JobAlreadyFinal):
                await canceling
            return
        job.cancel = True
        if job.status == "queued":
            job.status = "canceled"
            job.close_attempt(None)
        assert (await canceling).status == job.status

    @precondition(lambda self: "queued" in {job.status for job in self.model.values()})
    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        queued = [job_id for job_id, job in self.model.items() if job.status == "queued"]
        claims = self.runner.run(self.bench.claim(limit))
        self.runner.run(self.pool.execute(_NO_LEASE_ENDS_BY_ITSELF))
        assert len(claims) == min(limit, len(queued))
        for claim in claims:
            job = self.model[claim.job_id]
            assert job.status == "queued"
            goes_on = bool(job.at_risk)
            job.status, job.attempts, job.fence = "processing", job.attempts + (not goes_on), job.fence + 1
            assert (claim.attempt, claim.fence) == (job.attempts, job.fence)
            assert (claim.stored is not None) == goes_on
        self.claims += claims

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), late=st.booleans(), most=st.sampled_from([1, 70_000]), accepted=st.booleans())
    def send(self, data: st.DataObject, most: int, *, late: bool, accepted: bool) -> None:
        """The attempt goes out to a provider: from now on it may cost us something."""
        if self._claims(late=late):
            self.runner.run(self._send(self._draw_claim(data, late=late), most, accepted=accepted))

    async def _send(self, claim: Claim, most: int, *, accepted: bool) -> None:
        job, current = self.model[claim.job_id], self._is_current(claim)
        sent = await send(self.bench, claim, most_nano=most)
        assert sent == (current and not job.at_risk)
        if sent:
            job.at_risk = most
            if accepted:
                await accept(self.bench, claim, most_nano=most)

    @precondition(lambda self: self._claims(late=False))
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A worker falls silent and others take over; the claim stays, for a late finish."""
        self.runner.run(self._crash(self._draw_claim(data, late=False)))

    @precondition(lambda self: self._claims(late=False))
    @rule(data=st.data(), step=st.sampled_from(["deliver", "fail", "queue again", "give back", "beat"]))
    def take_over(self, data: st.DataObject, step: str) -> None:
        """The same; somebody else claims what waits, and then the silent worker wakes up."""
        claim = self._draw_claim(data, late=False)
        self.runner.run(self._crash(claim))
        self.claim(limit=sum(job.status == "queued" for job in self.model.values()) or 1)
        self.runner.run(self._wake_up(claim, step))

    async def _wake_up(self, claim: Claim, step: str) -> None:
        match step:
            case "deliver":
                await self._deliver(claim, 10, None, retry=False)
            case "give back":
                await self.bench.give_back(claim)
            case "beat":
                assert await self.bench.beat(claim) == {}
            case _:
                await self._fail(claim, None, again=step == "queue again")

    async def _crash(self, claim: Claim) -> None:
        await self.bench.lapse(claim)
        back, hopeless = await self.bench.reap()
        job = self.model[claim.job_id]
        job.deaths += 1
        if job.cancel:
            job.status = "canceled"
        else:
            job.status = "queued" if job.deaths < MAX_ATTEMPTS else "failed"
        if job.status != "queued":
            job.close_attempt(None)
        assert (back, hopeless) == ((1, 0) if job.status == "queued" else (0, 1))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), late=st.booleans(), seconds=st.sampled_from([1, 10, 100]), retry=st.booleans())
    def deliver(self, data: st.DataObject, seconds: int, *, late: bool, retry: bool) -> None:
        """Also by workers whose claim is long void."""
        if self._claims(late=late):
            cost = data.draw(COSTS)
            self.runner.run(self._deliver(self._draw_claim(data, late=late), seconds, cost, retry=retry))

    async def _deliver(self, claim: Claim, seconds: int, cost: int | None, *, retry: bool) -> None:
        current = self._is_current(claim)
        ended = await self.bench.deliver(claim, frames=seconds * 48_000, retry=retry, cost_nano=cost)
        job = self.model[claim.job_id]
        if current:
            job.close_attempt(cost, completed=not job.cancel)
            job.status = "canceled" if job.cancel else "completed"
            job.charged = 0 if job.cancel else min(seconds * job.price, job.held)
            self.posted -= job.charged
        repeated = retry and job.fence == claim.fence and job.status not in {"queued", "processing"}
        assert ended.won == (current or repeated)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), late=st.booleans(), again=st.booleans())
    def fail(self, data: st.DataObject, *, late: bool, again: bool) -> None:
        if self._claims(late=late):
            cost = data.draw(COSTS)
            self.runner.run(self._fail(self._draw_claim(data, late=late), cost, again=again))

    async def _fail(self, claim: Claim, cost: int | None, *, again: bool) -> None:
        job, current = self.model[claim.job_id], self._is_current(claim)
        if again:
            queued = current and not job.cancel and job.attempts < MAX_ATTEMPTS
            assert await self.bench.move_on(claim, claim.queue, cost_nano=cost) == queued
            if queued:
                job.status = "queued"
                job.close_attempt(cost)
            return
        assert (await self.bench.fail(claim, cost_nano=cost)).won == current
        if current:
            job.status = "canceled" if job.cancel else "failed"
            job.close_attempt(cost)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), late=st.booleans())
    def give_back(self, data: st.DataObject, *, late: bool) -> None:
        if not self._claims(late=late):
            return
        claim = self._draw_claim(data, late=late)
        job = self.model[claim.job_id]
        if self._is_current(claim) and job.at_risk:
            return  # a worker that has sent something never says that nothing was started
        self.runner.run(self.bench.give_back(claim))
        if not late and not job.cancel:
            job.status, job.attempts = "queued", job.attempts - 1

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), late=st.booleans())
    def hand_over(self, data: st.DataObject, *, late: bool) -> None:
        """The worker leaves: what it has sent goes on."""
        if not self._claims(late=late):
            return
        claim = self._draw_claim(data, late=late)
        self.runner.run(self.bench.hand_over(claim))
        job = self.model[claim.job_id]
        if not late and not job.cancel:
            job.status, job.attempts = "queued", job.attempts - (not job.at_risk)

    @rule(nano=st.sampled_from([1, 1_000, NANO_PER_SECOND, 10 * NANO_PER_SECOND]))
    def change_price(self, nano: int) -> None:
        self.price = nano
        self.runner.run(self._change_price(nano))

    async def _change_price(self, nano: int) -> None:
        async with self.pool.acquire() as conn:
            await billing.set_price(
                conn, model="sandbox", nano_per_second=nano, account_id=self.keys[0].organization_id
            )

    @rule()
    def revoke_a_key(self) -> None:
        """Its jobs go on; what it may submit is the directory's business."""
        self.runner.run(self._revoke())

    async def _revoke(self) -> None:
        async with self.pool.acquire() as conn, conn.transaction():
            await revoke_key(conn, self.keys[1].key_id)

    @rule(amount=st.sampled_from([1, NANO_PER_SECOND, CREDIT]))
    def top_up(self, amount: int) -> None:
        self.runner.run(self._top_up(amount))
        self.posted += amount

    async def _top_up(self, amount: int) -> None:
        async with self.pool.acquire() as conn, conn.transaction():
            await billing.grant(
                conn, account_id=self.keys[0].organization_id, amount_nano=amount, reason="a gift"
            )

    @invariant()
    def jobs_and_money_are_what_the_model_says(self) -> None:
        if self.keys:
            self.runner.run(self._compare())

    async def _compare(self) -> None:
        rows = await self.pool.fetch(
            """
            SELECT id, status, attempts, fence, coalesce(charged_nano, 0) AS charged,
                   coalesce(a.cost, 0), coalesce(a.possible, 0)
              FROM job
              LEFT JOIN (SELECT job_id,
                                sum(provider_cost_nano) FILTER (WHERE NOT cost_is_possible)::bigint AS cost,
                                sum(provider_cost_nano) FILTER (WHERE cost_is_possible)::bigint AS possible
                           FROM attempt GROUP BY 1) a ON a.job_id = job.id
             WHERE organization_id = $1
            """,
            self.keys[0].organization_id,
        )
        found: dict[uuid.UUID, Any] = {row["id"]: tuple(row)[1:] for row in rows}
        assert found == {
            job_id: (job.status, job.attempts, job.fence, job.charged, job.cost, job.possible_cost)
            for job_id, job in self.model.items()
        }
        assert await self._booked_costs() == (
            sum(job.cost for job in self.model.values()),
            sum(job.possible_cost for job in self.model.values()),
        )
        assert await self.bench.balance(self.keys[0]) == (self.posted, self._held())

    async def _booked_costs(self) -> tuple[int, int]:
        """What the ledger says of this life's attempts: expense, and variance."""
        row = await self.pool.fetchrow(
            """
            SELECT coalesce(-sum(e.amount_nano) FILTER (WHERE e.account_id = $1), 0)::bigint,
                   coalesce(-sum(e.amount_nano) FILTER (WHERE e.account_id = $2), 0)::bigint
              FROM transfer t JOIN entry e ON e.transfer_id = t.id
             WHERE t.kind = 'provider_cost' AND split_part(t.external_ref, ':', 1)::uuid = ANY($3)
            """,
            billing.COGS_EXPENSE,
            billing.VARIANCE,
            list(self.model),
        )
        return row[0], row[1]

    def _held(self) -> int:
        return sum(job.held for job in self.model.values() if job.status in {"queued", "processing"})

    def _claims(self, *, late: bool) -> list[Claim]:
        """Those that count, or those that do not any more; of these, first the ones of jobs at work."""
        chosen = [claim for claim in self.claims if self._is_current(claim) != late]
        return sorted(chosen, key=lambda claim: self.model[claim.job_id].status != "processing")

    def _draw_claim(self, data: st.DataObject, *, late: bool) -> Claim:
        return data.draw(st.sampled_from(self._claims(late=late)))

    def _is_current(self, claim: Claim) -> bool:
        job = self.model[claim.job_id]
        return job.status == "processing" and job.fence == claim.fence


def live_through(dsn: str, examples: int, steps: int) -> None:
    run_state_machine_as_test(
        type("Machine", (JobMachine,), {"dsn": dsn}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_jobs_live_as_their_model(database: str) -> None:
    live_through(database, examples=60, steps=40)


@pytest.mark.slow
def test_jobs_live_as_their_model_for_long(database: str) -> None:
    live_through(database, examples=300, steps=60)
