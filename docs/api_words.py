"""What the code cannot say for the API reference: meanings of answer fields, values for examples.

A field that the OpenAPI document explains itself needs no line here; its own words win. A field without
a line gets a placeholder in examples.
"""

# ruff: noqa: INP001 - a module beside files that are no Python
from typing import Any, Final

from example_marks import BUILT, OMITTED
from file_words import FILE_FIELDS, FILE_OBJECTS
from payment_words import PAYMENT_CHANGES, PAYMENT_FIELDS, PAYMENT_OBJECTS, PAYMENT_OTHERS
from webhook_words import WEBHOOK_CHANGES, WEBHOOK_FIELDS, WEBHOOK_OBJECTS, WEBHOOK_QUERIES

JOB_ID: Final = "01a1fd23dc4f783a8e1460df4a0fef39"
ORGANIZATION_ID: Final = "01a1fd23d2f87763bb572dc9fc9be59f"
PRICE_VERSION: Final = "5b0a6c6a5d8a4f0e9f5b8a4d4c2f7e31"
LINK: Final = (
    f"http://127.0.0.1:8000/audio/{ORGANIZATION_ID}/{JOB_ID}/1-0.mp3"
    "?expires=1795853151&name=sandbox-4a0fef39-1.mp3&signature=1ef8e9c13bf4eec2"
)

OBJECTS: Final = {
    "JobView": "What a submit, a poll and a list return. Its last word is `completed` or `failed`, for good.",
    "QuoteView": "What a generation can cost. Nothing is reserved by it; see [prices](prices.md).",
    "ErrorEnvelope": "The body of every refusal; all codes are on the [errors page](errors.md).",
    "TrackView": "One delivered file.",
    "EventView": "Of a [followed job](#follow-a-job), as the text of a server-sent event.",
    **PAYMENT_OBJECTS,
    **FILE_OBJECTS,
    **WEBHOOK_OBJECTS,
}

_MONTH: Final[dict[str, tuple[str, Any]]] = {
    "month": ("The month, by UTC.", "2026-11"),
    "final": ("False while it can still change.", False),
    "opening_usd": ("The balance at its beginning.", "0.000000000"),
    "added_usd": ("What came in.", "5.000000000"),
    "charged_usd": ("What jobs cost.", "0.005000000"),
    "removed_usd": ("What went out otherwise.", "0.000000000"),
    "closing_usd": ("The balance at its end, or now: opening + added - charged - removed.", "4.995000000"),
}

