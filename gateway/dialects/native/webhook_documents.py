"""What OpenAPI says about webhooks, beyond what the types of bodies and answers say."""

from typing import Any, Final

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIType, Schema

from gateway.dialects.native.answer_document import Facts
from gateway.dialects.native.documents import ERRORS, Specs
from gateway.dialects.native.errors import ErrorEnvelope
from gateway.dialects.native.strict_bodies import KnownBodies
from gateway.dialects.native.webhook_views import EXAMPLE_URL, EndpointBody, EndpointChangesBody
from gateway.outbound import MAX_URL_CHARACTERS
from gateway.webhooks.endpoints import MAX_DESCRIPTION, MAX_ENDPOINTS
from gateway.webhooks.events import SUBSCRIBABLE


def _spec(description: str) -> ResponseSpec:
    return ResponseSpec(data_container=ErrorEnvelope, description=description, generate_examples=False)


WEBHOOK_ERRORS: Final[Specs] = ERRORS | {403: _spec("The key lacks the scope `webhooks`.")}
_BODY_ERRORS: Final[Specs] = WEBHOOK_ERRORS | {
    413: _spec("The body is too large."),
    415: _spec("The body is not JSON."),
}
_ENDPOINT_GONE: Final = _spec("There is no such webhook endpoint for this key.")
CREATE_ERRORS: Final[Specs] = _BODY_ERRORS | {
    409: _spec(f"The organization has {MAX_ENDPOINTS} webhook endpoints."),
}
ENDPOINT_ERRORS: Final[Specs] = WEBHOOK_ERRORS | {404: _ENDPOINT_GONE}
CHANGE_ENDPOINT_ERRORS: Final[Specs] = _BODY_ERRORS | {404: _ENDPOINT_GONE}
TEST_ERRORS: Final[Specs] = ENDPOINT_ERRORS | {
    429: _spec("A test of this webhook endpoint is under way; see Retry-After."),
}
DELIVERY_ERRORS: Final[Specs] = WEBHOOK_ERRORS | {404: _spec("There is no such delivery for this key.")}
REPLAY_ERRORS: Final[Specs] = DELIVERY_ERRORS | {
    409: _spec("The delivery was a test, or its webhook endpoint is disabled or deleted."),
}

_EVENTS: Final[Facts] = {
    "items": Schema(type=OpenAPIType.STRING, enum=sorted(SUBSCRIBABLE)),
    "min_items": 1,
}
_URL: Final[Facts] = {"min_length": len("http://a"), "max_length": MAX_URL_CHARACTERS}
_DESCRIPTION: Final[Facts] = {"max_length": MAX_DESCRIPTION}
_FIELDS: Final[dict[str, tuple[str, Facts]]] = {
    "url": (
        (
            "An http or https URL on the public internet, on port 80, 443, 8080 or 8443; redirects count as "
            "failures."
        ),
        _URL,
    ),
    "events": ("What it is told of; null: everything, also what is added later.", _EVENTS),
    "description": ("For people.", _DESCRIPTION),
}
_EXAMPLE: Final[dict[str, Any]] = {"url": EXAMPLE_URL, "events": ["job.completed", "job.failed"]}
WEBHOOK_BODIES: Final[KnownBodies] = {
    EndpointBody: (_FIELDS, _EXAMPLE),
    EndpointChangesBody: (
        {
            **_FIELDS,
            "enabled": (
                (
                    "False: nothing more is sent, and what waits is dropped. True: it is tried again, also "
                    "after it was disabled automatically."
                ),
                {},
            ),
        },
        {"events": None, "enabled": True},
    ),
}
