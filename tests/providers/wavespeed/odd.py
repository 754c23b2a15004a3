"""Bodies that no documentation describes."""

import secrets
import zlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from tests.providers.wavespeed.faults import Oddity

BLOCK_BYTES = 1 << 16
DEPTH = 100_000
WRONG_TYPES = {
    "id": 7,
    "model": False,
    "input": "tags",
    "outputs": {"0": "https://example.com/a.mp3"},
    "urls": [],
    "has_nsfw_contents": "no",
    "status": ["completed"],
    "created_at": 5,
    "error": {"message": "none"},
    "code": "0",
    "executionTime": "long",
    "timings": 3,
    "items": {"0": 1},
    "total": "many",
    "page": None,
    "balance": "lots",
    "unit_price": [],
    "deleted_count": {},
    "upload": "PUT",
    "download_url": 1,
}


FIXED = {
    "deep": b'{"code":200,"message":"success","data":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "infinite": b'{"code":200,"message":"success","data":{"id":"a","status":"processing","balance":1e999,'
    b'"code":99999999999999999999999999,"executionTime":NaN,"total":-Infinity}}',
    "list": b"[]",
}


def body(kind: Oddity, right: bytes) -> bytes:
    """That oddity in place of the right answer, with as much of it as fits."""
    if kind in FIXED:
        return FIXED[kind]
    envelope = msgspec.json.decode(right)
    data = envelope.pop("data", None)
    if kind == "bare":
        return msgspec.json.encode(data)
    if kind == "no_data":
        return msgspec.json.encode(envelope)
    return msgspec.json.encode(envelope | {"data": _spoiled(kind, data)})


def _spoiled(kind: Oddity, data: Any) -> Any:
    if not isinstance(data, dict):
        return None
    if "items" in data and kind != "wrong_types":
        return data | {"items": [None if kind == "nulls" else _spoiled(kind, one) for one in data["items"]]}
    if kind == "wrong_types":
        return {name: WRONG_TYPES.get(name) for name in data}
    members: dict[str, dict[str, Any]] = {
        "nulls": dict.fromkeys(data),
        "foreign_id": {"id": secrets.token_hex(16)},
        "path_in_id": {"id": "../../balance?a="},
        "long_id": {"id": "a" * DEPTH},
        "odd_outputs": {"status": "completed", "outputs": [None, 5, {"url": "https://example.com/a.mp3"}]},
    }
    spoiled = data | members.get(kind, {})
    if kind == "no_id":
        spoiled.pop("id", None)
    return spoiled


async def huge(media_type: str, bytes_count: int) -> AsyncIterator[bytes]:
    """Text that does not end for so long, or sound."""
    begin = b'{"code":200,"message":"' if media_type == "application/json" else b""
    async for block in followed(begin, b" " if begin else b"\x00", bytes_count):
        yield block


async def followed(begin: bytes, filler: bytes, bytes_count: int) -> AsyncIterator[bytes]:
    yield begin
    block = filler * BLOCK_BYTES
    for place in range(len(begin), bytes_count, BLOCK_BYTES):
        yield block[: bytes_count - place]


async def compressed(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """By gzip."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    async for block in blocks:
        if packed := packer.compress(block):
            yield packed
    yield packer.flush()
