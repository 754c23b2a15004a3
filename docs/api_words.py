"""What the code cannot say for the API reference: meanings of answer fields, values for examples.

A field that the OpenAPI document explains itself needs no line here; its own words win. A field without
a line gets a placeholder in examples.
"""

# ruff: noqa: INP001 - a module beside files that are no Python
from typing import Any, Final

OMITTED: Final = object()
"""In examples the field is left out: it is only there when it was asked for."""
BUILT: Final = object()
"""In examples the value is built from the field's own type."""

JOB_ID: Final = "01a1fd23dc4f783a8e1460df4a0fef39"
ORGANIZATION_ID: Final = "01a1fd23d2f87763bb572dc9fc9be59f"
LINK: Final = (
    f"http://127.0.0.1:8000/audio/{ORGANIZATION_ID}/{JOB_ID}/1-0.mp3"
    "?expires=1795853151&name=sandbox-4a0fef39-1.mp3&signature=1ef8e9c13bf4eec2"
)

OBJECTS: Final = {
    "JobView": "What a submit, a poll and a list return. Its last word is `completed` or `failed`, for good.",
    "ErrorEnvelope": "The body of every refusal; all codes are on the [errors page](errors.md).",
    "TrackView": "One delivered file.",
    "EventView": "Of a [followed job](#follow-a-job), as the text of a server-sent event.",
}

