"""`GET /v1/balance`, and the same beside usage events: `GET /v1/account/usage`."""

from typing import Annotated, Final

import msgspec
from litestar import Response, get

import billing
from gateway.dialects.native.answers import Answer
from gateway.dialects.native.documents import ERRORS, ID, MOMENTS, query
from gateway.dialects.native.guarding import GatewayRequest
from gateway.dialects.native.queries import read_choice, read_cursor, read_limit, read_model_name, read_moment
from gateway.dialects.native.render import iso, iso_or_none, public_status
from gateway.jobs.job import JobStatus
from gateway.jobs.reading import MAX_PAGE, JobFilter
from gateway.jobs.reports import Balance, UsageEvent

MAX_GRANTS: Final = 100
SOURCE: Final = "api"
_ENDED: Final = {
    "completed": (JobStatus.COMPLETED,),
    "failed": (JobStatus.FAILED, JobStatus.CANCELED),
}


class GrantView(msgspec.Struct, kw_only=True):
    """Credit from one source, of which something is left."""

    kind: str
    remaining_usd: str
    expires_at: str | None


class BalanceView(msgspec.Struct, kw_only=True):
    """The organization's money, as decimal strings in USD; balance = available + held, unless it owes."""

    object: str = "balance"
    balance_usd: str
    held_usd: str
    available_usd: str
    owed_usd: str
    level: str
    low_usd: str
    critical_usd: str
    grants: list[GrantView]


class UsageEventView(msgspec.Struct, kw_only=True):
    """One finished job, and what it cost."""

    object: str = "usage_event"
    id: str
    job_id: str
    created_at: str
    completed_at: str | None
    model: str
    status: str
    source: str = SOURCE
    billable_units: float
    billing_unit: str = "second"
    cost_usd: str
    test: bool


class AccountUsage(msgspec.Struct, kw_only=True):
    """The balance and a page of usage events, newest first."""

    object: str = "account_usage"
    balance: BalanceView
    data: list[UsageEventView]
    has_more: bool
    next_cursor: str | None


@get("/balance", summary="Read the balance", responses=ERRORS)
async def read_balance(request: GatewayRequest) -> Response[BalanceView]:
    """What the organization has, what of it is held for running jobs, and what is free."""
    return Answer(balance_view(await request.desk.reports.balance(request.auth)))


@get("/account/usage", summary="Read balance and usage events", responses=ERRORS)
async def read_account_usage(
    request: GatewayRequest,
    limit: Annotated[int, query(f"Events per page, 1 to {MAX_PAGE}.", minimum=1, maximum=MAX_PAGE)] = 20,
    before: Annotated[
        str | None, query("`next_cursor` of an earlier page.", type="string", pattern=ID)
    ] = None,
    start: Annotated[
        str | None, query("Jobs accepted from this moment on.", name="from", any_of=MOMENTS)
    ] = None,
    end: Annotated[str | None, query("Jobs accepted before this moment.", name="to", any_of=MOMENTS)] = None,
    model: Annotated[str | None, query("Id or alias of a model.", type="string")] = None,
    status: Annotated[
        str | None, query(f"One of {', '.join(_ENDED)}.", type="string", enum=[*_ENDED])
    ] = None,
    source: Annotated[
        str | None, query(f"Where jobs came from; all there is is `{SOURCE}`.", type="string")
    ] = None,
) -> Response[AccountUsage]:
    """Read balance and usage events.

    One event for each finished job, of a project's key those of its project, in the order in which the
    jobs were accepted, newest first. A job that is still running appears in its place when it ends.
    """
    statuses = (
        tuple(JobStatus(word) for words in _ENDED.values() for word in words)
        if status is None
        else _ENDED[read_choice(status, tuple(_ENDED), "status")]
    )
    wanted = JobFilter(
        statuses=statuses,
        model=read_model_name(model, request.desk.catalog),
        created_from=read_moment(start, "from"),
        created_to=read_moment(end, "to"),
        before=read_cursor(before, "before"),
        limit=read_limit(limit),
    )
    reports = request.desk.reports
    balance = await reports.balance(request.auth)
    events, cursor = (
        ([], None) if source not in {None, SOURCE} else await reports.events(request.auth, wanted)
    )
    return Answer(
        AccountUsage(
            balance=balance_view(balance),
            data=[_event_view(event) for event in events],
            has_more=cursor is not None,
            next_cursor=cursor.hex if cursor else None,
        )
    )


def balance_view(balance: Balance) -> BalanceView:
    """The balance object; of many grants those that are spent next."""
    account = balance.account
    return BalanceView(
        balance_usd=billing.format_usd(account.posted_nano),
        held_usd=billing.format_usd(account.held_nano),
        available_usd=billing.format_usd(account.available_nano),
        owed_usd=billing.format_usd(account.owed_nano),
        level=billing.LEVELS[account.level_now],
        low_usd=billing.format_usd(account.low_nano),
        critical_usd=billing.format_usd(account.critical_nano),
        grants=[
            GrantView(
                kind=grant.kind,
                remaining_usd=billing.format_usd(grant.remaining_nano),
                expires_at=iso_or_none(grant.expires_at),
            )
            for grant in balance.grants[:MAX_GRANTS]
        ],
    )


def _event_view(event: UsageEvent) -> UsageEventView:
    return UsageEventView(
        id=event.id.hex,
        job_id=event.id.hex,
        created_at=iso(event.created_at),
        completed_at=iso_or_none(event.completed_at),
        model=event.model,
        status=public_status(JobStatus(event.status)),
        billable_units=(event.billed_ms or 0) / 1000,
        cost_usd=billing.format_usd(event.charged_nano or 0),
        test=event.test,
    )
