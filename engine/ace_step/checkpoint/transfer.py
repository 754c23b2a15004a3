"""One large file of a repository, resumed where the last attempt stopped, even in another process.

The hub's own client resumes within one call, and throws away what it has when the call ends; a file of ten
gigabytes deserves better. Finished files lie where that client looks for them. Free of torch.
"""

import fcntl
from pathlib import Path
from typing import Final

from huggingface_hub import hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils.tqdm import tqdm

from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.manifest import digest

_PARTIAL: Final = ".antiphon-partial"


def fetch(
    repository: str, commit: str, file: RepoFile, blobs: Path, *, endpoint: str | None, bar: type[tqdm] | None
) -> None:
    """Bring the content of `file` (one with a sha256) into `blobs`, under that sha256.

    Raises what the hub's client raises, and CheckpointError for content that is not what the hub names.
    """
    if file.lfs is None or (blobs / file.lfs.sha256).exists():
        return
    blobs.mkdir(parents=True, exist_ok=True)
    partial = blobs / f"{file.lfs.sha256}{_PARTIAL}"
    with partial.open("ab") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(f"another process is pulling {repository} right now") from error
        if out.tell() > file.size:
            out.truncate(0)
        if out.tell() < file.size:
            http_get(
                hf_hub_url(repository, file.path, revision=commit, endpoint=endpoint),
                out,
                resume_size=out.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.path,
                tqdm_class=bar,
            )
        out.flush()
        found = digest(partial).sha256
        if found != file.lfs.sha256:
            partial.unlink()
            raise CheckpointError(
                f"{repository}: {file.path} arrived damaged (sha256 {found}, the hub says {file.lfs.sha256}) "
                "and was removed: run the same command again"
            )
        partial.rename(blobs / file.lfs.sha256)
