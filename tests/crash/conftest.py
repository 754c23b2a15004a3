"""A machine of a test's own, on a real disk."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.stack import Machine, tell


@pytest.fixture
def disk_folder() -> Iterator[Path]:
    """On a disk, where fsync means something; Postgres must be able to pass it when we are root."""
    with tempfile.TemporaryDirectory(prefix="antiphon-crash-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def machine(disk_folder: Path) -> Iterator[Machine]:
    """Nothing runs yet; whatever runs at the end is killed."""
    machine = Machine(disk_folder)
    yield machine
    machine.kill_everything()
    if machine.up.starts:
        tell(machine.story())
