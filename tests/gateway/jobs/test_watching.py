"""Waiting for jobs: one query for everybody, the latest state for each, and an end for all."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway.auth.principal import Principal
from gateway.errors import JobNotFound, Overloaded
from gateway.ids import new_id
from gateway.jobs import watching
from gateway.jobs.forecast import UNKNOWN, Forecast
from gateway.jobs.job import Job, JobState, JobStatus
from gateway.jobs.watching import Following, JobWatch, Sight
from tests.factories import Pool, new_key, new_project
from tests.query_log import logged_pool
from tests.workbench import Workbench

TICK_SECONDS = 0.02
PATIENCE_SECONDS = 20.0


@contextlib.asynccontextmanager
async def open_watch(pool: Pool, *, max_followers: int = 2_000) -> AsyncIterator[JobWatch]:
    forecast = Forecast(pool)
    watch = JobWatch(pool=pool, forecast=forecast, tick_seconds=TICK_SECONDS, max_followers=max_followers)
    yield watch
    watch.stop()
    await forecast.close()


@pytest.fixture
async def watch(pool: Pool) -> AsyncIterator[JobWatch]:
    async with open_watch(pool) as opened:
        yield opened


@pytest.fixture
async def principal(bench: Workbench) -> Principal:
    return await bench.customer()


def follow(watch: JobWatch, job: Job) -> Following:
    return watch.follow(job.id, owner=job.organization_id)


async def sight_of(following: Following, status: JobStatus) -> Sight:
    """The first sight of the job in that status."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            sight = await following.next(PATIENCE_SECONDS)
            assert not following.ended
            if sight is not None and sight.state.status is status:
                return sight


async def test_every_state_is_told_and_with_the_last_one_all_of_the_job(
    bench: Workbench, watch: JobWatch, principal: Principal
) -> None:
    job = await bench.submit(principal)
    with follow(watch, job) as following:
        assert (await sight_of(following, JobStatus.QUEUED)).job is None
        claim = await bench.claim_one()
        assert (await sight_of(following, JobStatus.PROCESSING)).state.progress == 0
        await bench.beat(claim, progress=0.5)
        assert (await sight_of(following, JobStatus.PROCESSING)).state.progress == 0.5
        await bench.give_back(claim)
        await sight_of(following, JobStatus.QUEUED)
        await bench.deliver(await bench.claim_one())
        last = await sight_of(following, JobStatus.COMPLETED)
    assert last.job == await bench.jobs.read(principal, job.id)
    assert last.outlook == UNKNOWN


async def test_a_hundred_jobs_are_one_query(bench: Workbench, database: str) -> None:
    customers = [await bench.customer() for _ in range(4)]
    jobs = [await bench.submit(principal) for principal, _ in itertools.product(customers, range(25))]
    async with logged_pool(database) as (pool, queries), open_watch(pool) as watch:
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(follow(watch, job)) for job in jobs]
            await asyncio.gather(*(sight_of(listener, JobStatus.QUEUED) for listener in listeners))
            told_first = [query for query in queries if "string_agg" not in query]
            claims = await bench.claim(100)
            told = asyncio.gather(*(sight_of(listener, JobStatus.PROCESSING) for listener in listeners))
            del queries[:]
            await told
            assert len(told_first) <= 3
            assert len([query for query in queries if "string_agg" not in query]) <= 3
            for claim in claims:
                await bench.deliver(claim)
            del queries[:]
            ended = await asyncio.gather(*(sight_of(listener, JobStatus.COMPLETED) for listener in listeners))
            assert {sight.job.id for sight in ended if sight.job} == {job.id for job in jobs}
            assert len(queries) <= 6


async def test_who_looks_late_sees_the_latest_and_nothing_else(
    bench: Workbench, watch: JobWatch, principal: Principal
) -> None:
    job = await bench.submit(principal)
    with follow(watch, job) as quick, follow(watch, job) as slow:
        claim = await bench.claim_one()
        for progress in (0.1, 0.2, 0.3):
            await bench.beat(claim, progress=progress)
            while (await sight_of(quick, JobStatus.PROCESSING)).state.progress < progress:
                pass
        assert (await sight_of(slow, JobStatus.PROCESSING)).state.progress == 0.3
        assert await slow.next(TICK_SECONDS * 3) is None


