"""Where in the queue a job stands, and when it will be done: estimates, from one bounded look a second."""

import asyncio
import json
import random
import uuid
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import tables
from gateway.ids import new_id
from gateway.jobs import forecast as forecast_module
from gateway.jobs.forecast import UNKNOWN, Forecast, Survey, sort_key, take_survey
from gateway.jobs.job import JobState, JobStatus
from gateway.jobs.workforce import note_alive, note_left
from tests.factories import Pool, until
from tests.query_log import logged_pool
from tests.workbench import Workbench

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Waiting = tuple[int, uuid.UUID, int]
"""Turn, id, milliseconds of audio."""

waiting_jobs = st.lists(
    st.tuples(st.integers(0, 60_000) | st.integers(0, 3), st.uuids(), st.integers(1, 600_000)),
    max_size=40,
    unique_by=lambda job: job[1],
)


def survey_of(waiting: Sequence[Waiting], **changes: Any) -> Survey:
    """What Postgres would have sent for a queue of these jobs."""
    line = sorted(waiting)
    work = [sum(length for *_, length in line[: n + 1]) for n in range(len(line))]
    values: dict[str, Any] = {
        "taken_at": NOW,
        "keys": b"".join(sort_key(turn, job_id) for turn, job_id, _ in line),
        "work": b"".join(total.to_bytes(8) for total in work),
        "running": 0,
        "running_ms": 0.0,
        "slots": 4,
        "pace": 0.1,
    }
    return Survey(**(values | changes))


def running_job(*, progress: float, started: timedelta, length_ms: int = 60_000) -> JobState:
    return JobState(
        id=new_id(),
        status=JobStatus.PROCESSING,
        progress=progress,
        fence=1,
        queue="sandbox",
        turn=0,
        length_ms=length_ms,
        started_at=NOW - started,
    )


@given(waiting_jobs, st.integers(0, 60_000), st.uuids())
def test_a_rank_is_the_number_of_jobs_that_are_claimed_before(
    waiting: list[Waiting], turn: int, job_id: uuid.UUID
) -> None:
    survey = survey_of(waiting)
    line = sorted((other, other_id) for other, other_id, _ in waiting)
    for one in [(turn, job_id), *line]:
        assert survey.rank(sort_key(*one)) == bisect_left(line, one)
        assert survey.holds(sort_key(*one), survey.rank(sort_key(*one))) == (one in line)
    lengths = [length for *_, length in sorted(waiting)]
    assert [survey.work_before(rank) for rank in range(len(line) + 1)] == [
        sum(lengths[:rank]) for rank in range(len(line) + 1)
    ]


@given(
    waiting_jobs,
    st.integers(1, 600_000),
    st.integers(0, 9),
    st.integers(1, 8),
    st.floats(0, 1e6),
    st.floats(0.001, 100),
)
def test_who_stands_further_back_is_never_served_earlier(
    waiting: list[Waiting], length_ms: int, running: int, slots: int, running_ms: float, pace: float
) -> None:
    survey = survey_of(waiting, running=running, running_ms=running_ms, slots=slots, pace=pace)
    ends = [
        survey.seconds_until_end(rank + 1, survey.work_before(rank), length_ms)
        for rank in range(survey.depth + 1)
    ]
    assert all(end is not None and end >= 0 for end in ends)
    assert ends == sorted(ends, key=lambda end: end or 0)


def test_whoever_finds_a_free_slot_does_not_wait() -> None:
    survey = survey_of([(0, new_id(), 60_000), (0, new_id(), 60_000)], running=3, running_ms=60_000)
    assert survey.seconds_until_end(1, 0, 60_000) == 6.0
    assert survey.seconds_until_end(2, 60_000, 60_000) == 6.0 + (60_000 + 60_000) * 0.1 / 1000 / 4


@pytest.mark.parametrize(
    ("progress", "started", "left"),
    [
        (0.0, timedelta(0), 6.0),
        (0.25, timedelta(seconds=2), 4.5),
        (0.5, timedelta(seconds=30), 15.0),  # slower than usual: by its own pace
        (1.0, timedelta(seconds=5), 0.0),
        (0.0, timedelta(seconds=-5), 6.0),
    ],
)
def test_a_running_job_has_the_rest_of_its_time_left(
    progress: float, started: timedelta, left: float
) -> None:
    survey = survey_of([])
    assert survey.seconds_left(running_job(progress=progress, started=started), 0.0) == left


