"""What OpenAPI says about files: the form of an upload, answers, and what is in them."""

from dataclasses import dataclass
from typing import Any, Final

from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Reference,
    RequestBody,
    Schema,
)

from gateway.audio.containers import ACCEPTED, CONTAINERS
from gateway.dialects.multipart import MAX_FILE_NAME_CHARACTERS

Facts = dict[str, Any]

MAX_PURPOSE_CHARACTERS: Final = 64
MIN_RETENTION_SECONDS: Final = 3_600
MAX_RETENTION_SECONDS: Final = 30 * 86_400

_ID: Final[Facts] = {"pattern": "^[0-9a-f]{32}$"}
_STAMP: Final[Facts] = {"minimum": 0}

FILE_FACTS: Final[dict[str, dict[str, Facts]]] = {
    "FileView": {
        "id": _ID,
        "file_id": _ID,
        "object": {"const": "file"},
        "bytes": {"minimum": 1},
        "created_at": _STAMP,
        "expires_at": _STAMP,
        "filename": {"min_length": 1, "max_length": MAX_FILE_NAME_CHARACTERS},
        "status": {"const": "processed"},
        "content_type": {"enum": [container.content_type for container in CONTAINERS.values()]},
        "duration_seconds": {"minimum": 0},
        "sample_rate": {"minimum": 1},
        "channels": {"minimum": 1},
        "sha256": {"pattern": "^[0-9a-f]{64}$"},
        "url": {"format": "uri"},
    },
    "FileList": {"object": {"const": "list"}, "first_id": _ID, "last_id": _ID, "next_cursor": _ID},
    "DeletedFile": {"id": _ID, "object": {"const": "file"}, "deleted": {"const": True}},
    "SignedFile": {"url": {"format": "uri"}, "expires_at": {"format": "date-time"}},
}

_FORM: Final = Schema(
    type=OpenAPIType.OBJECT,
    required=["file"],
    additional_properties=False,
    properties={
        "file": Schema(
            type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY, description=f"Audio: {ACCEPTED}."
        ),
        "purpose": Schema(
            type=OpenAPIType.STRING,
            pattern=f"^[ -~]{{1,{MAX_PURPOSE_CHARACTERS}}}$",
            description="A word of your own, returned with the file.",
        ),
        "expires_after[anchor]": Schema(
            type=OpenAPIType.STRING, enum=["created_at"], description="Only with seconds."
        ),
        "expires_after[seconds]": Schema(
            type=OpenAPIType.INTEGER,
            minimum=MIN_RETENTION_SECONDS,
            maximum=MAX_RETENTION_SECONDS,
            description="How long the file is kept; left out, 7 days.",
        ),
    },
)


@dataclass
class UploadOperation(Operation):
    """An upload in the OpenAPI description: its handler reads the form itself, while it arrives."""

    def __post_init__(self) -> None:
        content: dict[str, OpenAPIMediaType] = {"multipart/form-data": OpenAPIMediaType(schema=_FORM)}
        self.request_body: RequestBody | Reference | None = RequestBody(content=content, required=True)
