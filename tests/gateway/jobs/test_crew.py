"""What workers tell of their models: who is refused by it before money is held, and who is not."""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import pytest

from engine import Task
from gateway.config_watch import ConfigWatch
from gateway.errors import InvalidRequest, ModelUnavailable, UnsupportedParameter
from gateway.generation import SAMPLE_RATE, AudioInput
from gateway.ids import new_id
from gateway.jobs.service import Jobs, Order
from gateway.jobs.workforce import LoadedModel, loaded_models, note_alive, read_workforce
from gateway.routing import Circuit, RouteHealth, Routes
from tests.factories import CATALOG, Pool, new_order
from tests.workbench import Workbench

MODEL: Final = CATALOG.find("ace-step-1.5")
URL: Final = AudioInput(url="https://music.example/a")


@pytest.fixture
async def bench(pool: Pool) -> AsyncIterator[Workbench]:
    """With the engine as a route."""
    watch = ConfigWatch(pool)
    await watch.refresh()
    jobs = Jobs(pool=pool, watch=watch, routes=Routes(engine_models=frozenset({MODEL.id})))
    yield Workbench(pool, jobs)
    await jobs.close()


async def tell(pool: Pool, **facts: Any) -> None:
    """As a worker of its own."""
    async with pool.acquire() as conn:
        await note_alive(
            conn, new_id(), [MODEL.id], capacity=1, models=[LoadedModel(model=MODEL.id, **facts)]
        )


def order(seconds: float, **fields: Any) -> Order:
    return msgspec.structs.replace(new_order(seconds=seconds, **fields), model=MODEL)


async def test_a_song_that_fits_no_worker_is_refused_and_priced_for_nobody(
    bench: Workbench, pool: Pool
) -> None:
    await tell(pool, state="ready", longest_seconds=100.7)
    principal = await bench.customer()
    for call in (
        bench.jobs.submit(principal, order(101)),
        bench.jobs.quote(principal, MODEL, order(101).request),
    ):
        with pytest.raises(InvalidRequest, match="at most 100 s") as refused:
            await call
        assert (refused.value.param, refused.value.suggestion) == ("audio_duration", "100")
    assert (await bench.submit(principal, seconds=100)).length_ms == 100_000


@pytest.mark.parametrize("fields", [{"thinking": True}, {"task": Task.COVER, "source_audio": URL}])
async def test_where_the_length_is_open_no_more_is_held_for_than_fits(
    bench: Workbench, pool: Pool, fields: dict[str, Any]
) -> None:
    await tell(pool, state="ready", longest_seconds=100.7)
    principal, wanted = await bench.customer(), order(600, open_length=True, **fields)
    job = (await bench.jobs.submit(principal, wanted)).job
    quote = await bench.jobs.quote(principal, MODEL, wanted.request)
    assert (job.length_ms, quote.length_ms) == (100_000, 100_000)
    stored = (await bench.claim(queues=[MODEL.id]))[0].request
    assert (stored.frames, stored.open_length) == (100 * SAMPLE_RATE, True)


async def test_without_audio_tokenizers_covers_and_plans_are_refused_and_nothing_else(
    bench: Workbench, pool: Pool
) -> None:
    await tell(pool, state="ready", longest_seconds=600.0, reads_codes=False)
    principal = await bench.customer()
    for fields, param in (
        ({"task": Task.COVER, "source_audio": URL}, "task"),
        ({"thinking": True}, "thinking"),
    ):
        with pytest.raises(UnsupportedParameter, match="audio tokenizers") as refused:
            await bench.jobs.submit(principal, order(10, **fields))
        assert refused.value.param == param
    await bench.jobs.submit(principal, order(10, task=Task.REPAINT, source_audio=URL))


async def test_a_model_that_could_not_be_loaded_is_refused_unless_another_worker_has_it(
    bench: Workbench, pool: Pool
) -> None:
    await tell(pool, state="failed", error="no weights")
    principal = await bench.customer()
    with pytest.raises(ModelUnavailable, match="worker's log") as refused:
        await bench.jobs.submit(principal, order(10))
    assert "no weights" not in str(refused.value)
    await tell(pool, state="loading")
    async with pool.acquire() as conn:
        assert (await loaded_models(conn))[MODEL.id].state == "loading"
        await tell(pool, state="ready", longest_seconds=50.0)
        await tell(pool, state="ready", longest_seconds=70.0)
        assert (await loaded_models(conn))[MODEL.id].longest_seconds == 70


async def test_of_each_route_the_worker_counts_with_which_it_fares_best(pool: Pool) -> None:
    def health(**facts: Any) -> RouteHealth:
        return RouteHealth(backend="runware", model=MODEL.id, **facts)

    other = RouteHealth(backend="wavespeed", model=MODEL.id, latency_seconds=4.5)
    told = [
        health(no_credit=True),
        health(circuit=Circuit.OPEN, why="outage"),
        health(circuit=Circuit.HALF_OPEN),
        health(error_rate=0.5),
        health(error_rate=0.25),
    ]
    worker_id = new_id()
    async with pool.acquire() as conn:
        for one in told:
            await note_alive(conn, new_id(), [], capacity=1, routes=[one])
            assert (await read_workforce(conn)).health == {("runware", MODEL.id): one}
        for one in told:  # worse ones change nothing
            await note_alive(conn, new_id(), [], capacity=1, routes=[one])
        await note_alive(conn, worker_id, [], capacity=1, routes=[other])
        health_now = (await read_workforce(conn)).health
        assert health_now == {("runware", MODEL.id): told[-1], ("wavespeed", MODEL.id): other}
        await note_alive(conn, worker_id, [], capacity=1)
        assert ("wavespeed", MODEL.id) not in (await read_workforce(conn)).health
        await conn.execute("UPDATE worker SET seen_at = now() - interval '61 seconds'")
        assert (await read_workforce(conn)).health == {}


@pytest.mark.parametrize("models", ["[]", "{}", "7", '[{"model": 1}]', '[{"model": "a"}]', "[null]"])
async def test_what_a_worker_of_another_version_tells_stops_nobody(
    bench: Workbench, pool: Pool, models: str
) -> None:
    await tell(pool, state="ready", longest_seconds=100.0)
    await pool.execute(
        "INSERT INTO worker (id, queues, models, routes) VALUES ($1, '{}', $2::text::jsonb, $2::text::jsonb)",
        new_id(),
        models,
    )
    with pytest.raises(InvalidRequest, match="at most 100 s"):
        await bench.jobs.submit(await bench.customer(), order(101))


async def test_a_repeat_is_told_of_its_job_whatever_has_become_of_the_model(
    bench: Workbench, pool: Pool
) -> None:
    principal, once = await bench.customer(), order(10, idempotency_key="once")
    first = (await bench.jobs.submit(principal, once)).job
    retried = order(10, is_retry=True)
    unkeyed = (await bench.jobs.submit(principal, retried)).job
    await tell(pool, state="failed")
    again = Jobs(pool=pool, watch=ConfigWatch(pool), routes=bench.jobs.routes)
    for repeat, made in ((once, first), (retried, unkeyed)):
        answer = await again.submit(principal, repeat)
        assert (answer.job.id, answer.replayed) == (made.id, True)
    with pytest.raises(ModelUnavailable):
        await again.submit(principal, order(10, idempotency_key="another"))
    await again.close()