async def test_all_who_follow_a_job_share_what_is_made_of_it(
    bench: Workbench, watch: JobWatch, principal: Principal
) -> None:
    job = await bench.submit(principal)
    with follow(watch, job) as one, follow(watch, job) as other:
        assert await sight_of(one, JobStatus.QUEUED) is await sight_of(other, JobStatus.QUEUED)


def state_of(status: JobStatus, *, fence: int, progress: float = 0.0) -> JobState:
    return JobState(
        id=new_id(),
        status=status,
        progress=progress,
        fence=fence,
        queue="sandbox",
        turn=0,
        length_ms=1,
        started_at=None,
    )


def test_what_was_read_earlier_and_arrives_later_is_no_news() -> None:
    life = [
        state_of(JobStatus.QUEUED, fence=0),
        state_of(JobStatus.PROCESSING, fence=1),
        state_of(JobStatus.PROCESSING, fence=1, progress=0.5),
        state_of(JobStatus.QUEUED, fence=1),
        state_of(JobStatus.PROCESSING, fence=2),
        state_of(JobStatus.PROCESSING, fence=2, progress=0.25),
        state_of(JobStatus.FAILED, fence=2, progress=1.0),
    ]
    for known, then in itertools.product(range(len(life)), repeat=2):
        watched = watching._Watched()
        watched.show(Sight(life[known], UNKNOWN))
        assert watched.is_news(life[then]) == (then > known)


async def test_waiting_ends_with_the_job(bench: Workbench, watch: JobWatch, principal: Principal) -> None:
    job = await bench.submit(principal)
    waiting = asyncio.create_task(watch.wait_until_final(principal, job.id, PATIENCE_SECONDS))
    await bench.deliver(await bench.claim_one())
    ended = await waiting
    assert ended == await bench.jobs.read(principal, job.id)
    assert await watch.wait_until_final(principal, job.id, PATIENCE_SECONDS) == ended
    assert watch._watched == {}


async def test_waiting_ends_with_the_time(bench: Workbench, watch: JobWatch, principal: Principal) -> None:
    job = await bench.submit(principal)
    for seconds in (0, 0.05):
        assert await watch.wait_until_final(principal, job.id, seconds) is None
    assert watch._watched == {}


async def test_nobody_waits_for_what_he_may_not_see(
    bench: Workbench, watch: JobWatch, principal: Principal
) -> None:
    async with bench.pool.acquire() as conn:
        project_id = await new_project(conn, principal.organization_id, "one")
        inside = await new_key(conn, principal.organization_id, project_id=project_id)
    stranger = await bench.customer()
    whole, part = await bench.submit(principal), await bench.submit(inside)
    for claim in await bench.claim(2):
        await bench.deliver(claim)
    for who, job, sees in (
        (principal, whole, True),
        (principal, part, True),
        (inside, part, True),
        (inside, whole, False),
        (stranger, whole, False),
        (stranger, part, False),
    ):
        ended = await watch.wait_until_final(who, job.id, PATIENCE_SECONDS)
        assert (ended is not None) == sees
        if sees:
            assert (await watch.look(who, job.id)).state.status is JobStatus.COMPLETED
        else:
            with pytest.raises(JobNotFound):
                await watch.look(who, job.id)


async def test_a_job_that_nobody_follows_is_not_asked_for(
    bench: Workbench, watch: JobWatch, principal: Principal
) -> None:
    jobs = [await bench.submit(principal) for _ in range(2)]
    with follow(watch, jobs[0]) as one:
        with follow(watch, jobs[1]), follow(watch, jobs[0]):
            assert set(watch._watched) == {job.id for job in jobs}
        assert set(watch._watched) == {jobs[0].id}
        assert not one.ended
    assert (watch._watched, watch._followers, watch._followers_of) == ({}, 0, {})
    assert watch._poller is not None
    await asyncio.wait_for(watch._poller, PATIENCE_SECONDS)


