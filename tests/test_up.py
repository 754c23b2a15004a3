"""`antiphon up` from an empty folder to a first song, and what is left when it ends in any way."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120


class Machine:
    """An empty home on a free port, and the `antiphon up` that runs there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """To its end."""
        return subprocess.run(
            self._command(options), timeout=START_SECONDS, capture_output=True, check=False, **self._setting()
        )

    def start(self) -> dict[str, Any]:
        """Until it is ready; what it said then."""
        with (self.folder / "stderr").open("a") as stderr:
            self.process = subprocess.Popen(
                self._command(("--json",)), stdout=subprocess.PIPE, stderr=stderr, **self._setting()
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (self.folder / "stderr").read_text()
        return dict(json.loads(line))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def processes(self) -> list[psutil.Process]:
        """Everything that works for this home: by its environment, or by its command line (Postgres)."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def kill_everything(self) -> None:
        """As a machine that loses its power does."""
        for process in self.processes():
            process.kill()
        assert self.process is not None
        self.process.communicate(timeout=60)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                return False
            named = any(str(self.home) in word for word in process.cmdline())
            return named or process.environ().get("ANTIPHON_HOME") == str(self.home)
        except psutil.Error:
            return False

    def _command(self, options: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "gateway.cli", "up", *options]

    def _setting(self) -> dict[str, Any]:
        own = {
            "ANTIPHON_HOME": str(self.home),
            "ANTIPHON_BIND": f"127.0.0.1:{self.port}",
            "PYTHONPATH": str(ROOT),
        }
        foreign = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
        return {"env": foreign | own, "cwd": self.folder, "text": True}


@pytest.fixture
def machine(scratch: Path) -> Iterator[Machine]:
    machine = Machine(scratch)
    yield machine
    for process in machine.processes():
        process.kill()
    if machine.process is not None:
        machine.process.communicate(timeout=60)


def until(fact: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def balance(ready: dict[str, Any]) -> str:
    headers = {"authorization": f"Bearer {ready['live_key']}"}
    answer = httpx.get(f"{ready['base_url']}/v1/balance", headers=headers, trust_env=False, timeout=10)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["balance_usd"])


def test_the_first_command_ends_with_a_song_a_bill_and_no_process(machine: Machine) -> None:
    first = machine.run("--demo", "--exit", "--json")
    assert first.returncode == 0, first.stderr
    ready = json.loads(first.stdout)
    assert list(ready) == ["base_url", "live_key", "test_key", "dashboard_url"]
    assert ready["base_url"] == f"http://127.0.0.1:{machine.port}"
    assert ready["live_key"].startswith("aph_live_")
    assert ready["test_key"].startswith("aph_test_")
    assert machine.processes() == []
    song, *others = (machine.folder / "out").iterdir()
    assert others == []
    assert abs(soundfile.info(str(song)).duration - 30) < 1
    assert "Charged   0.007500000 USD = 30 s x 0.000250000 USD per second" in first.stderr
    assert "Balance   4.992500000 USD" in first.stderr
    assert stat.S_IMODE((machine.home / "keys.json").stat().st_mode) == 0o600

    second = machine.run("--demo", "--exit")
    assert second.returncode == 0, second.stderr
    assert "Balance   4.985000000 USD" in second.stdout
    assert ready["live_key"] in second.stdout
    assert len(list((machine.folder / "out").iterdir())) == 2
    assert machine.processes() == []


def test_a_killed_machine_starts_again_with_its_keys_and_its_money(machine: Machine) -> None:
    ready = machine.start()
    before = balance(ready)
    machine.kill_everything()
    assert machine.start() == ready
    assert balance(ready) == before
    assert machine.stop(signal.SIGTERM) == 0
    assert machine.processes() == []


def test_killing_only_the_command_ends_everything_that_it_started(machine: Machine) -> None:
    ready = machine.start()
    assert machine.process is not None
    machine.process.kill()
    machine.process.communicate(timeout=60)
    until(lambda: not machine.processes())
    assert machine.start() == ready


def test_a_killed_part_comes_back_under_the_running_command(machine: Machine) -> None:
    ready = machine.start()
    for part in machine.processes():
        if "postgres" in part.name() or "serve" in part.cmdline() or "work" in part.cmdline():
            part.kill()

    def answers() -> bool:
        try:
            answer = httpx.get(f"{ready['base_url']}/readyz", trust_env=False, timeout=5)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200 and any("work" in part.cmdline() for part in machine.processes())

    until(answers)
    assert balance(ready) == "5.000000000"


def test_a_second_start_on_the_same_home_says_so_in_one_line(machine: Machine) -> None:
    machine.start()
    second = machine.run("--exit")
    assert second.returncode == 2
    assert second.stderr.splitlines() == [
        f"antiphon: antiphon is already running with the home {machine.home}"
    ]


def test_a_taken_port_is_one_clear_line(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", machine.port)):
        refused = machine.run("--exit")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert f"127.0.0.1:{machine.port} is taken" in refused.stderr
    assert machine.processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_in_order(machine: Machine, number: signal.Signals) -> None:
    machine.start()
    assert machine.stop(number) == 0
    assert machine.processes() == []
    with socket.create_server(("127.0.0.1", machine.port)):
        pass