FIELDS: Final[dict[str, dict[str, tuple[str, Any]]]] = {
    "JobView": {
        "job_id": ("The same as `id`, for clients of other services.", JOB_ID),
        "id": ("Id of the job, 32 hexadecimal digits; they sort by time.", JOB_ID),
        "object": ("Kind of object.", "job"),
        "model": ("Id of the model, also where an alias was sent.", "sandbox"),
        "task": ("What was done with sound.", "text2music"),
        "status": ("Where it stands; the last two are final.", "completed"),
        "progress": ("How far rendering has come.", 1.0),
        "queue_position": (
            "Its place while it waits, 1 is the next; an estimate, null when not known.",
            None,
        ),
        "eta_seconds": ("Seconds until the end, as an estimate; null when it is not known.", None),
        "created_at": ("When it was accepted, UTC.", "2026-11-21T08:05:48.239Z"),
        "completed_at": ("When it ended, in whatever way.", "2026-11-21T08:05:49.629Z"),
        "expires_at": ("When its files are deleted; the job itself stays.", "2026-12-21T08:05:49.629Z"),
        "cancel_requested_at": ("When somebody asked to cancel it.", None),
        "result": ("The music; null until `completed`.", BUILT),
        "error": ("Why there is no music; null unless `failed`.", None),
        "warnings": ("What was let go, in words: a knob that this model does not have.", []),
        "poll_url": ("Where to ask for it, relative to the origin.", f"/v1/jobs/{JOB_ID}"),
        "backend": ("What makes or made the music; null before it was tried.", "engine"),
        "cost": ("What it costs.", BUILT),
        "metadata": ("As it was sent.", {}),
        "test": ("True for jobs of test keys: free.", False),
        "attempts": ("Every try at a backend; only with `include=attempts`.", OMITTED),
    },
    "ResultView": {
        "created": ("Unix seconds of the end.", 1795248349),
        "data": ("The files.", BUILT),
        "usage": ("What is billed.", BUILT),
        "deterministic": (
            "`true`: the same request gives the same bits on the same machine; else `best_effort`, `false`.",
            True,
        ),
    },
    "TrackView": {
        "content_type": ("Media type of the file.", "audio/mpeg"),
        "format": ("Of the file, as it was ordered.", "mp3"),
        "duration_seconds": ("Exact length, from the frames of the master.", 20.0),
        "sample_rate": ("Hz of the file.", 48000),
        "channels": ("Mono or stereo.", 2),
        "seed": ("The seed that was used, also if it was drawn.", 696790466),
        "sha256": (
            "Of the file's bytes.",
            "63ae595ddd7f0f7fc7a6a10440ce32f22bd2b1351cf5b3a666caa7962e2199c7",
        ),
        "url": ("Link that needs no key, for seven days; each poll makes a new one.", LINK),
        "b64_json": ("The file itself, if it was asked for; never in lists.", OMITTED),
    },
    "UsageView": {
        "billable_units": ("Seconds that are billed.", 20.0),
        "billing_unit": ("Unit of what is billed.", "second"),
    },
    "CostView": {
        "usd": ("Charged; `0.000000000` until the end, and for ever if it failed.", "0.005000000"),
        "usd_per_second": ("The price at which it was accepted.", "0.000250000"),
        "billed_seconds": ("Null until the end.", 20.0),
        "held_usd": ("The most that it can cost, reserved when it was accepted.", "0.005000000"),
        "charged": ("Whether money has moved.", True),
    },
    "JobErrorView": {
        "message": ("For people.", "the job was cancelled"),
        "code": ("For programs; see [in a job](errors.md#in-a-job).", "job_cancelled"),
        "type": ("Class of the error.", "api_error"),
        "param": ("The field that was the reason, if one was.", None),
        "charged": ("Always false.", False),
    },
    "AttemptView": {
        "n": ("1, 2, 3.", 1),
        "backend": ("Where it was tried.", "engine"),
        "state": ("How far it came: `done` when it delivered.", "done"),
        "started_at": ("When it was claimed.", "2026-11-21T08:05:48.255Z"),
        "finished_at": ("When it ended.", "2026-11-21T08:05:49.629Z"),
        "error_code": ("Why it failed, as in a job.", None),
        "error_message": ("The same in words.", None),
    },
    "EventView": {
        "id": ("How the job stood; send it as `Last-Event-ID` to go on from there.", "completed-1"),
        "event": ("Its name; the last two are the end of the stream.", "completed"),
        "data": (
            "JSON: place, progress and status of the job; at the end the whole job.",
            "{}",
        ),
    },
    "JobList": {
        "object": ("Kind of object.", "list"),
        "data": ("The jobs.", BUILT),
        "has_more": ("Whether there are older ones.", True),
        "next_cursor": ("`cursor` of the next page; null on the last.", JOB_ID),
    },
    "BalanceView": {
        "object": ("Kind of object.", "balance"),
        "balance_usd": ("What the organization has.", "4.995000000"),
        "held_usd": ("Reserved for unfinished jobs.", "0.000000000"),
        "available_usd": ("The rest: what a new job may hold.", "4.995000000"),
    },
    "KeyView": {
        "object": ("Kind of object.", "key"),
        "id": ("Id of the key; not the key itself.", "01a1fd23d308737b9af13324e8a47834"),
        "organization_id": ("For whom it speaks.", ORGANIZATION_ID),
        "project_id": ("Its project; null: the whole organization.", None),
        "test": ("True: free, rendered by the sandbox.", False),
        "scopes": ("`generate`, `read`; null: both.", None),
        "models": ("Ids of the models it may use; null: all.", None),
        "requests_per_minute": ("Generation requests; null: no limit.", None),
        "max_open_jobs": ("Unfinished jobs at once; null: no limit.", None),
        "expires_at": ("When it stops working; null: never.", None),
    },
    "ModelList": {"object": ("Kind of object.", "list"), "data": ("The models.", BUILT)},
    "ModelView": {
        "id": ("What a request names.", "sandbox"),
        "object": ("Kind of object.", "model"),
        "created": ("A fixed number, for OpenAI's clients.", 1770000000),
        "owned_by": ("Always `antiphon`.", "antiphon"),
        "name": ("For people.", "Sandbox composer"),
        "description": (
            "For people.",
            "Built-in composer: no weights, no AI. Renders simple music by rule, for trying the API.",
        ),
        "aliases": ("Other names that a request may use.", []),
        "tasks": ("What it can do.", ["text2music"]),
        "parameters": (
            "Fields of a generation that it knows, by name.",
            {"audio_duration": {"type": "number", "minimum": 5.0, "maximum": 600.0, "default": 30.0}},
        ),
        "pricing": ("What it costs you now; null: not for sale.", BUILT),
        "available": ("Whether live keys can use it here; test keys always can.", True),
    },
    "Parameter": {
        "type": ("Type of the field in a request.", "number"),
        "minimum": ("Lowest value.", 5.0),
        "maximum": ("Highest value.", 600.0),
        "default": ("What is used when the field is left out.", 30.0),
        "values": ("The only values there are.", OMITTED),
    },
    "Pricing": {
        "usd_per_second": ("For each second of delivered audio.", "0.000250000"),
        "was_usd_per_second": ("A former price, to be struck through.", None),
        "billing_unit": ("Unit of what is billed.", "second"),
    },
    "ErrorEnvelope": {"error": ("What went wrong.", BUILT)},
    "ErrorBody": {
        "message": ("For people; may change.", "bpm must be between 30 and 300"),
        "type": ("Class of the error.", "invalid_request_error"),
        "param": ("The field.", "bpm"),
        "code": ("For programs; stable.", "invalid_request"),
        "suggestion": ("The nearest valid value.", "300"),
        "charged": ("Always false.", False),
        "retryable": ("Whether the same request may work later.", False),
        "request_id": ("As in `x-request-id` and in the log.", "req_1e8d00e4bc85763df364b11c"),
        "doc_url": ("Where the code is explained.", "/docs/errors#invalid_request"),
        "required_usd": ("With 402: what the job can cost at most.", OMITTED),
        "available_usd": ("With 402: what is free.", OMITTED),
    },
}

