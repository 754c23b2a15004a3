"""`GET /v1/ledger`: every line of the organization's account, in pages or as one table."""

import re
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec
import structlog
from litestar import Response, get

import billing
from gateway.dialects.native.answers import Answer
from gateway.dialects.native.csv_answer import CsvOperation, Row, csv_answer, text_cell
from gateway.dialects.native.documents import ERRORS, LINE, MOMENTS, query
from gateway.dialects.native.guarding import GatewayRequest
from gateway.dialects.native.queries import FORMAT, read_choice, read_limit, read_moment, wants_csv
from gateway.dialects.native.render import iso
from gateway.errors import InvalidRequest
from gateway.jobs.reading import MAX_PAGE
from gateway.jobs.reports import LedgerCopy, LedgerWish

_LINE: Final = re.compile(LINE, re.ASCII)
_ORDERS: Final = ("desc", "asc")
_WORDS: Final = {
    "grant": "credit that was given",
    "settle": "a song",
    "top_up": "payment",
    "usage_refund": "what a song had cost, given back",
    "expiry": "credit that expired",
    "payment_refund": "payment that was refunded",
    "payment_refund_failed": "refund that failed",
    "dispute": "payment that was disputed",
    "dispute_won": "dispute that was won",
    "debt_payment": "payment of what was owed",
}
_OF_JOBS: Final = frozenset({"settle", "usage_refund"})
_HEAD: Final = (
    "entry",
    "created_at",
    "kind",
    "description",
    "job_id",
    "external_ref",
    "reason",
    "amount_usd",
    "balance_usd",
)

log = structlog.get_logger(__name__)


class EntryView(msgspec.Struct, kw_only=True):
    """One line of the ledger; what was taken has a minus."""

    id: str
    created_at: str
    kind: str
    amount_usd: str
    balance_after_usd: str
    job_id: str | None
    external_ref: str | None
    reason: str | None
    description: str


class EntryList(msgspec.Struct, kw_only=True):
    """A page of the ledger; pass `next_cursor` as `cursor` for the next one."""

    object: str = "list"
    data: list[EntryView]
    has_more: bool
    next_cursor: str | None


@get("/ledger", summary="Read the ledger", responses=ERRORS, operation_class=CsvOperation)
async def read_ledger(
    request: GatewayRequest,
    limit: Annotated[int, query(f"Lines per page, 1 to {MAX_PAGE}.", minimum=1, maximum=MAX_PAGE)] = 20,
    cursor: Annotated[
        str | None, query("`next_cursor` of an earlier page.", type="string", pattern=LINE)
    ] = None,
    order: Annotated[
        str, query("`desc`: newest first; `asc`: oldest first.", type="string", enum=[*_ORDERS])
    ] = "desc",
    start: Annotated[str | None, query("Lines from this moment on.", any_of=MOMENTS)] = None,
    end: Annotated[str | None, query("Lines before this moment.", any_of=MOMENTS)] = None,
    kind: Annotated[
        str | None, query("Only lines of this kind.", type="string", enum=[*billing.ENTRY_KINDS])
    ] = None,
    chosen: Annotated[str | None, FORMAT] = None,
) -> Response[EntryList]:
    """Read the ledger.

    All that ever moved the organization's balance. As CSV it is a statement of account, oldest first: the
    opening balance, every line, the closing balance, and the amounts sum to it to the nano; with `kind`
    it has these lines alone. A project's key is refused.
    """
    wanted = LedgerWish(
        start=read_moment(start, "start"),
        end=read_moment(end, "end"),
        kind=None if kind is None else read_choice(kind, billing.ENTRY_KINDS, "kind"),
    )
    reports = request.desk.reports
    if wants_csv(request, chosen):
        copy = await reports.copy_ledger(request.auth, wanted)
        return csv_answer(_HEAD, _table(copy, wanted), name=_file_name(wanted))
    page = await reports.entries(
        request.auth,
        wanted,
        cursor=_read_cursor(cursor),
        newest_first=read_choice(order, _ORDERS, "order") == "desc",
        limit=read_limit(limit),
    )
    return Answer(
        EntryList(
            data=[_view(entry) for entry in page.entries],
            has_more=page.has_more,
            next_cursor=str(page.entries[-1].id) if page.has_more else None,
        )
    )


def describe(kind: str, *, model: str | None = None, billed_ms: int | None = None) -> str:
    """A line in words."""
    if model is not None and billed_ms is not None:
        return f"{billed_ms / 1000:.3f} s of {model}"
    return _WORDS.get(kind, kind)


def _view(entry: billing.Entry) -> EntryView:
    return EntryView(
        id=str(entry.id),
        created_at=iso(entry.created_at),
        kind=entry.kind,
        amount_usd=billing.format_usd(entry.amount_nano),
        balance_after_usd=billing.format_usd(entry.balance_after_nano),
        job_id=_job_id(entry),
        external_ref=entry.external_ref,
        reason=entry.reason,
        description=describe(entry.kind, model=entry.model, billed_ms=entry.billed_ms),
    )


def _job_id(entry: billing.Entry) -> str | None:
    return entry.reference.hex if entry.reference is not None and entry.kind in _OF_JOBS else None


async def _table(copy: LedgerCopy, wanted: LedgerWish) -> AsyncIterator[Sequence[Row]]:
    """The balance of each line is the sum of all before it, so that a reader can follow them by hand."""
    balance = copy.opening_nano
    if wanted.kind is None:
        yield [_balance_row("opening", wanted.start, balance, amount=billing.format_usd(balance))]
    async for entries in copy.chunks:
        rows = []
        for entry in entries:
            balance += entry.amount_nano
            rows.append(_row(entry, balance if wanted.kind is None else entry.balance_after_nano))
        yield rows
    if wanted.kind is None:
        if balance != copy.closing_nano:
            log.error("ledger.statement_differs", lines=balance, balance=copy.closing_nano)
            raise billing.LedgerConflict("the lines do not sum to the balance")
        yield [_balance_row("closing", wanted.end, balance, amount="")]


def _row(entry: billing.Entry, balance_nano: int) -> Row:
    return (
        str(entry.id),
        iso(entry.created_at),
        entry.kind,
        text_cell(describe(entry.kind, model=entry.model, billed_ms=entry.billed_ms)),
        _job_id(entry) or "",
        text_cell(entry.external_ref),
        text_cell(entry.reason),
        billing.format_usd(entry.amount_nano),
        billing.format_usd(balance_nano),
    )


def _balance_row(word: str, moment: datetime | None, balance_nano: int, *, amount: str) -> Row:
    """The opening balance is an amount too, so that the column of amounts sums to the closing one."""
    at = "" if moment is None else iso(moment)
    return ("", at, word, f"{word} balance", "", "", "", amount, billing.format_usd(balance_nano))


def _file_name(wanted: LedgerWish) -> str:
    parts = [f"{moment:%Y-%m-%d}" for moment in (wanted.start, wanted.end) if moment is not None]
    return f"{'-'.join(['ledger', *parts])}.csv"


def _read_cursor(text: str | None) -> int | None:
    if text is None:
        return None
    if not _LINE.fullmatch(text):
        raise InvalidRequest("cursor must be the next_cursor of an earlier page", param="cursor")
    return int(text)
