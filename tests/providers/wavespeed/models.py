"""The models in scope: what they take, what they refuse, and what they cost."""

import math
from typing import Any

import msgspec

NANO = 10**9
SECONDS = (5, 240)
DEFAULT_SECONDS = 60
SEEDS = (-1, 2**31 - 1)
MISSING, INVALID = 1400, 1401
_TYPES = {"tags": "string", "lyrics": "string", "duration": "number", "seed": "integer"}


class Model(msgspec.Struct, frozen=True):
    name: str
    nano_per_second: int
    title: str


MODELS = {
    one.name: one
    for one in (
        Model("wavespeed-ai/ace-step", 200_000, "ACE-Step"),
        Model("wavespeed-ai/ace-step-1.5", 300_000, "ACE-Step 1.5"),
    )
}


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(
        self, status: int, message: str, *, code: int | None = None, retry_after: str | int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        self.body: dict[str, Any] = {"code": status, "message": message}
        if code is not None:
            self.body["data"] = {"code": code}


class Asked(msgspec.Struct, frozen=True):
    """A request that the model takes."""

    model: str
    input: dict[str, Any]
    seconds: float
    seed: int
    cost_nano: int
    sync: bool = False
    base64: bool = False
    webhook: str | None = None


def model_named(name: str) -> Model:
    found = MODELS.get(name)
    if found is None:
        raise Refusal(404, f"model {name} not found")
    return found


def read(name: str, body: Any, webhook: str | None) -> Asked:
    """The request held against the model's rules. What is not known is ignored."""
    model = model_named(name)
    members = objects(body)
    _check(members)
    sync, base64 = _flag(members, "enable_sync_mode"), _flag(members, "enable_base64_output")
    webhook = webhook or _webhook(members)
    if webhook and not webhook.startswith(("http://", "https://")):
        raise Refusal(400, "the webhook must be an http or https URL", code=INVALID)
    if webhook and base64:
        raise Refusal(400, "webhook callback does not support base64 output, remove one of the two")
    seconds = members.get("duration", DEFAULT_SECONDS)
    return Asked(
        name,
        {field: value for field, value in members.items() if field in _TYPES},
        seconds,
        int(members.get("seed", -1)),
        round(model.nano_per_second * seconds),
        sync,
        base64,
        webhook,
    )


def price(name: str, inputs: dict[str, Any]) -> int:
    """Nano-USD for a generation with those inputs."""
    model = model_named(name)
    seconds: float = inputs.get("duration", DEFAULT_SECONDS)
    _check({"tags": "any", "duration": seconds})
    return round(model.nano_per_second * seconds)


def objects(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Refusal(400, "the request body must be a JSON object", code=INVALID)
    return body


def _check(members: dict[str, Any]) -> None:
    if members.get("tags") in (None, ""):
        raise Refusal(400, "property tags is required", code=MISSING)
    for field, type_name in _TYPES.items():
        if field in members and not _is(members[field], type_name):
            raise Refusal(400, f"property {field} must be a {type_name}", code=INVALID)
    _check_range("duration", members.get("duration", DEFAULT_SECONDS), SECONDS)
    _check_range("seed", members.get("seed", -1), SEEDS)


def _check_range(field: str, value: float, bounds: tuple[int, int]) -> None:
    least, most = bounds
    if not least <= value <= most:
        raise Refusal(400, f"property {field} must be between {least} and {most}", code=INVALID)


def _is(value: Any, type_name: str) -> bool:
    if type_name == "string":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return type_name == "number" or value == int(value)


def _flag(members: dict[str, Any], field: str) -> bool:
    value = members.get(field, False)
    if not isinstance(value, bool):
        raise Refusal(400, f"property {field} must be a boolean", code=INVALID)
    return value


def _webhook(members: dict[str, Any]) -> str | None:
    value = members.get("webhook_url")
    if value is not None and not isinstance(value, str):
        raise Refusal(400, "property webhook_url must be a string", code=INVALID)
    return value or None
