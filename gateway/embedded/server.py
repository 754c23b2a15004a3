"""Start, watch and stop one Postgres server that lives no longer than its owner."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from gateway.embedded.binaries import Binaries, find_binaries
from gateway.embedded.cluster import create_cluster, major_of, renew_passwords
from gateway.embedded.errors import EmbeddedPostgresError
from gateway.embedded.leftovers import end_leftovers
from gateway.embedded.place import Place, choose_place
from gateway.embedded.postmaster import Postmaster
from gateway.embedded.record import Record, load_record, make_record, save_record
from gateway.embedded.tcp_port import can_listen, free_port
from gateway.file_lock import FileLock

START_SECONDS = 600.0
"""Recovery after a crash reads the log of up to a checkpoint interval; slow disks need minutes."""
SAME_PORT_SECONDS = 15.0
PORT_ATTEMPTS = 5


class EmbeddedPostgres:
    """A server on 127.0.0.1 with its data below `home` (or below /var/lib/antiphon, which it reports).

    Use it from the main thread: the kernel ties the server's life to the thread that started it.
    `durable=False` is for data that may vanish with the power: tests.
    """

    def __init__(
        self,
        home: Path,
        *,
        durable: bool = True,
        report: Callable[[str], None] = lambda _: None,
        pause: Callable[[float], None] = time.sleep,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._home = home.resolve()
        self._durable = durable
        self._report = report
        self._pause = pause
        self._start_seconds = start_seconds
        self._place: Place | None = None
        self._lock: FileLock | None = None
        self._record: Record | None = None
        self._postmaster: Postmaster | None = None

    @property
    def log(self) -> Path:
        """What the server says."""
        return self._home / "logs" / "postgres.log"

    @property
    def superuser_dsn(self) -> str:
        """For tests and maintenance; the server must have been started."""
        if self._record is None:
            raise EmbeddedPostgresError("this server was never started")
        return self._record.superuser_dsn

    def start(self) -> str:
        """Make the server run and answer its DSN; a second start after a crash keeps the port.

        Raises EmbeddedPostgresError with a message for the operator.
        """
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedPostgresError("start the embedded Postgres from the main thread")
        if self._record is not None and self.alive():
            return self._record.dsn
        try:
            return self._start()
        except OSError as error:
            self.stop()
            raise EmbeddedPostgresError(f"cannot start Postgres in {self._home}: {error}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Orderly stop with everything written; what does not end in time is ended. Safe to repeat."""
        if self._postmaster is not None:
            self._postmaster.stop()
            self._postmaster = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def alive(self) -> bool:
        """False once the main process has ended, for whatever reason."""
        return self._postmaster is not None and self._postmaster.alive()

    def _start(self) -> str:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        known = self._record or load_record(self._home)
        if self._place is None:
            self._place = choose_place(self._home, Path(known.data) if known else None, self._report)
        place = self._place
        self._take_lock(place)
        end_leftovers(place, self._pause)
        major = major_of(place) if place.has_data else None
        binaries = find_binaries(place.account, major)
        record = self._with_passwords(place, binaries, known)
        if not place.has_data:
            create_cluster(place, binaries, record, durable=self._durable)
        return self._serve(place, binaries, record)

    def _take_lock(self, place: Place) -> None:
        lock = self._lock or FileLock(place.folder / "lock")
        if not lock.acquire():
            raise EmbeddedPostgresError(f"the database in {place.folder} is in use by a running antiphon")
        self._lock = lock

    def _with_passwords(self, place: Place, binaries: Binaries, known: Record | None) -> Record:
        """The record to run with; data whose passwords were lost get new ones."""
        port = known.port if known else free_port()
        fresh = make_record(
            port=port,
            data=place.data,
            password=known.password if known else "",
            superuser_password=known.superuser_password if known else "",
        )
        if known is None and place.has_data:
            self._report("the passwords of the embedded database were lost: setting new ones")
            renew_passwords(place, binaries, fresh)
        save_record(self._home, fresh)
        return fresh

    def _serve(self, place: Place, binaries: Binaries, record: Record) -> str:
        """Run the server, on another port if the first start finds its port taken."""
        port = self._port(record)
        for _ in range(PORT_ATTEMPTS):
            self._record = make_record(
                port=port,
                data=place.data,
                password=record.password,
                superuser_password=record.superuser_password,
            )
            save_record(self._home, self._record)
            self._postmaster = Postmaster(place, binaries, port=port, durable=self._durable, log=self.log)
            if self._postmaster.await_ready(
                seconds=self._start_seconds, pause=self._pause, report=self._report
            ):
                return self._record.dsn
            port = free_port()  # somebody took it between our look and the server's
        raise EmbeddedPostgresError(f"no TCP port for Postgres could be had on 127.0.0.1, last tried {port}")

    def _port(self, record: Record) -> int:
        """The port of before; running clients know no other, so a restart waits for it a while."""
        if self._record is None:
            return record.port if can_listen(record.port) else free_port()
        deadline = time.monotonic() + SAME_PORT_SECONDS
        while not can_listen(record.port):
            if time.monotonic() >= deadline:
                raise EmbeddedPostgresError(f"another process took port {record.port} of the database")
            self._pause(0.1)
        return record.port
