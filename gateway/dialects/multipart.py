"""A form with one file (RFC 7578), written to disk while it arrives; memory holds a block of it, no more."""

import asyncio
import contextlib
import difflib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import multipart  # type: ignore[import-untyped]

from gateway.errors import (
    GatewayError,
    InvalidRequest,
    PayloadTooLarge,
    UnknownParameter,
    UnsupportedMediaType,
)

HEAD_BYTES: Final = 64
MAX_PARTS: Final = 16
MAX_PART_HEADERS: Final = 8
MAX_PART_HEADER_BYTES: Final = 4_096
MAX_FIELD_BYTES: Final = 1_024
MAX_FILE_NAME_CHARACTERS: Final = 200
OVERHEAD_BYTES: Final = 65_536
"""Of a body, for all that is not the file."""

_BLOCK_BYTES: Final = 1 << 20


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent: the file, by now at the path that was asked for, and the texts beside it."""

    filename: str
    size_bytes: int
    sha256: bytes
    fields: dict[str, str]


async def receive_form(
    chunks: AsyncIterator[bytes],
    content_type: str | None,
    *,
    path: Path,
    most_bytes: int,
    names: Sequence[str],
    check_head: Callable[[bytes], None],
) -> Form:
    """Read a body to its end: the part `file` goes to `path`, the parts called `names` are texts.

    `check_head` sees the file's first bytes before the rest is read, and raises what forbids it.

    Raises:
        InvalidRequest, UnsupportedMediaType, PayloadTooLarge: the file may be there in part.
    """
    parser, received = _parser(content_type), 0
    with path.open("wb") as opened:
        receiver = _Receiver(opened, most_bytes=most_bytes, names=names, check_head=check_head)
        with _translated():
            async for chunk in chunks:
                received += len(chunk)
                if received > most_bytes + OVERHEAD_BYTES:
                    raise too_large(most_bytes)
                for event in parser.parse(chunk):
                    receiver.take(event)
                await receiver.write(_BLOCK_BYTES)
            parser.close()
        await receiver.write(1)
    return receiver.form()


class _Receiver:
    """Parts, as they come."""

    def __init__(
        self,
        opened: BinaryIO,
        *,
        most_bytes: int,
        names: Sequence[str],
        check_head: Callable[[bytes], None],
    ) -> None:
        self._opened = opened
        self._most_bytes = most_bytes
        self._names = names
        self._check_head = check_head
        self._fields: dict[str, str] = {}
        self._filename: str | None = None
        self._field = ""
        self._text = bytearray()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._size_bytes = 0
        self._hash = hashlib.sha256()

    def take(self, event: multipart.MultipartSegment | bytearray | bytes | None) -> None:
        """A part's head, some of its bytes, or its end."""
        if isinstance(event, multipart.MultipartSegment):
            self._begin(event)
        elif event is None:
            self._end()
        elif self._field == "file":
            self._size_bytes += len(event)
            if self._size_bytes > self._most_bytes:
                raise too_large(self._most_bytes)
            self._waiting.append(bytes(event))
            self._waiting_bytes += len(event)
        else:
            self._text += event
            if len(self._text) > MAX_FIELD_BYTES:
                raise InvalidRequest(
                    f"{self._field} has more than {MAX_FIELD_BYTES} bytes", param=self._field
                )

    async def write(self, least_bytes: int) -> None:
        """What waits, unless it is less than that."""
        if self._waiting_bytes < least_bytes:
            return
        block = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._size_bytes == len(block):
            self._check_head(block[:HEAD_BYTES])
        await asyncio.to_thread(self._write, block)

    def form(self) -> Form:
        """All of it; raises InvalidRequest if there is no file, or nothing in it."""
        if self._filename is None:
            raise InvalidRequest(
                "there is no file: send one as the part `file` of multipart/form-data", param="file"
            )
        if not self._size_bytes:
            raise InvalidRequest("the file is empty", param="file")
        return Form(
            filename=self._filename,
            size_bytes=self._size_bytes,
            sha256=self._hash.digest(),
            fields=self._fields,
        )

    def _write(self, block: bytes) -> None:
        self._hash.update(block)
        self._opened.write(block)

    def _begin(self, part: multipart.MultipartSegment) -> None:
        name = part.name
        if name == "file":
            if self._filename is not None:
                raise InvalidRequest("there is more than one file: send them one by one", param="file")
            self._filename = _clean_file_name(part.filename)
        elif name not in self._names:
            raise _unknown(name, [*self._names, "file"])
        elif name in self._fields:
            raise InvalidRequest(f"{name!r} is given twice; send it once", param=name)
        self._field = name
        self._text.clear()

    def _end(self) -> None:
        if self._field != "file":
            try:
                text = self._text.decode()
            except UnicodeDecodeError:
                raise InvalidRequest(f"{self._field} is not UTF-8", param=self._field) from None
            if "\x00" in text:
                raise InvalidRequest(f"{self._field} contains a NUL character; remove it", param=self._field)
            self._fields[self._field] = text


def too_large(most_bytes: int) -> PayloadTooLarge:
    """For a file of more bytes than that."""
    return PayloadTooLarge(f"the file is larger than {most_bytes // 1_000_000} MB", param="file")


def _parser(content_type: str | None) -> multipart.PushMultipartParser:
    """Raises UnsupportedMediaType, or InvalidRequest when there is no boundary to go by."""
    media_type, options = multipart.parse_options_header(content_type or "")
    if media_type != "multipart/form-data":
        raise UnsupportedMediaType("send multipart/form-data, with the file as its part `file`")
    boundary = options.get("boundary", "")
    if not 0 < len(boundary) <= 200 or not boundary.isascii() or not boundary.isprintable():
        raise InvalidRequest("the content-type has no usable boundary")
    return multipart.PushMultipartParser(
        boundary,
        max_header_size=MAX_PART_HEADER_BYTES,
        max_header_count=MAX_PART_HEADERS,
        max_segment_count=MAX_PARTS,
    )  # not strict: that refuses a last line break if it comes in a packet of its own


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except multipart.MultipartError as error:
        # Behind the first argument come a library's own errors, with what was sent in them.
        raise InvalidRequest(f"this is no valid multipart/form-data: {str(error.args[0])[:200]}") from error


def _clean_file_name(name: str | None) -> str:
    """Only its last part, without what no file name should have; never empty."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    clean = "".join(char for char in last if char.isprintable()).strip()
    return clean[-MAX_FILE_NAME_CHARACTERS:] or "audio"


def _unknown(name: str, names: Sequence[str]) -> GatewayError:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    short = name[:100]
    return UnknownParameter(
        f"there is no parameter {short!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        param=short,
        suggestion=near[0] if near else None,
    )
