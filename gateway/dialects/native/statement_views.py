"""A month's statement as our own API shows it; the page to print is made of the same."""

import msgspec

import billing
from gateway.dialects.native.ledger import describe
from gateway.dialects.native.render import iso
from gateway.jobs.reports import MonthStatement, MonthSums


class MonthView(msgspec.Struct, kw_only=True):
    """The sums of a month: opening + added - charged - removed = closing."""

    month: str
    final: bool
    opening_usd: str
    added_usd: str
    charged_usd: str
    removed_usd: str
    closing_usd: str


class MonthList(msgspec.Struct, kw_only=True):
    """Months, newest first; pass `next_cursor` as `cursor` for the next page."""

    object: str = "list"
    data: list[MonthView]
    has_more: bool
    next_cursor: str | None


class StatementLine(msgspec.Struct, kw_only=True):
    """A line of the ledger, or all of its kind together if the month has very many of them."""

    created_at: str | None = None
    kind: str
    description: str
    external_ref: str | None = None
    reason: str | None = None
    entries: int
    amount_usd: str


class ModelLine(msgspec.Struct, kw_only=True):
    """What was charged for songs of one model."""

    model: str
    jobs: int
    billed_seconds: float
    cost_usd: str


class StatementView(msgspec.Struct, kw_only=True):
    """A month from balance to balance; all lines sum to the difference, to the nano."""

    object: str = "statement"
    organization_id: str
    organization: str
    month: str
    start: str
    end: str
    final: bool
    opening_usd: str
    added_usd: str
    charged_usd: str
    removed_usd: str
    closing_usd: str
    total_usd: str
    credits: list[StatementLine]
    usage: list[ModelLine]
    deductions: list[StatementLine]
    url: str


def statement_view(statement: MonthStatement, *, url: str) -> StatementView:
    """The whole month."""
    money = statement.sums.money
    return StatementView(
        organization_id=statement.organization_id.hex,
        organization=statement.organization,
        start=iso(money.start),
        end=iso(money.end),
        total_usd=billing.round_to_cents(money.charged_nano),
        credits=[_line(line) for line in statement.lines if line.amount_nano > 0],
        usage=[
            ModelLine(
                model=row.place[0],
                jobs=row.sum.jobs,
                billed_seconds=row.sum.billed_ms / 1000,
                cost_usd=billing.format_usd(row.sum.cost_nano),
            )
            for row in statement.usage
        ],
        deductions=[_line(line) for line in statement.lines if line.amount_nano < 0],
        url=url,
        **msgspec.structs.asdict(month_view(statement.sums)),
    )


def month_view(sums: MonthSums) -> MonthView:
    """Its sums."""
    money = sums.money
    return MonthView(
        month=str(sums.month),
        final=sums.is_final,
        opening_usd=billing.format_usd(money.opening_nano),
        added_usd=billing.format_usd(money.added_nano),
        charged_usd=billing.format_usd(money.charged_nano),
        removed_usd=billing.format_usd(money.removed_nano),
        closing_usd=billing.format_usd(money.closing_nano),
    )


def _line(line: billing.Entry | billing.Movement) -> StatementLine:
    if isinstance(line, billing.Movement):
        return StatementLine(
            kind=line.kind,
            description=describe(line.kind),
            entries=line.entries,
            amount_usd=billing.format_usd(line.amount_nano),
        )
    return StatementLine(
        created_at=iso(line.created_at),
        kind=line.kind,
        description=describe(line.kind),
        external_ref=line.external_ref,
        reason=line.reason,
        entries=1,
        amount_usd=billing.format_usd(line.amount_nano),
    )