FIELDS: Final[dict[str, dict[str, tuple[str, Any]]]] = {
    **PAYMENT_FIELDS,
    **FILE_FIELDS,
    **WEBHOOK_FIELDS,
    "RouteView": {
        "backend": ("Who renders.", "engine"),
        "state": (
            (
                "`ready`, `loading`, `failed`; at a provider `ready`, `open` (nothing is sent there), "
                "`half_open` (it is tried again) or `no_credit`; `absent`: no worker has told of it. See "
                "[routing](routing.md#health)."
            ),
            "ready",
        ),
        "warm": ("Whether it has rendered already, so that the next song waits for nothing.", True),
        "load_seconds": ("How long loading took; null before.", 41.5),
        "realtime_factor": ("Seconds of audio for each second of work, lately; null before.", 240.0),
        "latency_seconds": ("From sending a song to a provider to having it, lately; null before.", None),
        "longest_seconds": (
            "The longest song: by the device's memory, or the provider; null: not known.",
            600.0,
        ),
    },
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
        "warnings": ("What was let go, in words: a knob that this model does not hear.", []),
        "poll_url": ("Where to ask for it, relative to the origin.", f"/v1/jobs/{JOB_ID}"),
        "backend": ("What makes or made the music; null before it was tried.", "engine"),
        "route_reason": (
            "Why there, in a few words; see [routing](routing.md#why-there).",
            "the only route",
        ),
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
        "reason": ("Why there, in a few words.", "the only route"),
        "state": (
            "`intent`, `sent`, `accepted`: under way; then `done`, `failed`, or `ambiguous`: nobody knows.",
            "done",
        ),
        "started_at": ("When it was claimed.", "2026-11-21T08:05:48.255Z"),
        "finished_at": ("When it ended.", "2026-11-21T08:05:49.629Z"),
        "error_code": ("Why it failed: as in a job, or as in [routing](routing.md#attempts).", None),
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
        "available_usd": (
            "What a new job may hold: the rest, and nothing while something is owed.",
            "4.995000000",
        ),
        "owed_usd": (
            "What a disputed or refunded payment took beyond the balance; to be paid first.",
            "0.000000000",
        ),
        "level": ("How much is left: below `low_usd` it is `low`, below `critical_usd` `critical`.", "fine"),
        "low_usd": ("Threshold of the first warning.", "1.000000000"),
        "critical_usd": ("Threshold of the second warning.", "0.100000000"),
        "grants": ("Where the balance comes from, in the order in which it is spent; at most 100.", BUILT),
    },
    "GrantView": {
        "kind": ("`paid`, given (`promotional`), or a charge given back (`refund`).", "promotional"),
        "remaining_usd": ("What is left of it.", "4.995000000"),
        "expires_at": ("When the rest is lost; null: never.", None),
    },
    "AccountUsage": {
        "object": ("Kind of object.", "account_usage"),
        "balance": ("As [read the balance](#read-the-balance) has it.", BUILT),
        "data": ("The events.", BUILT),
        "has_more": ("Whether there are older ones.", True),
        "next_cursor": ("`before` of the next page; null on the last.", JOB_ID),
    },
    "UsageEventView": {
        "object": ("Kind of object.", "usage_event"),
        "id": ("The job's id.", JOB_ID),
        "job_id": ("The same.", JOB_ID),
        "created_at": ("When the job was accepted, UTC.", "2026-11-21T08:05:48.239Z"),
        "completed_at": ("When it ended.", "2026-11-21T08:05:49.629Z"),
        "model": ("Id of the model.", "sandbox"),
        "status": ("How it ended.", "completed"),
        "source": ("Where it came from.", "api"),
        "billable_units": ("Seconds that were delivered; 0 if it failed.", 20.0),
        "billing_unit": ("Unit of what is billed.", "second"),
        "cost_usd": ("Charged; `0.000000000` if it failed or was a test.", "0.005000000"),
        "test": ("True for jobs of test keys: free.", False),
    },
    "UsageReport": {
        "object": ("Kind of object.", "list"),
        "start": ("Beginning of the report.", "2026-10-23T00:00:00.000Z"),
        "end": ("Its end, which is not in it.", "2026-11-21T09:00:00.000Z"),
        "group_by": ("What it is divided by.", ["day", "model"]),
        "data": ("The lines.", BUILT),
        "totals": ("The sums of all pages.", BUILT),
        "has_more": ("Whether more lines follow.", False),
        "next_cursor": ("`cursor` of the next page; null on the last.", None),
    },
    "UsageRowView": {
        "start": ("Beginning of the day or hour; without either, of the report.", "2026-11-21T00:00:00.000Z"),
        "model": ("Grouped by `model`: its id.", "sandbox"),
        "backend": ("Grouped by `backend`: what made the music.", OMITTED),
        "project_id": ("Grouped by `project`: its id, null for keys of no project.", OMITTED),
        "key_id": ("Grouped by `key`: its id.", OMITTED),
        "jobs": ("Charged jobs.", 1),
        "billed_seconds": ("What they delivered.", 20.0),
        "cost_usd": ("What they were charged.", "0.005000000"),
    },
    "UsageTotals": {
        "jobs": ("Charged jobs.", 1),
        "billed_seconds": ("What they delivered.", 20.0),
        "cost_usd": ("What they were charged.", "0.005000000"),
    },
    "EntryList": {
        "object": ("Kind of object.", "list"),
        "data": ("The lines.", BUILT),
        "has_more": ("Whether more follow.", True),
        "next_cursor": ("`cursor` of the next page; null on the last.", "1207"),
    },
    "EntryView": {
        "id": ("Number of the line; they grow with time, with gaps.", "1207"),
        "created_at": ("When, UTC.", "2026-11-21T08:05:49.629Z"),
        "kind": ("What moved the money; see [reading your money](billing.md#kinds-of-lines).", "settle"),
        "amount_usd": ("By how much the balance changed.", "-0.005000000"),
        "balance_after_usd": ("The balance after it.", "4.995000000"),
        "job_id": ("The job that was charged, or whose charge was given back.", JOB_ID),
        "external_ref": ("The object at the payment provider, such as a payment or a dispute.", None),
        "reason": ("What the operator wrote, or the payment that a refund or dispute is about.", None),
        "description": ("For people.", "20.000 s of sandbox"),
    },
    "MonthList": {
        "object": ("Kind of object.", "list"),
        "data": ("The months.", BUILT),
        "has_more": ("Whether there are older ones.", False),
        "next_cursor": ("`cursor` of the next page; null on the last.", None),
    },
    "MonthView": _MONTH,
    "StatementView": {
        "object": ("Kind of object.", "statement"),
        "organization_id": ("Whose it is.", ORGANIZATION_ID),
        "organization": ("Its name.", "First organization"),
        "start": ("First moment of the month.", "2026-11-01T00:00:00.000Z"),
        "end": ("First moment of the next one.", "2026-12-01T00:00:00.000Z"),
        **_MONTH,
        "total_usd": ("`charged_usd`, rounded to cents: the only amount that is.", "0.01"),
        "credits": ("Lines that added.", BUILT),
        "usage": ("What was charged, by model.", BUILT),
        "deductions": ("Lines that took away, other than charges.", []),
        "url": (
            "The same as a page to print; needs no key, for a day.",
            (
                f"http://127.0.0.1:8000/statements/{ORGANIZATION_ID}/2026-11"
                "?expires=1795334749&signature=9c3f1d5e2ab80746"
            ),
        ),
    },
    "StatementLine": {
        "created_at": ("When; null if it stands for several lines.", "2026-11-21T07:58:01.100Z"),
        "kind": ("As in the ledger.", "grant"),
        "description": ("For people.", "credit that was given"),
        "external_ref": ("As in the ledger.", None),
        "reason": ("As in the ledger.", "welcome credit"),
        "entries": (
            "How many lines of the ledger it is: 1, or all of the kind where a month has over 200.",
            1,
        ),
        "amount_usd": ("By how much the balance changed.", "5.000000000"),
    },
    "ModelLine": {
        "model": ("Id of the model.", "sandbox"),
        "jobs": ("Charged jobs.", 1),
        "billed_seconds": ("What they delivered.", 20.0),
        "cost_usd": ("What they were charged.", "0.005000000"),
    },
    "KeyView": {
        "object": ("Kind of object.", "key"),
        "id": ("Id of the key; not the key itself.", "01a1fd23d308737b9af13324e8a47834"),
        "organization_id": ("For whom it speaks.", ORGANIZATION_ID),
        "project_id": ("Its project; null: the whole organization.", None),
        "test": ("True: free, rendered by the sandbox.", False),
        "scopes": ("`generate`, `read`, `billing`, `webhooks`; null: all.", None),
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
            "Fields of a generation that it hears, by name; any other has no effect on it.",
            {"audio_duration": {"type": "number", "minimum": 5.0, "maximum": 600.0, "default": 30.0}},
        ),
        "pricing": ("What it costs you now; null: not for sale.", BUILT),
        "available": ("Whether live keys can use it here; test keys always can.", True),
        "routes": ("Ways to it that are configured here, and how they fare.", BUILT),
    },
    "Parameter": {
        "type": ("Type of the field in a request.", "number"),
        "minimum": ("Lowest value.", 5.0),
        "maximum": ("Highest value.", 600.0),
        "default": ("What is used when the field is left out.", 30.0),
        "values": ("The only values there are; of a list, of its items.", OMITTED),
        "tasks": ("The tasks that it belongs to; left out: all of the model.", OMITTED),
        "has_effect": ("False: taken for the sake of clients that always send it, and ignored.", OMITTED),
    },
    "Pricing": {
        "usd_per_second": ("What you are charged for each second of delivered audio.", "0.000250000"),
        "list_usd_per_second": ("The price before the discount.", "0.000250000"),
        "discount_percent": ("The discount, at most four decimals.", "0"),
        "was_usd_per_second": ("A former price, to be struck through.", None),
        "price_version": (
            "Id of the price version: a job that is accepted now keeps it.",
            PRICE_VERSION,
        ),
        "changes_at": ("When the price will change, if that is known; see [prices](prices.md).", None),
        "next_usd_per_second": ("What you will be charged from then on.", None),
        "billing_unit": ("Unit of what is billed.", "second"),
    },
    "QuoteView": {
        "object": ("Kind of object.", "quote"),
        "model": ("Id of the model, also where an alias was sent.", "sandbox"),
        "task": ("What would be done with sound.", "text2music"),
        "max_cost_usd": (
            "The most that the job can cost; send it as `max_cost_usd` with the generation.",
            "0.005000000",
        ),
        "usd_per_second": ("What you would be charged for each second.", "0.000250000"),
        "list_usd_per_second": ("The price before a discount.", "0.000250000"),
        "billable_seconds": ("The most seconds that can be billed, of all outputs together.", 20.0),
        "outputs": ("How many songs it would be: `n`.", 1),
        "price_version": ("Id of the price version in force.", PRICE_VERSION),
        "expires_at": (
            "Until then the price stands as far as is known now; see [prices](prices.md#quotes).",
            "2026-11-21T08:15:48.239Z",
        ),
        "available_usd": ("What the organization has free for new jobs.", "4.995000000"),
        "warnings": ("What would be let go, in words.", []),
        "test": ("True for test keys: the same job would be free.", False),
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
        "required_usd": ("With 402 and `price_changed`: what the job can cost at most.", OMITTED),
        "available_usd": ("With 402: what is free.", OMITTED),
        "owed_usd": ("With 402: what is owed and must be paid first.", OMITTED),
        "max_cost_usd": ("With `price_changed`: what you agreed to pay.", OMITTED),
        "price_version": ("With `price_changed`: the version in force.", OMITTED),
    },
}

