"""Where a client wants to be told of its job, where the file is to be put, and how long it is kept."""

from typing import Any, Final

from gateway.dialects.native.validation_values import checked_text, within
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.outbound import MAX_URL_CHARACTERS, BadUrl, check_url

TTL_RANGE: Final = (60, 7 * 24 * 3600)
"""Seconds for which audio can be kept."""
EXAMPLE: Final = "https://your-site.example/antiphon"


def read_delivery(fields: dict[str, Any], *, variations: int, ports: frozenset[int] | None) -> dict[str, Any]:
    """Fields of a GenerationRequest. `ports`: of URLs that are called; None: any.

    Raises InvalidRequest or UnsupportedParameter.
    """
    upload_url = _url("upload_url", fields["upload_url"], ports)
    if upload_url is not None and variations > 1:
        raise UnsupportedParameter(
            "upload_url takes one file, so n must be 1; with webhook_url you are told of all of them",
            param="upload_url",
            suggestion="leave it out",
        )
    return {
        "webhook_url": _url("webhook_url", fields["webhook_url"], ports),
        "upload_url": upload_url,
        "ttl": within("ttl", fields["ttl"], *TTL_RANGE),
    }


def _url(name: str, value: str | None, ports: frozenset[int] | None) -> str | None:
    if value is None:
        return None
    checked_text(name, value, MAX_URL_CHARACTERS)
    try:
        check_url(value, ports=ports)
    except BadUrl as error:
        raise InvalidRequest(f"{name}: {error}", param=name, suggestion=EXAMPLE) from error
    return value
