"""Money as its owner reads it: the balance, usage, the lines of the ledger, statements by the month.

None of it asks for credit. A project's key reads its project's usage, and the balance that its jobs are
paid from; where that money came from and who else spends it is the organization's to know.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final, TypeVar

import asyncpg
import msgspec

import billing
from gateway.auth.principal import Principal, Scope
from gateway.database import Reader
from gateway.errors import NotFound, ScopeDenied
from gateway.jobs.reading import JobFilter, page_query
from gateway.jobs.usage import (
    UsageFilter,
    UsageGroup,
    UsageRow,
    UsageSum,
    read_usage,
    sum_usage,
    usage_hours,
)

READS_AT_ONCE: Final = 3
"""Of the pool's connections: long reports take turns, and leave the others to the work."""
CHUNK: Final = 500
"""Lines that are read and written at once, in a few milliseconds."""
MAX_LINES: Final = 200
"""Of a statement; beyond, there is one line for each kind."""
MAX_MODELS: Final = 1000
_DAY: Final = timedelta(days=1)

Answer = TypeVar("Answer")


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """The account, and where what it has comes from, in the order in which it is spent."""

    account: billing.Account
    grants: Sequence[billing.Grant]


class UsageEvent(msgspec.Struct, frozen=True):
    """A finished job, as far as money goes."""

    id: uuid.UUID
    created_at: datetime
    completed_at: datetime | None
    model: str
    status: str
    billed_ms: int | None
    charged_nano: int | None
    test: bool


_EVENT_COLUMNS: Final = ", ".join(UsageEvent.__struct_fields__)


