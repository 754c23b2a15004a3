"""Where the data lies: in the home, or in /var/lib when the server's user cannot reach the home."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.embedded.account import Account, choose_account
from gateway.embedded.errors import EmbeddedPostgresError

SYSTEM_STATE = Path("/var/lib/antiphon")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The server's own folder: `data` (the cluster), `lock`, sometimes `binaries`."""

    folder: Path
    account: Account

    @property
    def data(self) -> Path:
        """The cluster; exists only when it is complete."""
        return self.folder / "data"

    @property
    def has_data(self) -> bool:
        """False before the first `initdb` came to its end."""
        return (self.data / "PG_VERSION").exists()

    @property
    def cluster_name(self) -> str:
        """Stands in every process title of this server, so that its leftovers can be told from others."""
        return f"antiphon-{hashlib.sha256(str(self.data).encode()).hexdigest()[:16]}"


def choose_place(home: Path, recorded: Path | None, report: Callable[[str], None]) -> Place:
    """Existing data first, then the home, then /var/lib/antiphon; raises EmbeddedPostgresError.

    `recorded` is the data folder that the home's record names. No parent folder is ever opened up.
    """
    inside = home / "postgres"
    if (inside / "data").exists():
        return _existing(inside)
    if recorded is not None and recorded.parent != inside and recorded.parent.parent == SYSTEM_STATE:
        if not recorded.exists():
            raise EmbeddedPostgresError(
                f"the database of {home} was in {recorded}, which is gone: bring it back, "
                f"or remove {home / 'database.json'} and {home / 'keys.json'} to begin with an empty one"
            )
        return _existing(recorded.parent)
    account = choose_account()
    place = _prepared(inside, account)
    if place is not None:
        return place
    name = hashlib.sha256(str(home).encode()).hexdigest()[:16]
    place = _prepared(SYSTEM_STATE / name, account) if account.borrowed else None
    if place is None:
        raise EmbeddedPostgresError(
            f"user {account.name} cannot keep a database in {inside}: choose ANTIPHON_HOME"
        )
    report(f"Postgres runs as user {account.name}, who cannot reach {home}: its data folder is {place.data}")
    return place


def _existing(folder: Path) -> Place:
    place = Place(folder=folder, account=choose_account(folder / "data"))
    if not _reaches(place.account, folder):
        raise EmbeddedPostgresError(
            f"user {place.account.name} cannot reach the database in {folder}: start as its owner, "
            "let that user pass the folders above it, or choose another ANTIPHON_HOME"
        )
    return place


def _prepared(folder: Path, account: Account) -> Place | None:
    """The folder, made and handed to the account; None when the account cannot work there."""
    made = not folder.exists()
    try:
        for parent in [path for path in reversed(folder.parents) if not path.exists()]:
            parent.mkdir(mode=0o755, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        account.own(folder)
    except OSError:
        return None
    if _reaches(account, folder):
        return Place(folder=folder, account=account)
    if made:
        folder.rmdir()
    return None


def _reaches(account: Account, folder: Path) -> bool:
    """Ask the kernel as that user: modes, ACLs and mounts all count."""
    if not account.borrowed:
        return os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    try:
        return account.run(["/bin/sh", "-c", 'cd -- "$1" && [ -w . ]', "sh", str(folder)]).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
