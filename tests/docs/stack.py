"""`antiphon up` in a home of its own, as somebody has it who followed the first steps."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
STOP_SECONDS = 60
JOB_SECONDS = 240
WEBHOOK_SECRET = "whsec_of_these_pages"
STRIPE_KEY = "sk_test_of_these_pages"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Payments:
    """The payment provider's stand-in as a process of its own; people press buttons on its pages."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.environ = {
            "ANTIPHON_STRIPE_BASE_URL": self.url,
            "ANTIPHON_STRIPE_SECRET_KEY": STRIPE_KEY,
            "ANTIPHON_STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        }
        self._process: subprocess.Popen[str] | None = None

    def start(self, gateway_url: str) -> None:
        command = [sys.executable, "-m", "tests.providers.stripe", "--port", self.url.rsplit(":", 1)[1]]
        command += ["--api-key", STRIPE_KEY, "--secret", WEBHOOK_SECRET]
        command += ["--webhook-url", f"{gateway_url}/webhooks/stripe"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=STOP_SECONDS)

    def pay(self, page_url: str, **more: Any) -> None:
        """Somebody pays, or enters a card, on the page; what follows from it was delivered."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=20) as client:
            session = page_url.rsplit("/", 1)[1]
            paid = client.post("/_control/payments/pay", json={"session": session} | more)
            assert paid.status_code == 200, paid.text
            assert client.post("/_control/deliveries/settled", json={}).status_code == 200


class Stack:
    """Started and stopped as often as a test likes; ends with its block."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.home = folder / "home"
        self._errors = folder / "up.log"
        self._up: subprocess.Popen[str] | None = None
        own = {
            "ANTIPHON_HOME": str(self.home),
            "ANTIPHON_BIND": f"127.0.0.1:{free_port()}",
            "PYTHONPATH": str(ROOT),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "NO_PROXY": "127.0.0.1",
        }
        foreign = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
        self.environ = foreign | own | more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def start(self) -> dict[str, Any]:
        """Until it is ready; what it said then. The client's variables are in `environ` from now on."""
        command = [sys.executable, "-m", "gateway.cli", "up", "--json"]
        with self._errors.open("a") as errors:
            self._up = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self.environ,
                cwd=self.home.parent,
                text=True,
            )
        assert self._up.stdout is not None
        line = self._up.stdout.readline()
        assert line, self._errors.read_text()
        ready: dict[str, Any] = json.loads(line)
        self.environ |= {"ANTIPHON_BASE_URL": ready["base_url"], "ANTIPHON_API_KEY": ready["live_key"]}
        return ready

    def stop(self) -> None:
        if self._up is not None:
            self._up.terminate()
            self._up.communicate(timeout=STOP_SECONDS)
            self._up = None

    def client(self) -> httpx.Client:
        """With the first live key."""
        return httpx.Client(
            base_url=self.environ["ANTIPHON_BASE_URL"],
            headers={"x-api-key": self.environ["ANTIPHON_API_KEY"]},
            trust_env=False,
            timeout=20,
        )


def submit(client: httpx.Client, **wish: Any) -> dict[str, Any]:
    """A job of the sandbox: five seconds, if nothing else is said."""
    body = {"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5, "format": "mp3"} | wish
    answer = client.post("/v1/audio/generations", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def finished(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job, completed."""
    deadline = time.monotonic() + JOB_SECONDS
    while job["status"] not in {"completed", "failed"}:
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
        job = client.get(job["poll_url"]).raise_for_status().json()
    assert job["status"] == "completed", job["error"]
    return job
