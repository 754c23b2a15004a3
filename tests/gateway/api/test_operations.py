"""What operators and their machines ask: alive, ready, how many."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest_asyncio

from gateway.ids import new_id
from gateway.jobs.job import JobErrorCode
from gateway.jobs.workforce import note_alive, note_left
from gateway.routing import Circuit, RouteHealth
from tests.gateway.api.installation import Customer, Installation, running

FAMILIES = {
    "antiphon_jobs": "counter",
    "antiphon_audio_seconds": "counter",
    "antiphon_revenue_nanousd": "counter",
    "antiphon_held_nanousd": "gauge",
    "antiphon_hold_oldest_age_seconds": "gauge",
    "antiphon_ledger_violation": "gauge",
    "antiphon_provider_cost_nanousd": "counter",
    "antiphon_route_revenue_nanousd": "counter",
    "antiphon_route_cost_nanousd": "counter",
    "antiphon_route_possible_cost_nanousd": "counter",
    "antiphon_attempts": "counter",
    "antiphon_attempt_ambiguous": "counter",
    "antiphon_breaker_state": "gauge",
    "antiphon_backend_error_ratio": "gauge",
    "antiphon_backend_latency_seconds": "gauge",
    "antiphon_backend_running": "gauge",
    "antiphon_provider_balance_nanousd": "gauge",
    "antiphon_provider_no_credit": "gauge",
    "antiphon_webhook_out": "counter",
    "antiphon_low_balance_accounts": "gauge",
    "antiphon_queue_depth": "gauge",
    "antiphon_realtime_factor": "gauge",
    "antiphon_model_warm": "gauge",
    "antiphon_queue_oldest_age_seconds": "gauge",
    "antiphon_http_request_seconds": "histogram",
    "antiphon_admit_batch_size": "histogram",
    "antiphon_admit_seconds": "histogram",
}


def series(text: str) -> dict[str, float]:
    """Every sample of an exposition by its name and labels."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest_asyncio.fixture(loop_scope="session")
async def worker(installation: Installation) -> AsyncIterator[None]:
    """Somebody who renders, as far as readiness can see."""
    worker_id = new_id()
    async with installation.live.pool.acquire() as conn:
        await note_alive(conn, worker_id, ["sandbox"], capacity=1)
    yield
    async with installation.live.pool.acquire() as conn:
        await note_left(conn, worker_id)


async def readiness(installation: Installation) -> tuple[int, dict[str, str]]:
    answer = await installation.http.get("/readyz")
    assert answer.json()["status"] == ("ok" if answer.status_code == 200 else "unavailable")
    return answer.status_code, answer.json()["checks"]


async def test_alive_and_ready(installation: Installation, worker: None) -> None:  # noqa: ARG001
    answer = await installation.http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert await readiness(installation) == (200, {"database": "ok", "storage": "ok", "engine": "ok"})


async def test_how_providers_fare_is_measured_as_workers_tell_it(installation: Installation) -> None:
    told = [
        RouteHealth(
            backend="runware",
            model="ace-step-1.5",
            circuit=Circuit.OPEN,
            no_credit=True,
            balance_nano=-5,
            error_rate=0.5,
            running=3,
            latency_seconds=12.5,
        ),
        RouteHealth(backend="wavespeed", model="ace-step-1.5", balance_nano=7_000_000_000),
    ]
    worker_id = new_id()
    async with installation.live.pool.acquire() as conn:
        await note_alive(conn, worker_id, ["wavespeed/ace-step-1.5"], capacity=1, routes=told)
    found = series((await installation.http.get("/metrics")).text)
    async with installation.live.pool.acquire() as conn:
        await note_left(conn, worker_id)
    of = '{backend="runware",model="ace-step-1.5"}'
    assert found[f"antiphon_breaker_state{of}"] == 2
    assert found[f"antiphon_backend_error_ratio{of}"] == 0.5
    assert found[f"antiphon_backend_running{of}"] == 3
    assert found[f"antiphon_backend_latency_seconds{of}"] == 12.5
    assert found['antiphon_breaker_state{backend="wavespeed",model="ace-step-1.5"}'] == 0
    assert found['antiphon_provider_no_credit{backend="runware"}'] == 1
    assert found['antiphon_provider_no_credit{backend="wavespeed"}'] == 0
    assert found['antiphon_provider_balance_nanousd{backend="wavespeed"}'] == 7e9


