"""What was charged, by the hour: counted in the commit of the charge, read by usage reports.

A row stands for one hour, key, project, model and backend. Its organization's account is locked
whenever it is written, so that two settlements never wait for each other here.
"""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec

import billing

HOUR: Final = timedelta(hours=1)
NO_PROJECT: Final = uuid.UUID(int=0)
"""Stands for null in the order of a report, which has to know what comes after what."""


class UsageGroup(StrEnum):
    """What a report can be divided by."""

    DAY = "day"
    HOUR = "hour"
    MODEL = "model"
    BACKEND = "backend"
    PROJECT = "project"
    KEY = "key"


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """One charged job."""

    organization_id: uuid.UUID
    project_id: uuid.UUID | None
    key_id: uuid.UUID
    model: str
    backend: str
    billed_ms: int
    cost_nano: int


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """Charged jobs together."""

    jobs: int
    billed_ms: int
    cost_nano: int


class UsageFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Whose usage of when; None filters nothing. Start and end are whole hours, the end is not in it."""

    organization_id: uuid.UUID
    within_project: uuid.UUID | None = None
    """What the reader may see at all."""
    start: datetime
    end: datetime
    project_id: uuid.UUID | None = None
    key_id: uuid.UUID | None = None
    model: str | None = None


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a report: what it is about, in the order of the report's groups, and the sum."""

    place: tuple[Any, ...]
    sum: UsageSum


_TYPES: Final = {
    UsageGroup.DAY: "timestamptz",
    UsageGroup.HOUR: "timestamptz",
    UsageGroup.MODEL: "text",
    UsageGroup.BACKEND: "text",
    UsageGroup.PROJECT: "uuid",
    UsageGroup.KEY: "uuid",
}
_EXPRESSIONS: Final = {
    UsageGroup.DAY: "date_trunc('day', hour, 'UTC')",
    UsageGroup.HOUR: "hour",
    UsageGroup.MODEL: "model",
    UsageGroup.BACKEND: "backend",
    UsageGroup.PROJECT: f"coalesce(project_id, '{NO_PROJECT}')",
    UsageGroup.KEY: "key_id",
}
_SUMS: Final = (
    "coalesce(sum(jobs), 0)::bigint, coalesce(sum(billed_ms), 0)::bigint, coalesce(sum(cost_nano), 0)::bigint"
)


async def count_usage(conn: billing.Connection, uses: Iterable[Use]) -> None:
    """Add charged jobs to the present hour; the caller settles them in the same transaction."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for use in uses:
        place = (use.organization_id, use.key_id, use.project_id, use.model, use.backend)
        found = sums.setdefault(place, [0, 0, 0])
        found[0] += 1
        found[1] += use.billed_ms
        found[2] += use.cost_nano
    if not sums:
        return
    await conn.execute(
        """
        INSERT INTO usage_hour (organization_id, key_id, project_id, model, backend, hour,
                                jobs, billed_ms, cost_nano)
        SELECT o, k, p, m, b, date_trunc('hour', now(), 'UTC'), jobs, ms, nano
          FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                      $8::bigint[]) AS t (o, k, p, m, b, jobs, ms, nano)
         ORDER BY o, k, p, m, b
        ON CONFLICT (organization_id, hour, key_id, project_id, model, backend) DO UPDATE
           SET jobs = usage_hour.jobs + excluded.jobs, billed_ms = usage_hour.billed_ms + excluded.billed_ms,
               cost_nano = usage_hour.cost_nano + excluded.cost_nano
        """,
        *map(list, zip(*((*place, *found) for place, found in sums.items()), strict=True)),
    )


async def sum_usage(conn: billing.Connection, wanted: UsageFilter) -> UsageSum:
    """All of it together."""
    bound = _Bound()
    row = await conn.fetchrow(
        f"SELECT {_SUMS} FROM usage_hour WHERE {' AND '.join(_conditions(wanted, bound))}",  # noqa: S608 - no input
        *bound.values,
    )
    if row is None:
        raise LookupError("a sum is always a row")
    return _sum(row)


async def read_usage(
    conn: billing.Connection,
    wanted: UsageFilter,
    groups: Sequence[UsageGroup],
    *,
    after: tuple[Any, ...] | None = None,
    limit: int,
) -> list[UsageRow]:
    """Lines in the order of their groups, from the one that follows `after`."""
    sql, arguments = usage_query(wanted, groups, after=after, limit=limit)
    rows = await conn.fetch(sql, *arguments)
    return [UsageRow(place=tuple(row)[:-3], sum=_sum(row)) for row in rows]


def usage_query(
    wanted: UsageFilter, groups: Sequence[UsageGroup], *, after: tuple[Any, ...] | None, limit: int
) -> tuple[str, list[Any]]:
    """The text holds only what is asked for; a later page starts to read at its own hour."""
    bound = _Bound()
    conditions = _conditions(wanted, bound)
    names = [_EXPRESSIONS[group] for group in groups]
    if after is not None and names:
        values = [f"{bound(value)}::{_TYPES[group]}" for group, value in zip(groups, after, strict=True)]
        conditions.append(f"({', '.join(names)}) > ({', '.join(values)})")
        if groups[0] in {UsageGroup.DAY, UsageGroup.HOUR}:
            conditions.append(f"hour >= {values[0]}")
    columns = ", ".join([*names, _SUMS])
    order = f"GROUP BY {', '.join(names)} ORDER BY {', '.join(names)}" if names else "HAVING count(*) > 0"
    where = " AND ".join(conditions)
    sql = f"SELECT {columns} FROM usage_hour WHERE {where} {order} LIMIT {bound(limit)}"  # noqa: S608 - no input
    return sql, bound.values


async def usage_hours(
    conn: billing.Connection, organization_id: uuid.UUID
) -> tuple[datetime, datetime] | None:
    """From the first hour with usage to the end of the last one; None if there is none."""
    row = await conn.fetchrow(
        "SELECT min(hour), max(hour) FROM usage_hour WHERE organization_id = $1", organization_id
    )
    return None if row is None or row[0] is None else (row[0], row[1] + HOUR)


def start_of_hour(moment: datetime) -> datetime:
    """By UTC."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


class _Bound:
    """Arguments of a query that is put together: each call names one more."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def __call__(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def _conditions(wanted: UsageFilter, bound: _Bound) -> list[str]:
    conditions = [
        f"organization_id = {bound(wanted.organization_id)}",
        f"hour >= {bound(wanted.start)}",
        f"hour < {bound(wanted.end)}",
    ]
    projects = {wanted.within_project, wanted.project_id} - {None}
    conditions += [f"project_id = {bound(project_id)}" for project_id in projects]
    if wanted.key_id is not None:
        conditions.append(f"key_id = {bound(wanted.key_id)}")
    if wanted.model is not None:
        conditions.append(f"model = {bound(wanted.model)}")
    return conditions


def _sum(row: Any) -> UsageSum:
    jobs, billed_ms, cost_nano = tuple(row)[-3:]
    return UsageSum(jobs=jobs, billed_ms=billed_ms, cost_nano=cost_nano)
