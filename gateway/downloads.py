"""GET and HEAD of `/audio/...`: signed URLs to stored audio, with ranges, or a redirect to S3's own."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import msgspec
from litestar import MediaType, Request, Response, Router, get, head
from litestar.di import NamedDependency
from litestar.exceptions import (
    HTTPException,
    NotFoundException,
    PermissionDeniedException,
    ServiceUnavailableException,
)
from litestar.response import Stream

from gateway.audio import CONTENT_TYPES
from gateway.audio.containers import CONTAINERS
from gateway.signed_urls import (
    SignatureExpired,
    SignatureInvalid,
    SignedGrant,
    UrlSigner,
    content_disposition,
)
from gateway.storage import AudioStore, ObjectHead, ObjectMissing, StoreUnavailable

PREFIX = "/audio/"
_REDIRECT_SECONDS = 300
"""How long S3's URL lives: one download's start, not as long as ours."""
_TYPES = {str(audio_format): content_type for audio_format, content_type in CONTENT_TYPES.items()} | {
    name: container.content_type for name, container in CONTAINERS.items()
}
_RANGE = re.compile(r"bytes=([0-9]{0,64})-([0-9]{0,64})", re.IGNORECASE | re.ASCII)

AnyRequest = Request[Any, Any, Any]


class RangeUnsatisfiable(Exception):
    """A well-formed range that has no byte of the object: 416."""


class ByteRange(msgspec.Struct, frozen=True):
    """Bytes `start` to `end`, the end not included; never empty."""

    start: int
    end: int


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The one range that a Range header asks for; None where the whole object is the answer.

    RFC 9110, 14.2: what is malformed, in another unit, or more than one range is ignored.
    """
    match = _RANGE.fullmatch(header) if header is not None else None
    if match is None or match[0].endswith("=-") or (size_bytes == 0 and not match[1]):
        return None
    first, last = match[1], match[2]
    if not first:
        start, end = max(size_bytes - int(last), 0), size_bytes
    else:
        start, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < start:
            return None
    if start >= end:
        raise RangeUnsatisfiable
    return ByteRange(start, end)


@get("/{key:path}", name="audio")
async def get_audio(
    request: AnyRequest, store: NamedDependency[AudioStore], signer: NamedDependency[UrlSigner]
) -> Response[None] | Stream:
    """The stored file, or the part of it that Range asks for."""
    grant, key = _verified(request, signer)
    redirect = await _redirect(request, store, grant, key)
    if redirect is not None:
        return redirect
    try:
        found = await store.head(key)
        if _has_it_already(request, found):
            return Response(None, status_code=304, headers={"etag": found.etag, "cache-control": "private"})
        part = parse_range(_range_header(request, found), found.size_bytes)
        span = part or ByteRange(0, found.size_bytes)
        chunks = await store.open(key, start=span.start, length=span.end - span.start)
    except RangeUnsatisfiable as error:
        extent = {"content-range": f"bytes */{found.size_bytes}"}
        raise HTTPException(
            "no byte of the file is in that range", status_code=416, headers=extent
        ) from error
    except (ObjectMissing, StoreUnavailable) as error:
        raise _http_error(error) from error
    return _stream(chunks, _headers(key, grant, found, span), part, found)


@head("/{key:path}", name="audio-head")
async def head_audio(
    request: AnyRequest, store: NamedDependency[AudioStore], signer: NamedDependency[UrlSigner]
) -> Response[None]:
    """What GET would answer, without the bytes; HEAD knows no ranges."""
    grant, key = _verified(request, signer)
    redirect = await _redirect(request, store, grant, key)
    if redirect is not None:
        return redirect
    try:
        found = await store.head(key)
    except (ObjectMissing, StoreUnavailable) as error:
        raise _http_error(error) from error
    return Response(None, headers=_headers(key, grant, found, ByteRange(0, found.size_bytes)))


router = Router(PREFIX, route_handlers=[get_audio, head_audio], include_in_schema=False)


def _verified(request: AnyRequest, signer: UrlSigner) -> tuple[SignedGrant, str]:
    path = unquote(request.scope["raw_path"].decode("latin-1"))  # `path` has lost its repeated slashes
    query = request.scope["query_string"].decode("latin-1")
    try:
        grant = signer.verify(request.method, path, query, now=datetime.now(UTC))
    except SignatureExpired as error:
        raise PermissionDeniedException("this link has expired") from error
    except SignatureInvalid as error:
        raise PermissionDeniedException("this link is not valid") from error
    return grant, path.removeprefix(PREFIX)


async def _redirect(
    request: AnyRequest, store: AudioStore, grant: SignedGrant, key: str
) -> Response[None] | None:
    """S3 serves its own objects; a signature of S3's holds for one method, so HEAD gets its own."""
    left = int((grant.expires_at - datetime.now(UTC)).total_seconds())
    try:
        url = await store.presign(
            key,
            expires_seconds=min(left, _REDIRECT_SECONDS),
            method="HEAD" if request.method == "HEAD" else "GET",
        )
    except StoreUnavailable as error:
        raise _http_error(error) from error
    if url is None:
        return None
    return Response(
        None,
        status_code=302,
        headers={"location": url, "cache-control": "no-store"},
        media_type=MediaType.TEXT,
    )


def _stream(
    chunks: AsyncIterator[bytes], headers: dict[str, str], part: ByteRange | None, found: ObjectHead
) -> Stream:
    if part is not None:
        headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{found.size_bytes}"
    return Stream(
        chunks,
        status_code=200 if part is None else 206,
        headers=headers,
        media_type=headers["content-type"],
    )


def _headers(key: str, grant: SignedGrant, found: ObjectHead, span: ByteRange) -> dict[str, str]:
    return {
        "accept-ranges": "bytes",
        "cache-control": "private",
        "content-disposition": content_disposition(grant.filename),
        "content-length": str(span.end - span.start),
        "content-type": _TYPES.get(key.rpartition(".")[2], "application/octet-stream"),
        "etag": found.etag,
        "x-content-type-options": "nosniff",
    }


def _range_header(request: AnyRequest, found: ObjectHead) -> str | None:
    """If-Range with anything but exactly this tag, be it a date or a weak tag, makes the range void."""
    condition = request.headers.get("if-range")
    return request.headers.get("range") if condition in {None, found.etag} else None


def _has_it_already(request: AnyRequest, found: ObjectHead) -> bool:
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return found.etag in known or "*" in known


def _http_error(error: Exception) -> NotFoundException | ServiceUnavailableException:
    if isinstance(error, ObjectMissing):
        return NotFoundException("there is no such file (any more)")
    return ServiceUnavailableException("the audio store does not answer")
