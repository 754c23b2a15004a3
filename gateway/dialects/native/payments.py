"""Our own API of payments: top-ups, the saved card, automatic top-ups. For keys with the scope `billing`."""

import hashlib
import uuid
from typing import Annotated, Any, Final

import structlog
from litestar import Request, Response, Router, delete, get, post, put
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

import billing
from billing import payments
from gateway.auth.principal import Scope
from gateway.dialects.native.answers import Answer
from gateway.dialects.native.documents import ID, query
from gateway.dialects.native.errors import AnyRequest, ErrorEnvelope, render_error
from gateway.dialects.native.guarding import GatewayRequest, desk_of, origin, require_key
from gateway.dialects.native.payment_documents import (
    CHANGE_ERRORS,
    PAYMENT_ERRORS,
    READ_TOP_UP_ERRORS,
    REMOVE_CARD_ERRORS,
    START_ERRORS,
    TopUpOperation,
)
from gateway.dialects.native.payment_pages import BACK_PATH, THANKS_PATH
from gateway.dialects.native.payment_views import (
    AutoTopUpBody,
    AutoTopUpView,
    PaymentMethodBody,
    PaymentMethodSetup,
    PaymentMethodView,
    TopUpBody,
    TopUpList,
    TopUpOptions,
    TopUpView,
    auto_top_up_view,
    card_view,
    changed_rule,
    read_url,
    read_usd,
    top_up_options,
    top_up_view,
)
from gateway.dialects.native.queries import read_cursor, read_limit
from gateway.dialects.native.render import iso
from gateway.dialects.native.submit_headers import idempotency_key
from gateway.errors import (
    GatewayError,
    IdempotencyKeyReused,
    InvalidRequest,
    NoSavedCard,
    NotFound,
    Overloaded,
    PaymentsUnavailable,
    ScopeDenied,
)
from gateway.ids import parse_id
from gateway.jobs.reading import MAX_PAGE

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS: Final = 5
_OUR_URLS: Final = frozenset({"success_url", "cancel_url"})


async def require_billing_key(request: Request[Any, Any, Any]) -> None:
    """A live key of the whole organization, and an installation that takes payments."""
    await require_key(request)
    principal = request.scope["auth"]
    if principal.test:
        raise ScopeDenied("a test key moves no money: use a live key")
    if principal.project_id is not None:
        raise ScopeDenied("this key belongs to a project: money is paid in with a key of the organization")
    if desk_of(request).payments is None:
        raise PaymentsUnavailable(
            "this installation takes no payments: its operator sets ANTIPHON_STRIPE_SECRET_KEY and "
            "ANTIPHON_STRIPE_WEBHOOK_SECRET"
        )


@post(
    "/topups",
    status_code=HTTP_201_CREATED,
    summary="Start a top-up",
    responses=START_ERRORS,
    operation_class=TopUpOperation,
)
async def create_top_up(request: GatewayRequest, data: JSONBody[TopUpBody]) -> Response[TopUpView]:
    """Start a top-up.

    The answer's `url` is a page of the payment provider; the credit is there as soon as it was paid, and
    `GET /v1/topups/{topup_id}` says so. With `save_card` the card is kept for automatic top-ups. With the
    same `Idempotency-Key` and body the same top-up is answered.
    """
    till, key = _till(request), idempotency_key(request.header(b"idempotency-key"))
    home = _home(request)
    order = payments.TopUpOrder(
        account_id=request.auth.organization_id,
        amount_nano=read_usd(data.amount_usd, "amount_usd"),
        success_url=read_url(data.success_url, "success_url", default=home + THANKS_PATH),
        cancel_url=read_url(data.cancel_url, "cancel_url", default=home + BACK_PATH),
        save_card=data.save_card,
        idempotency_key=key,
        request_hash=hashlib.sha256(b"/v1/topups\n" + await request.body()).digest() if key else None,
    )
    payment = await payments.start_top_up(till.pool, till.processor, order)
    return Answer(top_up_view(payment), status=HTTP_201_CREATED)


@get("/topups/options", summary="Read what can be paid", responses=PAYMENT_ERRORS)
async def read_top_up_options(request: GatewayRequest) -> Response[TopUpOptions]:  # noqa: ARG001 - Litestar's
    """Amounts to offer, and the least and the most that can be paid at once, in whole cents."""
    return Answer(top_up_options())


@get("/topups", summary="List top-ups", responses=PAYMENT_ERRORS)
async def list_top_ups(
    request: GatewayRequest,
    limit: Annotated[int, query(f"Top-ups per page, 1 to {MAX_PAGE}.", minimum=1, maximum=MAX_PAGE)] = 20,
    cursor: Annotated[
        str | None, query("`next_cursor` of an earlier page.", type="string", pattern=ID)
    ] = None,
) -> Response[TopUpList]:
    """All payments of the organization, also automatic ones, newest first."""
    wanted = read_limit(limit)
    found = await payments.list_payments(
        _till(request).pool, request.auth.organization_id, limit=wanted + 1, before=read_cursor(cursor)
    )
    page = [top_up_view(payment) for payment in found[:wanted]]
    has_more = len(found) > wanted
    return Answer(TopUpList(data=page, has_more=has_more, next_cursor=page[-1].id if has_more else None))


@get("/topups/{topup_id:str}", summary="Read a top-up", responses=READ_TOP_UP_ERRORS)
async def read_top_up(request: GatewayRequest, topup_id: FromPath[str]) -> Response[TopUpView]:
    """One payment. While it is pending, the payment provider is asked, at most every few seconds."""
    till = _till(request)
    payment = await payments.read_top_up(
        till.pool, till.processor, request.auth.organization_id, _known_id(topup_id)
    )
    return Answer(top_up_view(payment))


