"""Where people come back to from the payment provider's page, unless the client names pages of its own."""

import base64
import hashlib
from typing import Final

from litestar import MediaType, Response, Router, get

THANKS_PATH: Final = "/payments/thanks"
BACK_PATH: Final = "/payments/back"

_STYLE: Final = """
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 20vh auto 0; padding: 0 1.5rem }
h1 { font-size: 1.6rem }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #16181d } }
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS: Final = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@get("/thanks", include_in_schema=False, sync_to_thread=False)
def thanks() -> Response[str]:
    """After paying, or saving a card."""
    return _page("Thank you", "It is done. Credit arrives on the balance within seconds.")


@get("/back", include_in_schema=False, sync_to_thread=False)
def back() -> Response[str]:
    """After leaving the page without paying."""
    return _page("Nothing was paid", "You left the page before it was done. Your card was not charged.")


pages: Final = Router("/payments", route_handlers=[thanks, back], include_in_schema=False)


def _page(title: str, text: str) -> Response[str]:
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{title}</h1><p>{text}</p><p>You can close this page.</p></main></body></html>"
    )
    return Response(html, media_type=MediaType.HTML, headers=_HEADERS)
