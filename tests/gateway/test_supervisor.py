"""Children are started, watched, brought back, and none of them is ever left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gateway import supervisor as module
from gateway.file_lock import FileLock
from gateway.supervisor import ChildSpec, Supervisor, bound_log

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENT = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {PATIENT}"
PARENT = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
OWNER = """
import sys, time
from pathlib import Path
from gateway.supervisor import ChildSpec, Supervisor
command = [sys.executable, "-c", sys.argv[2]]
log = Path(sys.argv[1]) / "child.log"
children = Supervisor([ChildSpec(name="child", command=command, environ={}, log=log)])
children.start()
print(children.children[0].pid, flush=True)
time.sleep(600)
"""


def until(fact: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def runs(pid: int | None) -> bool:
    """False for processes that ended, whether or not somebody has reaped them."""
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Setting:
    """One supervisor with one child, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.folder = folder
        self.supervisor = Supervisor([])

    def start(self, program: str, hold: tuple[int, ...] = ()) -> Supervisor:
        spec = ChildSpec(
            name="child",
            command=[sys.executable, "-c", program],
            environ=dict(os.environ) | {"TOLD": "by the supervisor"},
            log=self.folder / "logs" / "child.log",
            hold=hold,
        )
        self.supervisor = Supervisor([spec], self.said.append)
        self.supervisor.start()
        return self.supervisor

    def output(self) -> str:
        return "\n".join(self.supervisor.children[0].last_lines())


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(tmp_path)
    yield setting
    setting.supervisor.stop(seconds=0)


def test_output_goes_to_the_childs_log_and_the_environment_arrives(setting: Setting) -> None:
    setting.start("import os; print(os.environ['TOLD'])")
    until(lambda: bool(setting.supervisor.ended()))
    assert setting.output() == "by the supervisor"
    assert setting.supervisor.children[0].exit_status == 0


def test_a_crashed_child_comes_back_later_each_time(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(module, "LONGEST_DELAY_SECONDS", 0.03)
    children = setting.start("import sys; print('crash'); sys.exit(3)")

    def crashed_four_times() -> bool:
        children.tick()
        return len(setting.said) >= 4

    until(crashed_four_times)
    delays = [line.rsplit(" ", 2)[1] for line in setting.said[:4]]
    assert delays == ["0.01", "0.02", "0.03", "0.03"]
    assert "exit status 3" in setting.said[0]
    assert setting.output().count("crash") >= 4


def test_a_killed_child_is_replaced_by_a_new_process(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 0.01)
    children = setting.start(PATIENT)
    first = children.children[0].pid
    assert first is not None
    os.kill(first, signal.SIGKILL)

    def replaced() -> bool:
        children.tick()
        return children.children[0].pid not in {None, first}

    until(replaced)
    assert "signal 9" in setting.said[0]


def test_a_steady_child_that_crashes_comes_back_at_once(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEADY_SECONDS", 0.0)
    children = setting.start("raise SystemExit(1)")

    def crashed_twice() -> bool:
        children.tick()
        return len(setting.said) >= 2

    until(crashed_twice)
    assert all("0.5 s" in line for line in setting.said)


def test_stop_asks_first(setting: Setting) -> None:
    children = setting.start(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('in order', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)"
    )
    until(lambda: "up" in setting.output())
    children.stop()
    assert "in order" in setting.output()
    assert children.children[0].exit_status == 0
    assert setting.said == []


def test_a_child_that_does_not_listen_is_killed(setting: Setting) -> None:
    children = setting.start(STUBBORN)
    until(lambda: "up" in setting.output())
    children.stop(seconds=0.1)
    assert children.children[0].exit_status == -signal.SIGKILL
    assert "killed" in setting.said[0]


def test_an_impatient_operator_does_not_wait(setting: Setting) -> None:
    children = setting.start(STUBBORN)
    until(lambda: "up" in setting.output())
    began = time.monotonic()
    children.stop(seconds=600, hurry=lambda: True)
    assert time.monotonic() - began < 60
    assert children.children[0].exit_status == -signal.SIGKILL


def test_what_a_child_started_ends_with_it(setting: Setting) -> None:
    children = setting.start(PARENT)
    until(lambda: setting.output().isdigit())
    grandchild = int(setting.output())
    pid = children.children[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: bool(children.ended()))
    until(lambda: not runs(grandchild))


def test_children_end_with_a_killed_owner_whatever_they_are_at(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), STUBBORN],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
    ) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        until(lambda: "up" in (tmp_path / "child.log").read_text())
        assert runs(child)
        owner.kill()
    until(lambda: not runs(child))


def test_when_one_cannot_be_started_none_is_left(tmp_path: Path) -> None:
    specs = [
        ChildSpec(name=name, command=command, environ={}, log=tmp_path / f"{name}.log")
        for name, command in {"good": [sys.executable, "-c", PATIENT], "bad": ["/there/is/no/such"]}.items()
    ]
    children = Supervisor(specs)
    with pytest.raises(FileNotFoundError):
        children.start()
    assert len(children.ended()) == 2


def test_a_lock_handed_on_is_held_as_long_as_the_child_runs(setting: Setting, tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    children = setting.start(PATIENT, hold=(lock.fileno(),))
    lock.release()
    assert not FileLock(tmp_path / "lock").acquire()
    children.stop()
    again = FileLock(tmp_path / "lock")
    assert again.acquire()
    again.release()


def test_a_large_log_is_moved_aside_under_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_LIMIT_BYTES", 8)
    log = tmp_path / "child.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"0123456789")
        bound_log(log)
        writer.write(b"next")
    assert log.read_bytes() == b"next"
    assert (tmp_path / "child.log.1").read_bytes() == b"0123456789"
