"""Our own API of webhook endpoints and their secrets. For keys with the scope `webhooks`."""

import uuid
from typing import Final

from litestar import Response, Router, delete, get, patch, post
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from gateway.auth.principal import Scope
from gateway.dialects.native.answers import Answer
from gateway.dialects.native.guarding import GatewayRequest, require_key
from gateway.dialects.native.webhook_documents import (
    CHANGE_ENDPOINT_ERRORS,
    CREATE_ERRORS,
    ENDPOINT_ERRORS,
    TEST_ERRORS,
    WEBHOOK_ERRORS,
)
from gateway.dialects.native.webhook_views import (
    DeletedEndpoint,
    DeliveryDetails,
    EndpointBody,
    EndpointChangesBody,
    EndpointList,
    EndpointView,
    SecretView,
    delivery_details,
    endpoint_view,
    read_changes,
    read_hook_url,
    secret_view,
)
from gateway.errors import NotFound
from gateway.ids import parse_id
from gateway.webhooks import endpoints, rotation


@post(
    "/webhooks",
    status_code=HTTP_201_CREATED,
    summary="Create a webhook endpoint",
    responses=CREATE_ERRORS,
)
async def create_endpoint(request: GatewayRequest, data: JSONBody[EndpointBody]) -> Response[EndpointView]:
    """Create a webhook endpoint.

    From now on its URL is told of the organization's events; with a key of a project, of the project's.
    The secret of its signatures is at `GET /v1/webhooks/{endpoint_id}/secret`.
    """
    endpoint = await endpoints.create_endpoint(
        request.desk.webhooks.pool,
        request.auth,
        url=read_hook_url(data.url, request.desk.settings),
        events=data.events,
        description=data.description or "",
    )
    return Answer(endpoint_view(endpoint), status=HTTP_201_CREATED)


@get("/webhooks", summary="List webhook endpoints", responses=WEBHOOK_ERRORS)
async def list_endpoints(request: GatewayRequest) -> Response[EndpointList]:
    """All of the organization; with a key of a project, the project's."""
    found = await endpoints.list_endpoints(request.desk.webhooks.pool, request.auth)
    return Answer(EndpointList(data=[endpoint_view(endpoint) for endpoint in found]))


@get("/webhooks/{endpoint_id:str}", summary="Read a webhook endpoint", responses=ENDPOINT_ERRORS)
async def read_endpoint(request: GatewayRequest, endpoint_id: FromPath[str]) -> Response[EndpointView]:
    """Where it leads, what it is told of, and whether that works."""
    pool = request.desk.webhooks.pool
    return Answer(
        endpoint_view(await endpoints.read_endpoint(pool, request.auth, _known_endpoint(endpoint_id)))
    )


@patch("/webhooks/{endpoint_id:str}", summary="Change a webhook endpoint", responses=CHANGE_ENDPOINT_ERRORS)
async def change_endpoint(
    request: GatewayRequest, endpoint_id: FromPath[str], data: JSONBody[EndpointChangesBody]
) -> Response[EndpointView]:
    """What is left out stays as it is. What still waits for it goes to the new URL."""
    endpoint = await endpoints.update_endpoint(
        request.desk.webhooks.pool,
        request.auth,
        _known_endpoint(endpoint_id),
        read_changes(data, request.desk.settings),
    )
    return Answer(endpoint_view(endpoint))


@delete(
    "/webhooks/{endpoint_id:str}",
    status_code=HTTP_200_OK,
    summary="Delete a webhook endpoint",
    responses=ENDPOINT_ERRORS,
)
async def delete_endpoint(request: GatewayRequest, endpoint_id: FromPath[str]) -> Response[DeletedEndpoint]:
    """What still waits for it is dropped; what was delivered stays readable."""
    known = _known_endpoint(endpoint_id)
    await endpoints.delete_endpoint(request.desk.webhooks.pool, request.auth, known)
    return Answer(DeletedEndpoint(id=known.hex))


@post(
    "/webhooks/{endpoint_id:str}/test",
    status_code=HTTP_200_OK,
    summary="Test a webhook endpoint",
    responses=TEST_ERRORS,
)
async def test_endpoint(request: GatewayRequest, endpoint_id: FromPath[str]) -> Response[DeliveryDetails]:
    """Test a webhook endpoint.

    An event `webhook.test` is sent now and once, also to one that is disabled; the answer says how it
    went. A refusal by the receiver is no error of this request.
    """
    delivery, attempt = await request.desk.webhooks.deliverer.test_send(
        request.auth, _known_endpoint(endpoint_id)
    )
    return Answer(delivery_details(delivery, [] if attempt is None else [attempt]))


@get(
    "/webhooks/{endpoint_id:str}/secret",
    summary="Read the secret of a webhook endpoint",
    responses=ENDPOINT_ERRORS,
)
async def read_endpoint_secret(request: GatewayRequest, endpoint_id: FromPath[str]) -> Response[SecretView]:
    """What its receiver verifies signatures with."""
    hooks = request.desk.webhooks
    secret = await rotation.endpoint_secret(
        hooks.pool, hooks.secrets, request.auth, _known_endpoint(endpoint_id)
    )
    return Answer(secret_view(secret))


@post(
    "/webhooks/{endpoint_id:str}/rotate",
    status_code=HTTP_200_OK,
    summary="Rotate the secret of a webhook endpoint",
    responses=ENDPOINT_ERRORS,
)
async def rotate_endpoint_secret(request: GatewayRequest, endpoint_id: FromPath[str]) -> Response[SecretView]:
    """A new secret; for 24 hours messages carry the signatures of both."""
    hooks = request.desk.webhooks
    secret = await rotation.rotate_endpoint_secret(
        hooks.pool, hooks.secrets, request.auth, _known_endpoint(endpoint_id)
    )
    return Answer(secret_view(secret))


@get("/webhooks/secret", summary="Read the secret of jobs' URLs", responses=WEBHOOK_ERRORS)
async def read_secret(request: GatewayRequest) -> Response[SecretView]:
    """What messages to a job's own `webhook_url` are signed with: one for the organization or project."""
    hooks = request.desk.webhooks
    return Answer(secret_view(await rotation.request_secret(hooks.pool, hooks.secrets, request.auth)))


@post(
    "/webhooks/secret/rotate",
    status_code=HTTP_200_OK,
    summary="Rotate the secret of jobs' URLs",
    responses=WEBHOOK_ERRORS,
)
async def rotate_secret(request: GatewayRequest) -> Response[SecretView]:
    """A new secret; for 24 hours messages carry the signatures of both."""
    hooks = request.desk.webhooks
    return Answer(secret_view(await rotation.rotate_request_secret(hooks.pool, hooks.secrets, request.auth)))


router: Final = Router(
    "/v1",
    route_handlers=[
        create_endpoint,
        list_endpoints,
        read_endpoint,
        change_endpoint,
        delete_endpoint,
        test_endpoint,
        read_endpoint_secret,
        rotate_endpoint_secret,
        read_secret,
        rotate_secret,
    ],
    before_request=require_key,
    opt={"scope": Scope.WEBHOOKS},
    request_class=GatewayRequest,
    security=[{"bearer": []}, {"x-api-key": []}],
)


def _known_endpoint(text: str) -> uuid.UUID:
    found = parse_id(text)
    if found is None:
        raise NotFound("there is no such webhook endpoint")
    return found
