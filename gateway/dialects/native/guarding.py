"""Who calls, and what is in the body: both are settled before a handler runs, in this order."""

from typing import Any, Final

import msgspec
from litestar import Request
from litestar.datastructures import State

from gateway.auth.directory import KeyDirectory
from gateway.auth.principal import Principal
from gateway.catalog import Catalog
from gateway.dialects.json_body import decode_body
from gateway.dialects.native.render import JobRenderer
from gateway.errors import UnsupportedMediaType
from gateway.jobs.service import Jobs

_decoders: Final[dict[Any, msgspec.json.Decoder[Any]]] = {}


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """What the handlers of this dialect work with.

    They take it from the request instead of having each part injected: resolving dependencies starts
    a task group per request, an eighth of the time that a submit takes.
    """

    keys: KeyDirectory
    jobs: Jobs
    catalog: Catalog
    renderer: JobRenderer


class GatewayRequest(Request[None, Principal, State]):
    """A request whose JSON is decoded strictly, straight into the handler's type."""

    @property
    def desk(self) -> Desk:
        """The application's objects, put there by `create_app`."""
        return desk_of(self)

    async def json(self) -> Any:
        """The body as the type that the handler declares; raises InvalidRequest."""
        field = self.route_handler.parsed_data_field
        if field is None:
            return await super().json()
        content_type, _ = self.content_type
        if content_type not in {"application/json", ""} and not content_type.endswith("+json"):
            raise UnsupportedMediaType("send JSON: content-type application/json")
        decoder = _decoders.get(field.annotation)
        if decoder is None:
            decoder = _decoders[field.annotation] = msgspec.json.Decoder(field.annotation)
        return decode_body(await self.body(), decoder)


async def require_key(request: Request[Any, Any, Any]) -> None:
    """Before anything of the body is read: whose key is it, and may it come through this door?

    A hook instead of a guard, because a guard costs a copy of the route handler at every request.
    """
    client = request.client
    principal = await desk_of(request).keys.authenticate(
        presented_key(request), client_host=client.host if client else None
    )
    principal.check_scope(request.route_handler.opt["scope"])
    request.scope["auth"] = principal


def presented_key(request: Request[Any, Any, Any]) -> str | None:
    """`Authorization: Bearer ...`, else `x-api-key`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.headers.get("x-api-key")


def desk_of(request: Request[Any, Any, Any]) -> Desk:
    """The application's objects."""
    desk: Desk = request.app.state["desk"]
    return desk
