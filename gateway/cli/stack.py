"""What `antiphon up` keeps running, and how it comes up and goes down."""

import asyncio
import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import msgspec

import gateway
from gateway.cli.stop_signals import StopSignals
from gateway.database import DATABASE_ERRORS
from gateway.embedded import EmbeddedPostgres, EmbeddedPostgresError
from gateway.file_lock import FileLock
from gateway.onboarding import FirstKeys, ensure_first_organization
from gateway.private_file import save_private
from gateway.settings import Settings, make_home
from gateway.supervisor import Child, ChildSpec, Supervisor, bound_log, describe

READY_SECONDS = 180.0
EARLIER_RUN_SECONDS = 60.0
TICK_SECONDS = 0.2
LONGEST_REVIVAL_SECONDS = 30.0


class UpError(Exception):
    """It cannot run; the message is for the operator, `status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Stack:
    """Database, HTTP process and worker; a context manager that leaves no process behind."""

    def __init__(self, settings: Settings, signals: StopSignals, *, report: Callable[[str], None]) -> None:
        self.keys: FirstKeys | None = None
        """None when the database's first keys are not ours to show."""
        self._settings = settings
        self._signals = signals
        self._report = report
        self._lock = FileLock(settings.home / "up.lock")
        self._children_lock = FileLock(settings.home / "children.lock")
        self._postgres: EmbeddedPostgres | None = None
        self._supervisor: Supervisor | None = None
        self._revivals = 0
        self._revival_due = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._signals.received and self._supervisor is not None:
            self._report("Stopping.")
        if self._supervisor is not None:
            self._supervisor.stop(hurry=self._signals.impatient)
        if self._postgres is not None:
            self._postgres.stop()
        self._children_lock.release()
        self._lock.release()

    def start(self) -> None:
        """Return when requests are answered; raises UpError, EmbeddedPostgresError or Stopped."""
        self._take_home()
        _check_port(self._settings)
        environ = dict(os.environ) | {
            "ANTIPHON_DATABASE_URL": self._settings.database_url or self._start_postgres(),
            "ANTIPHON_HOME": str(self._settings.home),
        }
        self._migrate(environ)
        self.keys = self._first_keys(environ["ANTIPHON_DATABASE_URL"])
        self._supervisor = Supervisor(
            [self._child(name, environ) for name in ("serve", "work")], self._report
        )
        self._supervisor.start()
        self._await_ready()
        self._check_keys()

    def live_key(self) -> str:
        """The first live key; UpError when it is not known."""
        if self.keys is None:
            raise UpError(f"the live key of this database is not in {self._settings.home / 'keys.json'}")
        return self.keys.live_key

    def run(self) -> None:
        """Watch until a signal comes, then raise Stopped."""
        while True:
            self.pause(TICK_SECONDS)

    def pause(self, seconds: float) -> None:
        """Sleep, after a look at what runs: what crashed comes back. Raises Stopped on a signal."""
        with self._signals.waiting():
            if self._supervisor is not None:
                self._supervisor.tick()
            self._revive_postgres()
        self._signals.pause(seconds)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that starts no process, and that a signal may end with Stopped."""
        with self._signals.raising():
            yield

    def _take_home(self) -> None:
        home = self._settings.home
        try:
            make_home(home)
            (home / "logs").mkdir(mode=0o700, exist_ok=True)
            if not self._lock.acquire():
                raise UpError(f"antiphon is already running with the home {home}", 2)
            deadline = time.monotonic() + EARLIER_RUN_SECONDS
            while not self._children_lock.acquire():
                if time.monotonic() > deadline:
                    raise UpError(
                        f"processes of an earlier run with the home {home} do not end: end them first"
                    )
                self._signals.pause(TICK_SECONDS)
        except OSError as error:
            raise UpError(f"ANTIPHON_HOME={home}: {error.strerror}", 2) from error

    def _start_postgres(self) -> str:
        self._postgres = EmbeddedPostgres(self._settings.home, report=self._report, pause=self._signals.pause)
        return self._postgres.start()

    def _revive_postgres(self) -> None:
        """A database that died comes back on its port, sooner the first time than the tenth."""
        postgres = self._postgres
        if postgres is None or time.monotonic() < self._revival_due:
            return
        bound_log(postgres.log)
        if postgres.alive():
            self._revivals = 0
            return
        self._report("the database ended: starting it again")
        try:
            postgres.start()
        except EmbeddedPostgresError as error:
            self._revivals += 1
            delay = min(2.0 ** (self._revivals - 1), LONGEST_REVIVAL_SECONDS)
            self._revival_due = time.monotonic() + delay
            self._report(f"{error}\nnext try in {delay:g} s")

    def _child(self, name: str, environ: dict[str, str]) -> ChildSpec:
        return ChildSpec(
            name=name,
            command=[sys.executable, *_safe_path(), "-m", "gateway.cli", name],
            environ=environ,
            log=self._settings.home / "logs" / f"{name}.log",
            # Held as long as any of them runs, so that the next start can wait for those of a killed one.
            hold=(self._children_lock.fileno(),),
        )

    def _migrate(self, environ: dict[str, str]) -> None:
        one = Supervisor([self._child("migrate", environ)])
        one.start()
        try:
            while not one.ended():
                self._signals.pause(0.02)
        finally:
            one.stop()
        if one.children[0].exit_status != 0:
            raise UpError(_last_words(one.children[0]))

    def _first_keys(self, dsn: str) -> FirstKeys | None:
        """The keys that this start made, else those that an earlier one kept."""
        path = self._settings.home / "keys.json"
        try:
            made = asyncio.run(
                ensure_first_organization(dsn, self._settings, save=lambda keys: _save_keys(path, keys))
            )
            return made or msgspec.json.decode(path.read_bytes(), type=FirstKeys)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        except DATABASE_ERRORS as error:
            raise UpError(f"the first organization could not be made: {error}") from error

    def _await_ready(self) -> None:
        """Ask /readyz until it says 200; a child that ends meanwhile ends the start."""
        url = f"{self._settings.base_url}/readyz"
        deadline = time.monotonic() + READY_SECONDS
        answer = "no answer"
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while time.monotonic() < deadline:
                self._check_children()
                try:
                    with self._signals.raising():
                        response = client.get(url)
                except httpx.HTTPError as error:
                    answer = repr(error)
                else:
                    if response.status_code == httpx.codes.OK:
                        return
                    answer = f"{response.status_code} {response.text[:500]}"
                self._signals.pause(0.05)
        raise UpError(f"{url} did not say 200 within {READY_SECONDS:.0f} s, but {answer}")

    def _check_children(self) -> None:
        ended = self._supervisor.ended() if self._supervisor is not None else []
        if ended:
            raise UpError(_last_words(ended[0]))
        if self._postgres is not None and not self._postgres.alive():
            raise UpError(f"the database ended during the start, see {self._postgres.log}")

    def _check_keys(self) -> None:
        """Kept keys may be of another database, when ANTIPHON_DATABASE_URL was changed: show none then."""
        if self.keys is None:
            return
        url = f"{self._settings.base_url}/v1/balance"
        headers = {"authorization": f"Bearer {self.keys.live_key}"}
        try:
            with self._signals.raising():
                response = httpx.get(url, headers=headers, trust_env=False, timeout=10.0)
        except httpx.HTTPError:
            return
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._report(
                f"the keys in {self._settings.home / 'keys.json'} are not of this database, or revoked"
            )
            self.keys = None


def _save_keys(path: Path, keys: FirstKeys) -> None:
    save_private(path, msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n")


def _safe_path() -> list[str]:
    """`-P` keeps a folder called `gateway` in the working directory from being run in our place."""
    return [] if Path(gateway.__file__).resolve().parent.parent == Path.cwd() else ["-P"]


def _last_words(child: Child) -> str:
    head = f"`antiphon {child.spec.name}` ended ({describe(child.exit_status)}), see {child.spec.log}"
    return "\n  ".join([head, *child.last_lines()])


def _check_port(settings: Settings) -> None:
    """One clear line when nobody could listen there; the race that is left shows in the log of `serve`."""
    host, port = settings.bind_host, settings.bind_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            advice = (
                "another program listens there; stop it or choose another with ANTIPHON_BIND=127.0.0.1:8001"
            )
            raise UpError(f"{host}:{port} is taken: {advice}", 2) from error
        raise UpError(f"ANTIPHON_BIND={host}:{port}: {error.strerror}", 2) from error
