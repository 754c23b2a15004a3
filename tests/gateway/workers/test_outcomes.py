"""Every outcome of a job at providers, and who pays for it: the rows of docs/outcomes.md, one by one."""

import asyncio
import contextlib
import errno
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import billing
from engine import Task
from gateway.audio import Decoder, Encoder
from gateway.auth.principal import Principal
from gateway.backends.remote.backend import RemoteBackend
from gateway.backends.remote.pace import Pace
from gateway.catalog import read_catalog
from gateway.config_watch import ConfigWatch
from gateway.files.fetch import Fetcher, open_fetcher
from gateway.files.inputs import AudioInputs
from gateway.generation import SAMPLE_RATE, AudioInput, GenerationRequest, ProviderChoice
from gateway.jobs import reaper
from gateway.jobs.job import Job, JobStatus
from gateway.jobs.queue import Claim
from gateway.jobs.service import Jobs, Order
from gateway.routing import configured_providers, open_routes
from gateway.storage import AudioStore
from gateway.workers.collection import Collector
from gateway.workers.delivery import Delivery
from gateway.workers.process import Hands
from gateway.workers.providers import open_remotes, warnings_of
from tests.factories import Pool, new_customer, until, violations
from tests.gateway.api.installation import settings_for
from tests.providers import runware, wavespeed

DOCS = Path(__file__).parent.parent.parent.parent / "docs" / "outcomes.md"
MODEL = "ace-step-1.5"
SECONDS = 30
CHARGE = SECONDS * 300_000
RUNWARE_COST = SECONDS * 100_000
WAVESPEED_COST = SECONDS * 300_000
FAST = Pace(
    first_look_seconds=0.05,
    longest_look_seconds=0.2,
    looks_per_second=100.0,
    find_delays=(0.02, 0.05),
    again_delays=(0.02,),
    unknown_seconds=0.5,
)


class House(msgspec.Struct, kw_only=True):
    """An installation with both providers: its customers' side, its workers, and the providers' side."""

    pool: Pool
    jobs: Jobs
    principal: Principal
    runware: runware.RunwareStandIn
    wavespeed: wavespeed.WaveSpeedStandIn
    remotes: list[RemoteBackend]
    hands: Hands
    collector: Collector
    warn: Callable[[Claim], tuple[str, ...]]
    storage: Path
    waiting_seconds: float = 60
    running: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def submit(self, *only: str, **fields: Any) -> Job:
        request = GenerationRequest(
            prompt="calm piano",
            frames=SECONDS * SAMPLE_RATE,
            seed=7,
            provider=ProviderChoice(only=only, order=only),
            **fields,
        )
        order = Order(
            model=CATALOG.models[MODEL], request=request, request_hash=uuid.uuid4().bytes.ljust(32, b".")
        )
        return (await self.jobs.submit(self.principal, order)).job

    def start_workers(self) -> None:
        for remote in self.remotes:
            worker = self.hands.on_provider(
                remote, self.collector, self.warn, waiting_seconds=self.waiting_seconds
            )
            stop = asyncio.Event()
            self.running.append((stop, asyncio.create_task(worker.run(stop))))

    async def kill_workers(self) -> None:
        """At once, with whatever they hold."""
        for _, task in self.running:
            task.cancel()
        await asyncio.gather(*(task for _, task in self.running), return_exceptions=True)
        await asyncio.sleep(0)  # what they held notices it
        self.running.clear()

    async def stop_workers(self) -> None:
        for stop, _ in self.running:
            stop.set()
        await asyncio.gather(*(task for _, task in self.running))
        self.running.clear()

    async def reap(self) -> None:
        await reaper.reap(self.pool)

    async def accepted(self, job: Job) -> None:
        """The provider has it."""
        await until(lambda: self._is_accepted(job), what="the acceptance")

    async def _is_accepted(self, job: Job) -> bool:
        states = await self.pool.fetch("SELECT state FROM attempt WHERE job_id = $1", job.id)
        return "accepted" in {row["state"] for row in states}

    async def ended(self, job: Job) -> Job:
        await until(lambda: self._is_over(job), 20, what="the end")
        return await self.jobs.find(self.principal, job.id)

    async def _is_over(self, job: Job) -> bool:
        return bool(
            await self.pool.fetchval("SELECT completed_at IS NOT NULL FROM job WHERE id = $1", job.id)
        )


CATALOG = read_catalog(Path(__file__).parent.parent.parent.parent / "deploy" / "catalog.toml")


async def soon(_: float) -> None:
    """Downloads are tried again at once."""


