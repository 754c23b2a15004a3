"""What the fuzzer must know beside the OpenAPI document; it imports this file into its own process.

The document says that ranges are the model's and that audio settings depend on the format. So whatever is
meant to be accepted is for the sandbox, within its range, and with settings that its format has. To JSON
Schema 8.0 is a whole number, to us it is not; and our amounts have at most nine decimals. And as no worker
is there, nobody waits for a job or follows one that has not ended. Keys of idempotency are not used twice:
422 would hide what is wrong with a body. Cursors of reports are only what an answer gave; to the document
they are any text.
"""

import os
import re
import uuid
from typing import Any

import schemathesis

ORDERS = {"/v1/audio/generations", "/v1/audio/quotes"}
SANDBOX_SECONDS = (5, 600)
WHOLE = {"num_inference_steps", "steps", "seed", "bpm", "time_signature"}
WITH_CURSORS_OF_THEIR_OWN = {"/v1/usage", "/v1/ledger", "/v1/statements"}
ENDED_JOB = os.environ["ENDED_JOB"]


@schemathesis.hook
def map_case(_: Any, case: Any) -> Any:
    """Bodies for a model that there is; what is valid by the document, made valid for that model."""
    body = case.body
    if case.operation.path in ORDERS and isinstance(body, dict):
        if isinstance(body.get("model"), str):
            body = case.body = body | {"model": "sandbox"}
        if case.meta and case.meta.generation.mode.is_positive:
            case.body = _for_the_sandbox(body)
    return case


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Right before it is sent, wherever its values came from."""
    headers = case.headers or {}
    if "wait" in str(headers.get("Prefer", "")):
        headers["Prefer"] = "wait=0"
    if re.fullmatch("[ -~]+", str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = uuid.uuid4().hex
    if case.operation.path in WITH_CURSORS_OF_THEIR_OWN and case.query:
        case.query.pop("cursor", None)
    if case.operation.path.endswith("/events") and len(str(case.path_parameters.get("job_id"))) == 32:
        case.path_parameters["job_id"] = ENDED_JOB


def _for_the_sandbox(body: dict[str, Any]) -> dict[str, Any]:
    body = dict(body)
    low, high = SANDBOX_SECONDS
    for name in WHOLE & body.keys():
        body[name] = None if body[name] is None else int(body[name])
    for name in ("audio_duration", "duration"):
        if body.get(name) is not None:
            body[name] = min(max(body[name], low), high)
    if isinstance(body.get("max_cost_usd"), float):
        body["max_cost_usd"] = round(body["max_cost_usd"], 9)
    if "audio_settings" in body:
        is_lossy = "mp3" in (body.get("format"), body.get("output_format"))
        body["audio_settings"] = {"bitrate": 192} if is_lossy else None
    return body
