"""The real Postgres of the tests: in memory, migrated once, cloned for each test that asks for a database."""

import fcntl
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from gateway import schema
from gateway.embedded import EmbeddedPostgres
from tests.databases import fresh_database

PREFIX = "antiphon-test-"
ROOM_BYTES = 1024**3
YOUNG_SECONDS = 600
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - folders with random names are made in it

# A gateway in the test's own process logs, too; it must not speak into what a command prints.
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))


@pytest.fixture(scope="session")
def memory_folder() -> Iterator[Path]:
    """A folder in shared memory that other users can pass, which Postgres needs when we are root."""
    with _short_lived_folder(_fastest_place()) as folder:
        yield folder


@pytest.fixture
def scratch(memory_folder: Path) -> Iterator[Path]:
    """A folder of the test's own in shared memory, passable by other users."""
    folder = memory_folder / secrets.token_hex(4)
    folder.mkdir()
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(memory_folder: Path) -> Iterator[EmbeddedPostgres]:
    """One throw-away server for each test process; it ends with the process, even with a killed one."""
    server = EmbeddedPostgres(memory_folder / "postgres", durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def template_database(postgres: EmbeddedPostgres) -> str:
    """DSN of a migrated, otherwise empty database. Nobody may be connected to it: it is cloned."""
    dsn = postgres.start()
    schema.upgrade(dsn)
    return dsn


@pytest.fixture
async def database(template_database: str, postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """DSN of a database of the test's own, dropped afterwards with whoever is still connected."""
    async with fresh_database(postgres, template_database) as dsn:
        yield dsn


def _fastest_place() -> Path:
    """Shared memory, unless there is little of it, as in many containers."""
    if os.access(SHARED_MEMORY, os.W_OK) and shutil.disk_usage(SHARED_MEMORY).free > ROOM_BYTES:
        return SHARED_MEMORY
    return Path(tempfile.gettempdir())


@contextmanager
def _short_lived_folder(parent: Path) -> Iterator[Path]:
    """A folder that is removed at the end; those of killed test runs are removed at the beginning."""
    for stale in parent.glob(f"{PREFIX}*"):
        _remove_if_orphaned(stale)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    folder.chmod(0o711)
    with (folder / "in-use").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _remove_if_orphaned(folder: Path) -> None:
    try:
        if time.time() - folder.stat().st_mtime < YOUNG_SECONDS:  # perhaps not locked yet by who makes it
            return
        with (folder / "in-use").open() as guard:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except OSError:  # somebody else's, or still in use
        return
