"""Jobs as their owners see them: one, a page of them, their attempts; and the wish to end one.

A job that the caller may not see does not exist, in the answer as in the query.
"""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec
import structlog

import billing
from gateway.auth.principal import Principal
from gateway.errors import JobAlreadyFinal, JobNotFound
from gateway.ids import first_id
from gateway.jobs.job import (
    JOB_COLUMNS,
    STATE_COLUMNS,
    Attempt,
    Job,
    JobState,
    JobStatus,
    UnreadableJob,
    job_from_row,
    state_from_row,
)
from gateway.jobs.settlement import cancel_queued

MAX_PAGE: Final = 100

log = structlog.get_logger(__name__)

_OLDEST: Final = uuid.UUID(int=0)
_NEWEST: Final = uuid.UUID(int=2**128 - 1)
_ID_AHEAD: Final = timedelta(minutes=1)
"""More than lies between the making of a job's id and its `created_at`."""
_VISIBLE: Final = "organization_id = $1 AND ($2::uuid IS NULL OR project_id = $2)"


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a page shows; None filters nothing."""

    statuses: tuple[JobStatus, ...] | None = None
    model: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None
    """Without that moment."""
    before: uuid.UUID | None = None
    """Only jobs older than this one: the cursor."""
    limit: int = 20


class JobWish(msgspec.Struct, frozen=True):
    """A job that somebody wants to see."""

    principal: Principal
    job_id: uuid.UUID


async def read_jobs(conn: billing.Connection, wishes: Sequence[JobWish]) -> list[Job | UnreadableJob | None]:
    """Many jobs for many callers in one query; None where the caller may see no such job."""
    rows = await conn.fetch(
        f"""
        SELECT {JOB_COLUMNS}, wish
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY
               AS t (wished_id, wished_organization, wished_project, wish)
          JOIN job ON id = wished_id AND organization_id = wished_organization
           AND (wished_project IS NULL OR project_id = wished_project)
        """,  # noqa: S608 - constants
        [wish.job_id for wish in wishes],
        [wish.principal.organization_id for wish in wishes],
        [wish.principal.project_id for wish in wishes],
    )
    found: list[Job | UnreadableJob | None] = [None] * len(wishes)
    for row in rows:
        try:
            found[row["wish"] - 1] = job_from_row(row)
        except UnreadableJob as error:
            found[row["wish"] - 1] = error
    return found


async def read_own_job(conn: billing.Connection, organization_id: uuid.UUID, job_id: uuid.UUID) -> Job | None:
    """A job for the gateway itself, which tells its organization. Raises UnreadableJob."""
    row = await conn.fetchrow(
        f"SELECT {JOB_COLUMNS} FROM job WHERE id = $1 AND organization_id = $2",  # noqa: S608 - constants
        job_id,
        organization_id,
    )
    return None if row is None else job_from_row(row)


async def read_state(conn: billing.Connection, principal: Principal, job_id: uuid.UUID) -> JobState:
    """Where the job stands, without decoding all of it.

    Raises JobNotFound, for foreign ids as for unknown ones.
    """
    row = await conn.fetchrow(
        f"SELECT {STATE_COLUMNS} FROM job WHERE {_VISIBLE} AND id = $3",  # noqa: S608 - constants
        principal.organization_id,
        principal.project_id,
        job_id,
    )
    if row is None:
        raise JobNotFound("there is no such job")
    return state_from_row(row)


async def read_attempts(conn: billing.Connection, job_id: uuid.UUID) -> list[Attempt]:
    """All tries of a job that the caller was allowed to read, in order."""
    rows = await conn.fetch(
        """
        SELECT n, backend, reason, state, created_at, finished_at, error_code, error_message
          FROM attempt WHERE job_id = $1 ORDER BY n
        """,
        job_id,
    )
    return [Attempt(**dict(row)) for row in rows]


async def list_jobs(
    conn: billing.Connection, principal: Principal, wanted: JobFilter
) -> tuple[list[Job], uuid.UUID | None]:
    """A page, newest first, and the cursor of the next one; without jobs that this version cannot read."""
    sql, arguments = page_query(principal, wanted)
    rows = await conn.fetch(sql, *arguments)
    jobs = []
    for row in rows[: wanted.limit]:
        try:
            jobs.append(job_from_row(row))
        except UnreadableJob:
            log.exception("jobs.unreadable", job=row["id"].hex)
    return jobs, rows[wanted.limit - 1]["id"] if len(rows) > wanted.limit else None


def page_query(
    principal: Principal, wanted: JobFilter, *, columns: str = JOB_COLUMNS
) -> tuple[str, list[Any]]:
    """A page and one row more. Each filter has an index that ends with the id, so that a rare model or
    a small project is found as fast in a long history as a common one.

    Only what is filtered by is in the text: a plan for `$1 IS NULL OR ...` would serve no index. The
    columns of the index are compared and sorted by as one row: with `organization_id = $1` the planner
    may walk down the ids of all organizations instead, until it meets enough of ours.
    """
    arguments: list[Any] = []

    def bound(value: Any) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    oldest = _OLDEST if wanted.created_from is None else first_id(wanted.created_from, margin=_ID_AHEAD)
    newest = _NEWEST if wanted.created_to is None else first_id(wanted.created_to, margin=-_ID_AHEAD)
    ids = (bound(oldest), bound(min(wanted.before or _NEWEST, newest)))
    owner, equal = {"organization_id": bound(principal.organization_id)}, {}
    if wanted.model is not None:
        equal["model"] = bound(wanted.model)
    if principal.project_id is not None:
        equal["project_id"] = bound(principal.project_id)
    conditions = []
    if wanted.created_from is not None:
        conditions.append(f"created_at >= {bound(wanted.created_from)}")
    if wanted.created_to is not None:
        conditions.append(f"created_at < {bound(wanted.created_to)}")
    limit = f"LIMIT {bound(wanted.limit + 1)}"
    # One walk down the index for each status: rows of several at once would all have to be sorted.
    pages = []
    for status in wanted.statuses or (None,):
        state = {} if status is None else {"status": f"'{status.value}'"}
        index = _index_of(owner, equal, state)
        rest = [f"{name} = {value}" for name, value in (owner | equal | state).items() if name not in index]
        pages.append(_page(columns, index, ids, [*conditions, *rest], limit))
    if len(pages) == 1:
        return pages[0], arguments
    return " UNION ALL ".join(f"({page})" for page in pages) + f" ORDER BY id DESC {limit}", arguments


def _index_of(owner: dict[str, str], equal: dict[str, str], state: dict[str, str]) -> dict[str, str]:
    """Columns, and their values, of the index to walk down; it ends with the id."""
    if "project_id" in equal:
        return {"project_id": equal["project_id"]}
    return owner | (equal or state)


def _page(
    columns: str, index: dict[str, str], ids: tuple[str, str], conditions: Sequence[str], limit: str
) -> str:
    names, values = ", ".join(index), ", ".join(index.values())
    where = [f"({names}, id) >= ({values}, {ids[0]})", f"({names}, id) < ({values}, {ids[1]})", *conditions]
    if "project_id" in index:
        where.append("project_id IS NOT NULL")  # as the index has it
    order = ", ".join(f"{name} DESC" for name in (*index, "id"))
    return f"SELECT {columns} FROM job WHERE {' AND '.join(where)} ORDER BY {order} {limit}"  # noqa: S608 - no input


async def request_cancel(
    pool: "asyncpg.Pool[asyncpg.Record]", principal: Principal, job_id: uuid.UUID
) -> None:
    """End a queued job now, ask the worker of a running one to stop; either way it is never charged.

    Raises JobNotFound, or JobAlreadyFinal if it had ended otherwise before.
    """
    async with pool.acquire() as conn, conn.transaction():
        marked = await conn.fetchval(
            f"""
            UPDATE job SET cancel_requested_at = coalesce(cancel_requested_at, now())
             WHERE {_VISIBLE} AND id = $3 AND completed_at IS NULL RETURNING id
            """,  # noqa: S608 - constants
            principal.organization_id,
            principal.project_id,
            job_id,
        )
        if marked is not None:
            await cancel_queued(conn, job_id)
            return
        state = await read_state(conn, principal, job_id)
    if state.status is not JobStatus.CANCELED:
        raise JobAlreadyFinal(f"the job has already {state.status.value}")
