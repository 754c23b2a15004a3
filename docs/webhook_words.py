"""Meanings of the fields of webhooks, and values for examples; a part of `api_words`."""

# ruff: noqa: INP001 - a module beside files that are no Python
from typing import Any, Final

from example_marks import BUILT

_ENDPOINT_ID: Final = "01a1fd23f0a47b6c8d2e4a6b8c0d1e2f"
_DELIVERY_ID: Final = "01a1fd2405d97a318b4c5d6e7f801924"
_JOB_ID: Final = "01a1fd23dc4f783a8e1460df4a0fef39"
_URL: Final = "https://your-site.example/hooks"
_MOMENT: Final = "2026-11-21T08:05:49.702Z"

WEBHOOK_OBJECTS: Final = {
    "EndpointView": "A URL that is told of events; see [webhooks](webhooks.md).",
    "SecretView": "What a receiver verifies with; see [webhooks](webhooks.md).",
    "DeliveryView": "An event on its way to a webhook, or a file on its way to a job's `upload_url`.",
    "DeliveryDetails": "The same, with its attempts.",
}
_DELIVERY: Final[dict[str, tuple[str, Any]]] = {
    "object": ("Kind of object.", "webhook_delivery"),
    "id": ("Id of the delivery.", _DELIVERY_ID),
    "webhook_id": (
        "The `webhook-id` that the receiver gets: the same in every attempt and replay.",
        "msg_01a1fd24057e7c0d9a1b2c3d4e5f6071",
    ),
    "kind": ("A message, or the bytes of a file.", "webhook"),
    "event": ("What is told.", "job.completed"),
    "url": ("Where it goes.", _URL),
    "endpoint_id": ("The webhook endpoint; null: the URL stood in the job.", _ENDPOINT_ID),
    "job_id": ("The job that it is about, if it is about one.", _JOB_ID),
    "state": (
        "`delivered`: the receiver took it; `exhausted`: it never did; `dropped`: nobody wants it any more.",
        "delivered",
    ),
    "attempt_count": ("How often it was tried.", 1),
    "next_attempt_at": ("When it is tried next; null when it is over.", None),
    "created_at": ("When it was written down, UTC.", "2026-11-21T08:05:49.629Z"),
    "completed_at": ("When it was over.", _MOMENT),
    "replay_of": ("Id of the delivery that was replayed, if one was.", None),
}
WEBHOOK_FIELDS: Final[dict[str, dict[str, tuple[str, Any]]]] = {
    "EndpointView": {
        "object": ("Kind of object.", "webhook_endpoint"),
        "id": ("Id of the endpoint.", _ENDPOINT_ID),
        "url": ("Where events go.", _URL),
        "events": ("What it is told of; null: everything.", ["job.completed", "job.failed"]),
        "description": ("As it was sent.", ""),
        "status": ("Nothing is sent to a disabled one.", "enabled"),
        "disabled_reason": (
            "`customer`: by request; `gone`: it answered with 410; `failing`: nothing arrived for five days.",
            None,
        ),
        "failing_since": ("Since when nothing has arrived; null while it works.", None),
        "project_id": ("The project whose events these are; null: the whole organization.", None),
        "created_at": ("When it was created, UTC.", "2026-11-21T08:02:10.117Z"),
    },
    "EndpointList": {"object": ("Kind of object.", "list"), "data": ("The endpoints.", BUILT)},
    "DeletedEndpoint": {
        "object": ("Kind of object.", "webhook_endpoint"),
        "id": ("Id of the endpoint.", _ENDPOINT_ID),
        "deleted": ("It is gone.", True),
    },
    "SecretView": {
        "object": ("Kind of object.", "webhook_secret"),
        "secret": (
            "As libraries of Standard Webhooks take it. Keep it where keys are kept.",
            "whsec_TFJ2MHg3cUZ5d1p0S2E5c1BtM25CaEdkRWo4VW9WMWk=",
        ),
        "version": ("1, and one more with each rotation.", 1),
        "previous_valid_until": ("Until then messages carry the signature of the one before, too.", None),
    },
    "DeliveryView": _DELIVERY,
    "DeliveryDetails": {**_DELIVERY, "attempts": ("Every try that has ended, in order.", BUILT)},
    "DeliveryAttemptView": {
        "n": ("1, 2, 3.", 1),
        "at": ("When it began, UTC.", "2026-11-21T08:05:49.641Z"),
        "status": ("What the receiver answered; null: it did not.", 200),
        "latency_ms": ("How long it took, in milliseconds.", 61),
        "error": ("Why there was no answer, in words.", None),
        "answer": ("The first kilobyte of the answer's body, as text.", "ok"),
    },
    "DeliveryList": {
        "object": ("Kind of object.", "list"),
        "data": ("The deliveries.", BUILT),
        "has_more": ("Whether there are older ones.", False),
        "next_cursor": ("`cursor` of the next page; null on the last.", None),
    },
}
_TEST: Final = {
    "event": "webhook.test",
    "job_id": None,
}
WEBHOOK_CHANGES: Final[dict[str, dict[str, Any]]] = {
    "PATCH /v1/webhooks/{endpoint_id}": {"events": None},
    "POST /v1/webhooks/{endpoint_id}/test": _TEST,
    "POST /v1/webhooks/{endpoint_id}/rotate": {
        "version": 2,
        "previous_valid_until": "2026-11-22T08:05:48.000Z",
    },
    "POST /v1/webhooks/secret/rotate": {
        "version": 2,
        "previous_valid_until": "2026-11-22T08:05:48.000Z",
    },
    "POST /v1/webhooks/deliveries/{delivery_id}/replay": {
        "state": "pending",
        "attempt_count": 0,
        "next_attempt_at": "2026-11-21T09:12:03.450Z",
        "completed_at": None,
        "replay_of": _DELIVERY_ID,
    },
}
WEBHOOK_QUERIES: Final = {"GET /v1/webhooks/deliveries": "state=delivered&limit=2"}