async def test_without_a_worker_it_is_not_ready(installation: Installation) -> None:
    status, checks = await readiness(installation)
    assert (status, checks["engine"]) == (503, "no worker was seen for 60 s")


async def test_without_our_schema_it_is_not_ready(installation: Installation) -> None:
    pool = installation.live.pool
    await pool.execute("ALTER TABLE alembic_version RENAME TO away")
    try:
        status, checks = await readiness(installation)
        assert (await installation.http.get("/healthz")).status_code == 200
    finally:
        await pool.execute("ALTER TABLE away RENAME TO alembic_version")
    assert (status, "antiphon migrate" in checks["database"]) == (503, True)
    revision = await pool.fetchval("SELECT version_num FROM alembic_version")
    await pool.execute("UPDATE alembic_version SET version_num = '9999'")
    try:
        status, checks = await readiness(installation)
    finally:
        await pool.execute("UPDATE alembic_version SET version_num = $1", revision)
    assert (status, "newer" in checks["database"]) == (503, True)


@contextlib.contextmanager
def replaced_by_a_file(folder: Path) -> Iterator[None]:
    """Permissions would not do: root may write anywhere."""
    folder.rename(folder.with_name("away"))
    folder.write_text("a file where the folder was")
    try:
        yield
    finally:
        folder.unlink()
        folder.with_name("away").rename(folder)


async def test_without_a_writable_store_it_is_not_ready(installation: Installation) -> None:
    folder = Path(urlsplit(installation.settings.storage_url).path)
    with replaced_by_a_file(folder):
        status, checks = await readiness(installation)
    assert (status, checks["storage"]) == (503, "the audio store cannot be written")


class Proxy:
    """A way to the database that can be cut."""

    def __init__(self, dsn: str) -> None:
        self._target = urlsplit(dsn)
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> str:
        """The DSN that leads through here."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user, _, _ = self._target.netloc.rpartition("@")
        return self._target._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()

    def cut(self) -> None:
        """From now on nobody answers, and who was connected is no more."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers += [writer, back]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()


async def test_without_a_database_it_says_so_and_asks_for_patience(
    installation: Installation, tmp_path: Path
) -> None:
    proxy = Proxy(installation.dsn)
    async with running(await proxy.open(), tmp_path) as cut_off:
        customer = await cut_off.customer()
        assert (await customer.get("/v1/balance")).status_code == 200
        proxy.cut()
        answer = await customer.get("/v1/balance")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["retryable"]) == (503, "overloaded", True)
        assert int(answer.headers["retry-after"]) >= 1
        assert "x-should-retry" not in answer.headers
        status, checks = await readiness(cut_off)
        assert (status, checks["database"]) == (503, "the database cannot be reached")
        assert checks["storage"] == "ok"
        assert (await cut_off.http.get("/healthz")).status_code == 200
        assert (await cut_off.http.get("/metrics")).status_code == 503


async def test_every_family_is_there_with_its_type(customer: Customer) -> None:
    await customer.submitted()
    text = (await customer.http.get("/metrics")).text
    for name, kind in FAMILIES.items():
        suffix = "_total" if kind == "counter" else ""
        assert re.search(rf"^# TYPE {name}{suffix} {kind}$", text, re.MULTILINE), name
        assert re.search(rf"^# HELP {name}{suffix} \S", text, re.MULTILINE), name


