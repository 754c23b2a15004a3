"""The same step from many sides at the same moment: one of them counts, and nobody waits in a circle."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import asyncpg
import pytest

import billing
from billing import ProviderCost
from gateway.errors import JobAlreadyFinal
from gateway.jobs.job import JobStatus
from tests.billing import till
from tests.factories import NANO_PER_SECOND, Conn, Pool, open_lanes, open_shop, violations
from tests.workbench import Workbench

Step = Callable[[Conn], Awaitable[object]]

CONNECTIONS = 20
AT_ONCE = 6
"""Races that run side by side, on the same accounts."""
TRIES = [150, pytest.param(3000, marks=pytest.mark.slow)]
TAKING = ("payment_refund", "dispute")
GIVING = ("payment_refund_failed", "dispute_won")
ROUNDS = [40, pytest.param(1500, marks=pytest.mark.slow)]
COST = 10 * NANO_PER_SECOND


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """Enough connections that everybody has one."""
    async with asyncpg.create_pool(database, min_size=CONNECTIONS, max_size=CONNECTIONS) as opened:
        async with opened.acquire() as conn:
            await open_shop(conn)
        yield opened


async def refused(pool: Pool, step: Step) -> bool:
    """Whether the books refuse the step; or what it says itself, True meaning that it was done before."""
    async with pool.acquire() as conn:
        try:
            return await step(conn) is False
        except billing.LedgerConflict:
            return True


async def race(pool: Pool, contests: Sequence[Sequence[Step]]) -> None:
    """Of each contest, whose steps start together, exactly one is not refused."""
    for start in range(0, len(contests), AT_ONCE):
        some = contests[start : start + AT_ONCE]
        answers = await asyncio.gather(*(refused(pool, step) for steps in some for step in steps))
        for steps in some:
            mine, answers = answers[: len(steps)], answers[len(steps) :]
            assert Counter(mine) == {False: 1, True: len(steps) - 1}


async def prove(pool: Pool) -> None:
    async with pool.acquire() as conn:
        assert await till.faults(conn) == []


@pytest.mark.parametrize("tries", TRIES)
async def test_a_job_is_settled_once_or_released_once(pool: Pool, tries: int) -> None:
    async with pool.acquire() as conn:
        account_id = await till.new_account(conn, gift=10 * tries, paid=10 * tries)
        songs = [await till.must_hold(conn, account_id, 7) for _ in range(tries)]
    settles: list[Step] = [lambda conn, song=song: till.charge(conn, song, 5) for song in songs]
    releases: list[Step] = [lambda conn, song=song: till.release(conn, song) for song in songs]
    ends = [
        (settle, settle) if n % 2 else (settle, release, settle)
        for n, (settle, release) in enumerate(zip(settles, releases, strict=True))
    ]
    await race(pool, ends)
    async with pool.acquire() as conn:
        states = Counter(row[0] for row in await conn.fetch("SELECT state FROM hold"))
        account = await billing.read_account(conn, account_id)
    assert states["settled"] + states["released"] == tries
    assert states["settled"] >= tries // 2
    assert (account.posted_nano, account.held_nano) == (20 * tries - 5 * states["settled"], 0)
    await prove(pool)


@pytest.mark.parametrize("tries", TRIES)
async def test_a_charge_is_given_back_once(pool: Pool, tries: int) -> None:
    async with pool.acquire() as conn:
        account_id = await till.new_account(conn, gift=10 * tries)
        songs = [await till.spend(conn, account_id, 3) for _ in range(tries)]
    await race(pool, [[lambda conn, song=song: till.refund(conn, song)] * 3 for song in songs])
    async with pool.acquire() as conn:
        assert await till.posted(conn, account_id) == 10 * tries
        assert await till.posted(conn, billing.REVENUE) == 0
    await prove(pool)


@pytest.mark.parametrize("tries", TRIES)
@pytest.mark.parametrize("kind", ["top_up", *TAKING, *GIVING])
async def test_an_object_at_the_provider_is_booked_once(pool: Pool, kind: str, tries: int) -> None:
    async with pool.acquire() as conn:
        accounts = [await till.new_account(conn, paid=tries) for _ in range(3)]

    def book(n: int) -> Step:
        account_id, ref = accounts[n % 3], f"x_{n}"
        if kind == "top_up":
            return lambda conn: till.pay(conn, account_id, 5, ref)
        if kind in TAKING:
            return lambda conn: till.take(conn, account_id, 5, ref, kind=kind)
        return lambda conn: till.return_again(conn, account_id, 5, ref, kind=kind)

    await race(pool, [[book(n)] * 3 for n in range(tries)])
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM transfer WHERE kind = $1", kind) == tries + (
            3 if kind == "top_up" else 0
        )
        moved = 5 * tries * (1 if kind in TAKING else -1)
        assert await till.posted(conn, billing.STRIPE_CLEARING) == moved - 3 * tries
    await prove(pool)


def events_of(account_id: uuid.UUID, payment: str) -> list[Step]:
    """50 are paid and 7 disputed; what else is taken is given again."""
    return [
        lambda conn: till.pay(conn, account_id, 50, payment),
        lambda conn: till.take(conn, account_id, 20, payment, kind=TAKING[0], payment=payment),
        lambda conn: till.return_again(conn, account_id, 20, payment, kind=GIVING[0]),
        lambda conn: till.take(conn, account_id, 50, payment, kind=TAKING[1], payment=payment),
        lambda conn: till.return_again(conn, account_id, 50, payment, kind=GIVING[1]),
        lambda conn: till.take(conn, account_id, 7, f"{payment} again", payment=payment),
    ]


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_all_that_can_happen_to_a_payment_in_any_order_and_twice_nets_to_the_same(
    pool: Pool, rounds: int
) -> None:
    dice = random.Random(rounds)
    async with pool.acquire() as conn:
        accounts = [await till.new_account(conn) for _ in range(2)]
    steps: list[Step] = []
    for n in range(rounds):
        steps += 2 * events_of(accounts[n % 2], f"pi_{n}")
    dice.shuffle(steps)
    for start in range(0, len(steps), CONNECTIONS):
        await asyncio.gather(*(refused(pool, step) for step in steps[start : start + CONNECTIONS]))
    async with pool.acquire() as conn:
        while await till.collect(conn):
            pass
        found = [await billing.read_account(conn, account_id) for account_id in accounts]
        assert [(one.posted_nano, one.owed_nano) for one in found] == [
            (43 * len(range(n, rounds, 2)), 0) for n in range(2)
        ]
        assert await till.posted(conn, billing.STRIPE_CLEARING) == -43 * rounds
    await prove(pool)


@pytest.mark.parametrize("tries", TRIES)
async def test_credit_for_some_holds_is_credit_for_exactly_these(pool: Pool, tries: int) -> None:
    affordable = tries // 10
    async with pool.acquire() as conn:
        account_id = await till.new_account(conn, gift=affordable * 7 + 6)

    async def hold(_: int) -> uuid.UUID | None:
        async with pool.acquire() as conn:
            return await till.hold(conn, account_id, 7)

    held = await asyncio.gather(*map(hold, range(tries)))
    assert sum(reference is not None for reference in held) == affordable
    async with pool.acquire() as conn:
        assert await till.available(conn, account_id) == 6
    await prove(pool)


@pytest.mark.parametrize("tries", TRIES)
async def test_a_job_is_cancelled_or_charged_and_never_both(pool: Pool, database: str, tries: int) -> None:
    async with open_lanes(database, 2) as lanes:
        benches = [Workbench(pool, jobs) for jobs in lanes]
        principal = await benches[0].customer(credit_nano=tries * COST)
        jobs = [await benches[0].submit(principal) for _ in range(tries)]
        claims = {claim.job_id: claim for claim in await benches[0].claim(tries)}

        async def contest(n: int) -> tuple[bool, JobStatus | None]:
            canceling, ending, again = await asyncio.gather(
                benches[n % 2].jobs.cancel(principal, jobs[n].id),
                benches[0].deliver(claims[jobs[n].id]),
                benches[1].deliver(claims[jobs[n].id], retry=True),
                return_exceptions=True,
            )
            assert not isinstance(ending, BaseException)
            assert not isinstance(again, BaseException)
            assert ending.won or again.won
            if isinstance(canceling, BaseException):
                assert isinstance(canceling, JobAlreadyFinal)
            return not isinstance(canceling, BaseException), ending.status or again.status

        outcomes: list[tuple[bool, JobStatus | None]] = []
        for start in range(0, tries, AT_ONCE):
            outcomes += await asyncio.gather(*map(contest, range(start, min(start + AT_ONCE, tries))))
        assert set(outcomes) <= {(True, JobStatus.CANCELED), (False, JobStatus.COMPLETED)}
        charged = sum(status is JobStatus.COMPLETED for _, status in outcomes)
        assert await benches[0].balance(principal) == ((tries - charged) * COST, 0)
    assert await violations(database) == []


class Crowd:
    """Everybody does everything to the same three accounts."""

    def __init__(self, pool: Pool, accounts: Sequence[uuid.UUID], seed: int) -> None:
        self._pool = pool
        self._accounts = accounts
        self._subjects = {owner: [owner, uuid.uuid4(), uuid.uuid4(), uuid.uuid4()] for owner in accounts}
        self._dice = random.Random(seed)
        self._open: list[uuid.UUID] = []
        self._ended: list[uuid.UUID] = []
        self.done: Counter[str] = Counter()

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            name = self._dice.choice([name for name in dir(self) if name.startswith("do_")])
            async with self._pool.acquire() as conn:
                try:
                    await getattr(self, name)(conn, self._dice.choice(self._accounts))
                except billing.LedgerConflict:  # somebody else was faster
                    name += " too late"
            self.done[name] += 1

    async def do_hold(self, conn: Conn, account_id: uuid.UUID) -> None:
        for _ in range(3):
            subjects = self._dice.sample(self._subjects[account_id], 3)
            reference = await till.hold(conn, account_id, self._dice.randint(1, 50), subjects=subjects)
            self._open += [reference] if reference else []

    async def do_settle(self, conn: Conn, _: uuid.UUID) -> None:
        """Of several customers, in no order; and what the provider wants for it, in the same commit."""
        chosen = self._draw(4)
        cut = self._dice.randint(0, len(chosen))
        async with conn.transaction():
            await billing.settle(
                conn,
                [
                    billing.Delivery(reference=one, frames=self._dice.randint(1, 90), sample_rate=1000)
                    for one in chosen[:cut]
                ],
                undelivered=chosen[cut:],
            )
            await billing.book_provider_costs(conn, [ProviderCost(one, 1, 2) for one in chosen])
        self._ended += chosen[:cut]

    async def do_settle_again(self, conn: Conn, _: uuid.UUID) -> None:
        ended = self._dice.sample(self._ended, min(len(self._ended), 1))
        async with conn.transaction():
            await billing.release(conn, [*ended, *self._open[:1]])

    async def do_give(self, conn: Conn, account_id: uuid.UUID) -> None:
        await till.give(conn, account_id, 60, days=self._dice.choice([None, 0, 0, 1]))

    async def do_pay(self, conn: Conn, account_id: uuid.UUID) -> None:
        await till.pay(conn, account_id, 40, self._name())

    async def do_take(self, conn: Conn, account_id: uuid.UUID) -> None:
        kind = self._dice.choice(TAKING)
        await till.take(conn, account_id, 70, self._name(), kind=kind, payment=self._name())

    async def do_return(self, conn: Conn, account_id: uuid.UUID) -> None:
        kind = self._dice.choice(GIVING)
        await till.return_again(conn, account_id, 50, self._name(), kind=kind)

    async def do_keep_the_books(self, conn: Conn, _: uuid.UUID) -> None:
        await till.sweep(conn)
        await till.collect(conn)
        async with conn.transaction():
            await billing.take_untold(conn)

    async def do_refund(self, conn: Conn, _: uuid.UUID) -> None:
        for reference in self._dice.sample(self._ended, min(len(self._ended), 2)):
            await till.refund(conn, reference)

    async def do_limit(self, conn: Conn, account_id: uuid.UUID) -> None:
        subject = self._dice.choice(self._subjects[account_id])
        period = self._dice.choice(billing.BUDGET_PERIODS)
        if self._dice.random() < 0.3:
            await billing.remove_budget(conn, subject=subject, period=period)
            return
        await billing.set_budget(
            conn,
            account_id=account_id,
            subject=subject,
            scope="key",
            period=period,
            limit_nano=self._dice.choice([30, 10**6]),
            alert_nano=self._dice.choice([None, 1]),
        )

    async def do_warn(self, conn: Conn, account_id: uuid.UUID) -> None:
        low = self._dice.randint(10, 100)
        await billing.set_thresholds(conn, account_id, low_nano=low, critical_nano=10)

    def _draw(self, most: int) -> list[uuid.UUID]:
        chosen = self._dice.sample(self._open, min(len(self._open), self._dice.randint(1, most)))
        self._open = [one for one in self._open if one not in chosen]
        return chosen

    def _name(self) -> str:
        return f"x_{self._dice.randint(1, 200)}"


@pytest.mark.parametrize("steps", [30, pytest.param(1500, marks=pytest.mark.slow)])
async def test_twenty_who_do_everything_to_the_same_accounts_never_wait_in_a_circle(
    pool: Pool, steps: int
) -> None:
    async with pool.acquire() as conn:
        accounts = [await till.new_account(conn, paid=500) for _ in range(3)]
    crowd = Crowd(pool, accounts, seed=steps)
    await asyncio.gather(*(crowd.live(steps) for _ in range(CONNECTIONS)))
    assert min(crowd.done[name] for name in dir(crowd) if name.startswith("do_")) > 0, crowd.done
    await prove(pool)


async def test_who_waits_for_the_first_of_several_budgets_holds_none_of_the_others(pool: Pool) -> None:
    async with pool.acquire() as first, pool.acquire() as second, pool.acquire() as third:
        account_id = await till.new_account(first)
        subjects = [uuid.uuid4() for _ in range(5)]
        budgets = [
            await billing.set_budget(
                first, account_id=account_id, subject=one, scope="key", period="day", limit_nano=1
            )
            for one in subjects
        ]
        lowest, *others = sorted(budgets)
        # A scan meets it last.
        await first.execute("UPDATE budget SET limit_nano = 2 WHERE id = $1", lowest)

        async def lock_all() -> list[uuid.UUID]:
            async with second.transaction():
                return [budget.id for budget in await billing.lock_budgets(second, subjects=subjects)]

        async with first.transaction():
            await first.execute("SELECT FROM budget WHERE id = $1 FOR UPDATE", lowest)
            locking = asyncio.create_task(lock_all())
            waits = "SELECT cardinality(pg_blocking_pids($1)) > 0"
            while not await third.fetchval(waits, second.get_server_pid()):  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.005)
            async with third.transaction():
                await third.execute("SELECT FROM budget WHERE id = ANY($1) FOR UPDATE NOWAIT", others)
        assert await locking == [lowest, *others]
