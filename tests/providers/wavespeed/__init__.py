"""A stand-in for WaveSpeed: its API, its files and its signed webhooks, over a real socket.

It speaks the vendor's wire format, so that the unmodified `wavespeed` package drives it. All is kept in
memory.

In a test:

    from tests.providers.wavespeed import Drop, Outputs, Status, TaskFails, WaveSpeedStandIn, running

    async with running() as stand_in:                   # a free port of the loopback interface
        base, key = stand_in.url, stand_in.key          # paths begin `{base}/api/v3/`
        stand_in.processing_seconds = 0                 # default 0.2; None: until complete() or fail()
        stand_in.fail_next("submit", Drop(after_accepting=True))
        stand_in.fail_next("poll", Status(429, retry_after=1), times=3)
        stand_in.fail_next("submit", TaskFails(1200, "content refused"))
        stand_in.fail_next("submit", Outputs("silent"))
        ...
        assert len(stand_in.predictions) == stand_in.submits == 1       # never sent twice
        assert stand_in.balance_nano == START_BALANCE_NANO - 60 * 300_000

Faults of requests ("submit", "poll", "list", "delete", "upload", "put", "balance", "pricing", "models",
"secret", "download"), described in `faults`; `times=None` is until `clear_faults()`:

    Status(code, body=None, retry_after=None, location=None, after_accepting=False)
    Drop(after_accepting=False), Delay(seconds, after_accepting=False)
    Raw(body, instead_of_http=False), Huge(bytes_count, compressed=False)
    Cut() halfway, Drip(pause_seconds) byte by byte
    Odd(kind)       "nulls", "wrong_types", "deep", "bare", "no_data", "no_id", "list", "infinite",
                    "foreign_id", "path_in_id", "long_id", "odd_outputs"

Faults of what is submitted; they wait until a prediction is accepted, and so go together with those above:

    TaskFails(code, error, status="failed"), Takes(seconds), Outputs(kind, share=0.97)
                    "silent", "clipped", "truncated", "half", "double", "short", "text", "page", "huge",
                    "missing", "redirect", "private", "local", "empty", "wav", "flac"

Faults of webhooks ("webhook"): Delay(seconds), and

    Hooks(kind)     "duplicate", "early", "late", "forged", "old", "altered", "unsigned", "never"

Several of one place befall one request each, in order. Beside them:

    complete(id), fail(id, TaskFails(...))      end a prediction now
    await send_hook(id, "good" | "forged" | "old" | "altered" | "unsigned", url=...), hooks_settled()
    async with down()                           connections are refused
    add_account(key, balance_nano)              another customer
    list_lag_seconds, tasks_at_once, sync_seconds, sender.waits (before each try of a webhook)

State: `predictions` (id to Prediction: model, input, status, code, cost_nano, seconds, seed, deleted, ended,
created_at, output_url; those that were deleted stay), `requests` (kind, method, path, query, headers, body,
json()), `submits` and `polls` (how many came), `hooks` (each delivery of a webhook: headers, body, status),
`balance_nano` (may be set), `webhook_secret`. An unseeded prediction draws 1, 2, 3...: the same songs in each
test, made once for each process.

Alone, for development; `POST /_control` does what `fail_next`, `complete` and so on do (see `control`):

    python -m tests.providers.wavespeed --port 12112
    curl -d '{"do": "fail_next", "where": "poll", "fault": {"type": "Status", "code": 503}}' URL/_control
"""

from tests.providers.wavespeed.faults import (
    Cut,
    Delay,
    Drip,
    Drop,
    Fault,
    Hooks,
    Huge,
    Odd,
    Outputs,
    Raw,
    Status,
    Takes,
    TaskFails,
)
from tests.providers.wavespeed.predictions import START_BALANCE_NANO, Prediction
from tests.providers.wavespeed.stand_in import API_KEY, WaveSpeedStandIn, running

__all__ = [
    "API_KEY",
    "START_BALANCE_NANO",
    "Cut",
    "Delay",
    "Drip",
    "Drop",
    "Fault",
    "Hooks",
    "Huge",
    "Odd",
    "Outputs",
    "Prediction",
    "Raw",
    "Status",
    "Takes",
    "TaskFails",
    "WaveSpeedStandIn",
    "running",
]
