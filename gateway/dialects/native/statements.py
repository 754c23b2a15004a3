"""`GET /v1/statements`: the money of each month, as data and as a page to print."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from litestar import MediaType, Response, Router, get
from litestar.params import FromPath

from gateway.dialects.native.answers import Answer
from gateway.dialects.native.documents import ERRORS, FINDING_ERRORS, MONTH, query
from gateway.dialects.native.guarding import GatewayRequest, origin
from gateway.dialects.native.queries import read_limit
from gateway.dialects.native.statement_page import PAGE_HEADERS, statement_page
from gateway.dialects.native.statement_views import MonthList, StatementView, month_view, statement_view
from gateway.errors import InvalidRequest, LinkRefused, NotFound
from gateway.ids import parse_id
from gateway.jobs.reading import MAX_PAGE
from gateway.jobs.reports import Month, MonthStatement
from gateway.signed_urls import SignatureExpired, SignatureInvalid

LINK_LIFETIME: Final = timedelta(days=1)
_MONTH: Final = re.compile(MONTH, re.ASCII)
_PREFIX: Final = "/statements"


@get("/statements", summary="List statements", responses=ERRORS)
async def list_statements(
    request: GatewayRequest,
    limit: Annotated[int, query(f"Months per page, 1 to {MAX_PAGE}.", minimum=1, maximum=MAX_PAGE)] = 12,
    cursor: Annotated[
        str | None, query("`next_cursor` of an earlier page.", type="string", pattern=MONTH)
    ] = None,
) -> Response[MonthList]:
    """Months with their sums, newest first, back to the ledger's first line. A project's key is refused."""
    before = None if cursor is None else _parse_month(cursor)
    if cursor is not None and before is None:
        raise InvalidRequest("cursor must be the next_cursor of an earlier page", param="cursor")
    months, has_more = await request.desk.reports.months(request.auth, before=before, limit=read_limit(limit))
    views = [month_view(sums) for sums in months]
    return Answer(MonthList(data=views, has_more=has_more, next_cursor=views[-1].month if has_more else None))


@get("/statements/{month:str}", summary="Read a statement", responses=FINDING_ERRORS)
async def read_statement(request: GatewayRequest, month: FromPath[str]) -> Response[StatementView]:
    """Read a statement.

    One month by UTC, for example `2026-11`; the present one as far as it has come. `url` is the same as a
    page to print, which needs no key: its signature is the permission, for a day. A project's key is
    refused.
    """
    statement = await request.desk.reports.month(request.auth, _known_month(month))
    return Answer(statement_view(statement, url=_link(request, statement)))


@get("/{organization_id:str}/{month:str}", include_in_schema=False, media_type=MediaType.HTML)
async def show_statement(
    request: GatewayRequest, organization_id: FromPath[str], month: FromPath[str]
) -> Response[str]:
    """A month's statement to print; the link comes with the statement and lives for a day."""
    _check_link(request, organization_id, month)
    owner = parse_id(organization_id)
    if owner is None:
        raise NotFound("there is nothing at this path")
    statement = await request.desk.reports.month_of_organization(owner, _known_month(month))
    page = statement_page(statement_view(statement, url=""), made_at=datetime.now(UTC))
    return Response(page, media_type=MediaType.HTML, headers=PAGE_HEADERS)


pages: Final = Router(
    _PREFIX, route_handlers=[show_statement], request_class=GatewayRequest, include_in_schema=False
)


def _link(request: GatewayRequest, statement: MonthStatement) -> str:
    path = f"{_PREFIX}/{statement.organization_id.hex}/{statement.sums.month}"
    query_string = request.desk.signer.sign(path, expires_at=datetime.now(UTC) + LINK_LIFETIME)
    return f"{request.desk.settings.public_url or origin(request)}{path}?{query_string}"


def _check_link(request: GatewayRequest, organization_id: str, month: str) -> None:
    path = f"{_PREFIX}/{organization_id}/{month}"
    query_string = request.scope["query_string"].decode("latin-1")
    try:
        request.desk.signer.verify("GET", path, query_string, now=datetime.now(UTC))
    except SignatureExpired as error:
        raise LinkRefused("this link has expired") from error
    except SignatureInvalid as error:
        raise LinkRefused("this link is not valid") from error


def _parse_month(text: str) -> Month | None:
    return Month(int(text[:4]), int(text[5:])) if _MONTH.fullmatch(text) else None


def _known_month(text: str) -> Month:
    month = _parse_month(text)
    if month is None:
        raise NotFound("there is no such month: write it like 2026-11")
    return month
