"""Processes of a server whose owner was killed: told by name, waited for, at last ended."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.embedded.control_file import is_closing
from gateway.embedded.errors import EmbeddedPostgresError
from gateway.embedded.place import Place

PROC = Path("/proc")
ORDERLY = signal.SIGINT
"""Postgres calls it fast: no new clients, a checkpoint, the end."""
STUCK_SECONDS = 2.0
STEPS: tuple[tuple[signal.Signals | None, float], ...] = (
    (None, STUCK_SECONDS),  # Linux told it to stop when its owner died: let it
    (ORDERLY, 60.0),
    (signal.SIGQUIT, 10.0),  # "immediate": the next start recovers from the log
    (signal.SIGKILL, 10.0),
)


def end_leftovers(place: Place, pause: Callable[[float], None]) -> None:
    """Return when no process of this cluster is left; the caller holds the cluster's lock.

    Raises EmbeddedPostgresError when one cannot be ended.
    """
    for number, seconds in STEPS:
        for pid in leftovers(place):
            if number is not None:
                _signal(pid, number)
        began = time.monotonic()
        while time.monotonic() - began < seconds and not (number is ORDERLY and is_stuck(place, began)):
            if not leftovers(place):
                # Nobody is attached to the data any more, so the file only misleads: its number
                # may belong to another process by now, and Postgres would refuse to start.
                (place.data / "postmaster.pid").unlink(missing_ok=True)
                return
            pause(0.05)
    raise EmbeddedPostgresError(f"processes {leftovers(place)} of the database in {place.data} do not end")


def is_stuck(place: Place, told: float) -> bool:
    """Whether a server that was told (monotonic) to end in order will never come to it.

    Postgres 18 waits for ever if it was told while it recovered from the crash of one of its processes.
    """
    return time.monotonic() - told > STUCK_SECONDS and not is_closing(place)


def leftovers(place: Place) -> list[int]:
    """Process ids of this cluster, by the cluster's name in their command lines and by their user.

    Command lines are readable even where root may not look into other users' processes.
    """
    return [
        pid
        for pid, command in _commands()
        if place.cluster_name in command
        and _is_postgres(command)
        and _owner(pid) in {place.account.uid, None}
    ]


def is_postmaster(pid: int, data: Path) -> bool:
    """True when the process is the main process of the server on `data`."""
    return any(_is_postgres(command) and str(data) in command for _, command in _commands(pid))


def _is_postgres(command: str) -> bool:
    program = command.split("\0", 1)[0]
    return program.startswith("postgres: ") or Path(program.split(" -D ", 1)[0]).name == "postgres"


def _commands(only: int | None = None) -> Iterator[tuple[int, str]]:
    """(pid, command line) of running processes; NUL separates arguments where the system keeps them apart."""
    if not PROC.joinpath("self").exists():
        yield from _commands_by_ps(only)
        return
    for entry in [PROC / str(only)] if only is not None else PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if command:  # a zombie has none
            yield int(entry.name), command.decode(errors="replace")


def _commands_by_ps(only: int | None) -> Iterator[tuple[int, str]]:
    ps = shutil.which("ps", path="/bin:/usr/bin")
    if ps is None:
        return
    which = ["-p", str(only)] if only is not None else ["-ax"]
    answer = subprocess.run(  # noqa: S603 - fixed arguments
        [ps, "-ww", "-o", "pid=,command=", *which], capture_output=True, text=True, timeout=30, check=False
    )
    for line in answer.stdout.splitlines():
        pid, _, command = line.strip().partition(" ")
        if pid.isdigit() and "<defunct>" not in command:
            yield int(pid), command


def _owner(pid: int) -> int | None:
    """User id of a process, None when the system does not say."""
    try:
        return (PROC / str(pid)).stat().st_uid
    except OSError:
        return None


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it ended meanwhile
    except PermissionError as error:
        raise EmbeddedPostgresError(
            f"process {pid} of the database still runs and belongs to another user: end it first"
        ) from error
