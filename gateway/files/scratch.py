"""Where a process makes its files. What killed ones left behind goes when the next one starts."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.file_lock import FileLock

LOCK_SUFFIX = ".lock"


@contextmanager
def scratch_folder(home: Path) -> Iterator[Path]:
    """A folder of this process' own below `home/scratch`; its lock tells others that we are alive."""
    root = home / "scratch"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in root.glob(f"*{LOCK_SUFFIX}"):
        _remove_if_abandoned(path)
    lock = _take_name(root)
    folder = lock.path.with_suffix("")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(lock)


def _take_name(root: Path) -> FileLock:
    """A new name, locked; another one's sweep may snatch one between its making and its locking."""
    while True:
        lock = FileLock(root / f"{secrets.token_hex(8)}{LOCK_SUFFIX}")
        if lock.acquire():
            return lock


def _remove_if_abandoned(path: Path) -> None:
    lock = FileLock(path)
    if lock.acquire():
        _remove(lock)


def _remove(lock: FileLock) -> None:
    shutil.rmtree(lock.path.with_suffix(""), ignore_errors=True)
    lock.path.unlink(missing_ok=True)
    lock.release()
