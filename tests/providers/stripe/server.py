"""What listens: the API, the pages for people, and the control routes."""

import inspect
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Redirect

from tests.providers.stripe import forms, pages, refusals
from tests.providers.stripe.account import Account
from tests.providers.stripe.api import Api, Reply, refused, reply
from tests.providers.stripe.cards import DECLINED, GOOD, named
from tests.providers.stripe.control import Control
from tests.providers.stripe.faults import Faults
from tests.providers.stripe.ids import new_id
from tests.providers.stripe.refusals import Refusal


class Pages:
    """The pages for people."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def handlers(self) -> list[HTTPRouteHandler]:
        return [
            self._checkout(),
            self._checked_out(),
            self._authentication(),
            self._authenticated(),
            self._receipt(),
        ]

    def _checkout(self) -> HTTPRouteHandler:
        @get("/c/pay/{session:str}", media_type=MediaType.HTML, sync_to_thread=False)
        def checkout(session: FromPath[str]) -> str:
            found = self._account.sessions.get(session)
            return pages.checkout(found, self._account.sessions.include(found, "line_items")["data"])

        return checkout

    def _checked_out(self) -> HTTPRouteHandler:
        @post("/c/pay/{session:str}/{button:str}", status_code=200)
        async def checked_out(
            request: Request[Any, Any, Any], session: FromPath[str], button: FromPath[str]
        ) -> Response[Any]:
            sessions = self._account.sessions
            found = sessions.get(session)
            form = forms.decode((await request.body()).decode())
            if button == "leave":
                return Redirect(found["cancel_url"] or found["success_url"], status_code=303)
            if button not in ("pay", "decline"):
                raise refusals.unknown_url("POST", request.url.path)
            number = DECLINED if button == "decline" else form.get("card", GOOD)
            declined = sessions.complete(
                found, named(number), email=form.get("email"), saves=form.get("save") == "true"
            )
            if declined:
                items = sessions.include(found, "line_items")["data"]
                page = pages.checkout(found, items, error=declined.message)
                return Response(page, status_code=402, media_type=MediaType.HTML)
            url = found["success_url"].replace("{CHECKOUT_SESSION_ID}", quote(session))
            return Redirect(url, status_code=303)

        return checked_out

    def _authentication(self) -> HTTPRouteHandler:
        @get("/authenticate/{intent:str}", media_type=MediaType.HTML, sync_to_thread=False)
        def authentication(intent: FromPath[str]) -> str:
            return pages.authentication(self._account.payment_intents.get(intent))

        return authentication

    def _authenticated(self) -> HTTPRouteHandler:
        @post("/authenticate/{intent:str}/{button:str}", status_code=200, sync_to_thread=False)
        def authenticated(intent: FromPath[str], button: FromPath[str]) -> Response[Any]:
            found = self._account.payment_intents.get(intent)
            back = (
                (found["next_action"] or {}).get("redirect_to_url", {}).get("return_url", self._account.url)
            )
            declined = self._account.payment_intents.authenticate(found, ok=button == "complete")
            query = urlencode(
                {
                    "payment_intent": intent,
                    "payment_intent_client_secret": found["client_secret"],
                    "redirect_status": "failed" if declined else "succeeded",
                }
            )
            return Redirect(f"{back}{'&' if '?' in back else '?'}{query}", status_code=303)

        return authenticated

    def _receipt(self) -> HTTPRouteHandler:
        @get("/receipts/{charge:str}", media_type=MediaType.HTML, sync_to_thread=False)
        def receipt(charge: FromPath[str]) -> str:
            return pages.receipt(self._account.charges.get(charge))

        return receipt


def control_route(control: Control, account: Account, faults: Faults) -> HTTPRouteHandler:
    """`POST /_control/{room}/{action}` with the action's arguments as JSON: the Python objects, over HTTP."""
    rooms = {
        "payments": (control, [name for name in dir(Control) if not name.startswith("_")]),
        "deliveries": (
            account.deliveries,
            ["send_to", "usual", "hold", "release", "drop", "settled", "retries", "report"],
        ),
        "faults": (faults, ["add", "clear", "report"]),
    }
    actions = {
        f"{room}/{name}": getattr(home, name) for room, (home, names) in rooms.items() for name in names
    }

    @post("/_control/{room:str}/{action:str}", status_code=200)
    async def act(request: Request[Any, Any, Any], room: FromPath[str], action: FromPath[str]) -> Reply:
        method = actions.get(f"{room}/{action}")
        if method is None:
            raise Refusal(
                f"No such action: {room}/{action}. There are: {', '.join(sorted(actions))}", status=404
            )
        arguments = _arguments(method, await request.body())
        result = method(**arguments)
        return reply(200, msgspec.json.encode(await result if inspect.isawaitable(result) else result), {})

    return act


def _arguments(method: Callable[..., Any], body: bytes) -> dict[str, Any]:
    """The JSON body, held against the method's own signature."""
    fields = [
        (name, parameter.annotation)
        if parameter.default is inspect.Parameter.empty
        else (name, parameter.annotation, parameter.default)
        for name, parameter in inspect.signature(method).parameters.items()
    ]
    shape = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
    try:
        return msgspec.structs.asdict(msgspec.json.decode(body or b"{}", type=shape))
    except msgspec.DecodeError as error:
        raise Refusal(str(error)) from None


def _refused(_: Request[Any, Any, Any], refusal: Refusal) -> Reply:
    return refused(refusal, {"request-id": new_id("req")})


def _unknown(request: Request[Any, Any, Any], error: HTTPException) -> Reply:
    if error.status_code in (404, 405):
        return _refused(request, refusals.unknown_url(request.method, request.url.path))
    return _refused(request, Refusal(error.detail, status=error.status_code, type="api_error"))


def _crashed(request: Request[Any, Any, Any], error: Exception) -> Reply:
    """A defect of the stand-in itself: shown where whoever runs it sees it."""
    traceback.print_exception(error)
    return _refused(request, Refusal(f"The stand-in is broken: {error!r}", status=500, type="api_error"))


def application(account: Account, faults: Faults, control: Control, api_key: str) -> Litestar:
    return Litestar(
        [
            *Api(account, faults, api_key).handlers(),
            *Pages(account).handlers(),
            control_route(control, account, faults),
        ],
        exception_handlers={Refusal: _refused, HTTPException: _unknown, Exception: _crashed},
        openapi_config=None,
        logging_config=None,
    )
