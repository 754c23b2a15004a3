"""The embedded database is stopped, or loses its owner, in the middle of its recovery from a crash."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gateway.embedded import EmbeddedPostgres
from tests.crash.stack import children_of, is_postgres, own_environment, wait_until, words_of

STUCK_SECONDS = 60
"""Far more than a stop takes, and less than the two minutes that an orderly one may take on a slow disk."""
OWNER = """
import sys, time
from pathlib import Path
from gateway.embedded import EmbeddedPostgres
EmbeddedPostgres(Path(sys.argv[1])).start()
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def server(disk_folder: Path) -> Iterator[EmbeddedPostgres]:
    """On a disk and with fsync: else a recovery is over at once."""
    server = EmbeddedPostgres(disk_folder / "home")
    yield server
    server.stop()


def crash(owner: int) -> None:
    """Kill the process that writes the log ahead; the main process then ends the others and recovers."""

    def writer() -> psutil.Process | None:
        processes = [child for child in children_of(owner, recursive=True) if is_postgres(child)]
        return next((one for one in processes if "walwriter" in " ".join(words_of(one))), None)

    wait_until(lambda: writer() is not None)
    found = writer()
    assert found is not None
    found.kill()


@pytest.mark.parametrize("milliseconds", [20, 60])
def test_a_stop_in_the_middle_of_a_recovery_comes_to_its_end(
    server: EmbeddedPostgres, milliseconds: int
) -> None:
    dsn = server.start()
    crash(os.getpid())
    time.sleep(milliseconds / 1000)
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < STUCK_SECONDS
    assert server.start() == dsn


def test_a_start_after_an_owner_was_killed_in_the_middle_of_a_recovery_comes_to_its_end(
    server: EmbeddedPostgres, disk_folder: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(disk_folder / "home")],
        stdout=subprocess.PIPE,
        env=own_environment({}),
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        crash(owner.pid)
        time.sleep(0.03)
        owner.send_signal(signal.SIGKILL)
    began = time.monotonic()
    server.start()
    assert time.monotonic() - began < STUCK_SECONDS
