"""Meanings of the fields of uploaded files, and values for examples; a part of `api_words`."""

# ruff: noqa: INP001 - a module beside files that are no Python
from typing import Any, Final

from example_marks import BUILT

FILE_ID: Final = "01a1fe11d2f87763bb572dc9fc9be5a0"
_LINK: Final = (
    f"http://127.0.0.1:8000/audio/files/01a1fd23d2f87763bb572dc9fc9be59f/{FILE_ID}"
    "?expires=1795853151&name=song.flac&signature=7d0a3c5be4f2419c"
)

FILE_OBJECTS: Final = {"FileView": "An uploaded file; see [files](files.md)."}
FILE_FIELDS: Final[dict[str, dict[str, tuple[str, Any]]]] = {
    "FileView": {
        "id": ("Id of the file, for `source_audio` and `reference_audio`.", FILE_ID),
        "file_id": ("The same as `id`, for clients of other services.", FILE_ID),
        "object": ("Kind of object.", "file"),
        "bytes": ("Its size.", 2_304_044),
        "created_at": ("When it was uploaded, in Unix seconds.", 1_795_248_351),
        "expires_at": ("When it is deleted, in Unix seconds.", 1_795_853_151),
        "filename": ("As it was uploaded.", "song.flac"),
        "purpose": ("As it was uploaded.", None),
        "status": ("It can be used.", "processed"),
        "content_type": ("Told by its first bytes.", "audio/flac"),
        "duration_seconds": ("Its exact length, as a job will hear it.", 12.0),
        "sample_rate": ("Of the file, in Hz; jobs hear 48,000.", 44_100),
        "channels": ("Of the file; jobs hear two.", 2),
        "sha256": ("Of its bytes.", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        "url": ("A link to its bytes; expires.", _LINK),
    },
    "FileList": {
        "object": ("Kind of object.", "list"),
        "data": ("The files.", BUILT),
        "has_more": ("Whether there are older ones.", False),
        "first_id": ("Id of the first file of the page.", FILE_ID),
        "last_id": ("Id of the last one.", FILE_ID),
        "next_cursor": ("`cursor` of the next page; null on the last.", None),
    },
    "DeletedFile": {
        "id": ("Id of the file.", FILE_ID),
        "object": ("Kind of object.", "file"),
        "deleted": ("It is gone.", True),
    },
    "SignedFile": {
        "url": ("A link to the file's bytes.", _LINK),
        "expires_at": ("Until when it works.", "2026-11-21T09:05:48.239Z"),
    },
}
