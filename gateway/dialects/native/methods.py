"""Which methods a path takes: for OPTIONS, and for the `Allow` of a 405."""

from typing import Any, Final

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.utils.path import normalize_path

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class AnswerOptions:
    """ASGI middleware: OPTIONS of all paths that there are.

    Litestar's own answer knows the first handler of a path only.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; what has no route, and every other method, passes."""
        if scope["type"] != ScopeType.HTTP or scope["method"] != "OPTIONS":
            await self._app(scope, receive, send)
            return
        allowed = allowed_methods(scope["app"], scope["path"])
        if not allowed:
            await self._app(scope, receive, send)
            return
        headers = [(b"allow", ", ".join(allowed).encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def allowed_methods(app: Litestar, path: str) -> list[str]:
    """With OPTIONS itself; empty where there is nothing."""
    normal = normalize_path(path)
    found = [method for method in _METHODS if _has_route(app, normal, method)]
    return [*found, "OPTIONS"] if found else []


def _has_route(app: Litestar, path: str, method: Any) -> bool:
    try:
        app.asgi_router.handle_routing(path=path, method=method)
    except HTTPException:
        return False
    return True
