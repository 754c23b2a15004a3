"""Where a model is: a folder, or a repository of the hub whose snapshot is on this machine. Free of torch."""

import re
from pathlib import Path
from typing import Final

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.known import RELEASES
from engine.ace_step.checkpoint.pieces import Checkpoint, open_checkpoint

REPOSITORY: Final = re.compile(r"([\w][\w.-]*/[\w][\w.-]*)(?:@([\w][\w./-]*))?", re.ASCII)
"""owner/name, and a revision if one is pinned."""


def open_source(
    source: str | Path, *, donor: str | Path | None = None, cache: Path | None = None
) -> Checkpoint:
    """Open `folder-or-repository`, or several between plus signs: the later ones are donors."""
    first, *named = _parts(source)
    donors = [*named, *([] if donor is None else _parts(donor))]
    release = RELEASES.get(first.partition("@")[0])
    folder = local_folder(first, cache=cache)
    folders = [local_folder(each, cache=cache) for each in donors]
    if release is not None and release.donor is not None and not folders:
        try:
            folders.append(local_folder(release.donor, cache=cache))
        except CheckpointError:
            return _without_donor(first, folder)
    return open_checkpoint(folder, folders)


def _without_donor(source: str, folder: Path) -> Checkpoint:
    """A known release whose usual donor was not pulled: what is lacking decides whether that matters."""
    try:
        return open_checkpoint(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; `antiphon models pull {source}` brings the usual donor, too"
        ) from error


def local_folder(source: str | Path, *, cache: Path | None = None) -> Path:
    """The folder of one source; raises CheckpointError if it is not on this machine."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    match = REPOSITORY.fullmatch(str(source))
    if match is None:
        raise CheckpointError(f"there is no folder {source}")
    store = store_of(match[1], cache)
    revision = match[2] or constants.DEFAULT_REVISION
    named = store / "refs" / revision
    commit = named.read_text().strip() if named.is_file() else revision
    if not (store / "snapshots" / commit).is_dir():
        raise CheckpointError(
            f"{source} is neither a folder nor a repository that was pulled to this machine: "
            f"run `antiphon models pull {source}`"
        )
    return store / "snapshots" / commit


def store_of(repository: str, cache: Path | None = None) -> Path:
    """The folder of the hub client's cache that holds `blobs`, `refs` and `snapshots` of a repository."""
    return Path(cache or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")


def _parts(source: str | Path) -> list[str]:
    text = str(source)
    if isinstance(source, Path) or Path(text).expanduser().is_dir():
        return [text]
    return [part.strip() for part in text.split("+") if part.strip()] or [text]
