"""Download a repository: only what is read, resumed where it broke off, and verified. Free of torch."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._paths import filter_repo_objects
from huggingface_hub.utils.tqdm import tqdm

from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.known import RELEASES, release_of
from engine.ace_step.checkpoint.manifest import Entry, Manifest, digest, read_manifest, write_manifest
from engine.ace_step.checkpoint.sources import REPOSITORY, store_of
from engine.ace_step.checkpoint.transfer import fetch

_KINDS: Final = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*silence_latent.pt")
"""What is read. Names of code and of pickled weights match none of them."""
_ROOT: Final = ("config.json", "model_index.json")


class Download(msgspec.Struct, frozen=True):
    """One repository, or some folders of it."""

    repository: str
    revision: str | None = None
    only: tuple[str, ...] = ()


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """A repository on this machine, every file verified."""

    repository: str
    revision: str
    folder: str
    files: int
    bytes: int


class _NoBar(tqdm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"disable": True})  # type: ignore[no-untyped-call]


def downloads_for(name: str) -> tuple[Download, ...]:
    """What to pull for a public model id or a source, with donors; raises CheckpointError for other names."""
    release = release_of(name)
    parts = [release.repository] if release is not None else [part for part in name.split("+") if part]
    found = []
    for index, part in enumerate(parts):
        match = REPOSITORY.fullmatch(part)
        if match is None:
            known = ", ".join(model for each in RELEASES.values() for model in each.models)
            raise CheckpointError(f"{part!r} is no repository (owner/name) and none of {known}")
        here = RELEASES.get(match[1])
        only = () if here is None else here.donates if index and here.donates else here.only
        found.append(Download(match[1], match[2], only))
    first = RELEASES.get(found[0].repository)
    if first is not None and first.donor is not None and len(found) == 1:
        found.append(Download(first.donor, None, RELEASES[first.donor].donates))
    return tuple(found)


def pull(
    download: Download, *, progress: bool = True, cache: Path | None = None, endpoint: str | None = None
) -> Pulled:
    """Bring a repository to this machine; what is there already is not fetched again.

    `progress` draws bars on stderr. Every file is compared with the checksum that the hub names, and the
    result is written beside the files. Raises CheckpointError.
    """
    name, api = download.repository, HfApi(endpoint=endpoint)
    patterns = _patterns(download.only)
    try:
        commit = api.repo_info(name, revision=download.revision).sha or ""
        every = api.list_repo_tree(name, recursive=True, revision=commit)
        wanted = [
            file
            for file in filter_repo_objects(every, allow_patterns=patterns, key=lambda file: file.path)
            if isinstance(file, RepoFile)
        ]
        if not any(file.path.endswith(".safetensors") for file in wanted):
            raise CheckpointError(f"{name} has no .safetensors weights, and nothing else is read")
        bar = None if progress else _NoBar
        blobs = store_of(name, cache) / "blobs"
        for file in sorted(wanted, key=lambda file: file.size):
            fetch(name, commit, file, blobs, endpoint=endpoint, bar=bar)
        folder = Path(
            snapshot_download(
                name,
                revision=download.revision,
                allow_patterns=patterns,
                cache_dir=cache,
                endpoint=endpoint,
                tqdm_class=_NoBar,
            )
        )
    except GatedRepoError as error:
        raise CheckpointError(
            f"{name} is for those who accepted its terms: do so on the hub, then put a token into HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"there is no repository {name}, or it is private (then put a token into HF_TOKEN)"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{name} has no revision {download.revision}") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, OSError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{name} could not be pulled: {first}. Run the same command again; it goes on where it stopped"
        ) from error
    if folder.name != commit:
        raise CheckpointError(f"{name} changed while it was pulled: run the same command again")
    files = _verified(folder, wanted)
    before = read_manifest(folder)
    kept = before.files if before is not None else {}
    write_manifest(folder, Manifest(repository=name, revision=commit, files=kept | files))
    return Pulled(
        repository=name,
        revision=commit,
        folder=str(folder),
        files=len(files),
        bytes=sum(entry.bytes for entry in files.values()),
    )


def _patterns(only: tuple[str, ...]) -> list[str]:
    if not only:
        return list(_KINDS)
    return [*_ROOT, *(f"{folder}/{kind}" for folder in only for kind in _KINDS)]


def _verified(folder: Path, files: Iterable[RepoFile]) -> dict[str, Entry]:
    """Checksums of all files; the first that differs from the hub's is removed."""
    entries = {}
    for file in files:
        path = folder / file.path
        if not path.is_file():
            raise CheckpointError(f"{path} did not arrive: run the same command again")
        entry = digest(path)
        if file.lfs is not None:
            wanted, found = file.lfs.sha256, entry.sha256
        else:
            wanted, found = file.blob_id, _git_blob_id(path)
        if wanted != found:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise CheckpointError(
                f"{path} arrived damaged (checksum {found}, the hub says {wanted}) and was removed: "
                "run the same command again"
            )
        entries[file.path] = entry
    return entries


def _git_blob_id(path: Path) -> str:
    """How git names a file; SHA-1 by definition."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
