"""What Stripe posts to us, without any key of ours: its signature is what counts."""

from typing import Any, Final

import structlog
from litestar import Router, post
from litestar.status_codes import HTTP_200_OK

from billing import payments
from gateway.dialects.native.guarding import GatewayRequest
from gateway.errors import InvalidRequest, NotFound, Overloaded

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS: Final = 30


@post("/stripe", status_code=HTTP_200_OK)
async def receive_stripe_event(request: GatewayRequest) -> dict[str, Any]:
    """Receive an event.

    200 when what it tells is booked, also if it was before, or is nothing to us; 400 for what Stripe has
    not signed within the last five minutes; 503 while Stripe or the database is away: then Stripe sends
    it again.
    """
    till = request.desk.payments
    if till is None or till.inbox is None:
        raise NotFound("there is nothing at this path")
    body = await request.body()
    try:
        outcome = await till.inbox.receive(body, request.header(b"stripe-signature"))
    except payments.EventRefused as error:
        log.warning("payments.event_refused", error=str(error), bytes=len(body))
        raise InvalidRequest(f"this is no event of Stripe's: {error}", param="Stripe-Signature") from error
    except payments.PaymentError as error:
        raise Overloaded(
            "Stripe cannot be asked about this event; send it again", retry_after_seconds=RETRY_AFTER_SECONDS
        ) from error
    return {"received": True, "outcome": outcome}


router: Final = Router(
    "/webhooks",
    route_handlers=[receive_stripe_event],
    request_class=GatewayRequest,
    include_in_schema=False,
)
