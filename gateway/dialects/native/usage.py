"""`GET /v1/usage`: what was charged, by day, hour, model, backend, project and key."""

import base64
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get

import billing
from gateway.dialects.native.answers import Answer
from gateway.dialects.native.csv_answer import CsvOperation, Row, csv_answer, text_cell
from gateway.dialects.native.documents import ERRORS, ID, MOMENTS, query
from gateway.dialects.native.guarding import GatewayRequest
from gateway.dialects.native.queries import (
    FORMAT,
    read_id,
    read_limit,
    read_model_name,
    read_moment,
    wants_csv,
)
from gateway.dialects.native.render import iso
from gateway.errors import InvalidRequest
from gateway.ids import parse_id
from gateway.jobs.reading import MAX_PAGE
from gateway.jobs.usage import HOUR, NO_PROJECT, UsageFilter, UsageGroup, UsageRow, UsageSum, start_of_hour

DEFAULT_DAYS: Final = 30
MAX_CURSOR_CHARACTERS: Final = 4_000
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
_GROUPS: Final = "|".join(UsageGroup)
_TIMES: Final = (UsageGroup.HOUR, UsageGroup.DAY)


class UsageRowView(msgspec.Struct, kw_only=True):
    """One line of a report; it has the fields that the report is grouped by."""

    start: str
    model: str | msgspec.UnsetType = msgspec.UNSET
    backend: str | msgspec.UnsetType = msgspec.UNSET
    project_id: str | msgspec.UnsetType | None = msgspec.UNSET
    key_id: str | msgspec.UnsetType = msgspec.UNSET
    jobs: int
    billed_seconds: float
    cost_usd: str


class UsageTotals(msgspec.Struct, kw_only=True):
    """The sums of the whole report, not of one page."""

    jobs: int
    billed_seconds: float
    cost_usd: str


class UsageReport(msgspec.Struct, kw_only=True):
    """A page of a usage report, oldest first; pass `next_cursor` as `cursor` for the next one."""

    object: str = "list"
    start: str
    end: str
    group_by: list[str]
    data: list[UsageRowView]
    totals: UsageTotals
    has_more: bool
    next_cursor: str | None


class _Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a cursor says: the report that it belongs to, and the last line that was seen."""

    groups: str
    start: int
    end: int
    values: list[int | str]


@get("/usage", summary="Read usage", responses=ERRORS, operation_class=CsvOperation)
async def read_usage_report(
    request: GatewayRequest,
    start: Annotated[
        str | None, query("From the beginning of this hour; left out, 29 days before `end`.", any_of=MOMENTS)
    ] = None,
    end: Annotated[
        str | None, query("To the end of the hour before this moment; left out, now.", any_of=MOMENTS)
    ] = None,
    group_by: Annotated[
        str,
        query(
            f"One or more of {', '.join(UsageGroup)}, with commas between them.",
            type="string",
            pattern=f"^({_GROUPS})(,({_GROUPS})){{0,9}}$",
            examples=["day,model"],
        ),
    ] = "day",
    model: Annotated[str | None, query("Only this model, by id or alias.", type="string")] = None,
    key: Annotated[str | None, query("Only the key with this id.", type="string", pattern=ID)] = None,
    project: Annotated[str | None, query("Only the project with this id.", type="string", pattern=ID)] = None,
    limit: Annotated[int, query(f"Lines per page, 1 to {MAX_PAGE}.", minimum=1, maximum=MAX_PAGE)] = MAX_PAGE,
    cursor: Annotated[
        str | None, query("`next_cursor` of an earlier page of the same report.", type="string")
    ] = None,
    chosen: Annotated[str | None, FORMAT] = None,
) -> Response[UsageReport]:
    """Read usage.

    Charged jobs by the hour in which they ended, in UTC: what the ledger charged, to the nano. Test jobs
    are free and not in it. A project's key reads its project's usage. A moment within an hour stands for
    the whole hour; the answer says from when to when it is. New usage is added to the last lines while
    pages are read: no line comes twice, and none is left out.
    """
    groups = _read_groups(group_by)
    is_table = wants_csv(request, chosen)
    place = None if cursor is None or is_table else _read_cursor(cursor, groups)
    first, last = (
        _range(read_moment(start, "start"), read_moment(end, "end"))
        if place is None
        else (_moment(place.start), _moment(place.end))
    )
    wanted = UsageFilter(
        organization_id=request.auth.organization_id,
        within_project=request.auth.project_id,
        start=first,
        end=last,
        project_id=read_id(project, "project"),
        key_id=read_id(key, "key"),
        model=read_model_name(model, request.desk.catalog),
    )
    reports = request.desk.reports
    if is_table:
        rows = _table(reports.usage_rows(wanted, groups), groups, first)
        return csv_answer(_head(groups), rows, name=f"usage-{first:%Y-%m-%d}-{last:%Y-%m-%d}.csv")
    after = _values(place, groups) if place is not None else None
    page = await reports.usage(wanted, groups, after=after, limit=read_limit(limit))
    return Answer(
        UsageReport(
            start=iso(first),
            end=iso(last),
            group_by=[group.value for group in groups],
            data=[_row_view(row, groups, first) for row in page.rows],
            totals=UsageTotals(**_sums(page.total)),
            has_more=page.has_more,
            next_cursor=_write_cursor(wanted, groups, page.rows[-1]) if page.has_more else None,
        )
    )


def _read_groups(text: str) -> tuple[UsageGroup, ...]:
    """In one order, whatever the client's; an hour says its day."""
    words = text.split(",")
    for word in words:
        if word not in set(UsageGroup):
            raise InvalidRequest(
                f"group_by must be one or more of {', '.join(UsageGroup)}",
                param="group_by",
                suggestion="day,model",
            )
    time = next((group for group in _TIMES if group in words), None)
    others = (group for group in UsageGroup if group not in _TIMES and group in words)
    return (*([time] if time else []), *others)