@pytest.fixture
async def house(
    pool: Pool, database: str, store: AudioStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    monkeypatch.setattr("gateway.workers.worker.DRAIN_SECONDS", 0.2)
    async with contextlib.AsyncExitStack() as opened:
        first = await opened.enter_async_context(runware.running())
        second = await opened.enter_async_context(wavespeed.running())
        first.processing_seconds = second.processing_seconds = 0.05
        settings = settings_for(
            database,
            tmp_path,
            ANTIPHON_RUNWARE_API_KEY=first.key,
            ANTIPHON_RUNWARE_BASE_URL=first.url,
            ANTIPHON_WAVESPEED_API_KEY=second.key,
            ANTIPHON_WAVESPEED_BASE_URL=second.url,
            ANTIPHON_ALLOW_PRIVATE_HOSTS="1",
        )
        inputs = AudioInputs(
            pool=pool,
            store=store,
            scratch=tmp_path,
            fetcher=open_fetcher(allow_private_hosts=True),
            decoder=Decoder(),
        )
        remotes = await opened.enter_async_context(open_remotes(settings, CATALOG, inputs, pace=FAST))
        providers = configured_providers(
            runware_api_key=settings.runware_api_key, wavespeed_api_key=settings.wavespeed_api_key
        )
        routes = open_routes(CATALOG, engine_models=(), planner=None, providers=providers)
        watch = ConfigWatch(pool)
        await watch.refresh()
        jobs = Jobs(pool=pool, watch=watch, routes=routes)
        async with pool.acquire() as conn:
            principal = await new_customer(conn)
        found = House(
            pool=pool,
            jobs=jobs,
            principal=principal,
            runware=first,
            wavespeed=second,
            remotes=remotes,
            hands=Hands(pool, Delivery(encoder=Encoder(), store=store, scratch=tmp_path), settings),
            warn=warnings_of(settings, CATALOG),
            storage=tmp_path / "audio",
            collector=Collector(
                fetcher=open_fetcher(allow_private_hosts=True),
                decoder=Decoder(),
                scratch=tmp_path,
                sleep=soon,
            ),
        )
        try:
            yield found
        finally:
            await found.stop_workers()
            await jobs.close()


Life = Callable[[House], Awaitable[Job]]


class Outcome(msgspec.Struct, kw_only=True):
    """What happens, and what has become of it."""

    live: Life
    ends: str = "completed"
    """Or the code of the error."""
    attempts: list[tuple[str, str]]
    cost: int = 0
    """What a provider charges us."""
    possible: int = 0
    """What one may charge us."""
    made: int = 1
    """Tasks that exist at the providers."""


def plainly(*only: str, **fields: Any) -> Callable[[Callable[[House], None]], Life]:
    """Arrange something, submit, and wait for the end."""

    def wrap(arrange: Callable[[House], None]) -> Life:
        async def live(house: House) -> Job:
            arrange(house)
            house.start_workers()
            return await house.submit(*only, **fields)

        return live

    return wrap


async def cancelled_in_time(house: House) -> Job:
    job = await house.submit("runware")
    await house.jobs.cancel(house.principal, job.id)
    house.start_workers()
    return job


async def cancelled_at_work(house: House) -> Job:
    house.runware.hold()
    house.start_workers()
    job = await house.submit("runware")
    await house.accepted(job)
    await house.jobs.cancel(house.principal, job.id)
    return job


async def timed_out(house: House, *only: str) -> Job:
    house.waiting_seconds = 1.0
    house.runware.hold()
    house.start_workers()
    return await house.submit(*only)


async def too_late(house: House) -> Job:
    job = await timed_out(house, "runware")
    await house.ended(job)
    house.runware.release()
    await house.runware.settled()
    return job


async def lost_after_sending(house: House) -> Job:
    house.runware.hold()
    house.start_workers()
    job = await house.submit("runware")
    await house.accepted(job)
    await house.kill_workers()
    house.runware.release()
    await _let_lapse(house, job)
    house.start_workers()
    return job


async def lost_before_sending(house: House) -> Job:
    house.runware.fail_next("audioInference", runware.Delay(30))
    house.start_workers()
    job = await house.submit("runware")
    await until(lambda: _is_being_sent(house), what="the attempt")
    await house.kill_workers()
    await _let_lapse(house, job)
    house.start_workers()
    return job


async def _is_being_sent(house: House) -> bool:
    return bool(await house.pool.fetchval("SELECT count(*) FROM attempt WHERE state = 'sent'"))


async def _let_lapse(house: House, job: Job) -> None:
    await house.pool.execute(
        "UPDATE job SET lease_until = now() - interval '1 s' WHERE id = $1 AND status = 'processing'", job.id
    )
    await house.reap()


def at_runware(fault: Any, *, where: str = "audioInference", times: int = 1) -> Callable[[House], None]:
    return lambda house: [house.runware.fail_next(where, fault) for _ in range(times)] and None


def at_wavespeed(fault: Any, *, where: str = "submit", times: int = 1) -> Callable[[House], None]:
    return lambda house: [house.wavespeed.fail_next(where, fault) for _ in range(times)] and None


def at_both(first: Any, second: Any) -> Callable[[House], None]:
    def arrange(house: House) -> None:
        at_runware(first)(house)
        at_wavespeed(second)(house)

    return arrange


def no_storage(house: House) -> None:
    """A file is where the folder should be."""
    shutil.rmtree(house.storage, ignore_errors=True)
    house.storage.write_text("")


DONE = ("runware", "done")
ELSEWHERE = [("runware", "failed"), ("wavespeed", "done")]
UNREADABLE = {"task": Task.COVER, "source_audio": AudioInput(url="http://127.0.0.1:1/nothing.mp3")}

OUTCOMES: dict[str, Outcome] = {
    "delivered": Outcome(live=plainly()(lambda _: None), attempts=[DONE], cost=RUNWARE_COST),
    "content refused": Outcome(
        live=plainly()(at_runware(runware.Status(400, "contentPolicyViolation"))),
        ends="content_policy_violation",
        attempts=[("runware", "failed")],
        made=0,
    ),
    "our request refused": Outcome(
        live=plainly()(at_runware(runware.Status(400, "invalidDuration"))),
        attempts=ELSEWHERE,
        cost=WAVESPEED_COST,
    ),
    "our key refused": Outcome(
        live=plainly()(at_runware(runware.Status(401, "invalidApiKey"), times=5)),
        attempts=ELSEWHERE,
        cost=WAVESPEED_COST,
    ),
    "no credit": Outcome(
        live=plainly()(at_runware(runware.Status(402, "insufficientCredits"), times=5)),
        attempts=ELSEWHERE,
        cost=WAVESPEED_COST,
    ),
    "rate limited": Outcome(
        live=plainly()(at_runware(runware.Status(429, "rateLimitExceeded", retry_after=1), times=5)),
        attempts=ELSEWHERE,
        cost=WAVESPEED_COST,
    ),
    "down before it took anything": Outcome(
        live=plainly("wavespeed", "runware")(at_wavespeed(wavespeed.Status(503), times=5)),
        attempts=[("wavespeed", "failed"), ("runware", "done")],
        cost=RUNWARE_COST,
    ),
    "connection lost, found again": Outcome(
        live=plainly("wavespeed")(at_wavespeed(wavespeed.Drop(after_accepting=True))),
        attempts=[("wavespeed", "done")],
        cost=WAVESPEED_COST,
    ),
    "connection lost, not found": Outcome(
        live=plainly("wavespeed", "runware")(at_wavespeed(wavespeed.Drop(after_accepting=False))),
        attempts=[("wavespeed", "ambiguous"), ("runware", "done")],
        cost=RUNWARE_COST,
        possible=WAVESPEED_COST,
    ),
    "connection lost, not found, nowhere else to go": Outcome(
        live=plainly("wavespeed")(at_wavespeed(wavespeed.Drop(after_accepting=False))),
        ends="upstream_error",
        attempts=[("wavespeed", "ambiguous")],
        possible=WAVESPEED_COST,
        made=0,
    ),
    "connection lost, sent again": Outcome(
        live=plainly("runware")(at_runware(runware.Drop(after_accepting=True))),
        attempts=[DONE],
        cost=RUNWARE_COST,
    ),
    "failed at the provider": Outcome(
        live=plainly()(at_runware(runware.TaskFails())), attempts=ELSEWHERE, cost=WAVESPEED_COST, made=2
    ),
    "failed at every provider": Outcome(
        live=plainly()(at_both(runware.TaskFails(), wavespeed.TaskFails(1200, "content refused"))),
        ends="content_policy_violation",
        attempts=[("runware", "failed"), ("wavespeed", "failed")],
        made=2,
    ),
    "broken music": Outcome(
        live=plainly()(at_runware(runware.Outputs("silent"))),
        attempts=ELSEWHERE,
        cost=RUNWARE_COST + WAVESPEED_COST,
        made=2,
    ),
    "broken music, nowhere else to go": Outcome(
        live=plainly("runware")(at_runware(runware.Outputs("half"))),
        ends="quality_failed",
        attempts=[("runware", "failed")],
        cost=RUNWARE_COST,
    ),
    "music that cannot be fetched": Outcome(
        live=plainly()(at_runware(runware.Outputs("missing"))),
        attempts=ELSEWHERE,
        cost=RUNWARE_COST + WAVESPEED_COST,
        made=2,
    ),
    "music that cannot be stored": Outcome(
        live=plainly()(no_storage),
        ends="upstream_error",
        attempts=[("runware", "failed")],
        cost=RUNWARE_COST,
    ),
    "an input that cannot be read": Outcome(
        live=plainly("runware", **UNREADABLE)(lambda _: None),
        ends="input_unreadable",
        attempts=[("runware", "failed")],
        made=0,
    ),
    "cancelled before it was sent": Outcome(
        live=cancelled_in_time, ends="job_cancelled", attempts=[], made=0
    ),
    "cancelled at work": Outcome(
        live=cancelled_at_work, ends="job_cancelled", attempts=[("runware", "failed")], possible=RUNWARE_COST
    ),
    "timed out": Outcome(
        live=timed_out, attempts=ELSEWHERE, cost=WAVESPEED_COST, possible=RUNWARE_COST, made=2
    ),
    "ready after it was given up": Outcome(
        live=too_late, ends="timeout", attempts=[("runware", "failed")], possible=RUNWARE_COST
    ),
    "worker lost after sending": Outcome(live=lost_after_sending, attempts=[DONE], cost=RUNWARE_COST),
    "worker lost while sending": Outcome(live=lost_before_sending, attempts=[DONE], cost=RUNWARE_COST),
}


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
async def test_the_customer_pays_for_delivered_music_alone(
    house: House, database: str, outcome: Outcome
) -> None:
    job = await house.ended(await outcome.live(house))
    assert (job.error.code.value if job.error else job.status.value) == outcome.ends
    assert (job.charged_nano or 0) == (CHARGE if job.status is JobStatus.COMPLETED else 0)
    attempts = await house.pool.fetch(
        "SELECT backend, state FROM attempt WHERE job_id = $1 ORDER BY n", job.id
    )
    assert [tuple(row) for row in attempts] == outcome.attempts
    assert await booked(house.pool) == (outcome.cost, outcome.possible)
    made = sum(task.accepted for task in house.runware.tasks.values()) + len(house.wavespeed.predictions)
    assert made == outcome.made
    async with house.pool.acquire() as conn:
        account = await billing.read_account(conn, house.principal.organization_id)
    assert account.held_nano == 0
    assert await violations(database) == []


async def booked(pool: Pool) -> tuple[int, int]:
    """Expense and variance, and the same in the counters of margins."""
    row = await pool.fetchrow(
        """
        SELECT -(SELECT posted_nano FROM account WHERE id = $1),
               -(SELECT posted_nano FROM account WHERE id = $2)
        """,
        billing.COGS_EXPENSE,
        billing.VARIANCE,
    )
    counted = await pool.fetchrow(
        """
        SELECT coalesce(sum(cost_nano), 0)::bigint, coalesce(sum(possible_cost_nano), 0)::bigint
          FROM margin_day
        """
    )
    assert tuple(row) == tuple(counted)
    return row[0], row[1]


async def test_what_the_route_changed_that_made_the_song_is_told(house: House) -> None:
    house.runware.fail_next("audioInference", runware.TaskFails())
    house.start_workers()
    job = await house.submit(bpm=120)
    assert job.warnings == ()
    ended = await house.ended(job)
    assert ended.backend == "wavespeed"
    assert any("bpm" in warning for warning in ended.warnings)


async def test_what_was_made_is_no_possible_cost_though_we_are_too_slow_with_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.workers.performance.WAITING_SECONDS", 0.1)
    house.runware.fail_next("download", runware.Delay(30))
    house.start_workers()
    job = await house.ended(await house.submit("runware"))
    assert job.error is not None
    assert (job.error.code.value, await booked(house.pool)) == ("timeout", (RUNWARE_COST, 0))


async def test_what_we_could_not_read_ourselves_was_sent_to_nobody_and_costs_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Fetcher, "fetch", full)
    house.start_workers()
    job = await house.ended(await house.submit("runware", **UNREADABLE))
    assert job.error is not None
    assert (job.error.code.value, await booked(house.pool)) == ("upstream_error", (0, 0))


def test_every_row_of_the_document_is_tested_here_and_the_other_way_round() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", DOCS.read_text(), re.MULTILINE)
    assert [row for row in rows if row not in {"outcome", "---"}] == list(OUTCOMES)
