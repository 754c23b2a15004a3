"""Uploaded files: tickets, their slots, the older forms, and who may read them."""

import io
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multipart import MultipartError, MultipartParser, parse_options_header

from tests.providers.wavespeed.models import INVALID, MISSING, Refusal, objects
from tests.providers.wavespeed.predictions import Account
from tests.providers.wavespeed.requests import Recorded, Reply, json_of, success, whole_number

if TYPE_CHECKING:
    from tests.providers.wavespeed.stand_in import WaveSpeedStandIn

MOST_UPLOAD_BYTES = 200 * 1024 * 1024
MOST_BINARY_BYTES = 100 * 1024 * 1024


@dataclass
class Stored:
    """An uploaded file; no content until it was put."""

    name: str
    size: int
    media_type: str
    token: str
    content: bytes | None = None


class Uploads:
    """Like `Api`, for files."""

    def __init__(self, stand_in: "WaveSpeedStandIn") -> None:
        self._stand_in = stand_in
        self._stored: dict[str, Stored] = {}

    async def ticket(self, request: Recorded, _: Account) -> Reply:
        wanted = objects(json_of(request))
        name = wanted.get("filename")
        if not isinstance(name, str) or not name:
            raise Refusal(400, "property filename is required", code=MISSING)
        size = whole_number(wanted, "size", 0, 2**53, default=None)
        if size > MOST_UPLOAD_BYTES:
            raise Refusal(413, "file too large")
        media_type = wanted.get("content_type") or "application/octet-stream"
        slot = self._store(name, size, str(media_type))
        headers = {"Content-Type": slot.media_type, "X-Upload-Token": slot.token}
        url = f"{self._stand_in.url}/upload-slot/{slot.name}"
        return success(self._uploaded(slot) | {"upload": {"method": "PUT", "url": url, "headers": headers}})

    async def put(self, request: Recorded) -> Reply:
        """As signed storage does it: the permission is in the headers, and a second one is refused."""
        slot = self._stored.get(request.named)
        allowed = {} if slot is None else {"content-type": slot.media_type, "x-upload-token": slot.token}
        if slot is None or any(request.headers.get(name) != value for name, value in allowed.items()):
            raise Refusal(403, "signature does not match")
        if "authorization" in request.headers:
            raise Refusal(400, "only one way of authentication is allowed")
        if len(request.body) != slot.size:
            raise Refusal(400, "the size is not the one that was announced")
        slot.content = request.body
        return Reply(200, b"")

    async def upload(self, request: Recorded, _: Account) -> Reply:
        name, media_type, content = _file(request)
        if len(content) > MOST_BINARY_BYTES:
            raise Refusal(413, "file too large")
        slot = self._store(name, len(content), media_type)
        slot.content = content
        data = self._uploaded(slot)
        return success(data | {"url": data["download_url"]})

    async def file(self, request: Recorded) -> Reply:
        found = self._stored.get(request.named)
        if found is None or found.content is None:
            raise Refusal(404, "file not found")
        return Reply(200, found.content, media_type=found.media_type)

    def _store(self, name: str, size: int, media_type: str) -> Stored:
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-80:]
        slot = Stored(f"{secrets.token_hex(8)}-{safe}", size, media_type, secrets.token_hex(16))
        self._stored[slot.name] = slot
        return slot

    def _uploaded(self, slot: Stored) -> dict[str, Any]:
        kind = slot.media_type.partition("/")[0]
        return {
            "type": kind if kind in ("audio", "image", "video") else "file",
            "download_url": f"{self._stand_in.url}/files/{slot.name}",
            "filename": slot.name,
            "size": slot.size,
        }


def _file(request: Recorded) -> tuple[str, str, bytes]:
    """Name, type and bytes of the form's field `file`."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or "boundary" not in options:
        raise Refusal(400, "the request body must be multipart/form-data", code=INVALID)
    try:
        parser = MultipartParser(io.BytesIO(request.body), options["boundary"], len(request.body))
        found = next((part for part in parser if part.name == "file" and part.filename), None)
    except MultipartError:
        raise Refusal(400, "the form is broken", code=INVALID) from None
    if found is None:
        raise Refusal(400, "property file is required", code=MISSING)
    return found.filename or "", found.content_type or "application/octet-stream", found.raw
