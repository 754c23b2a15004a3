"""Header fields of a submit: what they may be, and what they mean. Their absence costs a scan, no more."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec
from litestar.openapi.spec import OpenAPIType, Operation, Parameter, Schema

from gateway.dialects.native.guarding import GatewayRequest
from gateway.errors import InvalidRequest

MAX_IDEMPOTENCY_KEY_CHARACTERS: Final = 255
MAX_WAIT_SECONDS: Final = 55
"""Below the minute after which proxies give up."""
MAX_CANCEL_AFTER_SECONDS: Final = 86_400
_KEY_BARE_OR_QUOTED: Final = r'^("[ -~]{1,255}"|[!#-~]([ -~]{0,253}[!-~])?|"([ -~]{0,253}[!#-~])?)$'
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")
_PREFERENCE: Final = re.compile(r'(?:[^,"]|"[^"]*"?)+')
"""Between commas; those within quotes do not count."""
_WHOLE: Final = re.compile(r"[0-9]{1,9}")


class SubmitHeaders(msgspec.Struct, frozen=True):
    """What the client asks for beside the body."""

    idempotency_key: str | None
    is_retry: bool
    wait_seconds: int | None
    cancel_after: timedelta | None


@dataclass
class SubmitOperation(Operation):
    """A submit in the OpenAPI description. As arguments, its header fields would cost each request 10 us."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or ()), *_PARAMETERS]


def read_submit_headers(request: GatewayRequest) -> SubmitHeaders:
    """Raises InvalidRequest, naming the field and a value that would do."""
    retries = request.header(b"x-stainless-retry-count")
    return SubmitHeaders(
        idempotency_key=idempotency_key(request.header(b"idempotency-key")),
        is_retry=retries is not None and bool(_WHOLE.fullmatch(retries)) and int(retries) > 0,
        wait_seconds=preferred_wait(request.header(b"prefer")),
        cancel_after=cancel_after(request.header(b"cancel-after")),
    )


def idempotency_key(header: str | None) -> str | None:
    """The key, bare or quoted as the IETF draft has it."""
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _PRINTABLE.fullmatch(key) or len(key) > MAX_IDEMPOTENCY_KEY_CHARACTERS:
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} printable ASCII characters",
            param="Idempotency-Key",
            suggestion="a UUID",
        )
    return key


def preferred_wait(header: str | None) -> int | None:
    """Seconds of `wait`, alone or among other preferences (RFC 7240); without a value, the most."""
    if header is None:
        return None
    for preference in _PREFERENCE.findall(header):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            return _seconds("Prefer", value, 0, MAX_WAIT_SECONDS) if value.strip() else MAX_WAIT_SECONDS
    return None


def cancel_after(header: str | None) -> timedelta | None:
    """How long the job may take before it is cancelled."""
    if header is None:
        return None
    return timedelta(seconds=_seconds("Cancel-After", header, 1, MAX_CANCEL_AFTER_SECONDS))


def _seconds(name: str, text: str, low: int, high: int) -> int:
    value = text.strip().strip('"')
    if not _WHOLE.fullmatch(value) or not low <= int(value) <= high:
        nearest = min(max(int(value), low), high) if _WHOLE.fullmatch(value) else high
        raise InvalidRequest(
            f"{name} takes {low} to {high} whole seconds",
            param=name,
            suggestion=f"wait={nearest}" if name == "Prefer" else str(nearest),
        )
    return int(value)


def _parameter(name: str, description: str, schema: Schema) -> Parameter:
    return Parameter(name=name, param_in="header", description=description, schema=schema, required=False)


_PARAMETERS: Final = [
    _parameter(
        "Idempotency-Key",
        f"1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} printable ASCII characters of your choice; with the same "
        "key, the same body is one job, however often it is sent.",
        Schema(type=OpenAPIType.STRING, pattern=_KEY_BARE_OR_QUOTED),
    ),
    _parameter(
        "Prefer",
        f"`wait=N`: answer 200 with the finished job if it ends within N seconds (0 to {MAX_WAIT_SECONDS}), "
        "else 202 as always.",
        Schema(type=OpenAPIType.STRING, examples=["wait=30"]),
    ),
    _parameter(
        "Cancel-After",
        f"Cancel the job, uncharged, unless it ends within so many seconds, 1 to {MAX_CANCEL_AFTER_SECONDS}.",
        Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=MAX_CANCEL_AFTER_SECONDS),
    ),
    _parameter(
        "x-stainless-retry-count",
        "Sent by OpenAI's clients: from 1 on, and without an Idempotency-Key, the newest job of the last 10 "
        "minutes with the same API key and body is answered instead of a second one.",
        Schema(type=OpenAPIType.STRING, examples=["1"]),
    ),
]