def _range(start: datetime | None, end: datetime | None) -> tuple[datetime, datetime]:
    """Whole hours."""
    end = min(max(end or datetime.now(UTC), _EARLIEST), _LATEST)
    last = start_of_hour(end)
    if last < end:
        last += HOUR
    if start is None:
        today = (last - HOUR).replace(hour=0)
        return today - timedelta(days=DEFAULT_DAYS - 1), last
    return start_of_hour(min(max(start, _EARLIEST), _LATEST)), last


def _row_view(row: UsageRow, groups: Sequence[UsageGroup], start: datetime) -> UsageRowView:
    fields = _fields(row, groups, start)
    return UsageRowView(**fields, **_sums(row.sum))


def _fields(row: UsageRow, groups: Sequence[UsageGroup], start: datetime) -> dict[str, Any]:
    """What a line is about; without a time it is about the whole report."""
    fields: dict[str, Any] = {"start": iso(start)}
    for group, value in zip(groups, row.place, strict=True):
        if group in _TIMES:
            fields["start"] = iso(value)
        elif group is UsageGroup.PROJECT:
            fields["project_id"] = None if value == NO_PROJECT else value.hex
        elif group is UsageGroup.KEY:
            fields["key_id"] = value.hex
        else:
            fields[group.value] = value
    return fields


def _sums(total: UsageSum) -> dict[str, Any]:
    return {
        "jobs": total.jobs,
        "billed_seconds": total.billed_ms / 1000,
        "cost_usd": billing.format_usd(total.cost_nano),
    }


def _head(groups: Sequence[UsageGroup]) -> Row:
    names = {UsageGroup.PROJECT: "project_id", UsageGroup.KEY: "key_id"}
    about = [names.get(group, group.value) for group in groups if group not in _TIMES]
    return ["start", *about, "jobs", "billed_seconds", "cost_usd"]


async def _table(
    chunks: AsyncIterator[Sequence[UsageRow]], groups: Sequence[UsageGroup], start: datetime
) -> AsyncIterator[Sequence[Row]]:
    async for rows in chunks:
        yield [
            [
                *(text_cell(value) for value in _fields(row, groups, start).values()),
                str(row.sum.jobs),
                f"{row.sum.billed_ms / 1000:.3f}",
                billing.format_usd(row.sum.cost_nano),
            ]
            for row in rows
        ]


def _write_cursor(wanted: UsageFilter, groups: Sequence[UsageGroup], last: UsageRow) -> str:
    place = _Place(
        groups=",".join(groups),
        start=int(wanted.start.timestamp()),
        end=int(wanted.end.timestamp()),
        values=[_plain(value) for value in last.place],
    )
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def _read_cursor(text: str, groups: Sequence[UsageGroup]) -> _Place:
    refused = InvalidRequest("cursor must be the next_cursor of an earlier page", param="cursor")
    if len(text) > MAX_CURSOR_CHARACTERS:
        raise refused
    try:
        raw = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        place = msgspec.json.decode(raw, type=_Place)
        for moment in (place.start, place.end):
            if start_of_hour(_moment(moment)) != _moment(moment):
                raise refused
    except (ValueError, OverflowError, OSError) as error:
        raise refused from error
    if place.groups != ",".join(groups):
        raise InvalidRequest(
            f"this cursor belongs to a report grouped by {place.groups[:100]}", param="cursor"
        )
    _values(place, groups)
    return place


def _values(place: _Place, groups: Sequence[UsageGroup]) -> tuple[Any, ...]:
    """As the database has them. Raises InvalidRequest."""
    try:
        return tuple(_value(group, value) for group, value in zip(groups, place.values, strict=True))
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidRequest("cursor must be the next_cursor of an earlier page", param="cursor") from error


def _plain(value: Any) -> int | str:
    if isinstance(value, datetime):
        return int(value.timestamp())
    return value.hex if isinstance(value, uuid.UUID) else str(value)


def _value(group: UsageGroup, plain: int | str) -> Any:
    if isinstance(plain, int):
        if group in _TIMES:
            return _moment(plain)
    elif group in {UsageGroup.PROJECT, UsageGroup.KEY}:
        if (found := parse_id(plain)) is not None:
            return found
    elif group not in _TIMES and "\x00" not in plain:
        return plain
    raise ValueError(plain)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
