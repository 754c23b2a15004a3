"""What is in the answers about webhooks, for OpenAPI: by the names of their types and fields."""

from typing import Any, Final

from litestar.openapi.spec import OpenAPIType, Schema

from gateway.dialects.native.documents import ID
from gateway.webhooks.deliveries import STATES
from gateway.webhooks.events import SUBSCRIBABLE, EventType

Facts = dict[str, Any]

_ID: Final[Facts] = {"pattern": ID}
_MOMENT: Final[Facts] = {"format": "date-time"}
_COUNT: Final[Facts] = {"minimum": 0}
_DELIVERY: Final[dict[str, Facts]] = {
    "object": {"const": "webhook_delivery"},
    "id": _ID,
    "webhook_id": {"pattern": "^msg_[0-9a-f]{32}$"},
    "kind": {"enum": ["webhook", "upload"]},
    "event": {"enum": list(EventType)},
    "endpoint_id": _ID,
    "job_id": _ID,
    "state": {"enum": list(STATES)},
    "attempt_count": _COUNT,
    "next_attempt_at": _MOMENT,
    "created_at": _MOMENT,
    "completed_at": _MOMENT,
    "replay_of": _ID,
}

WEBHOOK_FACTS: Final[dict[str, dict[str, Facts]]] = {
    "EndpointView": {
        "object": {"const": "webhook_endpoint"},
        "id": _ID,
        "events": {"items": Schema(type=OpenAPIType.STRING, enum=sorted(SUBSCRIBABLE))},
        "status": {"enum": ["enabled", "disabled"]},
        "disabled_reason": {"enum": ["customer", "gone", "failing"]},
        "failing_since": _MOMENT,
        "project_id": _ID,
        "created_at": _MOMENT,
    },
    "EndpointList": {"object": {"const": "list"}},
    "DeletedEndpoint": {"object": {"const": "webhook_endpoint"}, "id": _ID, "deleted": {"const": True}},
    "SecretView": {
        "object": {"const": "webhook_secret"},
        "secret": {"pattern": "^whsec_[A-Za-z0-9+/]{43}=$"},
        "version": {"minimum": 1},
        "previous_valid_until": _MOMENT,
    },
    "DeliveryView": _DELIVERY,
    "DeliveryDetails": _DELIVERY,
    "DeliveryAttemptView": {
        "n": {"minimum": 1},
        "at": _MOMENT,
        "status": {"minimum": 100, "maximum": 999},
        "latency_ms": _COUNT,
    },
    "DeliveryList": {"object": {"const": "list"}, "next_cursor": _ID},
}
