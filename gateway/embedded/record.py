"""`<home>/database.json`: how other processes of this machine reach the embedded server."""

import secrets
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from gateway.embedded.leftovers import is_postmaster
from gateway.private_file import save_private

NAME = "database.json"
ROLE = "antiphon"
SUPERUSER = "postgres"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Kept for the life of the data, because only it knows the passwords."""

    dsn: str
    """The product's role: owns its database, is no superuser."""
    superuser_dsn: str
    """For the operator: backups, maintenance."""
    data: str

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1."""
        return urlsplit(self.dsn).port or 0

    @property
    def password(self) -> str:
        """Of the product's role; hexadecimal, so it needs no quoting anywhere."""
        return urlsplit(self.dsn).password or ""

    @property
    def superuser_password(self) -> str:
        """Hexadecimal too."""
        return urlsplit(self.superuser_dsn).password or ""


def make_record(*, port: int, data: Path, password: str = "", superuser_password: str = "") -> Record:
    """A record with the passwords given, or with fresh ones of 192 random bits."""
    mine, others = password or secrets.token_hex(24), superuser_password or secrets.token_hex(24)
    return Record(
        dsn=f"postgresql://{ROLE}:{mine}@127.0.0.1:{port}/{ROLE}",
        superuser_dsn=f"postgresql://{SUPERUSER}:{others}@127.0.0.1:{port}/postgres",
        data=str(data),
    )


def load_record(home: Path) -> Record | None:
    """None when there is none yet or it cannot be understood."""
    try:
        record = msgspec.json.decode((home / NAME).read_bytes(), type=Record)
        usable = bool(record.port and record.password and record.superuser_password)
    except (FileNotFoundError, ValueError):  # ValueError: no JSON of ours, or no URL in it
        return None
    return record if usable else None


def save_record(home: Path, record: Record) -> None:
    """Readable by the owner only, complete or not there at all."""
    save_private(home / NAME, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def read_dsn(home: Path) -> str | None:
    """DSN of the server that runs for this home now; None when none runs."""
    record = load_record(home)
    if record is None:
        return None
    try:
        lines = (Path(record.data) / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None
    running = len(lines) >= 4 and lines[3].strip() == str(record.port) and lines[0].strip().isdigit()
    return record.dsn if running and is_postmaster(int(lines[0]), Path(record.data)) else None
