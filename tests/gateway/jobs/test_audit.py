"""Jobs and ledger agree, and both checks notice when they do not: of everything, and of what is recent."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from structlog.testing import capture_logs

import billing
from gateway.auth.directory import KeyLimits
from gateway.auth.principal import Principal
from gateway.embedded import EmbeddedPostgres
from gateway.errors import JobAlreadyFinal
from gateway.jobs.audit import CHECKS, LEFT_TO_VERIFY, check_recent, prove
from tests.factories import USD, violations
from tests.planting import plant
from tests.workbench import Workbench


class Plant(msgspec.Struct, frozen=True):
    """SQL that breaks a rule."""

    invariant: str
    statements: tuple[str, ...]


FINAL = "a job is final exactly when its hold is closed"
BELONGS = "a hold belongs to a job of the same organization and amount"
CHARGE = "a completed job shows the charge of its usage record"
ATTEMPT = "a completed job has exactly one successful attempt, its last"
METER = "a key meter counts its unfinished jobs"
ONE_JOB = "an idempotency key has one job"
HELD = "what is held is the sum of open holds"
USAGE = "the usage of every hour is that of its usage records"
PLANTS = [
    Plant(FINAL, ("UPDATE hold SET state = 'released', closed_at = now() WHERE state = 'open'",)),
    Plant(FINAL, ("UPDATE hold SET state = 'released' WHERE state = 'settled'",)),
    Plant(FINAL, ("DELETE FROM hold WHERE state = 'open'",)),
    Plant(FINAL, ("UPDATE hold SET state = 'open', closed_at = NULL WHERE state = 'released'",)),
    Plant(BELONGS, ("DELETE FROM attempt", "DELETE FROM job WHERE status = 'completed'")),
    Plant(BELONGS, ("UPDATE hold SET amount_nano = amount_nano + 1 WHERE state = 'released'",)),
    Plant(BELONGS, ("UPDATE hold SET account_id = gen_random_uuid() WHERE state = 'released'",)),
    Plant(BELONGS, ("UPDATE hold SET price_version_id = gen_random_uuid() WHERE state = 'released'",)),
    Plant(BELONGS, ("UPDATE job SET test = true, held_nano = 0 WHERE status = 'failed'",)),
    Plant(CHARGE, ("UPDATE job SET charged_nano = charged_nano - 1 WHERE status = 'completed'",)),
    Plant(CHARGE, ("UPDATE job SET billed_ms = billed_ms + 1 WHERE status = 'completed'",)),
    Plant(CHARGE, ("DELETE FROM usage_record",)),
    Plant(ATTEMPT, ("DELETE FROM attempt WHERE state = 'done'",)),
    Plant(ATTEMPT, ("UPDATE job SET attempts = attempts + 1 WHERE status = 'completed'",)),
    Plant(
        ATTEMPT,
        (
            """
            INSERT INTO attempt (job_id, n, backend, state, worker_id, finished_at)
            SELECT job_id, n + 1, backend, state, worker_id, finished_at FROM attempt WHERE state = 'done'
            """,
        ),
    ),
    Plant(METER, ("UPDATE key_meter SET open_jobs = open_jobs + 1",)),
    Plant(USAGE, ("UPDATE usage_hour SET jobs = jobs + 1",)),
    Plant(USAGE, ("UPDATE usage_hour SET billed_ms = billed_ms + 1",)),
    Plant(USAGE, ("UPDATE usage_hour SET cost_nano = cost_nano + 1",)),
    Plant(USAGE, ("UPDATE usage_hour SET hour = hour - interval '1 hour'",)),
    Plant(USAGE, ("UPDATE usage_hour SET project_id = gen_random_uuid()",)),
    Plant(USAGE, ("DELETE FROM usage_hour",)),
    Plant(METER, ("DELETE FROM job WHERE status = 'queued'",)),
    Plant(ONE_JOB, ("DROP INDEX uq_job_idempotency_key",)),
    Plant(
        ONE_JOB,
        (
            "DROP INDEX uq_job_idempotency_key",
            "CREATE INDEX uq_job_idempotency_key ON job (organization_id, idempotency_key, project_id, test)",
        ),
    ),
]
AT_ONCE = [plant for plant in PLANTS if plant.invariant not in LEFT_TO_VERIFY]


async def look(bench: Workbench, watch: billing.LedgerWatch) -> set[str]:
    """The rules that a check of every minute finds broken."""
    async with bench.pool.acquire() as conn:
        found = await check_recent(conn, watch, every=timedelta(0))
    assert found is not None
    return {violation.invariant for violation in found}


@pytest.fixture
async def lived_in(bench: Workbench) -> Workbench:
    """A completed job, a failed one and a queued one, of a key whose jobs are counted."""
    principal = await bench.customer(limits=KeyLimits(max_open_jobs=9))
    for _ in range(3):
        await bench.submit(principal)
    await bench.deliver(await bench.claim_one())
    await bench.fail(await bench.claim_one())
    return bench


def test_each_rule_has_its_breach() -> None:
    assert {breach.invariant for breach in PLANTS} == set(CHECKS)


@pytest.mark.usefixtures("lived_in")
async def test_an_honest_life_breaks_no_rule(database: str) -> None:
    assert await violations(database) == []


@pytest.mark.usefixtures("lived_in")
@pytest.mark.parametrize("breach", PLANTS, ids=lambda breach: breach.invariant.replace(" ", "-"))
async def test_a_broken_rule_is_found(database: str, postgres: EmbeddedPostgres, breach: Plant) -> None:
    await plant(database, postgres.superuser_dsn, breach.statements)
    assert breach.invariant in {violation.invariant for violation in await violations(database)}


@pytest.mark.parametrize("breach", AT_ONCE, ids=lambda breach: breach.invariant.replace(" ", "-"))
async def test_a_rule_that_was_broken_lately_is_found_within_a_minute(
    lived_in: Workbench, database: str, postgres: EmbeddedPostgres, breach: Plant
) -> None:
    watch = billing.LedgerWatch()
    assert await look(lived_in, watch) == set()
    await plant(database, postgres.superuser_dsn, breach.statements)
    assert breach.invariant in await look(lived_in, watch)


@pytest.mark.usefixtures("lived_in")
async def test_two_jobs_of_one_idempotency_key_are_found_though_the_index_says_that_there_are_none(
    database: str, postgres: EmbeddedPostgres
) -> None:
    # As after an update of the system's sorting rules, which Postgres cannot notice.
    await plant(
        database,
        postgres.superuser_dsn,
        [
            "DROP INDEX uq_job_idempotency_key",
            "UPDATE job SET idempotency_key = 'the same'",
            "CREATE INDEX uq_job_idempotency_key ON job (organization_id, idempotency_key, project_id, test)",
            "SET allow_system_table_mods = on",
            """
            UPDATE pg_index SET indisunique = true, indnullsnotdistinct = true
             WHERE indexrelid = 'uq_job_idempotency_key'::regclass
            """,
        ],
    )
    (violation,) = await violations(database)
    assert (violation.invariant, violation.detail) == (ONE_JOB, "the same has 3 jobs")


async def test_the_check_sees_one_moment_and_not_the_work_beside_it(
    lived_in: Workbench, database: str
) -> None:
    principal = await lived_in.customer()
    async with lived_in.pool.acquire() as conn, conn.transaction():
        await conn.execute("UPDATE account SET held_nano = 1 WHERE id = $1", principal.organization_id)
        assert await violations(database) == []


async def tamper(bench: Workbench, nano: int) -> None:
    await bench.pool.execute("UPDATE account SET held_nano = held_nano + $1 WHERE held_nano > 0", nano)


async def test_a_violation_stops_new_holds_in_every_process_and_is_logged_once(lived_in: Workbench) -> None:
    revision = "SELECT revision FROM config_revision"
    before = await lived_in.pool.fetchval(revision)
    watch = billing.LedgerWatch()
    with capture_logs() as logged:
        assert await look(lived_in, watch) == set()
        assert await lived_in.pool.fetchval(revision) == before
        await tamper(lived_in, 1)
        assert await look(lived_in, watch) == {HELD}
        assert await look(lived_in, watch) == {HELD}
    assert await lived_in.pool.fetchval(revision) == before + 1
    async with lived_in.pool.acquire() as conn:
        assert await billing.read_halt(conn) is not None
        assert (await billing.read_totals(conn)).violations == 1
    (line,) = logged
    assert (line["event"], line["log_level"], line["invariant"]) == ("ledger.violation", "error", HELD)
    assert line["detail"] == "held 2500001, holds 2500000"


async def test_what_was_accepted_before_a_halt_is_rendered_and_charged(lived_in: Workbench) -> None:
    await tamper(lived_in, 1)
    assert await look(lived_in, billing.LedgerWatch()) == {HELD}
    claim = await lived_in.claim_one()
    await lived_in.deliver(claim)
    assert (await lived_in.row(claim.job_id))["charged_nano"] == 2_500_000


async def test_a_check_of_everything_that_finds_nothing_lets_new_holds_go_on(lived_in: Workbench) -> None:
    async with lived_in.pool.acquire() as conn:
        await tamper(lived_in, 1)
        assert await look(lived_in, billing.LedgerWatch()) == {HELD}
        proof = await prove(conn)
        assert ([v.invariant for v in proof.violations], proof.lifted, proof.halted) == ([HELD], False, True)
        await tamper(lived_in, -1)
        revision = await conn.fetchval("SELECT revision FROM config_revision")
        proof = await prove(conn)
        assert (proof.violations, proof.lifted, proof.halted) == ([], True, False)
        assert await billing.read_halt(conn) is None
        assert await conn.fetchval("SELECT revision FROM config_revision") == revision + 1
        proof = await prove(conn)
        assert (proof.violations, proof.lifted, proof.halted) == ([], False, False)
        assert await conn.fetchval("SELECT revision FROM config_revision") == revision + 1


async def test_what_a_check_of_everything_finds_stops_new_holds(
    lived_in: Workbench, database: str, postgres: EmbeddedPostgres
) -> None:
    unbalanced = "INSERT INTO transfer (id, kind) VALUES (gen_random_uuid(), 'grant')"
    await plant(database, postgres.superuser_dsn, [unbalanced])
    async with lived_in.pool.acquire() as conn:
        assert len((await prove(conn)).violations) == 2
        assert await billing.read_halt(conn) is not None


async def test_a_halt_for_what_was_found_while_everything_was_checked_stays(
    lived_in: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    violation = billing.Violation(invariant=HELD, subject="somebody", detail="wrong")

    async def count_while_another_process_finds_something(conn: billing.Connection) -> int:
        async with lived_in.pool.acquire() as other:
            await billing.note_violations(other, [violation])
        return int(await conn.fetchval("SELECT count(*) FROM entry"))

    async with lived_in.pool.acquire() as conn:
        await billing.note_violations(conn, [violation])
        monkeypatch.setattr(billing, "count_entries", count_while_another_process_finds_something)
        proof = await prove(conn)
        assert (proof.violations, proof.lifted, proof.halted) == ([], False, True)
        monkeypatch.undo()
        assert (await prove(conn)).lifted


async def test_a_job_that_ended_between_two_checks_is_looked_at_by_the_second(
    lived_in: Workbench, database: str, postgres: EmbeddedPostgres
) -> None:
    # Its hold was closed without a charge, so that no entry leads to it.
    watch = billing.LedgerWatch()
    claim = await lived_in.claim_one()
    await lived_in.pool.execute("UPDATE ledger_watch SET checked_at = now() + interval '1 minute'")
    async with lived_in.pool.acquire() as conn:
        assert await check_recent(conn, watch) is None
    await lived_in.fail(claim)
    change = f"UPDATE hold SET state = 'settled' WHERE reference = '{claim.job_id}'"  # noqa: S608
    await plant(database, postgres.superuser_dsn, [change])
    await lived_in.pool.execute("UPDATE ledger_watch SET checked_at = now() - interval '1 minute'")
    async with lived_in.pool.acquire() as conn:
        found = await check_recent(conn, watch)
    assert found is not None
    assert FINAL in {violation.invariant for violation in found}


async def test_work_going_on_beside_it_is_no_violation(bench: Workbench, database: str) -> None:
    limits = KeyLimits(max_open_jobs=1_000, budget_nano=USD, budget_period="day")
    principals = [await bench.customer(credit_nano=USD, limits=limits) for _ in range(3)]
    watches = [billing.LedgerWatch(), billing.LedgerWatch()]
    is_over = asyncio.Event()
    checks = 0

    async def work(principal: Principal) -> None:
        for number in range(40):
            job = await bench.submit(principal, seconds=1 + number % 5)
            if number % 5 == 4:
                with contextlib.suppress(JobAlreadyFinal):
                    await bench.jobs.cancel(principal, job.id)
            for claim in await bench.claim(limit=3):
                if number % 7 == 6:
                    await bench.fail(claim)
                else:
                    await bench.deliver(claim, frames=claim.request.frames * (1 + (number % 3 == 2)))
            async with bench.pool.acquire() as conn, conn.transaction():
                await billing.grant(
                    conn,
                    account_id=principal.organization_id,
                    amount_nano=1_000,
                    reason="a gift",
                    expires_at=datetime.now(UTC) - timedelta(seconds=1) if number % 2 else None,
                )
                await billing.expire_due(conn)

    async def keep_looking() -> None:
        nonlocal checks
        while not is_over.is_set():
            for watch in watches:
                assert await look(bench, watch) == set()
                checks += 1

    async with asyncio.TaskGroup() as group:
        looking = group.create_task(keep_looking())
        await asyncio.gather(*(work(principal) for principal in principals))
        is_over.set()
        await looking
    assert checks >= 2
    assert await violations(database) == []
    assert await bench.pool.fetchval("SELECT count(*) FROM entry") > 300