class UsagePage(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of a report, the sum of all its pages, and whether more follow."""

    rows: Sequence[UsageRow]
    total: UsageSum
    has_more: bool


class EntryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of a ledger, and whether more follow."""

    entries: Sequence[billing.Entry]
    has_more: bool


class LedgerWish(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines of the ledger; None filters nothing."""

    start: datetime | None = None
    end: datetime | None = None
    kind: str | None = None


class LedgerCopy(msgspec.Struct, frozen=True, kw_only=True):
    """Every line of a period that was there at one moment, from balance to balance."""

    opening_nano: int
    closing_nano: int
    chunks: AsyncIterator[Sequence[billing.Entry]]


class Month(msgspec.Struct, frozen=True, order=True):
    """A calendar month by UTC."""

    year: int
    number: int

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    def moved(self, months: int) -> "Month":
        """So many months later, or earlier."""
        year, number = divmod(self.year * 12 + self.number - 1 + months, 12)
        return Month(year, number + 1)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"


class MonthSums(msgspec.Struct, frozen=True):
    """What an organization's money did in a month."""

    month: Month
    money: billing.Statement

    @property
    def is_final(self) -> bool:
        """Nothing will be added to it any more."""
        return datetime.now(UTC) >= self.money.end + billing.LATENESS


class MonthStatement(msgspec.Struct, frozen=True, kw_only=True):
    """The same, line by line."""

    organization_id: uuid.UUID
    organization: str
    sums: MonthSums
    lines: Sequence[billing.Entry | billing.Movement]
    """All but charges: each by itself, or all of a kind together if they are many."""
    usage: Sequence[UsageRow]


class Reports:
    """Reads of one gateway process about money."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._reader = Reader(pool, at_once=READS_AT_ONCE)

    async def balance(self, principal: Principal) -> Balance:
        """What the organization has."""
        principal.check_scope(Scope.READ)
        owner = principal.organization_id

        async def read(conn: billing.Connection) -> Balance:
            grants = await billing.read_grants(conn, [owner])
            return Balance(account=await billing.read_account(conn, owner), grants=grants.get(owner, ()))

        return await self._at_one_moment(read)

    async def events(
        self, principal: Principal, wanted: JobFilter
    ) -> tuple[Sequence[UsageEvent], uuid.UUID | None]:
        """A page of finished jobs, newest first, and the cursor of the next one."""
        principal.check_scope(Scope.READ)
        sql, arguments = page_query(principal, wanted, columns=_EVENT_COLUMNS)
        rows = await self._reader.run(lambda conn: conn.fetch(sql, *arguments))
        events = [UsageEvent(*row) for row in rows[: wanted.limit]]
        return events, events[-1].id if len(rows) > wanted.limit else None

    async def usage(
        self,
        wanted: UsageFilter,
        groups: Sequence[UsageGroup],
        *,
        after: tuple[Any, ...] | None,
        limit: int,
    ) -> UsagePage:
        """A page of a usage report, with the sums of the whole report."""

        async def read(conn: billing.Connection) -> UsagePage:
            rows = await read_usage(conn, wanted, groups, after=after, limit=limit + 1)
            return UsagePage(
                rows=rows[:limit], total=await sum_usage(conn, wanted), has_more=len(rows) > limit
            )

        return await self._at_one_moment(read)

    async def usage_rows(
        self, wanted: UsageFilter, groups: Sequence[UsageGroup]
    ) -> AsyncIterator[Sequence[UsageRow]]:
        """All lines of a report, in chunks; by day and by hour each part is read for itself."""
        known = await self._reader.run(lambda conn: usage_hours(conn, wanted.organization_id))
        if known is None:
            return
        start, end = max(wanted.start, known[0]), min(wanted.end, known[1])
        for part_start, part_end in _parts(start, end, groups):
            part = msgspec.structs.replace(wanted, start=part_start, end=part_end)
            async for rows in self._usage_chunks(part, groups):
                yield rows

    async def entries(
        self, principal: Principal, wanted: LedgerWish, *, cursor: int | None, newest_first: bool, limit: int
    ) -> EntryPage:
        """A page of the ledger. Raises ScopeDenied for a project's key."""
        owner = _whole_organization(principal)

        async def read(conn: billing.Connection) -> EntryPage:
            start, end = await _cuts(conn, owner, wanted)
            page = billing.EntryFilter(
                start=start,
                end=end,
                kinds=None if wanted.kind is None else (wanted.kind,),
                after=0 if newest_first or cursor is None else cursor,
                before=cursor if newest_first and cursor is not None else billing.LAST_ID,
                newest_first=newest_first,
                limit=limit + 1,
            )
            found = await billing.read_entries(conn, owner, page)
            return EntryPage(entries=found[:limit], has_more=len(found) > limit)

        return await self._reader.run(read)

    async def copy_ledger(self, principal: Principal, wanted: LedgerWish) -> LedgerCopy:
        """The whole ledger, or a period of it, as it stands now. Raises ScopeDenied for a project's key."""
        owner = _whole_organization(principal)

        async def read(conn: billing.Connection) -> LedgerCopy:
            last_id, balance = await billing.last_entry(conn, owner)
            start, end = await _cuts(conn, owner, wanted)
            cuts = [cut for cut in (start, end) if cut is not None]
            balances = await billing.read_balances(conn, owner, cuts, last_id=last_id)
            page = billing.EntryFilter(
                start=start,
                end=end,
                kinds=None if wanted.kind is None else (wanted.kind,),
                before=last_id + 1,
                limit=CHUNK,
            )
            return LedgerCopy(
                opening_nano=balances[0] if start else 0,
                closing_nano=balances[-1] if end else balance,
                chunks=self._entry_chunks(owner, page),
            )

        return await self._reader.run(read)

    async def months(
        self, principal: Principal, *, before: Month | None, limit: int
    ) -> tuple[list[MonthSums], bool]:
        """Months with their sums, newest first, and whether older ones follow."""
        owner = _whole_organization(principal)

        async def read(conn: billing.Connection) -> tuple[list[MonthSums], bool]:
            first_at = await billing.first_entry_at(conn, owner)
            if first_at is None:
                return [], False
            newest = month_of(datetime.now(UTC))
            if before is not None:
                newest = min(newest, before.moved(-1))
            oldest = max(month_of(first_at), newest.moved(1 - limit))
            if newest < oldest:
                return [], False
            months = [oldest]
            while months[-1] < newest:
                months.append(months[-1].moved(1))
            bounds = [month.start for month in (*months, newest.moved(1))]
            statements = await billing.read_statements(conn, owner, bounds)
            sums = [MonthSums(month, money) for month, money in zip(months, statements, strict=True)]
            return sums[::-1], oldest > month_of(first_at)

        return await self._at_one_moment(read)

    async def month(self, principal: Principal, month: Month) -> MonthStatement:
        """One month. Raises NotFound before the first entry and in the future."""
        return await self.month_of_organization(_whole_organization(principal), month)

    async def month_of_organization(self, owner: uuid.UUID, month: Month) -> MonthStatement:
        """The same, for whoever was allowed to see it before."""

        async def read(conn: billing.Connection) -> MonthStatement:
            first_at = await billing.first_entry_at(conn, owner)
            if first_at is None or not month_of(first_at) <= month <= month_of(datetime.now(UTC)):
                raise NotFound("there is no statement for this month")
            start, end = month.start, month.moved(1).start
            (money,) = await billing.read_statements(conn, owner, [start, end])
            usage = await read_usage(
                conn,
                UsageFilter(organization_id=owner, start=start, end=end),
                [UsageGroup.MODEL],
                limit=MAX_MODELS,
            )
            if sum(row.sum.cost_nano for row in usage) != money.charged_nano:
                raise billing.LedgerConflict(f"usage of {month} is not what the ledger says, for {owner}")
            return MonthStatement(
                organization_id=owner,
                organization=await conn.fetchval("SELECT name FROM organization WHERE id = $1", owner),
                sums=MonthSums(month, money),
                lines=await _lines(conn, owner, money),
                usage=usage,
            )

        return await self._at_one_moment(read)

    async def _usage_chunks(
        self, wanted: UsageFilter, groups: Sequence[UsageGroup]
    ) -> AsyncIterator[Sequence[UsageRow]]:
        after: tuple[Any, ...] | None = None
        while True:
            place = after

            async def read(conn: billing.Connection, place: tuple[Any, ...] | None = place) -> list[UsageRow]:
                return await read_usage(conn, wanted, groups, after=place, limit=CHUNK)

            rows = await self._reader.run(read)
            if rows:
                yield rows
            if len(rows) < CHUNK or not groups:
                return
            after = rows[-1].place

    async def _entry_chunks(
        self, owner: uuid.UUID, wanted: billing.EntryFilter
    ) -> AsyncIterator[Sequence[billing.Entry]]:
        """A connection for each chunk, so that a reader who takes hours holds none."""
        while True:
            page = wanted

            async def read(conn: billing.Connection, page: billing.EntryFilter = page) -> list[billing.Entry]:
                return await billing.read_entries(conn, owner, page)

            found = await self._reader.run(read)
            if found:
                yield found
            if len(found) < wanted.limit:
                return
            wanted = msgspec.structs.replace(wanted, after=found[-1].id)

    async def _at_one_moment(self, read: Callable[[billing.Connection], Awaitable[Answer]]) -> Answer:
        """Several queries that must agree."""

        async def action(conn: billing.Connection) -> Answer:
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                return await read(conn)

        return await self._reader.run(action)


def month_of(moment: datetime) -> Month:
    """By UTC."""
    moment = moment.astimezone(UTC)
    return Month(moment.year, moment.month)


def _whole_organization(principal: Principal) -> uuid.UUID:
    principal.check_scope(Scope.READ)
    if principal.project_id is not None:
        raise ScopeDenied("this key belongs to a project: the ledger is read with a key of the organization")
    return principal.organization_id


async def _cuts(
    conn: billing.Connection, owner: uuid.UUID, wanted: LedgerWish
) -> tuple[billing.Cut | None, billing.Cut | None]:
    moments = [moment for moment in (wanted.start, wanted.end) if moment is not None]
    cuts = await billing.find_cuts(conn, owner, moments) if moments else []
    return (
        cuts[0] if wanted.start is not None else None,
        cuts[-1] if wanted.end is not None else None,
    )


async def _lines(
    conn: billing.Connection, owner: uuid.UUID, money: billing.Statement
) -> Sequence[billing.Entry | billing.Movement]:
    if sum(one.entries for one in money.movements) > MAX_LINES:
        return money.movements
    start, end = await billing.find_cuts(conn, owner, [money.start, money.end])
    wanted = billing.EntryFilter(start=start, end=end, kinds=billing.RARE_KINDS, limit=MAX_LINES)
    return await billing.read_entries(conn, owner, wanted)


def _parts(start: datetime, end: datetime, groups: Sequence[UsageGroup]) -> list[tuple[datetime, datetime]]:
    """Of whole days, so that no group is in two of them."""
    if start >= end:
        return []
    if UsageGroup.HOUR in groups:
        step = _DAY
    elif UsageGroup.DAY in groups:
        step = 31 * _DAY
    else:
        return [(start, end)]
    bounds = [start]
    while bounds[-1] < end:
        midnight = bounds[-1].astimezone(UTC).replace(hour=0, minute=0)
        bounds.append(min(midnight + step, end))
    return list(pairwise(bounds))
