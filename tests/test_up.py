"""`antiphon up` from an empty folder to a first song, and what is left when it ends in any way."""

import asyncio
import json
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import soundfile

from tests.crash.load import begin_request
from tests.crash.stack import Machine, is_ready, wait_until


@pytest.fixture
def machine(scratch: Path) -> Iterator[Machine]:
    machine = Machine(scratch)
    yield machine
    machine.kill_everything()


def balance(ready: dict[str, Any]) -> str:
    return str(read(ready, "live_key", "/v1/balance")["balance_usd"])


def submit(ready: dict[str, Any], key: str, prompt: str) -> str:
    """The path of a new job."""
    headers = {"authorization": f"Bearer {ready[key]}"}
    body = {"model": "sandbox", "prompt": prompt, "audio_duration": 5}
    url = f"{ready['base_url']}/v1/audio/generations"
    answer = httpx.post(url, json=body, headers=headers, trust_env=False, timeout=10)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["poll_url"])


def read(ready: dict[str, Any], key: str, path: str) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {ready[key]}"}
    answer = httpx.get(f"{ready['base_url']}{path}", headers=headers, trust_env=False, timeout=10)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def workers_seen(machine: Machine, *, since: float) -> int:
    """How many have told the database after that moment that they are there."""

    async def count() -> int:
        conn = await asyncpg.connect(machine.dsn())
        try:
            return int(
                await conn.fetchval("SELECT count(*) FROM worker WHERE seen_at > to_timestamp($1)", since)
            )
        finally:
            await conn.close()

    return asyncio.run(count())


def test_the_first_command_ends_with_a_song_a_bill_and_no_process(machine: Machine) -> None:
    first = machine.run("up", "--demo", "--exit", "--json")
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

    second = machine.run("up", "--demo", "--exit")
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
    assert machine.up.stop() == 0
    assert machine.processes() == []


@pytest.mark.slow
def test_killing_only_the_command_ends_everything_that_it_started(machine: Machine) -> None:
    ready = machine.start()
    slow = submit(ready, "test_key", "a song slow:60")
    wait_until(lambda: read(ready, "test_key", slow)["status"] == "processing")
    with socket.create_connection(("127.0.0.1", machine.port)) as half_a_request:
        half_a_request.sendall(begin_request(ready["live_key"]).encode())
        machine.up.kill()
        wait_until(lambda: not machine.processes())
    assert machine.start() == ready
    assert read(ready, "test_key", slow)["status"] in {"queued", "processing"}


def test_killed_parts_come_back_under_the_running_command_and_a_worker_beside_it_goes_on(
    machine: Machine,
) -> None:
    ready = machine.start()
    beside = machine.add_worker()
    beside.start()
    wait_until(lambda: workers_seen(machine, since=0.0) == 2)
    for part in (machine.postmaster(), machine.child("serve"), machine.child("work")):
        assert part is not None
        part.kill()
    killed = time.time()
    wait_until(lambda: is_ready(machine.base_url))
    wait_until(lambda: workers_seen(machine, since=killed + 1) == 2)
    assert beside.runs()
    assert balance(ready) == "5.000000000"


def test_a_second_start_on_the_same_home_says_so_in_one_line(machine: Machine) -> None:
    machine.start()
    second = machine.run("up", "--exit")
    assert second.returncode == 2
    assert second.stderr.splitlines() == [
        f"antiphon: antiphon is already running with the home {machine.home}"
    ]


def test_a_taken_port_is_one_clear_line(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", machine.port)):
        refused = machine.run("up", "--exit")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert f"127.0.0.1:{machine.port} is taken" in refused.stderr
    assert machine.processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_ends_it_in_order(machine: Machine, number: signal.Signals) -> None:
    machine.start()
    assert machine.up.stop(number) == 0
    assert machine.processes() == []
    with socket.create_server(("127.0.0.1", machine.port)):
        pass
