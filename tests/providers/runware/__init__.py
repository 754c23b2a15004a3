"""A stateful stand-in for Runware's music API: HTTP, WebSocket, files and webhooks, over a real socket.

It follows the vendor's wire format for the ACE-Step models, so that the vendor's own unmodified packages
(`runware`, `runware-sdk`) drive it. All is kept in memory.

In a test:

    from tests.providers.runware import Drop, Outputs, RunwareStandIn, Status, running

    async with running() as stand_in:
        backend = ...(stand_in.url, stand_in.key)       # http://127.0.0.1:PORT/v1; .ws_url for sockets
        stand_in.fail_next("audioInference", Status(429, "rateLimitExceeded", retry_after=1))
        stand_in.fail_next("audioInference", Drop(after_accepting=True))
        stand_in.fail_next("audioInference", Outputs("silent"))
        ...
        assert stand_in.tasks[task_uuid].accepted == 1
        assert [one.task_types for one in stand_in.requests] == [["audioInference"], ["getResponse"]]

`stand_in` has

    url, ws_url, origin, key          where it listens, and a key of the first account
    processing_seconds                how long a task takes from its acceptance; 0.2 unless changed
    balance_nano, account             of the first account; more with add_account(key, balance_nano)
    requests                          every request and frame as it came: tasks, headers, path, body, fault
    downloads                         the same of files
    tasks                             taskUUID -> Task: .accepted, .offered, .state, .items, .cost_nano, ...
    media                             mediaUUID -> Media, what was stored
    hooks, uploads                    what was sent to webhookURL and uploadEndpoint, and how it was answered
    hook_retry_seconds                pauses before each try of a webhook: 0, 5, 30, 120, 600
    fail_next(where, fault, times=1)  what befalls the next requests; faults of one place queue up
    pending_faults(), clear_faults()
    hold(), release()                 tasks run, and none ends until released
    await finish(task_uuid)           ends now; set tasks[task_uuid].failure first, and it fails
    forget(task_uuid)                 the task is unknown from now on (expired)
    cut_sockets(), await close_sockets(code)
    await settled()                   all tasks ended, all webhooks and uploads sent

Places (`where`): a task type ("audioInference", "getResponse", "mediaStorage", "accountManagement",
"getTaskDetails", "authentication", "ping"), "download" (a file's URL), or "webhook".

Faults, each with the places where it works:

    Status(code, error_code=None, message=None, retry_after=None)
                            not accepted; that HTTP status and an `errors` body (a file: just the status)
    Drop(after_accepting=False)
                            the connection is cut: before anything is done, or when the task exists
                            (a file: in its middle)
    Delay(seconds, after_accepting=False)
                            the request waits before it is handled, or its answer waits
    Raw(body, code=200, content_type="application/json")
                            these bytes are the answer; nothing accepted
    Huge(bytes_count, code=200)
                            a body of that length, streamed; nothing accepted
    Hostile(kind)           handled, and the answer is turned into: "wrong_types", "nulls", "deep", "missing",
                            "foreign" (another task's UUID), "duplicates", "both" (`errors` of a stranger
                            beside `data`), "not_object", "no_data", "huge_numbers"; not for files
    TaskFails(code="inferenceError", message=...)
                            audioInference: accepted, and failed at its end ("contentPolicyViolation", ...)
    Outputs(kind)           audioInference: ends in success, with bad audio: "silent", "clipped", "truncated",
                            "half", "double", "short" (7 % missing), "long" (7 % more), "text", "empty",
                            "huge" (600 MB, streamed), "missing" (404), "redirect" (to a private address),
                            "private" (the URL itself is one), "fewer" and "none" (items), "mono"
    Hook(kind, seconds=0)   webhook: "duplicate", "early" (before the task ended), "late" (by `seconds`),
                            "forged" (a stranger's, before the true one), "never"

Alone, for development; prints one line of JSON with its addresses and key:

    python -m tests.providers.runware --port 12112

`POST /_control` takes one JSON object, of any of these members (bytes are base64), and answers the state:

    {"fail_next": {"where": "audioInference", "fault": {"type": "Status", "code": 503}, "times": 2},
     "set": {"processing_seconds": 5, "balance_nano": 0},
     "do": ["hold" | "release" | "clear_faults" | "cut_sockets"], "forget": "<taskUUID>"}
"""

from tests.providers.runware.account import Account, Media, Request, Sent, Task
from tests.providers.runware.faults import (
    Delay,
    Drop,
    Fault,
    Hook,
    Hostile,
    Huge,
    Outputs,
    Raw,
    Status,
    TaskFails,
    Where,
)
from tests.providers.runware.running import API_KEY, RunwareStandIn, running

__all__ = [
    "API_KEY",
    "Account",
    "Delay",
    "Drop",
    "Fault",
    "Hook",
    "Hostile",
    "Huge",
    "Media",
    "Outputs",
    "Raw",
    "Request",
    "RunwareStandIn",
    "Sent",
    "Status",
    "Task",
    "TaskFails",
    "Where",
    "running",
]
