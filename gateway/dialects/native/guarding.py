"""Who calls, and what is in the body: both are settled before a handler runs, in this order."""

import uuid
from typing import Any, Final, cast

import msgspec
from litestar import Litestar, Request
from litestar.datastructures import State
from litestar.types import Empty, Scope

from billing.payments import Till
from gateway.auth.directory import KeyDirectory
from gateway.auth.principal import Principal
from gateway.catalog import Catalog
from gateway.dialects.json_body import decode_body
from gateway.dialects.native.render import JobRenderer
from gateway.errors import InvalidRequest, JobNotFound, PayloadTooLarge, UnsupportedMediaType
from gateway.files.service import Files
from gateway.ids import parse_id
from gateway.jobs.reports import Reports
from gateway.jobs.service import Jobs
from gateway.jobs.watching import JobWatch
from gateway.settings import Settings
from gateway.signed_urls import UrlSigner
from gateway.webhooks.live import Webhooks

_decoders: Final[dict[Any, msgspec.json.Decoder[Any]]] = {}


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """What the handlers of this dialect work with.

    They take it from the request instead of having each part injected: resolving dependencies starts
    a task group per request, an eighth of the time that a submit takes.
    """

    keys: KeyDirectory
    jobs: Jobs
    reports: Reports
    catalog: Catalog
    renderer: JobRenderer
    job_watch: JobWatch
    files: Files
    signer: UrlSigner
    webhooks: Webhooks
    settings: Settings
    payments: Till | None
    """None: no payment provider is configured."""


class GatewayApp(Litestar):
    """The application, with what its handlers work with where a request finds it fastest."""

    desk: Desk


class GatewayRequest(Request[None, Principal, State]):
    """A request whose JSON is decoded strictly, straight into the handler's type."""

    @property
    def desk(self) -> Desk:
        """The application's objects, put there by `create_app`."""
        return desk_of(self)

    def header(self, name: bytes) -> str | None:
        """The first header of this lower case name, without decoding all the others."""
        return find_header(self.scope, name)

    async def body(self) -> bytes:
        """All of it; raises PayloadTooLarge before more than the route takes was kept."""
        if self._body is Empty:
            most = self.route_handler.resolve_request_max_body_size() or 0
            if int(self.header(b"content-length") or 0) > most:
                raise _too_large(most)
            chunks, size, more = [], 0, True
            while more:
                message = await self.receive()
                if message["type"] != "http.request":
                    raise InvalidRequest("the body ended early: the connection was closed")
                chunks.append(message["body"])
                size += len(message["body"])
                if size > most:
                    raise _too_large(most)
                more = message.get("more_body", False)
            self._body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self._body

    async def json(self) -> Any:
        """The body as the type that the handler declares; raises InvalidRequest."""
        field = self.route_handler.parsed_data_field
        if field is None:
            return await super().json()
        _check_media_type(self.header(b"content-type"))
        decoder = _decoders.get(field.annotation)
        if decoder is None:
            decoder = _decoders[field.annotation] = msgspec.json.Decoder(field.annotation)
        return decode_body(await self.body(), decoder)


def find_header(scope: Scope, name: bytes) -> str | None:
    """The first header of this lower case name."""
    for found, value in scope["headers"]:
        if found == name:
            return value.decode("latin-1")
    return None


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
    scheme, _, token = (find_header(request.scope, b"authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return find_header(request.scope, b"x-api-key")


def origin(request: GatewayRequest) -> str:
    """Scheme and host that the request came to, as the client wrote them.

    Nothing is parsed: it is asked for after the commit, where nothing may fail any more.
    """
    server = request.scope.get("server") or ("localhost", None)
    host = request.header(b"host") or ":".join(str(part) for part in server if part is not None)
    return f"{request.scope['scheme']}://{host}"


def known_job_id(text: str) -> uuid.UUID:
    """Of a path; raises JobNotFound for what cannot be one."""
    job_id = parse_id(text)
    if job_id is None:
        raise JobNotFound("there is no such job")
    return job_id


def desk_of(request: Request[Any, Any, Any]) -> Desk:
    """The application's objects."""
    return cast("GatewayApp", request.scope["litestar_app"]).desk


def _check_media_type(header: str | None) -> None:
    if header is None or header == "application/json":
        return
    media_type = header.partition(";")[0].strip().lower()
    if media_type not in {"application/json", ""} and not media_type.endswith("+json"):
        raise UnsupportedMediaType("send JSON: content-type application/json")


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {most} bytes")