PATH_VALUES: Final = {
    "job_id": "$JOB",
    "topup_id": "$TOPUP",
    "file_id": "$FILE",
    "endpoint_id": "$ENDPOINT",
    "delivery_id": "$DELIVERY",
    "model_id": "sandbox",
    "month": "$(date -u +%Y-%m)",
}
"""What a curl example puts into a path; another name becomes a shell variable."""

QUERIES: Final = {
    "GET /v1/jobs/{job_id}": "include=attempts",
    "GET /v1/jobs": "status=completed&limit=2",
    "GET /v1/account/usage": "status=completed&limit=2",
    "GET /v1/usage": "group_by=day,model",
    "GET /v1/ledger": "limit=2",
    "GET /v1/files/sign": "file_id=$FILE",
    **WEBHOOK_QUERIES,
}

PARAMETERS: Final = {
    "job_id": "Id of the job, from the submit or a list.",
    "model_id": "Id or alias of a model.",
    "topup_id": "Id of the top-up, from its start or a list.",
    "endpoint_id": "Id of the webhook endpoint.",
    "delivery_id": "Id of the delivery, from a list.",
    "month": "A month by UTC, such as `2026-11`.",
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

CHANGES: Final[dict[str, dict[str, Any]]] = (
    PAYMENT_CHANGES
    | WEBHOOK_CHANGES
    | {
        "POST /v1/audio/generations": _QUEUED | {"cost": _RESERVED},
        "POST /v1/jobs/{job_id}/cancel": _CANCELLED,
        "DELETE /v1/jobs/{job_id}": _CANCELLED,
        "GET /v1/jobs/{job_id}": {"attempts": BUILT},
    }
)
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

OTHERS: Final = PAYMENT_OTHERS | {
    "/docs": "This reference for a browser, where requests can be tried. Loads nothing from elsewhere.",
    "/docs/openapi.json": "The OpenAPI 3.1 document from which this page is made.",
    "/docs/oauth2-redirect.html": "A page of Swagger UI that this API does not need.",
    "/docs/{path}": "An HTML page for what is not below `/docs`.",
    "/docs/assets/{name}": "Scripts and style sheet of the reference.",
}
"""Paths outside the OpenAPI document whose handlers are not ours, or say nothing of themselves."""
