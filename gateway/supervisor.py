"""Child processes that run together: started, watched, restarted, and never left behind."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.parent_death import end_with_parent

STOP_SECONDS = 30.0
KILL_SECONDS = 10.0
"""SIGKILL needs no consent; longer only hangs with the disk that a process waits for."""
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 4.0
"""With the start that follows it is less than the 10 s within which requests are answered again."""
STEADY_SECONDS = 10.0
"""A child that ran this long is healthy: its next crash counts as the first."""
LOG_LIMIT_BYTES = 16 * 1024 * 1024


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and where its output goes."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    log: Path
    hold: Sequence[int] = ()
    """Descriptors that stay open in the child, for example of a lock that says that it still runs."""


class Child:
    """One process, replaced by a new one whenever it ends; it leads a process group of its own."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.crashes = 0
        self.exit_status: int | None = None
        """Of the last process that ended; negative: the signal that ended it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._due = 0.0

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process; OSError when it cannot be."""
        with self.spec.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - commands of our own
                self.spec.command,
                env=dict(self.spec.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=tuple(self.spec.hold),
                start_new_session=True,
                # Not SIGTERM: the next `up` cannot start while a child drains, for up to half a minute.
                preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one thread, see Supervisor
            )
        self._started = time.monotonic()

    def has_ended(self) -> bool:
        """True when there is no process; what it started itself is ended before it is reaped."""
        if self._process is None:
            return True
        # Not reaped yet, so that its number, which is its group's too, cannot belong to anybody else.
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        self.kill_group()
        self.exit_status = self._process.wait()
        self._process = None
        return True

    def restart_when_due(self) -> str | None:
        """Bring an ended process back, later after each crash; answers what there is to say."""
        had_process = self._process is not None
        if not self.has_ended():
            return None
        if had_process:
            return self._postpone(f"{self.spec.name} ended ({describe(self.exit_status)})")
        if time.monotonic() < self._due:
            return None
        try:
            self.start()
        except OSError as error:
            return self._postpone(f"{self.spec.name} cannot be started ({error})")
        return None

    def _postpone(self, what: str) -> str:
        now = time.monotonic()
        self.crashes = 1 if now - self._started > STEADY_SECONDS else self.crashes + 1
        delay = min(FIRST_DELAY_SECONDS * 2 ** (self.crashes - 1), LONGEST_DELAY_SECONDS)
        self._due = now + delay
        return f"{what}, starts again in {delay:g} s"

    def terminate(self) -> None:
        """Ask the process, and only it, to end in order."""
        if not self.has_ended() and self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill_group(self) -> None:
        """End the process and everything it started."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
                return

    def last_lines(self, count: int = 15) -> list[str]:
        """The end of its log."""
        try:
            with self.spec.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 16 * 1024))
                return log.read().decode(errors="replace").splitlines()[-count:]
        except OSError:
            return []


class Supervisor:
    """Runs children from the main thread: the kernel ends them when the thread that started them ends."""

    def __init__(self, specs: Sequence[ChildSpec], report: Callable[[str], None] = lambda _: None) -> None:
        self.children = [Child(spec) for spec in specs]
        self._report = report

    def start(self) -> None:
        """Start all; when one cannot be started, none is left."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "children are tied to the thread that starts them: start them from the main one"
            )
        try:
            for child in self.children:
                child.spec.log.parent.mkdir(parents=True, exist_ok=True)
                child.spec.log.touch(mode=0o600)
                bound_log(child.spec.log)
                child.start()
        except BaseException:
            self.stop(seconds=0)
            raise

    def ended(self) -> list[Child]:
        """Children without a process now."""
        return [child for child in self.children if child.has_ended()]

    def tick(self) -> None:
        """Crashed children come back, logs stay bounded. Call it a few times a second."""
        for child in self.children:
            message = child.restart_when_due()
            if message:
                self._report(message)
            bound_log(child.spec.log)

    def stop(self, seconds: float = STOP_SECONDS, hurry: Callable[[], bool] = lambda: False) -> None:
        """SIGTERM to all; after `seconds`, or on `hurry`, SIGKILL to the groups of those that still run."""
        for child in self.children:
            child.terminate()
        self._await_ended(seconds, hurry)
        for child in self.children:
            if not child.has_ended():
                self._report(f"{child.spec.name} did not end in time: killed")
                child.kill_group()
        self._await_ended(KILL_SECONDS, lambda: False)

    def _await_ended(self, seconds: float, hurry: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while len(self.ended()) < len(self.children) and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)


def describe(status: int | None) -> str:
    """An exit status in words."""
    if status is not None and status < 0:
        return f"signal {-status}: {signal.strsignal(-status)}"
    return f"exit status {status}"


def bound_log(log: Path) -> None:
    """Move a large log aside. Its writers append, so emptying the file under them is safe."""
    try:
        if log.stat().st_size > LOG_LIMIT_BYTES:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)
    except OSError:
        return  # a log is not worth a crash
