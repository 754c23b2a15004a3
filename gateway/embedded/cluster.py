"""The data of a server: made complete or not at all, and readable only with a password."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from gateway.embedded.account import Account
from gateway.embedded.binaries import Binaries
from gateway.embedded.errors import EmbeddedPostgresError
from gateway.embedded.place import Place
from gateway.embedded.record import ROLE, SUPERUSER, Record

STAGING = "unfinished-"


def create_cluster(place: Place, binaries: Binaries, record: Record, *, durable: bool) -> None:
    """`initdb` into a staging folder that becomes the data by one rename.

    Leaves `data` as it was when interrupted at any point. Raises EmbeddedPostgresError.
    """
    for stale in place.folder.glob(f"{STAGING}*"):
        shutil.rmtree(stale)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=place.folder))
    try:
        place.account.own(staging)
        secret = staging / "password"
        secret.touch(mode=0o600)
        secret.write_text(record.superuser_password)
        place.account.own(secret)
        data = staging / "data"
        _finish(place, place.account, _initdb(binaries, data, secret, durable=durable))
        sql = [
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{record.password}'",
            f"CREATE DATABASE {ROLE} OWNER {ROLE}",
        ]
        _finish(place, place.account, _single_user(binaries, data), "\n".join(sql) + "\n")
        data.rename(place.data)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def renew_passwords(place: Place, binaries: Binaries, record: Record) -> None:
    """Give both roles the record's passwords, without a running server and without the old ones."""
    sql = [
        f"ALTER ROLE {ROLE} PASSWORD '{record.password}'",
        f"ALTER ROLE {SUPERUSER} PASSWORD '{record.superuser_password}'",
    ]
    _finish(place, place.account, _single_user(binaries, place.data), "\n".join(sql) + "\n")


def major_of(place: Place) -> int:
    """Major version that the data was made by."""
    content = (place.data / "PG_VERSION").read_text().strip()
    if not content.isdigit():
        raise EmbeddedPostgresError(f"{place.data / 'PG_VERSION'} says {content!r}, which is no version")
    return int(content)


def _initdb(binaries: Binaries, data: Path, secret: Path, *, durable: bool) -> list[str]:
    command = [
        binaries.command("initdb"),
        f"--pgdata={data}",
        f"--username={SUPERUSER}",
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--no-locale",
    ]
    return [*command, "--data-checksums"] if durable else [*command, "--no-sync"]


def _single_user(binaries: Binaries, data: Path) -> list[str]:
    """One SQL command a line on stdin; the first error ends it with a status that is not 0."""
    return [binaries.command("postgres"), "--single", "-D", str(data), "-c", "exit_on_error=on", "postgres"]


def _finish(place: Place, account: Account, command: list[str], stdin: str = "") -> None:
    try:
        answer = account.run(command, stdin)
    except subprocess.TimeoutExpired as error:
        raise EmbeddedPostgresError(f"{command[0]} did not end within {error.timeout:.0f} s") from error
    if answer.returncode != 0:
        raise EmbeddedPostgresError(explain(f"{Path(command[0]).name} failed", answer.stderr, place))


def explain(what: str, output: str, place: Place) -> str:
    """A message for the operator from the last lines that a program of Postgres wrote."""
    lines = [line for line in output.splitlines() if line.strip()][-8:]
    if "No space left on device" in output:
        what = f"the disk of {place.folder} is full; {what}"
    return "\n  ".join([f"Postgres: {what}", *lines])
