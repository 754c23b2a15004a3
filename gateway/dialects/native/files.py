"""Sound that clients bring: upload, read, list, sign, delete; shaped as OpenAI's clients know it."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.params import FromPath
from litestar.status_codes import HTTP_200_OK

from gateway.auth.principal import Scope
from gateway.dialects.multipart import OVERHEAD_BYTES, Form, receive_form, too_large
from gateway.dialects.native.answers import Answer
from gateway.dialects.native.documents import ERRORS, FILE_ERRORS, FINDING_ERRORS, ID, query
from gateway.dialects.native.file_documents import (
    MAX_PURPOSE_CHARACTERS,
    MAX_RETENTION_SECONDS,
    MIN_RETENTION_SECONDS,
    UploadOperation,
)
from gateway.dialects.native.guarding import GatewayRequest, origin, require_key
from gateway.dialects.native.queries import read_cursor, read_limit
from gateway.dialects.native.render import LINK_LIFETIME, iso
from gateway.errors import InvalidRequest
from gateway.files.service import MAX_FILE_BYTES, Upload, check_head, content_type_of
from gateway.files.store import RETENTION, StoredFile
from gateway.generation import SAMPLE_RATE
from gateway.jobs.reading import MAX_PAGE

_FIELDS: Final = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
_PURPOSE: Final = re.compile(rf"[ -~]{{1,{MAX_PURPOSE_CHARACTERS}}}")
_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


class FileView(msgspec.Struct, kw_only=True):
    """An uploaded file. Times are Unix seconds; `url` needs no credentials and expires."""

    id: str
    file_id: str
    object: str = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str | None
    status: str = "processed"
    content_type: str
    duration_seconds: float
    sample_rate: int
    channels: int
    sha256: str
    url: str


class FileList(msgspec.Struct, kw_only=True):
    """A page of files, newest first; pass `next_cursor` as `cursor` for the next one."""

    object: str = "list"
    data: list[FileView]
    has_more: bool
    first_id: str | None
    last_id: str | None
    next_cursor: str | None


class DeletedFile(msgspec.Struct, kw_only=True):
    """A file that is no longer there."""

    id: str
    object: str = "file"
    deleted: bool = True


class SignedFile(msgspec.Struct, kw_only=True):
    """A link to a file's bytes, and until when it works."""

    url: str
    expires_at: str


@post(
    "/files",
    status_code=HTTP_200_OK,
    summary="Upload a file",
    responses=FILE_ERRORS,
    operation_class=UploadOperation,
    scope=Scope.GENERATE,
)
async def upload_file(request: GatewayRequest) -> Response[FileView]:
    """Upload sound for `source_audio` or `reference_audio`.

    Send `multipart/form-data` with the part `file`, at most 100 MB and 600 s. What is in it is told by
    its first bytes, not by its name. It is decoded once, so its length is known and a job will be able
    to read it; its bytes are kept as they are for 7 days, or for as long as a job waits for them.
    """
    return await take_upload(request)


@post("/files/upload", status_code=HTTP_200_OK, include_in_schema=False, scope=Scope.GENERATE)
async def upload_file_there(request: GatewayRequest) -> Response[FileView]:
    """The same, where clients of another service send it."""
    return await take_upload(request)


@get("/files/{file_id:str}", summary="Read a file's facts", responses=FINDING_ERRORS)
async def read_file(request: GatewayRequest, file_id: FromPath[str]) -> FileView:
    """One uploaded file, with a fresh link to its bytes."""
    return _view(request, await request.desk.files.find(request.auth, file_id))


@get("/files/sign", summary="Sign a link to a file", responses=FINDING_ERRORS)
async def sign_file(
    request: GatewayRequest,
    file_id: Annotated[str, query("`id` of a file.", type="string", pattern=ID)],
) -> SignedFile:
    """A fresh link to the bytes of an uploaded file; it needs no credentials."""
    stored = await request.desk.files.find(request.auth, file_id)
    return SignedFile(url=_link(request, stored), expires_at=iso(_link_expiry(stored)))


@get("/files", summary="List files", responses=ERRORS)
async def list_files(
    request: GatewayRequest,
    limit: Annotated[int, query(f"Files per page, 1 to {MAX_PAGE}.", minimum=1, maximum=MAX_PAGE)] = 20,
    cursor: Annotated[
        str | None, query("`next_cursor` of an earlier page.", type="string", pattern=ID)
    ] = None,
    after: Annotated[
        str | None, query("The same as `cursor`, as OpenAI's clients send it.", type="string", pattern=ID)
    ] = None,
    purpose: Annotated[str | None, query("Only files of this purpose.", type="string")] = None,
) -> FileList:
    """Files of the organization (of a project key: its project), newest first."""
    if purpose is not None and "\x00" in purpose:
        raise InvalidRequest("purpose contains a NUL character", param="purpose")
    before = read_cursor(cursor) or read_cursor(after, "after")
    page, has_more = await request.desk.files.list(
        request.auth, limit=read_limit(limit), before=before, purpose=purpose
    )
    views = [_view(request, stored) for stored in page]
    last = views[-1].id if views else None
    return FileList(
        data=views,
        has_more=has_more,
        first_id=views[0].id if views else None,
        last_id=last,
        next_cursor=last if has_more else None,
    )