@pytest.mark.parametrize("missing", [{"pace": None}, {"slots": 0}])
def test_without_history_or_workers_nobody_knows_when(missing: dict[str, Any]) -> None:
    survey = survey_of([(0, new_id(), 5_000)], **missing)
    assert survey.seconds_until_end(1, 0, 5_000) is None
    assert survey.seconds_left(running_job(progress=0.5, started=timedelta(0)), 0.0) is None


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, the first survey is waited for."""
    monkeypatch.setattr(forecast_module, "PATIENCE_SECONDS", 20.0)


@pytest.fixture
async def forecast(pool: Pool) -> AsyncIterator[Forecast]:
    opened = Forecast(pool)
    yield opened
    await opened.close()


async def line_of(pool: Pool) -> list[uuid.UUID]:
    """The waiting jobs in the order in which they are claimed."""
    rows = await pool.fetch("SELECT id FROM job WHERE status = 'queued' ORDER BY turn, id")
    return [row["id"] for row in rows]


@pytest.mark.parametrize("seed", range(3))
async def test_a_position_is_the_true_number_of_jobs_ahead(bench: Workbench, seed: int) -> None:
    dice = random.Random(seed)
    customers = [await bench.customer() for _ in range(4)]
    jobs = []
    for _ in range(60):
        principal = dice.choice(customers)
        job = await bench.submit(principal, seconds=dice.randint(5, 60))
        jobs.append(job)
        match dice.randrange(8):
            case 0:
                (claim,) = await bench.claim()
                await bench.deliver(claim)
            case 1:
                await bench.claim()
            case 2:
                await bench.jobs.cancel(principal, job.id)
            case 3:
                await bench.give_back(*await bench.claim())
    line = await line_of(bench.pool)
    assert len(line) > 20
    forecast = Forecast(bench.pool)
    for job in jobs:
        found = await bench.jobs.read(
            next(c for c in customers if c.organization_id == job.organization_id), job.id
        )
        expected = line.index(job.id) + 1 if job.id in line else None
        assert (await forecast.outlook(found)).queue_position == expected
    await forecast.close()


async def test_a_job_that_was_just_submitted_knows_its_place_without_another_look(
    bench: Workbench, forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    principal, other = await bench.customer(), await bench.customer()
    first = await bench.submit(principal)
    assert (await forecast.outlook(first)).queue_position == 1
    monkeypatch.setattr(forecast_module, "REFRESH_SECONDS", 60.0)  # no other look
    monkeypatch.setattr(forecast_module, "STALE_SECONDS", 60.0)
    more = [await bench.submit(principal) for _ in range(3)]
    assert [(await forecast.outlook(job)).queue_position for job in more] == [2, 3, 4]
    newcomer = await bench.submit(other)
    assert (await forecast.outlook(newcomer)).queue_position == 2
    assert [(await forecast.outlook(job)).queue_position for job in more] == [3, 4, 5]


async def test_the_next_survey_does_not_count_them_twice(
    bench: Workbench, forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    principal = await bench.customer()
    jobs = [await bench.submit(principal) for _ in range(3)]
    for job in jobs:
        await forecast.outlook(job)
    monkeypatch.setattr(forecast_module, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(forecast_module, "STALE_SECONDS", 0.0)
    assert [(await forecast.outlook(job)).queue_position for job in jobs] == [None, None, None]
    monkeypatch.setattr(forecast_module, "STALE_SECONDS", 60.0)
    assert [(await forecast.outlook(job)).queue_position for job in jobs] == [1, 2, 3]


async def test_however_many_ask_there_is_one_survey(bench: Workbench, database: str) -> None:
    job = await bench.submit(await bench.customer())
    async with logged_pool(database) as (pool, queries):
        forecast = Forecast(pool)
        outlooks = await asyncio.gather(*(forecast.outlook(job) for _ in range(500)))
        assert {outlook.queue_position for outlook in outlooks} == {1}
        assert len(queries) == 1
        await forecast.close()


async def test_an_old_survey_still_answers_while_the_next_one_is_taken(
    bench: Workbench, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bench.submit(await bench.customer())
    async with logged_pool(database) as (pool, queries):
        forecast = Forecast(pool)
        await forecast.outlook(job)
        monkeypatch.setattr(forecast_module, "REFRESH_SECONDS", 0.0)
        assert (forecast.look(job).queue_position, len(queries)) == (1, 1)
        await until(lambda: _is(len(queries) == 2), what="the next survey")
        await forecast.close()
        monkeypatch.setattr(forecast_module, "STALE_SECONDS", 0.0)
        assert forecast.look(job) == UNKNOWN
        await forecast.close()


async def _is(fact: bool) -> bool:  # noqa: FBT001
    return fact


async def test_a_database_that_is_away_costs_the_estimates_only(
    bench: Workbench, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bench.submit(await bench.customer())
    pool = await asyncpg.create_pool(database, min_size=1, max_size=1)
    lost = Forecast(pool)
    await pool.close()
    assert await lost.outlook(job) == UNKNOWN
    monkeypatch.setattr(forecast_module, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(forecast_module, "TIMEOUT_SECONDS", 0.01)
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as busy, busy.acquire():
        waiting = Forecast(busy)
        assert await waiting.outlook(job) == UNKNOWN
        await waiting.close()


async def test_ended_jobs_have_no_outlook(bench: Workbench, forecast: Forecast) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    await bench.jobs.cancel(principal, job.id)
    ended = await bench.jobs.read(principal, job.id)
    assert await forecast.outlook(ended) == forecast.look(ended) == UNKNOWN


async def finish_after(bench: Workbench, job_id: uuid.UUID, seconds: float) -> None:
    """The job as one that took so long."""
    await bench.deliver(await bench.claim_one())
    await bench.pool.execute(
        "UPDATE job SET started_at = completed_at - make_interval(secs => $2) WHERE id = $1", job_id, seconds
    )


async def test_the_pace_is_that_of_the_jobs_that_were_finished_last(bench: Workbench) -> None:
    principal = await bench.customer()
    worker_id, gone_id = new_id(), new_id()
    async with bench.pool.acquire() as conn:
        assert (await take_survey(conn, "sandbox")).pace is None
        await note_alive(conn, worker_id, ["sandbox", "other"], capacity=3)
        await note_alive(conn, gone_id, ["sandbox"], capacity=5)
        await conn.execute("UPDATE worker SET seen_at = now() - interval '11 seconds' WHERE id = $1", gone_id)
    for seconds in (9, 9, 1):
        await finish_after(bench, (await bench.submit(principal, seconds=10)).id, seconds)
    await bench.fail(await _claimed(bench, await bench.submit(principal)))
    async with bench.pool.acquire() as conn:
        survey = await take_survey(conn, "sandbox")
        assert (survey.slots, survey.running, survey.depth) == (3, 0, 0)
        assert survey.pace is not None
        assert 0.1 < survey.pace < (9 + 9 + 1) / 30  # the last one weighs most
        await note_left(conn, worker_id)
        assert (await take_survey(conn, "sandbox")).slots == 0


async def _claimed(bench: Workbench, job: JobState) -> Any:
    claim = await bench.claim_one()
    assert claim.job_id == job.id
    return claim


async def test_the_end_is_estimated_from_queue_pace_and_workers(bench: Workbench) -> None:
    principal = await bench.customer()
    await finish_after(bench, (await bench.submit(principal, seconds=10)).id, 2)
    async with bench.pool.acquire() as conn:
        await note_alive(conn, new_id(), ["sandbox"], capacity=1)
    jobs = [await bench.submit(principal, seconds=10) for _ in range(3)]
    await bench.beat(await bench.claim_one(), progress=0.5)
    forecast = Forecast(bench.pool)
    rows = [await bench.jobs.read(principal, job.id) for job in jobs]
    outlooks = [await forecast.outlook(row) for row in rows]
    assert [outlook.queue_position for outlook in outlooks] == [None, 1, 2]
    assert [outlook.eta_seconds for outlook in outlooks] == pytest.approx([1.0, 3.0, 5.0], abs=0.3)
    await forecast.close()


BACKLOG = 50_000


async def plant_backlog(pool: Pool, job_id: uuid.UUID) -> None:
    """As many copies of a waiting job, their turns spread evenly."""
    names = [column.name for column in tables.job.columns]
    changed = {"id": "gen_random_uuid()", "turn": f"n::bigint * 7919 % {BACKLOG} * 100"}
    await pool.execute(
        f"INSERT INTO job ({', '.join(names)}) SELECT {', '.join(changed.get(name, name) for name in names)} "  # noqa: S608 - constants
        f"FROM job, generate_series(1, {BACKLOG}) AS n WHERE id = $1",
        job_id,
    )


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan that reads a table or an index."""
    if "Scan" in plan["Node Type"]:
        yield plan
    for part in plan.get("Plans", []):
        yield from scans(part)


