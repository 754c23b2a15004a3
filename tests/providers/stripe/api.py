"""The API's edge: keys, versions, parameters, idempotency, and the faults that a test asks for."""

import binascii
import hmac
import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from litestar import MediaType, Request, Response
from litestar.handlers import HTTPRouteHandler

import stripe
from tests.providers.stripe import forms, refusals
from tests.providers.stripe.account import Account, Origin
from tests.providers.stripe.collection import Call, Collection, Json, Operation
from tests.providers.stripe.faults import Fault, Faults
from tests.providers.stripe.idempotency import IdempotencyKeys
from tests.providers.stripe.ids import new_id
from tests.providers.stripe.refusals import Refusal

Reply = Response[bytes]
Act = Callable[[Call], Json]
GARBAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class Api:
    """Answers the operations of the resources."""

    def __init__(self, account: Account, faults: Faults, api_key: str) -> None:
        self._account = account
        self._faults = faults
        self._api_key = api_key
        self._keys = IdempotencyKeys(account.clock)

    def handlers(self) -> list[HTTPRouteHandler]:
        kinds = self._account.kinds.values()
        return [self._handler(kind, *pair) for kind in kinds for pair in kind.operations()]

    def _handler(self, home: Collection, operation: Operation, act: Act) -> HTTPRouteHandler:
        async def handle(request: Request[Any, Any, Any]) -> Reply:
            headers = {"request-id": new_id("req"), "stripe-version": stripe.api_version}
            try:
                return await self._answer(request, home, operation, act, headers)
            except Refusal as refusal:
                return refused(refusal, headers)

        path = operation.path.replace("{id}", "{id:str}")
        return HTTPRouteHandler(path, http_method=[operation.method], status_code=200)(handle)

    async def _answer(
        self,
        request: Request[Any, Any, Any],
        home: Collection,
        operation: Operation,
        act: Act,
        headers: dict[str, str],
    ) -> Reply:
        self._admit(request)
        posted = operation.method == "POST"
        form = forms.decode((await request.body()).decode() if posted else request.url.query)
        key = request.headers.get("idempotency-key") if posted else None
        kept = None
        if key:
            headers["idempotency-key"] = key
            kept = self._keys.begin(key, request.url.path, form, headers["request-id"])
        fault = self._faults.take(request.method, request.url.path)
        if kept:
            early = await self._before(request, fault, headers)
            headers |= {"idempotent-replayed": "true", "original-request": kept.request_id}
            return early or await self._after(request, fault, reply(kept.status, kept.answer, headers))
        try:
            early = await self._before(request, fault, headers)
            if early is None:
                call = self._read(request, form, home, operation)
                answer = self._act(act, call, Origin(headers["request-id"], key), headers)
        except Exception:  # nothing was done: the key may be used again
            self._keys.forget(key)
            raise
        if early:
            self._keys.forget(key)
            return early
        if fault and fault.kind == "server_error" and fault.when == "after":
            answer = refused(refusals.broken(), headers | {"stripe-should-retry": "false"})
        self._keys.finish(key, answer.status_code, answer.content)
        return await self._after(request, fault, answer)

    def _admit(self, request: Request[Any, Any, Any]) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = b64decode(given).decode().removesuffix(":")
            except (binascii.Error, UnicodeDecodeError):
                given = ""
        if not given:
            raise refusals.no_key()
        if given.startswith("pk_"):
            raise refusals.publishable_key()
        if not hmac.compare_digest(given.encode(), self._api_key.encode()):
            raise refusals.wrong_key(given)
        version = request.headers.get("stripe-version", stripe.api_version)
        if version != stripe.api_version:
            raise refusals.wrong_version(version)

    def _read(
        self, request: Request[Any, Any, Any], form: forms.Tree, home: Collection, operation: Operation
    ) -> Call:
        params = forms.read(form, operation.description, operation.acts_on)
        expand = params.pop("expand", [])
        if operation.method == "POST":  # nothing may be done whose answer cannot be given
            for path in expand:
                self._account.check_expandable(home, path)
        return Call(request.path_params.get("id", ""), params, expand)

    def _act(self, act: Act, call: Call, origin: Origin, headers: dict[str, str]) -> Reply:
        """Do it, in one go: no other request comes between. What it refuses is an answer like another."""
        self._account.origin = origin
        try:
            return reply(200, encoded(self._account.expand(act(call), call.expand)), headers)
        except Refusal as refusal:
            return refused(refusal, headers)
        finally:
            self._account.origin = Origin()

    async def _before(
        self, request: Request[Any, Any, Any], fault: Fault | None, headers: dict[str, str]
    ) -> Reply | None:
        """A fault that befalls the request before anything is done."""
        if fault is None or fault.when != "before":
            return None
        if fault.kind == "slow":
            await self._faults.pause(fault)
            return None
        if fault.kind == "rate_limit":
            raise refusals.rate_limited()
        if fault.kind == "server_error":
            raise refusals.broken()
        if fault.kind == "drop":
            await _hang_up(request)
        return reply(200, GARBAGE, headers)

    async def _after(self, request: Request[Any, Any, Any], fault: Fault | None, answer: Reply) -> Reply:
        """A fault that befalls the answer: what was asked is done, and the caller does not know."""
        if fault is None or fault.when != "after":
            return answer
        if fault.kind == "slow":
            await self._faults.pause(fault)
        elif fault.kind == "drop":
            await _hang_up(request)
        elif fault.kind == "garbage":
            return reply(200, GARBAGE, {"request-id": answer.headers["request-id"]})
        return answer


async def _hang_up(request: Request[Any, Any, Any]) -> None:
    """Cut the connection without an answer."""
    request.scope["state"]["connection"].abort()
    while (await request.receive())["type"] != "http.disconnect":
        pass


def encoded(answer: Json) -> bytes:
    return json.dumps(answer, indent=2).encode()


def reply(status: int, content: bytes, headers: dict[str, str]) -> Reply:
    return Response(content, status_code=status, headers=dict(headers), media_type=MediaType.JSON)


def refused(refusal: Refusal, headers: dict[str, str]) -> Reply:
    return reply(refusal.status, encoded(refusal.body(headers["request-id"])), headers)
