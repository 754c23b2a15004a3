"""A job row cannot contradict itself, whoever writes it."""

import asyncpg
import pytest

from gateway.jobs.job import JobErrorCode, JobStatus
from tests.workbench import Workbench

QUEUED = [
    "status = 'lost'",
    "status = 'processing'",
    "status = 'processing', worker_id = gen_random_uuid()",
    "status = 'processing', lease_until = now()",
    "worker_id = gen_random_uuid()",
    "lease_until = now()",
    "completed_at = now()",
    "status = 'failed', completed_at = now()",
    "status = 'canceled', error = '{}'",
    "status = 'completed', completed_at = now(), billed_ms = 1, charged_nano = 1",
    "status = 'completed', completed_at = now(), result = '{}', charged_nano = 1",
    "status = 'completed', completed_at = now(), result = '{}', billed_ms = 1",
    "result = '{}'",
    "error = '{}'",
    "billed_ms = 1",
    "charged_nano = 1",
    "progress = 1.5",
    "progress = -0.5",
    "attempts = -1",
    "test = true",
]
COMPLETED = [
    "charged_nano = held_nano + 1",
    "charged_nano = NULL",
    "status = 'queued', completed_at = NULL",
    "status = 'failed'",
    "status = 'failed', error = '{}'",
    "lease_until = now()",
]
ATTEMPT = [
    "state = 'lost'",
    "state = 'done'",
    "state = 'failed', finished_at = now()",
    "finished_at = now()",
    "error_code = 'timeout'",
]


async def refused(bench: Workbench, statement: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await bench.pool.execute(statement)


async def test_a_queued_job_has_nothing_of_a_claimed_or_finished_one(bench: Workbench) -> None:
    await bench.submit(await bench.customer())
    for change in QUEUED:
        await refused(bench, f"UPDATE job SET {change}")  # noqa: S608 - constants


async def test_a_completed_job_keeps_its_result_and_its_charge(bench: Workbench) -> None:
    await bench.submit(await bench.customer())
    await bench.deliver(await bench.claim_one())
    for change in COMPLETED:
        await refused(bench, f"UPDATE job SET {change}")  # noqa: S608 - constants


async def test_an_attempt_is_finished_or_it_is_not(bench: Workbench) -> None:
    await bench.submit(await bench.customer())
    await bench.claim_one()
    for change in ATTEMPT:
        await refused(bench, f"UPDATE attempt SET {change}")  # noqa: S608 - constants


async def test_every_state_of_the_program_is_one_of_the_database(bench: Workbench) -> None:
    definition = await bench.pool.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ck_job_status'"
    )
    assert all(f"'{status.value}'" in definition for status in JobStatus)
    assert definition.count("::text") >= len(JobStatus)


async def test_words_are_stored_as_their_values(bench: Workbench) -> None:
    principal = await bench.customer()
    job = await bench.submit(principal)
    await bench.fail(await bench.claim_one())
    row = await bench.row(job.id)
    assert row["status"] == JobStatus.FAILED.value == "failed"
    assert row["task"] == "text2music"
    assert JobErrorCode.UPSTREAM_ERROR.value in str(row["error"])
    assert await bench.pool.fetchval("SELECT error_code FROM attempt") == "upstream_error"
