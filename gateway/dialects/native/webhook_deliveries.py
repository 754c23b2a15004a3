"""Our own API of what was sent to webhooks and upload URLs. For keys with the scope `webhooks`."""

import uuid
from typing import Annotated, Final

from litestar import Response, Router, get, post
from litestar.params import FromPath
from litestar.status_codes import HTTP_200_OK

from gateway.auth.principal import Scope
from gateway.dialects.native.answers import Answer
from gateway.dialects.native.documents import ID, query
from gateway.dialects.native.guarding import GatewayRequest, require_key
from gateway.dialects.native.queries import read_choice, read_cursor, read_id, read_limit
from gateway.dialects.native.webhook_documents import DELIVERY_ERRORS, REPLAY_ERRORS, WEBHOOK_ERRORS
from gateway.dialects.native.webhook_views import (
    DeliveryDetails,
    DeliveryList,
    DeliveryView,
    delivery_details,
    delivery_view,
)
from gateway.errors import NotFound
from gateway.ids import parse_id
from gateway.jobs.reading import MAX_PAGE
from gateway.webhooks import deliveries


@get("/webhooks/deliveries", summary="List deliveries", responses=WEBHOOK_ERRORS)
async def list_deliveries(
    request: GatewayRequest,
    limit: Annotated[int, query(f"Deliveries per page, 1 to {MAX_PAGE}.", minimum=1, maximum=MAX_PAGE)] = 20,
    cursor: Annotated[
        str | None, query("`next_cursor` of an earlier page.", type="string", pattern=ID)
    ] = None,
    endpoint_id: Annotated[
        str | None, query("Only those to this webhook endpoint.", type="string", pattern=ID)
    ] = None,
    job_id: Annotated[str | None, query("Only those about this job.", type="string", pattern=ID)] = None,
    standing: Annotated[
        str | None,
        query("Only those that stand so.", name="state", type="string", enum=list(deliveries.STATES)),
    ] = None,
) -> Response[DeliveryList]:
    """Of the last 30 days, newest first; with a key of a project, the project's."""
    wanted = deliveries.DeliveryFilter(
        endpoint_id=read_id(endpoint_id, "endpoint_id"),
        job_id=read_id(job_id, "job_id"),
        state=None if standing is None else read_choice(standing, deliveries.STATES, "state"),
        before=read_cursor(cursor),
        limit=read_limit(limit),
    )
    page, following = await deliveries.list_deliveries(request.desk.webhooks.pool, request.auth, wanted)
    view = DeliveryList(
        data=[delivery_view(delivery) for delivery in page],
        has_more=following is not None,
        next_cursor=following.hex if following else None,
    )
    return Answer(view)


@get("/webhooks/deliveries/{delivery_id:str}", summary="Read a delivery", responses=DELIVERY_ERRORS)
async def read_delivery(request: GatewayRequest, delivery_id: FromPath[str]) -> Response[DeliveryDetails]:
    """With every attempt: when, with which status, how long it took, and how the answer began."""
    pool = request.desk.webhooks.pool
    return Answer(
        delivery_details(*await deliveries.read_delivery(pool, request.auth, _known_delivery(delivery_id)))
    )


@post(
    "/webhooks/deliveries/{delivery_id:str}/replay",
    status_code=HTTP_200_OK,
    summary="Replay a delivery",
    responses=REPLAY_ERRORS,
)
async def replay_delivery(request: GatewayRequest, delivery_id: FromPath[str]) -> Response[DeliveryView]:
    """Replay a delivery.

    One that waits is tried now. One that has ended is followed by a new one of the same event, with the
    same `webhook-id` and all its attempts; the answer is that one.
    """
    pool = request.desk.webhooks.pool
    return Answer(delivery_view(await deliveries.replay(pool, request.auth, _known_delivery(delivery_id))))


router: Final = Router(
    "/v1",
    route_handlers=[list_deliveries, read_delivery, replay_delivery],
    before_request=require_key,
    opt={"scope": Scope.WEBHOOKS},
    request_class=GatewayRequest,
    security=[{"bearer": []}, {"x-api-key": []}],
)


def _known_delivery(text: str) -> uuid.UUID:
    found = parse_id(text)
    if found is None:
        raise NotFound("there is no such delivery")
    return found
