"""What the fuzzer must know beside the OpenAPI document; it imports this file into its own process.

The document says that ranges are the model's and that audio settings depend on the format. So whatever is
meant to be accepted is for the sandbox, within its range, with settings that its format has, and with the
sound and the fields of its task; that an alias stands beside its field only as null is more than the fuzzer
can spell out. To JSON
Schema 8.0 is a whole number, to us it is not; and our amounts have at most nine decimals. And as no worker
is there, nobody waits for a job or follows one that has not ended. Keys of idempotency are not used twice:
422 would hide what is wrong with a body. Cursors of reports are only what an answer gave; to the document
they are any text. To the document a file is any bytes: what is meant to be accepted is a sound. It
cannot say what a URL is that can be reached; and nothing is to be sent to the one that stands for it.
"""

import os
import re
import uuid
from typing import Any

import schemathesis

TONE = (
    b"RIFF\x24\x13\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\0\x13\0\0"
    + b"\x40\xc0" * 2_432
)
"""0.6 s at 8 kHz, one byte a sample."""
ORDERS = {"/v1/audio/generations", "/v1/audio/quotes"}
SANDBOX_SECONDS = (5, 600)
SOUND = "https://music.example/song.flac"
HOOK = "https://hooks.example/in"
WHOLE = {"num_inference_steps", "steps", "seed", "bpm", "time_signature", "n", "ttl"}
ALIASES = {
    "input": "prompt",
    "duration": "audio_duration",
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "output_format": "format",
}
FIELDS_OF_TASKS = {
    "cover": {"cover_strength", "cover_noise_strength"},
    "repaint": {"repainting_start", "repainting_end"},
    "extract": {"track_name"},
    "lego": {"track_name"},
    "complete": {"track_classes"},
}
WITH_CURSORS_OF_THEIR_OWN = {"/v1/usage", "/v1/ledger", "/v1/statements"}
ENDED_JOB = os.environ["ENDED_JOB"]


@schemathesis.hook
def before_load_schema(_: Any, raw_schema: dict[str, Any]) -> None:
    """Without what is said about aliases."""
    del raw_schema["components"]["schemas"]["GenerationBody"]["allOf"]


@schemathesis.hook
def map_case(_: Any, case: Any) -> Any:
    """Bodies for a model that there is; what is valid by the document, made valid for that model."""
    body = case.body
    if case.operation.path in ORDERS and isinstance(body, dict):
        if isinstance(body.get("model"), str):
            body = case.body = body | {"model": "sandbox"}
        if case.meta and case.meta.generation.mode.is_positive:
            case.body = _for_the_sandbox(body)
    if case.operation.path.startswith("/v1/webhooks") and isinstance(body, dict) and case.meta:
        case.body = _for_a_hook(body) if case.meta.generation.mode.is_positive else body
    if case.operation.path == "/v1/files" and isinstance(body, dict) and case.meta:
        # A key too many counts as invalid, to the fuzzer alone.
        case.body = body | {"file": TONE if case.meta.generation.mode.is_positive else b"no sound"}
    return case


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Right before it is sent, wherever its values came from: examples of the document pass no other hook."""
    map_case(_, case)
    headers = case.headers or {}
    if "wait" in str(headers.get("Prefer", "")):
        headers["Prefer"] = "wait=0"
    if re.fullmatch("[ -~]+", str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = uuid.uuid4().hex
    if case.operation.path in WITH_CURSORS_OF_THEIR_OWN and case.query:
        case.query.pop("cursor", None)
    if case.operation.path.endswith("/test"):
        case.path_parameters["endpoint_id"] = uuid.uuid4().hex
    if case.operation.path.endswith("/events") and len(str(case.path_parameters.get("job_id"))) == 32:
        case.path_parameters["job_id"] = ENDED_JOB


def _for_the_sandbox(body: dict[str, Any]) -> dict[str, Any]:
    body = _for_its_task({name: value for name, value in body.items() if body.get(ALIASES.get(name)) is None})
    low, high = SANDBOX_SECONDS
    for name in WHOLE & body.keys():
        body[name] = None if body[name] is None else int(body[name])
    for name in ("audio_duration", "duration"):
        if body.get(name) is not None:
            body[name] = min(max(body[name], low), high)
    if isinstance(body.get("max_cost_usd"), float):
        body["max_cost_usd"] = round(body["max_cost_usd"], 9)
    for name in {"webhook_url", "upload_url"} & body.keys():
        body[name] = None if body[name] is None else SOUND
    if body.get("upload_url") is not None:
        body["n"] = 1
    if "audio_settings" in body:
        is_lossy = "mp3" in (body.get("format"), body.get("output_format"))
        body["audio_settings"] = {"bitrate": 192} if is_lossy else None
    return body


def _for_a_hook(body: dict[str, Any]) -> dict[str, Any]:
    """One that is told of nothing that happens here."""
    changes = {"url": HOOK} if "url" in body else {}
    return body | changes | {"events": ["endpoint.disabled"]}


def _for_its_task(body: dict[str, Any]) -> dict[str, Any]:
    """What the task needs is there, what belongs to others is not, and nobody is strict."""
    task = body.get("task") or "text2music"
    own = FIELDS_OF_TASKS.get(task, set())
    for name in set().union(*FIELDS_OF_TASKS.values()) - own | {"source_audio", "thinking", "strict"}:
        body.pop(name, None)
    if body.get("reference_audio") is not None:
        body["reference_audio"] = SOUND
    if own:
        body["source_audio"] = SOUND
    if "track_name" in own:
        body["track_name"] = body.get("track_name") or "drums"
    ends = [body.get("cfg_interval_start"), body.get("cfg_interval_end")]
    if None not in ends:
        body["cfg_interval_start"], body["cfg_interval_end"] = sorted(ends)
    if body.get("repainting_end") is not None:
        body["repainting_start"] = -1
    return body
