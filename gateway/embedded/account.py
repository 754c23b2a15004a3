"""Who Postgres runs as: it refuses root, so root lends it an unprivileged system user."""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from gateway.embedded.errors import EmbeddedPostgresError
from gateway.parent_death import end_with_parent

SYSTEM_USER = "antiphon"
COMMAND_SECONDS = 120


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The user whose processes and files the server consists of."""

    name: str
    uid: int
    gid: int
    borrowed: bool
    """True when we are root and step down to this user."""

    def process_options(self) -> dict[str, Any]:
        """Keyword arguments of `subprocess` that start a process as this user, tied to our own life.

        The environment is bare on purpose: `PGPORT`, `PGDATA` and the like belong to other servers.
        """
        options: dict[str, Any] = {
            "cwd": "/",
            "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            "start_new_session": True,
            "preexec_fn": end_with_parent(signal.SIGINT),
        }
        if self.borrowed:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def run(self, command: list[str], stdin: str = "") -> "subprocess.CompletedProcess[str]":
        """Run to the end as this user; OSError when it cannot be executed, TimeoutExpired after 120 s."""
        return subprocess.run(  # noqa: S603 - our own command lists, no shell
            command,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
            check=False,
            **self.process_options(),
        )

    def own(self, path: Path) -> None:
        """Hand a file or folder of ours to the user."""
        if self.borrowed:
            os.chown(path, self.uid, self.gid)


def choose_account(data: Path | None = None) -> Account:
    """Ourselves, or as root the owner of existing `data`, else `antiphon`, else `nobody`."""
    if os.geteuid() != 0:
        entry = pwd.getpwuid(os.geteuid()) if _is_known(os.geteuid()) else None
        name = entry.pw_name if entry else str(os.geteuid())
        return Account(name=name, uid=os.geteuid(), gid=os.getegid(), borrowed=False)
    if data is not None and data.exists() and data.stat().st_uid != 0:
        owner = data.stat()
        name = pwd.getpwuid(owner.st_uid).pw_name if _is_known(owner.st_uid) else str(owner.st_uid)
        return Account(name=name, uid=owner.st_uid, gid=owner.st_gid, borrowed=True)
    for name in (SYSTEM_USER, "nobody"):
        entry = _system_user(name)
        if entry is not None and entry.pw_uid != 0:
            return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, borrowed=True)
    raise EmbeddedPostgresError(
        "Postgres refuses to run as root and there is no unprivileged user here: start as another user, "
        "or set ANTIPHON_DATABASE_URL"
    )


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _system_user(name: str) -> pwd.struct_passwd | None:
    """The user of that name; `antiphon` is created when this machine has useradd."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if name != SYSTEM_USER or useradd is None:
        return None
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    subprocess.run(  # noqa: S603 - a read-only /etc is no failure: `nobody` is next
        [useradd, *options, "--shell", "/usr/sbin/nologin", name],
        capture_output=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None