@pytest.mark.parametrize("analyzed", [False, True])
async def test_a_survey_reads_no_more_than_its_limits_however_long_the_queue(
    bench: Workbench, *, analyzed: bool
) -> None:
    job = await bench.submit(await bench.customer())
    await plant_backlog(bench.pool, job.id)
    if analyzed:
        await bench.pool.execute("ANALYZE job")
    async with bench.pool.acquire() as conn:
        await conn.execute(f"PREPARE survey (text, int, int, float8, int) AS {forecast_module._SURVEY}")
        text = await conn.fetchval(
            "EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE survey ('sandbox', 10000, 128, 0.95, 10)"
        )
    of_job = [scan for scan in scans(json.loads(text)[0]["Plan"]) if scan.get("Relation Name") == "job"]
    assert len(of_job) == 3
    assert all("Seq" not in scan["Node Type"] for scan in of_job)
    assert sum(scan["Actual Rows"] for scan in of_job) <= 10_000


async def test_a_place_far_back_is_estimated_from_the_density_of_the_front(
    bench: Workbench, forecast: Forecast
) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    await plant_backlog(bench.pool, job.id)
    line = await line_of(bench.pool)
    for place in (1, 5_000, 10_000, 10_001, 20_000, BACKLOG):
        found = await bench.jobs.read(principal, line[place - 1])
        position = (await forecast.outlook(found)).queue_position
        assert position is not None
        if place <= 10_000:
            assert position == place
        else:
            assert position == pytest.approx(place, rel=0.02)
    last = await bench.jobs.read(principal, line[-1])
    assert forecast.look(last).eta_seconds is None  # nobody works