async def test_there_is_a_most_of_listeners(bench: Workbench, pool: Pool, principal: Principal) -> None:
    job, other = await bench.submit(principal), await bench.submit(await bench.customer())
    async with open_watch(pool, max_followers=2) as watch:
        with follow(watch, job), follow(watch, other):
            with pytest.raises(Overloaded) as refusal:
                follow(watch, job)
            assert refusal.value.retry_after_seconds
            assert await watch.wait_until_final(principal, job.id, PATIENCE_SECONDS) is None
        with follow(watch, job):
            pass


async def test_one_organization_leaves_room_for_others(
    bench: Workbench, watch: JobWatch, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MAX_FOLLOWERS_OF_ONE", 1)
    job, other = await bench.submit(principal), await bench.submit(await bench.customer())
    with follow(watch, job), follow(watch, other), pytest.raises(Overloaded):
        follow(watch, job)


async def test_everybody_is_let_go_when_the_process_ends(
    bench: Workbench, watch: JobWatch, principal: Principal
) -> None:
    job = await bench.submit(principal)
    waiting = asyncio.create_task(watch.wait_until_final(principal, job.id, 3600))
    with follow(watch, job) as following:
        await sight_of(following, JobStatus.QUEUED)
        watch.stop()
        assert await following.next(3600) is None
        assert following.ended
    assert await waiting is None
    with pytest.raises(Overloaded):
        follow(watch, job)
    assert await watch.wait_until_final(principal, job.id, 3600) is None


async def test_a_slow_database_is_asked_more_rarely(
    bench: Workbench, watch: JobWatch, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    took = iter([0.0, 0.001, 0.05, 0.2, 30.0])
    sleep = asyncio.sleep

    async def poll(_: object) -> float:
        return next(took)

    async def note_pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    job = await bench.submit(principal)
    monkeypatch.setattr(watch, "_poll", poll)
    monkeypatch.setattr(watching.asyncio, "sleep", note_pause)
    with follow(watch, job) as following:
        while len(pauses) < 6:
            await sleep(0)
        assert not following.ended
    # Nineteen twentieths of the time are left to others, but two seconds are the most.
    assert pauses == pytest.approx([0.02, 0.02, 0.02, 0.95, 2.0, 2.0])


async def test_who_waits_outlasts_a_database_that_is_away(
    bench: Workbench, database: str, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.database.READ_DELAYS_SECONDS", (0.0,))
    admin = await asyncpg.connect(database)
    name = database.rpartition("/")[2]
    job = await bench.submit(principal)
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool, open_watch(pool) as watch:
        with follow(watch, job) as following:
            await sight_of(following, JobStatus.QUEUED)
            await admin.execute(f"ALTER DATABASE {name} WITH CONNECTION LIMIT 0")
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            with pytest.raises(asyncpg.TooManyConnectionsError):
                await asyncpg.connect(database)
            assert await following.next(TICK_SECONDS * 20) is None
            assert not following.ended
            await admin.execute(f"ALTER DATABASE {name} WITH CONNECTION LIMIT -1")
            await bench.deliver(await bench.claim_one())
            assert (await sight_of(following, JobStatus.COMPLETED)).job is not None
    await admin.close()


async def test_a_job_that_cannot_be_read_ends_for_its_own_listeners_only(
    bench: Workbench, watch: JobWatch, principal: Principal
) -> None:
    whole, broken = await bench.submit(principal), await bench.submit(principal)
    with follow(watch, broken) as lost, follow(watch, whole) as kept:
        await sight_of(kept, JobStatus.QUEUED)
        await bench.deliver(await bench.claim_one())
        await bench.pool.execute(
            """
            UPDATE job SET request = '{}', status = 'canceled', completed_at = now(), error = '{}'
             WHERE id = $1
            """,
            broken.id,
        )
        assert (await sight_of(kept, JobStatus.COMPLETED)).job is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not lost.ended:
                await lost.next(1)