@post("/payment_method", status_code=HTTP_201_CREATED, summary="Save a card", responses=START_ERRORS)
async def create_payment_method(
    request: GatewayRequest, data: JSONBody[PaymentMethodBody]
) -> Response[PaymentMethodSetup]:
    """A page on which a card is saved without a payment; it replaces the one that was saved before."""
    till, home = _till(request), _home(request)
    page = await payments.open_setup(
        till.pool,
        till.processor,
        request.auth.organization_id,
        success_url=read_url(data.success_url, "success_url", default=home + THANKS_PATH),
        cancel_url=read_url(data.cancel_url, "cancel_url", default=home + BACK_PATH),
    )
    view = PaymentMethodSetup(url=page.url or "", expires_at=iso(page.expires_at))
    return Answer(view, status=HTTP_201_CREATED)


@get("/payment_method", summary="Read the saved card", responses=PAYMENT_ERRORS)
async def read_payment_method(request: GatewayRequest) -> Response[PaymentMethodView]:
    """Brand, last digits and expiry of the card that automatic top-ups charge; null if there is none."""
    till = _till(request)
    return Answer(
        card_view(await payments.read_card(till.pool, till.processor, request.auth.organization_id))
    )


@delete(
    "/payment_method",
    status_code=HTTP_200_OK,
    summary="Forget the saved card",
    responses=REMOVE_CARD_ERRORS,
)
async def delete_payment_method(request: GatewayRequest) -> Response[PaymentMethodView]:
    """Here and at the payment provider. Automatic top-ups end with it."""
    till = _till(request)
    await payments.remove_card(till.pool, till.processor, request.auth.organization_id)
    return Answer(card_view(None))


@get("/auto_topup", summary="Read the automatic top-up", responses=PAYMENT_ERRORS)
async def read_auto_top_up(request: GatewayRequest) -> Response[AutoTopUpView]:
    """When the saved card is charged, how much, and why it was switched off if we did that."""
    async with _till(request).pool.acquire() as conn:
        rule = await payments.read_auto_top_up(conn, request.auth.organization_id)
    return Answer(auto_top_up_view(rule))


@put("/auto_topup", summary="Set the automatic top-up", responses=CHANGE_ERRORS)
async def set_auto_top_up(request: GatewayRequest, data: JSONBody[AutoTopUpBody]) -> Response[AutoTopUpView]:
    """Set the automatic top-up.

    Whenever less than `threshold_usd` is available, the saved card is charged `amount_usd`, one payment
    at a time, never more than the caps allow in a UTC day and month. What is left out stays as it is.
    After three declined charges in a row, or one that needs the owner of the card, it is switched off.
    """
    organization_id = request.auth.organization_id
    async with _till(request).pool.acquire() as conn, conn.transaction():
        await billing.lock_accounts(conn, {organization_id})
        rule = changed_rule(await payments.read_auto_top_up(conn, organization_id), data)
        try:
            rule = await payments.set_auto_top_up(conn, organization_id, rule)
        except payments.CardMissing as error:
            raise NoSavedCard(str(error), suggestion="POST /v1/payment_method") from error
    return Answer(auto_top_up_view(rule))


def handle_payment_error(request: AnyRequest, error: payments.PaymentError) -> Response[ErrorEnvelope]:
    """Whose move it is; what the provider said is for the log unless it is about what the client sent."""
    return render_error(request, _translated(request, error))


router: Final = Router(
    "/v1",
    route_handlers=[
        create_top_up,
        read_top_up_options,
        list_top_ups,
        read_top_up,
        create_payment_method,
        read_payment_method,
        delete_payment_method,
        read_auto_top_up,
        set_auto_top_up,
    ],
    before_request=require_billing_key,
    exception_handlers={payments.PaymentError: handle_payment_error},
    opt={"scope": Scope.BILLING},
    request_class=GatewayRequest,
    security=[{"bearer": []}, {"x-api-key": []}],
)


def _translated(request: AnyRequest, error: payments.PaymentError) -> GatewayError:
    request_id = request.scope["state"].get("request_id", "")
    if isinstance(error, payments.KeyReused):
        return IdempotencyKeyReused(str(error), param="Idempotency-Key", suggestion="another key")
    if isinstance(error, payments.PaymentMissing | payments.CardMissing):
        return NotFound(str(error))
    if isinstance(error, payments.PaymentRefused):
        return InvalidRequest(str(error), param=error.param, suggestion=error.suggestion)
    if isinstance(error, payments.ProcessorRefused) and error.param in _OUR_URLS:
        return InvalidRequest(str(error), param=error.param)
    if isinstance(error, payments.ProcessorUnavailable) and not isinstance(error, payments.ProcessorDenied):
        log.warning("payments.unavailable", request_id=request_id, error=str(error))
        return Overloaded(
            "the payment provider cannot be reached; nothing was charged",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    log.error("payments.refused", request_id=request_id, error=str(error))
    return PaymentsUnavailable(
        "the payment provider refuses what this installation asks; its operator finds why in the log"
    )


def _till(request: GatewayRequest) -> payments.Till:
    till: payments.Till | None = request.desk.payments
    if till is None:
        raise AssertionError("require_billing_key lets nobody in without one")
    return till


def _home(request: GatewayRequest) -> str:
    return request.desk.settings.public_url or origin(request)


def _known_id(text: str) -> uuid.UUID:
    found = parse_id(text)
    if found is None:
        raise NotFound("there is no such top-up")
    return found
