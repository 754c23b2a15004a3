"""The product's real processes under a test's control: started, found by what they are, ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from gateway.embedded import read_dsn
from gateway.parent_death import end_with_parent
from tests.factories import SECRET_KEY

ROOT: Final = Path(__file__).resolve().parent.parent.parent
ANTIPHON: Final = (sys.executable, "-m", "gateway.cli")
START_SECONDS: Final = 120
END_SECONDS: Final = 60


class Service:
    """One command that runs until it is ended, with what a supervisor of the system does for it.

    `wrapper` is put in front of the command and must end in an exec, so that the process is the command's.
    """

    def __init__(
        self, command: Sequence[str], *, environ: dict[str, str], folder: Path, wrapper: Sequence[str] = ()
    ) -> None:
        self.name = command[0]
        self._command = [*wrapper, *ANTIPHON, *command]
        self._environ = own_environment(environ)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        assert self._process is not None
        return self._process.pid

    @property
    def stdout(self) -> Path:
        """What the process that was started last has said."""
        return self._folder / f"{self.name}-{self.starts}.out"

    @property
    def stderr(self) -> Path:
        """What all of them have complained about."""
        return self._folder / f"{self.name}.err"

    def start(self, *, own_session: bool = False) -> None:
        """Start it and return; it ends with the test, even with a killed one."""
        self.starts += 1
        with self.stdout.open("wb") as stdout, self.stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                self._command,
                env=self._environ,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=own_session,
                preexec_fn=end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - before any thread of ours
            )

    def exit_status(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.poll()

    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """To this process only, and only while it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Its exit status; TimeoutExpired if it does not end in time."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, seconds: float = END_SECONDS) -> int:
        """Ask it to end, and wait for it."""
        self.send(number)
        return self.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has cleared up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(END_SECONDS)


class Machine:
    """An empty home on a free port, and the `antiphon up` that runs there."""

    def __init__(self, folder: Path, *, wrapper: Sequence[str] = ()) -> None:
        self.folder = folder
        self.home = folder / "home"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.environ = {"ANTIPHON_HOME": str(self.home), "ANTIPHON_BIND": f"127.0.0.1:{self.port}"}
        self.up = Service(("up", "--json"), environ=self.environ, folder=folder, wrapper=wrapper)
        self.services = [self.up]

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def add_worker(self) -> Service:
        """A worker beside the one of `up`; nobody has started it yet."""
        worker = Service(("work",), environ=self.environ, folder=self.folder)
        self.services.append(worker)
        return worker

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Another command with the same home, to its end."""
        return subprocess.run(
            [*ANTIPHON, *command],
            env=own_environment(self.environ),
            cwd=self.folder,
            timeout=START_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self) -> dict[str, Any]:
        """Start `up` and wait until it is ready; what it said then."""
        self.up.start()
        return self.await_ready()

    def await_ready(self) -> dict[str, Any]:
        """What `up` says when it is ready."""
        wait_until(lambda: self.up.stdout.read_bytes().endswith(b"\n") or not self.up.runs(), START_SECONDS)
        said = self.up.stdout.read_text()
        assert said, self.up.stderr.read_text()
        return dict(json.loads(said))

    def dsn(self) -> str:
        """Of the embedded database, which must run."""
        dsn = read_dsn(self.home)
        assert dsn is not None
        return dsn

    def child(self, name: str) -> psutil.Process | None:
        """The child of `up` that runs this command."""
        return next((child for child in children_of(self.up.pid) if name in words_of(child)), None)

    def postmaster(self) -> psutil.Process | None:
        """The main process of the embedded Postgres."""
        return next((child for child in children_of(self.up.pid) if is_postgres(child)), None)

    def processes(self) -> list[psutil.Process]:
        """Everything that works for this home: by its environment, or by its command line (Postgres)."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def errors(self) -> list[str]:
        """What the processes of `up` have logged as errors."""
        logs = [self.home / "logs" / f"{name}.log" for name in ("serve", "work")]
        lines = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
        return [line for line in lines if '"level":"error"' in line]

    def story(self) -> str:
        """What `up` said, errors, and the ends of the other logs."""
        ends = [
            line
            for name in ("migrate", "postgres")
            for line in (self.home / "logs" / f"{name}.log").read_text().splitlines()[-30:]
        ]
        return "\n".join([self.up.stderr.read_text(), *self.errors()[-20:], *ends])

    def kill_everything(self) -> None:
        """As a machine that loses its power does: nobody lives to see another one's end."""
        found = {process.pid: process for process in self.processes()}
        for process in list(found.values()):
            found |= {child.pid: child for child in children_of(process.pid, recursive=True)}
        end_at_once(list(found.values()))
        for service in self.services:
            service.kill()

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                return False
            named = any(str(self.home) in word for word in process.cmdline())
            return named or process.environ().get("ANTIPHON_HOME") == str(self.home)
        except psutil.Error:
            return False


class Workers:
    """`antiphon work` on a database of the tests' own, as often as asked for; each writes a log."""

    def __init__(self, database: str, folder: Path) -> None:
        self._folder = folder
        self._environ = {
            "ANTIPHON_DATABASE_URL": database,
            "ANTIPHON_HOME": str(folder / "home"),
            "ANTIPHON_STORAGE_URL": (folder / "audio").as_uri(),
            "ANTIPHON_SECRET_KEY": SECRET_KEY,
        }
        self.services: list[Service] = []

    def start(self, *, own_session: bool = False) -> Service:
        """Start one more."""
        folder = self._folder / f"worker-{len(self.services)}"
        folder.mkdir()
        service = Service(("work",), environ=self._environ, folder=folder)
        service.start(own_session=own_session)
        self.services.append(service)
        return service

    def service_of(self, worker_id: uuid.UUID) -> Service:
        """Whose log names the worker."""
        for service in self.services:
            if worker_id.hex in service.stderr.read_text():
                return service
        raise LookupError(f"no log names worker {worker_id.hex}")

    def stop(self) -> None:
        """End all of them, in order if they can."""
        for service in self.services:
            service.send(signal.SIGCONT)
            service.send(signal.SIGTERM)
        for service in self.services:
            try:
                service.stop(seconds=30)
            except subprocess.TimeoutExpired:
                service.kill()


def tell(text: str) -> None:
    """For whoever reads the output of a test, above all of one that failed."""
    sys.stdout.write(f"{text}\n")


def own_environment(environ: dict[str, str]) -> dict[str, str]:
    """Ours without the settings of whoever runs the tests, and with these."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    return foreign | environ | {"PYTHONPATH": str(ROOT)}


def wait_until(fact: Callable[[], bool], seconds: float = 60) -> None:
    """Ask again and again until it is true."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def is_ready(base_url: str) -> bool:
    """Whether /readyz says so."""
    try:
        return httpx.get(f"{base_url}/readyz", trust_env=False, timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def children_of(pid: int, *, recursive: bool = False) -> list[psutil.Process]:
    """Those that run; none if the process is gone itself."""
    try:
        return psutil.Process(pid).children(recursive=recursive)
    except psutil.Error:
        return []


def is_postgres(process: psutil.Process) -> bool:
    """By its program, whatever its title says."""
    try:
        return process.name() == "postgres"
    except psutil.Error:
        return False


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none if it is gone."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def end_at_once(processes: Sequence[psutil.Process]) -> None:
    """Stop all of them first, so that none reacts to the end of another; then SIGKILL."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
