"""The server's main process."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from gateway.embedded.binaries import Binaries
from gateway.embedded.cluster import explain
from gateway.embedded.errors import EmbeddedPostgresError
from gateway.embedded.leftovers import ORDERLY, end_leftovers, is_stuck
from gateway.embedded.place import Place

Pause = Callable[[float], None]
"""Sleeps for seconds; may raise to give up the wait."""
REPORT_EVERY_SECONDS = 15.0
LOG_LIMIT_BYTES = 16 * 1024 * 1024
STOP_STEPS = ((ORDERLY, 120.0), (signal.SIGQUIT, 15.0), (signal.SIGKILL, 15.0))


def shared_buffers(memory_bytes: int) -> str:
    """An eighth of the memory, 128 to 512 MB: at 128, a table of a million jobs costs each submit 40 us."""
    return f"{min(max(memory_bytes // 8 // 2**20, 128), 512)}MB"


SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # their paths are bounded by 107 bytes, and TCP has a password as well
    "shared_buffers": shared_buffers(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
    "max_connections": "200",
    "jit": "off",  # short statements: compiling costs more than it saves
    # After a checkpoint each submit logs about one whole page: squeezing it costs more than writing it.
    "wal_compression": "off",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "ssl": "off",
}
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
UNDURABLE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "dynamic_shared_memory_type": "mmap",  # in the data's folder, so that it vanishes with it
}


class Postmaster:
    """One run of `postgres`; it gets SIGINT when our main thread dies."""

    def __init__(self, place: Place, binaries: Binaries, *, port: int, durable: bool, log: Path) -> None:
        self._place = place
        self._log = log
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        log.touch(mode=0o600)
        self._log_start = log.stat().st_size
        settings = SETTINGS | (DURABLE if durable else UNDURABLE)
        settings |= {"port": str(port), "cluster_name": place.cluster_name}
        command = [binaries.command("postgres"), "-D", str(place.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **place.account.process_options(),
            )

    def alive(self) -> bool:
        """False once the process has ended; that also reaps it."""
        return self._process.poll() is None

    def await_ready(self, *, seconds: float, pause: Pause, report: Callable[[str], None]) -> bool:
        """True when it takes connections, False when its port was taken; EmbeddedPostgresError otherwise."""
        began = said = time.monotonic()
        while not self._is_ready():
            waited = time.monotonic() - began
            if not self.alive():
                end_leftovers(self._place, pause)
                if "could not create any TCP/IP sockets" in self._said():
                    return False
                raise self._failure("the server did not start")
            if waited > seconds:
                raise self._failure(f"the server was not ready within {seconds:.0f} s")
            if time.monotonic() - said > REPORT_EVERY_SECONDS:
                report(f"Postgres is still starting after {waited:.0f} s (after a crash it recovers first)")
                said = time.monotonic()
            pause(0.02)
        return True

    def stop(self) -> None:
        """Orderly, then without ceremony: the log makes even that safe."""
        for number, seconds in STOP_STEPS:
            began = time.monotonic()
            if self.alive():
                self._process.send_signal(number)
            while self.alive() and time.monotonic() - began < seconds:
                if number is ORDERLY and is_stuck(self._place, began):
                    break
                time.sleep(0.02)
        end_leftovers(self._place, time.sleep)

    def _failure(self, what: str) -> EmbeddedPostgresError:
        return EmbeddedPostgresError(explain(f"{what}, see {self._log}", self._said(), self._place))

    def _is_ready(self) -> bool:
        """The process's own word: line 8 of its pid file, provided that line 1 is this very process."""
        try:
            lines = (self._place.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(self._process.pid) and lines[7].strip() == "ready"

    def _said(self) -> str:
        """What this run wrote into the log."""
        with self._log.open("rb") as log:
            log.seek(self._log_start)
            return log.read(64 * 1024).decode(errors="replace")
