"""Jobs and ledger agree, and `ledger verify` notices when they do not."""

import msgspec
import pytest

from gateway.auth.directory import KeyLimits
from gateway.embedded import EmbeddedPostgres
from gateway.jobs.audit import CHECKS
from tests.factories import violations
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
]


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


async def test_the_check_sees_one_moment_and_not_the_work_beside_it(
    lived_in: Workbench, database: str
) -> None:
    principal = await lived_in.customer()
    async with lived_in.pool.acquire() as conn, conn.transaction():
        await conn.execute("UPDATE account SET held_nano = 1 WHERE id = $1", principal.organization_id)
        assert await violations(database) == []