async def test_counters_are_the_ledger(
    customer: Customer, installation: Installation, tmp_path: Path
) -> None:
    before = series((await customer.http.get("/metrics")).text)
    for ending in (None, None, JobErrorCode.TIMEOUT):
        job = await customer.submitted(audio_duration=6)
        await installation.finish(job["id"], error=ending)
    free = await customer.submitted(key=customer.test_key, model="ace-step-1.5", audio_duration=7)
    await installation.finish(free["id"])
    held = await customer.submitted()
    text = (await customer.http.get("/metrics")).text
    after = series(text)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    engine = 'backend="engine",model="sandbox"'
    assert grown("antiphon_jobs_total{" + engine + ',outcome="completed"}') == 2
    assert grown("antiphon_jobs_total{" + engine + ',outcome="timeout"}') == 1
    assert grown('antiphon_jobs_total{backend="test",model="ace-step-1.5",outcome="completed"}') == 1
    assert grown("antiphon_audio_seconds_total{" + engine + "}") == 12
    assert grown("antiphon_revenue_nanousd_total") == 2 * 6 * 250_000
    assert grown("antiphon_held_nanousd") == 5 * 250_000
    revenue = await installation.live.pool.fetchval("SELECT posted_nano FROM account WHERE kind = 'revenue'")
    assert after["antiphon_revenue_nanousd_total"] == revenue

    async with running(installation.dsn, tmp_path) as restarted:
        again = series((await restarted.http.get("/metrics")).text)
    stored = [name for name in after if re.match("antiphon_(jobs|audio|revenue|held|queue_depth)", name)]
    assert len(stored) >= 6
    assert {name: again[name] for name in stored} == {name: after[name] for name in stored}
    await customer.http.delete(held["poll_url"], headers=customer.headers())


async def test_accounts_that_run_low_are_counted_by_the_threshold_that_they_passed(
    customer: Customer, installation: Installation
) -> None:
    name = 'antiphon_low_balance_accounts{level="%s"}'
    before = series((await customer.http.get("/metrics")).text)
    await installation.customer(usd="0.5")
    await installation.customer(usd="0.05")
    await installation.customer(usd="2")
    after = series((await customer.http.get("/metrics")).text)
    assert [after[name % level] - before[name % level] for level in ("low", "critical")] == [1, 1]


async def test_routes_are_labelled_by_their_template(customer: Customer) -> None:
    job = await customer.submitted()
    await customer.job(job["id"])
    await customer.get("/v1/jobs/" + "0" * 32)
    await customer.get("/nowhere/at/all")
    text = (await customer.http.get("/metrics")).text
    assert 'route="/v1/jobs/{job_id}",status="200"' in text
    assert 'route="/v1/jobs/{job_id}",status="404"' in text
    assert 'method="any",route="unmatched",status="404"' in text
    for secret in (job["id"], customer.live_key, customer.organization_id.hex, "nowhere"):
        assert secret not in text


async def test_without_a_token_only_this_machine_may_read(customer: Customer) -> None:
    assert (await customer.http.get("/metrics")).status_code == 200
    for name in ("x-forwarded-for", "forwarded", "x-real-ip"):
        for value in ("127.0.0.1", "203.0.113.7", ""):
            answer = await customer.http.get("/metrics", headers={name: value})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_with_a_token_only_its_holders_may_read(installation: Installation, tmp_path: Path) -> None:
    async with running(installation.dsn, tmp_path, ANTIPHON_METRICS_TOKEN="s3cret") as guarded:
        for headers, status in (
            ({"authorization": "Bearer s3cret"}, 200),
            ({"authorization": "bearer s3cret", "x-forwarded-for": "203.0.113.7"}, 200),
            ({}, 404),
            ({"authorization": "Bearer s3cre"}, 404),
            ({"authorization": "s3cret"}, 404),
            ({"authorization": b"Bearer \xe9"}, 404),
        ):
            assert (await guarded.http.get("/metrics", headers=headers)).status_code == status


async def test_a_reset_connection_to_the_database_heals(
    customer: Customer, installation: Installation
) -> None:
    admin = await asyncpg.connect(installation.dsn)
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await admin.close()
    await customer.submitted()
