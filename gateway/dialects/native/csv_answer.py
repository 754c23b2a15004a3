"""Tables as CSV (RFC 4180), streamed, with text that no spreadsheet takes for a formula."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from litestar import Response
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIResponse, OpenAPIType, Operation, Schema
from litestar.response import Stream

from gateway.signed_urls import content_disposition

CSV: Final = "text/csv"
_FORMULAS: Final = tuple("=+-@\t\r\n\uff0b\uff0d\uff1d\uff20")
"""What spreadsheets take for the beginning of one, also in full width."""

Row = Sequence[str]


@dataclass
class CsvOperation(Operation):
    """A read in the OpenAPI description whose answer may be a table."""

    def __post_init__(self) -> None:
        answer = (self.responses or {}).get("200")
        if isinstance(answer, OpenAPIResponse) and answer.content is not None:
            answer.content[CSV] = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))


def csv_answer(head: Row, chunks: AsyncIterator[Sequence[Row]], *, name: str) -> Response[Any]:
    """All rows as a file of that name. What fails on the way cuts the connection: half a table has no end."""
    return Stream(
        _encoded(head, chunks),
        media_type=CSV,
        headers={
            "content-disposition": content_disposition(name),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        },
    )


def text_cell(text: str | None) -> str:
    """Text of whatever origin; what looks like a formula gets a quote in front of it, and stays text.

    Amounts and moments are cells as they are: a minus before a number is a number.
    """
    if text is None:
        return ""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULAS) else text


async def _encoded(head: Row, chunks: AsyncIterator[Sequence[Row]]) -> AsyncIterator[bytes]:
    yield _lines([head])
    async for rows in chunks:
        yield _lines(rows)


def _lines(rows: Iterable[Row]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
