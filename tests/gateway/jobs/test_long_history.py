"""A page of jobs costs the same in a long history as in a short one, whatever is asked for."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.auth.principal import Principal
from gateway.ids import new_id
from gateway.jobs.job import JobStatus
from gateway.jobs.reading import JobFilter, page_query
from tests.workbench import Workbench

JOBS = 3_000
MOST_ROWS = 150
"""Looked at for a page of 20, out of JOBS; each step of the plan counts."""


@pytest.fixture
async def history(bench: Workbench) -> Principal:
    """A customer with JOBS ended jobs, of which one is of another model, one of a project, one failed."""
    owner = await bench.customer()
    model_job = await bench.submit(owner)
    await bench.pool.execute(
        """
        INSERT INTO job (id, organization_id, key_id, test, model, task, request, request_hash, status, queue,
                         turn, length_ms, deadline_at, price_version_id, nano_per_second, held_nano, error,
                         completed_at, created_at)
        SELECT overlay(replace(gen_random_uuid()::text, '-', '') placing
                       lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - n), 12, '0') from 1)::uuid,
               organization_id, key_id, test, model, task, request, request_hash, 'canceled', queue, turn,
               length_ms, deadline_at, price_version_id, nano_per_second, held_nano, '{}', now(), created_at
          FROM job, generate_series(1, $2) AS n WHERE id = $1
        """,
        model_job.id,
        JOBS,
    )
    project = await bench.pool.fetchval(
        "INSERT INTO project (id, organization_id, name) VALUES ($1, $2, 'p') RETURNING id",
        new_id(),
        owner.organization_id,
    )
    await bench.pool.execute(
        """
        UPDATE job SET model = 'rare', project_id = $1, status = 'failed'
         WHERE id = (SELECT min(id::text)::uuid FROM job)
        """,
        project,
    )
    await bench.pool.execute("ANALYZE job")
    return owner


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(JobFilter(), id="all"),
        pytest.param(JobFilter(model="rare"), id="a rare model"),
        pytest.param(JobFilter(model="never seen"), id="no such model"),
        pytest.param(JobFilter(statuses=(JobStatus.FAILED, JobStatus.CANCELED)), id="two states"),
        pytest.param(JobFilter(statuses=(JobStatus.FAILED,)), id="a rare state"),
        pytest.param(JobFilter(statuses=(JobStatus.COMPLETED,)), id="a state that no job has"),
        pytest.param(JobFilter(created_from=datetime.now(UTC) + timedelta(days=1)), id="the future"),
    ],
)
async def test_a_page_looks_at_few_rows(bench: Workbench, history: Principal, wanted: JobFilter) -> None:
    assert await _rows_looked_at(bench, history, wanted) < MOST_ROWS


async def test_a_small_project_is_a_short_walk(bench: Workbench, history: Principal) -> None:
    project: uuid.UUID = await bench.pool.fetchval("SELECT id FROM project")
    member = Principal(
        key_id=history.key_id, organization_id=history.organization_id, project_id=project, test=False
    )
    assert await _rows_looked_at(bench, member, JobFilter()) < MOST_ROWS


async def test_newer_jobs_of_others_are_not_walked_past(bench: Workbench, history: Principal) -> None:
    other = await bench.customer()
    await bench.pool.execute(
        """
        UPDATE job SET organization_id = $1
         WHERE id IN (SELECT id FROM job ORDER BY id DESC LIMIT $2::int)
        """,
        other.organization_id,
        JOBS // 2,
    )
    await bench.pool.execute("ANALYZE job")
    assert await _rows_looked_at(bench, history, JobFilter()) < MOST_ROWS


async def _rows_looked_at(bench: Workbench, owner: Principal, wanted: JobFilter) -> float:
    sql, arguments = page_query(owner, wanted)
    text = await bench.pool.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments)
    return _looked_at(json.loads(text)[0]["Plan"])


def _looked_at(plan: dict[str, Any]) -> float:
    here = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return float(here) + sum(_looked_at(part) for part in plan.get("Plans", ()))
