"""`antiphon.sha256.json`: what every file of a model must be, kept beside the files. Free of torch."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from engine.ace_step.checkpoint.errors import CheckpointError

NAME: Final = "antiphon.sha256.json"
_CHUNK: Final = 8 * 1024 * 1024
_KEPT: Final = (".safetensors", ".json", ".txt", ".jinja")

Told = Callable[[str, int], None]
"""Called with the name of a file and how many more of its bytes were read."""


class Entry(msgspec.Struct, frozen=True):
    """One file."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was pulled, or what the operator declared whole."""

    repository: str | None = None
    revision: str | None = None
    """Commit of the repository."""
    files: dict[str, Entry] = {}
    """By path inside the folder, with slashes."""


def read_manifest(folder: Path) -> Manifest | None:
    """None: there is none."""
    try:
        return msgspec.json.decode((folder / NAME).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"{folder / NAME} cannot be read ({error}): remove it or pull again") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put it beside the files, whole or not at all."""
    fresh = folder / f"{NAME}.new"
    try:
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        fresh.replace(folder / NAME)
    except OSError as error:
        raise CheckpointError(f"{folder / NAME} cannot be written: {error}") from error


def declare(folder: Path, told: Told | None = None) -> Manifest:
    """Take the files of a folder as they are now for whole, and write that down."""
    manifest = Manifest(files={_inside(folder, path): digest(path, told) for path in _files(folder)})
    write_manifest(folder, manifest)
    return manifest


def verify(folder: Path, told: Told | None = None) -> Iterator[str]:
    """Each file that is not what the manifest says; nothing if there is no manifest."""
    manifest = read_manifest(folder)
    for name, entry in sorted((manifest.files if manifest else {}).items()):
        path = folder / name
        if not path.resolve().is_file() or ".." in Path(name).parts:
            yield f"{path} is missing, and was there when the model was pulled: pull it again"
        elif path.stat().st_size != entry.bytes or digest(path, told) != entry:
            yield f"{path} is not what was pulled (its sha256 differs): remove it and pull the model again"


def digest(path: Path, told: Told | None = None) -> Entry:
    """Read a file to its end."""
    running, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            running.update(chunk)
            size += len(chunk)
            if told is not None:
                told(path.name, len(chunk))
    return Entry(running.hexdigest(), size)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        own = path.name in {NAME, f"{NAME}.new"}
        if path.is_file() and not own and (path.suffix in _KEPT or path.name == "silence_latent.pt"):
            yield path


def _inside(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
