"""Media that a client hands over."""

import base64
import binascii

import httpx

from tests.providers.runware import rules


async def content_of(http: httpx.AsyncClient, name: str, given: str) -> bytes:
    """Of a URL, a data URI, or bare base64."""
    if given.startswith(("http://", "https://")):
        try:
            fetched = await http.get(given, follow_redirects=True)
            fetched.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL):
            raise rules.invalid(name, "cannot be fetched") from None
        return fetched.content
    encoded = given.partition(",")[2] if given.startswith("data:") else given
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise rules.invalid(name, "is neither a URL nor base64") from None