PATH_VALUES: Final = {"job_id": "$JOB", "model_id": "sandbox"}
"""What a curl example puts into a path; another name becomes a shell variable."""

QUERIES: Final = {
    "GET /v1/jobs/{job_id}": "include=attempts",
    "GET /v1/jobs": "status=completed&limit=2",
}

PARAMETERS: Final = {
    "job_id": "Id of the job, from the submit or a list.",
    "model_id": "Id or alias of a model.",
    "include": "`attempts`: every try at a backend as well.",
}

_QUEUED: Final = {
    "status": "queued",
    "progress": 0.0,
    "completed_at": None,
    "expires_at": None,
    "result": None,
    "backend": None,
}
_RESERVED: Final = {"usd": "0.000000000", "billed_seconds": None, "charged": False}
_CANCELLED: Final = {
    "status": "failed",
    "progress": 0.0,
    "cancel_requested_at": "2026-11-21T08:05:49.120Z",
    "result": None,
    "error": BUILT,
    "backend": None,
    "cost": _RESERVED | {"billed_seconds": 0.0},
}

CHANGES: Final[dict[str, dict[str, Any]]] = {
    "POST /v1/audio/generations": _QUEUED | {"cost": _RESERVED},
    "POST /v1/jobs/{job_id}/cancel": _CANCELLED,
    "DELETE /v1/jobs/{job_id}": _CANCELLED,
    "GET /v1/jobs/{job_id}": {"attempts": BUILT},
}
"""How an operation's example differs from its object's; a mapping changes single fields inside an object."""

HEADERS: Final = {"POST /v1/audio/generations": ("preference-applied",)}
"""Headers of successful answers that the OpenAPI document does not list."""

STREAMS: Final = {
    "GET /v1/jobs/{job_id}/events": f"""\
retry: 2000

id: queued-0-1
event: progress
data: {{"job_id":"{JOB_ID}","status":"queued","progress":0.0,"queue_position":1,...}}

id: processing-1-4210
event: progress
data: {{"job_id":"{JOB_ID}","status":"processing","progress":0.421,...}}

id: completed-1
event: completed
data: {{"job_id":"{JOB_ID}","id":"{JOB_ID}","object":"job","model":"sandbox",...}}
""",
}
"""What a stream looks like; the last line is shortened."""

HEADER_WORDS: Final = {
    "preference-applied": "With 200 and 202: `wait=N`, if that was asked for.",
    "allow": "With 405: the methods of this path.",
}
"""Meanings of headers that the OpenAPI document does not explain."""

OTHERS: Final = {
    "/docs": "This reference for a browser, where requests can be tried. Loads nothing from elsewhere.",
    "/docs/openapi.json": "The OpenAPI 3.1 document from which this page is made.",
    "/docs/oauth2-redirect.html": "A page of Swagger UI that this API does not need.",
    "/docs/{path}": "An HTML page for what is not below `/docs`.",
    "/docs/assets/{name}": "Scripts and style sheet of the reference.",
}
"""Paths outside the OpenAPI document whose handlers are not ours, or say nothing of themselves."""
