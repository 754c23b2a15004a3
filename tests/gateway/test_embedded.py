"""The embedded Postgres survives what machines do to it, and touches nothing but its own."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from gateway.embedded import EmbeddedPostgres, EmbeddedPostgresError, binaries, place, read_dsn
from gateway.embedded.account import choose_account
from gateway.embedded.binaries import find_binaries
from gateway.embedded.cluster import explain
from gateway.embedded.place import Place
from gateway.embedded.postmaster import shared_buffers

ROOT = Path(__file__).resolve().parent.parent.parent
OWNER = """
import sys, time
from pathlib import Path
from gateway.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), durable=sys.argv[2] == "durable")
print(server.start(), flush=True)
time.sleep(600)
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root lends its server to another user")


@pytest.fixture
def home(scratch: Path) -> Path:
    return scratch / "home"


@pytest.fixture
def server(home: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(home, durable=False)
    yield server
    server.stop()


def ask(dsn: str, sql: str) -> object:
    async def query() -> object:
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(query())


def until(fact: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def processes_of(home: Path) -> list[psutil.Process]:
    """Living processes whose command line names the folder; zombies have no command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if any(str(home) in word for word in words) and "postgres" in words[0]:
            found.append(process)
    return found


def postmaster(home: Path) -> psutil.Process:
    return psutil.Process(int((home / "postgres/data/postmaster.pid").read_text().split("\n", 1)[0]))


def start_owner(home: Path, mode: str = "undurable") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(home), mode],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ) | {"PYTHONPATH": str(ROOT)},
    )


def test_a_started_server_is_found_through_the_home_until_it_stops(
    home: Path, server: EmbeddedPostgres
) -> None:
    dsn = server.start()
    assert ask(dsn, "SELECT 1") == 1
    assert read_dsn(home) == dsn
    assert stat.S_IMODE((home / "database.json").stat().st_mode) == 0o600
    server.stop()
    assert read_dsn(home) is None
    assert not server.alive()
    assert processes_of(home) == []


def test_a_durable_server_writes_before_it_answers(home: Path) -> None:
    server = EmbeddedPostgres(home)
    try:
        dsn = server.start()
        for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert ask(dsn, f"SHOW {name}") == "on", name
        assert ask(dsn, "SHOW jit") == "off"
        assert ask(server.superuser_dsn, "SHOW unix_socket_directories") == ""
        assert ask(dsn, "SHOW listen_addresses") == "127.0.0.1"
    finally:
        server.stop()


def test_nobody_connects_without_the_password(server: EmbeddedPostgres) -> None:
    dsn = server.start()
    for user in ("antiphon", "postgres"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            ask(f"postgresql://{user}:wrong@{dsn.rpartition('@')[2]}", "SELECT 1")


def test_the_products_role_is_no_superuser(server: EmbeddedPostgres) -> None:
    dsn = server.start()
    assert ask(dsn, "SELECT usesuper FROM pg_user WHERE usename = current_user") is False
    assert ask(server.superuser_dsn, "SELECT usesuper FROM pg_user WHERE usename = current_user") is True


def test_a_killed_server_comes_back_on_its_port_with_its_data(home: Path) -> None:
    server = EmbeddedPostgres(home)
    try:
        dsn = server.start()
        ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        postmaster(home).kill()
        until(lambda: not server.alive())
        assert server.start() == dsn
        assert ask(dsn, "SELECT answer FROM kept") == 42
    finally:
        server.stop()


def test_a_stopped_home_starts_again_with_the_same_dsn(home: Path, server: EmbeddedPostgres) -> None:
    dsn = server.start()
    server.stop()
    again = EmbeddedPostgres(home, durable=False)
    try:
        assert again.start() == dsn
    finally:
        again.stop()


def test_a_server_ends_with_its_killed_owner(home: Path) -> None:
    with start_owner(home) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        assert processes_of(home)
        owner.kill()
    until(lambda: not processes_of(home))


def test_a_start_right_after_a_killed_owner_waits_for_what_is_left(
    home: Path, server: EmbeddedPostgres
) -> None:
    with start_owner(home, "durable") as owner:
        assert owner.stdout is not None
        dsn = owner.stdout.readline().strip()
        ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        owner.kill()
    assert ask(server.start(), "SELECT answer FROM kept") == 42


def test_an_orphan_that_does_not_end_by_itself_is_ended(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = server.start()
    orphan = server._postmaster
    assert orphan is not None
    server._postmaster = None
    server.stop()
    monkeypatch.setattr("gateway.embedded.leftovers.STEPS", ((None, 0.1), (signal.SIGINT, 30.0)))
    try:
        assert EmbeddedPostgres.start(server) == dsn
        assert not orphan.alive()
    finally:
        orphan.stop()


def test_what_an_interrupted_initdb_left_is_removed(home: Path, server: EmbeddedPostgres) -> None:
    half_made = home / "postgres" / "unfinished-abc" / "data"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    assert ask(server.start(), "SELECT 1") == 1
    assert not half_made.parent.exists()


@pytest.mark.slow  # each run leaves 56 bytes of shared memory of the killed program
def test_a_killed_owner_in_the_middle_of_initdb_leaves_no_half_made_data(
    home: Path, server: EmbeddedPostgres
) -> None:
    folder = home / "postgres"
    with start_owner(home) as owner:
        until(lambda: any(folder.glob("unfinished-*/data/base")))
        owner.kill()
    assert not (folder / "data").exists()
    assert ask(server.start(), "SELECT 1") == 1
    assert not list(folder.glob("unfinished-*"))


def test_a_pid_file_whose_number_now_belongs_to_another_process_does_no_harm(
    home: Path, server: EmbeddedPostgres
) -> None:
    server.start()
    pid_file = home / "postgres/data/postmaster.pid"
    content = pid_file.read_text()
    server.stop()
    account = choose_account(home / "postgres/data")
    bystander = subprocess.Popen(["sleep", "600"], **account.process_options())
    try:
        pid_file.write_text(content.replace(content.split("\n", 1)[0], str(bystander.pid), 1))
        assert read_dsn(home) is None
        assert ask(server.start(), "SELECT 1") == 1
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_spaces_and_long_paths_are_ordinary(scratch: Path) -> None:
    home = scratch / "a folder's name" / ("long" * 40) / "home"
    server = EmbeddedPostgres(home, durable=False)
    try:
        assert ask(server.start(), "SELECT 1") == 1
        assert Path(server.log).is_relative_to(home)
    finally:
        server.stop()


def test_a_second_server_on_the_same_data_is_refused_in_one_line(
    home: Path, server: EmbeddedPostgres
) -> None:
    dsn = server.start()
    with pytest.raises(EmbeddedPostgresError) as refusal:
        EmbeddedPostgres(home, durable=False).start()
    assert "in use by a running antiphon" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert ask(dsn, "SELECT 1") == 1


def test_lost_passwords_are_replaced_and_the_data_stays(home: Path, server: EmbeddedPostgres) -> None:
    dsn = server.start()
    ask(dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    (home / "database.json").write_text("{")
    said: list[str] = []
    again = EmbeddedPostgres(home, durable=False, report=said.append)
    try:
        fresh = again.start()
        assert ask(fresh, "SELECT answer FROM kept") == 42
        assert fresh.split("@")[0] != dsn.split("@")[0]
        assert "passwords" in said[0]
    finally:
        again.stop()


def test_a_port_taken_since_the_last_run_is_exchanged(home: Path, server: EmbeddedPostgres) -> None:
    dsn = server.start()
    server.stop()
    with socket.create_server(("127.0.0.1", int(dsn.rpartition(":")[2].split("/")[0]))):
        again = EmbeddedPostgres(home, durable=False)
        try:
            other = again.start()
            assert other != dsn
            assert ask(other, "SELECT 1") == 1
            assert read_dsn(home) == other
        finally:
            again.stop()


def test_data_of_another_major_version_is_named(home: Path, server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (home / "postgres/data/PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedPostgresError, match="made by Postgres 9"):
        EmbeddedPostgres(home, durable=False).start()


def test_broken_data_fails_with_the_servers_own_words(home: Path, server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (home / "postgres/data/global/pg_control").unlink()
    with pytest.raises(EmbeddedPostgresError, match="pg_control"):
        server.start()
    assert processes_of(home) == []


def test_a_start_that_takes_too_long_leaves_no_process(home: Path) -> None:
    server = EmbeddedPostgres(home, durable=False, start_seconds=0.0)
    with pytest.raises(EmbeddedPostgresError, match="not ready within 0 s"):
        server.start()
    assert processes_of(home) == []


def test_a_wait_can_be_given_up(home: Path) -> None:
    def give_up(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EmbeddedPostgres(home, durable=False, pause=give_up).start()
    assert processes_of(home) == []


def test_a_full_disk_is_called_a_full_disk(home: Path) -> None:
    there = Place(folder=home, account=choose_account())
    output = "FATAL: could not write to file: No space left on device\n"
    assert "disk of" in explain("initdb failed", output, there)
    assert "is full" in explain("initdb failed", output, there)


def test_only_the_main_thread_may_start_it(home: Path) -> None:
    refusals: list[EmbeddedPostgresError] = []

    def start() -> None:
        try:
            EmbeddedPostgres(home, durable=False).start()
        except EmbeddedPostgresError as error:
            refusals.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(refusals[0])


@needs_root
def test_a_home_that_the_servers_user_cannot_reach_stays_closed(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "SYSTEM_STATE", scratch / "state")
    private = scratch / "private"
    private.mkdir(mode=0o700)
    said: list[str] = []
    server = EmbeddedPostgres(private / "home", durable=False, report=said.append)
    try:
        dsn = server.start()
        assert ask(dsn, "SELECT 1") == 1
        assert read_dsn(private / "home") == dsn
        assert str(scratch / "state") in said[0]
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert not (private / "home/postgres").exists()
    finally:
        server.stop()
    again = EmbeddedPostgres(private / "home", durable=False)
    try:
        assert again.start() == dsn
    finally:
        again.stop()
    shutil.rmtree(scratch / "state")
    with pytest.raises(EmbeddedPostgresError, match="which is gone"):
        EmbeddedPostgres(private / "home", durable=False).start()


@needs_root
def test_programs_below_a_private_folder_are_copied_not_opened_up(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = scratch / "private"
    private.mkdir(mode=0o700)
    installation = binaries._wheel_folders()[0].parent
    package = private / installation.parent.name
    shutil.copytree(installation, package / installation.name)
    shutil.copytree(f"{installation.parent}.libs", f"{package}.libs")
    monkeypatch.setattr(binaries, "_wheel_folders", lambda: [package / installation.name / "bin"])
    monkeypatch.setattr(binaries, "_system_folders", list)
    account = choose_account()
    monkeypatch.setattr(binaries, "SHARED_COPIES", scratch / "binaries")
    found = find_binaries(account)
    assert found.folder.is_relative_to(scratch / "binaries")
    assert find_binaries(account) == found
    assert len(list((scratch / "binaries").iterdir())) == 1
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_nothing_is_copied_where_somebody_else_could_put_a_link(scratch: Path) -> None:
    elsewhere = scratch / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (scratch / "binaries").symlink_to(elsewhere)
    installation = binaries._wheel_folders()[0].parent
    with pytest.raises(PermissionError):
        binaries._copy(installation, scratch / "binaries")
    assert elsewhere.stat().st_mode & 0o777 == 0o700
    assert list(elsewhere.iterdir()) == []


def test_the_cache_is_an_eighth_of_the_memory_within_bounds() -> None:
    assert [shared_buffers(gib * 2**30) for gib in (0, 1, 2, 3, 64)] == [
        "128MB",
        "128MB",
        "256MB",
        "384MB",
        "512MB",
    ]