@delete(
    "/files/{file_id:str}",
    status_code=HTTP_200_OK,
    summary="Delete a file",
    responses=FINDING_ERRORS,
    scope=Scope.GENERATE,
)
async def delete_file(request: GatewayRequest, file_id: FromPath[str]) -> DeletedFile:
    """Delete an uploaded file. Jobs that were submitted with it can still read it; nothing else can."""
    return DeletedFile(id=(await request.desk.files.delete(request.auth, file_id)).hex)


router: Final = Router(
    "/v1",
    route_handlers=[upload_file, upload_file_there, sign_file, list_files, read_file, delete_file],
    before_request=require_key,
    opt={"scope": Scope.READ},
    request_class=GatewayRequest,
    security=[{"bearer": []}, {"x-api-key": []}],
)


async def take_upload(request: GatewayRequest) -> Response[FileView]:
    """Receive the form, decode its file and store it; nothing of a refused one is left."""
    files = request.desk.files
    if int(request.header(b"content-length") or 0) > MAX_FILE_BYTES + OVERHEAD_BYTES:
        raise too_large(MAX_FILE_BYTES)
    path = files.scratch / f"upload-{secrets.token_hex(8)}"
    with files.receiving(request.auth):
        await files.check_room(request.auth)
        try:
            form = await receive_form(
                _chunks(request),
                request.header(b"content-type"),
                path=path,
                most_bytes=MAX_FILE_BYTES,
                names=_FIELDS,
                check_head=check_head,
            )
            stored = await files.keep(
                request.auth,
                Upload(
                    path=path,
                    filename=form.filename,
                    size_bytes=form.size_bytes,
                    sha256=form.sha256,
                    purpose=_purpose(form),
                    retention=_retention(form),
                ),
            )
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)
    return Answer(_view(request, stored))


async def _chunks(request: GatewayRequest) -> AsyncIterator[bytes]:
    """The body as it arrives."""
    more = True
    while more:
        message = await request.receive()
        if message["type"] != "http.request":
            raise InvalidRequest("the body ended early: the connection was closed")
        more = message.get("more_body", False)
        yield message["body"]


def _purpose(form: Form) -> str | None:
    purpose = form.fields.get("purpose") or None
    if purpose is not None and not _PURPOSE.fullmatch(purpose):
        raise InvalidRequest(
            f"purpose must be 1 to {MAX_PURPOSE_CHARACTERS} printable ASCII characters",
            param="purpose",
            suggestion="user_data",
        )
    return purpose


def _retention(form: Form) -> timedelta:
    """As OpenAI's clients ask for it."""
    anchor, seconds = (form.fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    if anchor not in {None, "created_at"}:
        raise InvalidRequest(
            "expires_after[anchor] must be created_at", param="expires_after[anchor]", suggestion="created_at"
        )
    if seconds is None:
        return RETENTION
    low, high = MIN_RETENTION_SECONDS, MAX_RETENTION_SECONDS
    if not _SECONDS.fullmatch(seconds) or not low <= int(seconds) <= high:
        raise InvalidRequest(
            f"expires_after[seconds] must be a whole number from {low} to {high}",
            param="expires_after[seconds]",
            suggestion=str(int(RETENTION.total_seconds())),
        )
    return timedelta(seconds=int(seconds))


def _view(request: GatewayRequest, stored: StoredFile) -> FileView:
    return FileView(
        id=stored.id.hex,
        file_id=stored.id.hex,
        bytes=stored.size_bytes,
        created_at=int(stored.created_at.timestamp()),
        expires_at=int(stored.expires_at.timestamp()),
        filename=stored.filename,
        purpose=stored.purpose,
        content_type=content_type_of(stored),
        duration_seconds=stored.frames / SAMPLE_RATE,
        sample_rate=stored.sample_rate,
        channels=stored.channels,
        sha256=stored.sha256.hex(),
        url=_link(request, stored),
    )


def _link(request: GatewayRequest, stored: StoredFile) -> str:
    """An attachment, always: what strangers have uploaded is never shown as a page of ours."""
    path = f"/audio/{stored.key}"
    desk = request.desk
    signed = desk.signer.sign(path, expires_at=_link_expiry(stored), filename=stored.filename)
    return f"{desk.settings.public_url or origin(request)}{path}?{signed}"


def _link_expiry(stored: StoredFile) -> datetime:
    return min(datetime.now(UTC) + LINK_LIFETIME, stored.expires_at)
