"""No room for audio: jobs end uncharged, and the next one after the room is back is delivered."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.crash.stack import Machine, wait_until

VOLUME_BYTES = 8 * 1024 * 1024
WITHOUT_ROOM = Callable[[Machine], AbstractContextManager[None]]


class Customer:
    """The first key of a machine."""

    def __init__(self, ready: dict[str, Any]) -> None:
        self._http = httpx.Client(
            base_url=ready["base_url"],
            headers={"authorization": f"Bearer {ready['live_key']}"},
            trust_env=False,
            timeout=20,
        )

    def song(self, audio_format: str = "flac") -> dict[str, Any]:
        """Ordered and ended."""
        body = {"model": "sandbox", "prompt": "a song", "audio_duration": 5, "format": audio_format}
        submitted = self._http.post("/v1/audio/generations", json=body)
        assert submitted.status_code == httpx.codes.ACCEPTED, submitted.text
        job: dict[str, Any] = submitted.json()

        def has_ended() -> bool:
            job.update(self.get(job["poll_url"]))
            return job["status"] in {"completed", "failed"}

        wait_until(has_ended)
        return job

    def get(self, path: str) -> dict[str, Any]:
        """A document."""
        answer = self._http.get(path)
        assert answer.status_code == httpx.codes.OK, answer.text
        return dict(answer.json())

    def money(self) -> tuple[str, str]:
        """Balance, and what of it is held."""
        balance = self.get("/v1/balance")
        return balance["balance_usd"], balance["held_usd"]

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def small_volume(home: Path) -> list[str]:
    """A wrapper that gives a command a small volume for its audio, which nobody else sees."""
    for options in (["--mount"], ["--mount", "--map-root-user"]):
        command = [shutil.which("unshare") or "unshare", *options, "sh", "-c"]
        mount = f'mount -t tmpfs -o size={VOLUME_BYTES},mode=700 audio "$0" && exec "$@"'
        try:
            tried = subprocess.run([*command, mount, "/mnt", "true"], capture_output=True, check=False)
        except OSError:
            break
        if tried.returncode == 0:
            return [*command, mount, str(home / "audio")]
    pytest.skip("nothing may be mounted here")


@contextmanager
def filled(machine: Machine) -> Iterator[None]:
    """The volume has no byte left."""
    filler = audio_folder(machine) / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        os.posix_fallocate(file.fileno(), 0, 2 * VOLUME_BYTES)
    free = os.statvfs(filler)
    filler.write_bytes(bytes(free.f_bavail * free.f_bsize))
    yield
    filler.unlink()


@contextmanager
def limited(machine: Machine) -> Iterator[None]:
    """The kernel refuses the worker every file that is longer than its log."""
    worker = machine.child("work")
    assert worker is not None
    unlimited = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
    yield
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, unlimited)


def audio_folder(machine: Machine) -> Path:
    """The store as the machine's own processes see it."""
    return Path(f"/proc/{machine.up.pid}/root/{machine.home}/audio")


def audio_files(machine: Machine) -> list[Path]:
    """What lies in the store."""
    return [path for path in audio_folder(machine).rglob("*") if path.is_file()]


def prove(machine: Machine, without_room: WITHOUT_ROOM) -> Customer:
    """Delivered and charged; without room failed and free; with room again delivered and charged."""
    customer = Customer(machine.start())
    assert customer.song()["status"] == "completed"
    assert customer.money() == ("4.998750000", "0.000000000")
    delivered = audio_files(machine)
    with without_room(machine):
        for audio_format in ("flac", "mp3"):
            failed = customer.song(audio_format)
            assert (failed["status"], failed["error"]["code"]) == ("failed", "upstream_error")
            assert (failed["cost"]["usd"], failed["cost"]["charged"]) == ("0.000000000", False)
        assert customer.money() == ("4.998750000", "0.000000000")
    assert audio_files(machine) == delivered
    assert customer.song("mp3")["status"] == "completed"
    assert customer.money() == ("4.997500000", "0.000000000")
    verified = machine.run("ledger", "verify")
    assert verified.returncode == 0, verified.stdout
    return customer


@pytest.mark.slow
def test_without_room_for_audio_jobs_fail_free_and_with_room_they_go_on(disk_folder: Path) -> None:
    home = disk_folder / "home"
    (home / "audio").mkdir(parents=True)
    machine = Machine(disk_folder, wrapper=small_volume(home))
    try:
        customer = prove(machine, filled)
        with filled(machine):
            answer = httpx.get(f"{machine.base_url}/readyz", trust_env=False, timeout=10)
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert answer.json()["checks"]["storage"] == "the audio store cannot be written"
        customer.close()
        assert machine.up.stop() == 0
    finally:
        machine.kill_everything()


@pytest.mark.slow
def test_files_that_the_kernel_refuses_cost_nothing(machine: Machine) -> None:
    prove(machine, limited).close()
    assert machine.up.stop() == 0
