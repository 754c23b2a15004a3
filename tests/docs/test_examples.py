"""The programs of examples/, run as their headers say, against a real gateway with a worker."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import soundfile
from standardwebhooks import Webhook

from tests.docs.stack import ROOT, Stack

FOLDER = ROOT / "examples"
PROGRAMS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in {".sh", ".py", ".mjs"})
CLIENTS = ("curl.sh", "generate.mjs", "generate.py", "openai_client.py", "webhook.py")
COMMAND = re.compile(r"^(?:#|//| )  +((?:sh|python|node) examples/.+)$", re.MULTILINE)
RUN_SECONDS = 180


@pytest.fixture
def desk(scratch: Path) -> Path:
    """Where somebody stands who has the examples: a folder with `examples` in it."""
    (scratch / "examples").symlink_to(FOLDER)
    return scratch


def command_of(program: str) -> str:
    """The line of its header that runs it."""
    (command,) = COMMAND.findall((FOLDER / program).read_text())
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    return str(command)


def run(command: str, *, environ: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", command],
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )


def test_every_program_is_listed_with_what_it_shows() -> None:
    listed = re.findall(r"^\| \[([^\]]+)\]\(([^)]+)\) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [(name, name) for name in PROGRAMS]


@pytest.mark.parametrize("program", CLIENTS)
def test_a_client_makes_a_song_and_says_what_it_cost(
    program: str, reader: dict[str, str], desk: Path
) -> None:
    answer = run(command_of(program), environ=reader, folder=desk)
    assert answer.returncode == 0, answer.stderr
    assert soundfile.info(str(desk / "waltz.mp3")).duration == pytest.approx(10, abs=0.2)
    assert re.search(r"^waltz\.mp3: 10(\.0)? s for 0\.002500000 USD", answer.stdout, re.MULTILINE)


@pytest.mark.parametrize("program", CLIENTS)
def test_a_client_tells_why_it_was_refused(program: str, reader: dict[str, str], desk: Path) -> None:
    wrong = reader | {"ANTIPHON_API_KEY": "aph_live_wrong"}
    answer = run(command_of(program), environ=wrong, folder=desk)
    assert answer.returncode != 0
    assert "invalid_api_key" in answer.stdout + answer.stderr
    assert list(desk.glob("waltz*")) == []


def test_the_batch_makes_what_is_missing_and_nothing_twice(reader: dict[str, str], desk: Path) -> None:
    (desk / "captions.txt").write_text("calm piano\n\nfast bossa nova")
    first = run(command_of("batch.sh"), environ=reader, folder=desk)
    assert first.returncode == 0, first.stderr
    songs = sorted((desk / "songs").iterdir())
    assert [song.name for song in songs] == ["001.mp3", "002.mp3"]
    songs[0].unlink()
    kept = songs[1].stat().st_mtime_ns
    assert run(command_of("batch.sh"), environ=reader, folder=desk).returncode == 0
    assert songs[0].exists()
    assert songs[1].stat().st_mtime_ns == kept


def test_the_batch_stops_at_once_when_the_key_is_wrong(reader: dict[str, str], desk: Path) -> None:
    (desk / "captions.txt").write_text("calm piano\nfast bossa nova\n")
    wrong = reader | {"ANTIPHON_API_KEY": "aph_live_wrong"}
    answer = run(command_of("batch.sh"), environ=wrong, folder=desk)
    assert answer.returncode == 3
    assert answer.stderr.count("antiphon:") == 1


def test_progress_is_followed_to_the_end(reader: dict[str, str], desk: Path) -> None:
    answer = run(command_of("events.py"), environ=reader, folder=desk)
    assert answer.returncode == 0, answer.stderr
    *changes, last = answer.stdout.splitlines()
    assert changes
    assert all(
        re.fullmatch(r"(queued|processing): \d+%(, place \d+ in the queue)?", line) for line in changes
    )
    assert last.startswith("completed for 0.015000000 USD: http")


async def test_a_webhook_that_is_forged_is_refused_and_one_that_comes_twice_counts_once(
    stack: Stack, desk: Path
) -> None:
    with stack.client() as client:
        secret = client.get("/v1/webhooks/secret").raise_for_status().json()["secret"]
    test_key = json.loads((stack.home / "keys.json").read_text())["test_key"]
    program = await asyncio.create_subprocess_exec(
        *("python", "examples/webhook.py", "slow:2", "waltz.mp3"),
        env=stack.environ | {"ANTIPHON_API_KEY": test_key},
        cwd=desk,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    url = (await program.stdout.readline()).decode().split()[-1]
    body = json.dumps({"type": "webhook.test", "timestamp": "2026-11-21T08:00:00.000Z", "data": {}})
    now = datetime.now(UTC)
    true, forged = Webhook(secret), Webhook("whsec_" + base64.b64encode(bytes(32)).decode())
    async with httpx.AsyncClient(trust_env=False) as sender:
        answers = [
            await sender.post(
                url,
                content=body,
                headers={
                    "webhook-id": "msg_1",
                    "webhook-timestamp": str(int(now.timestamp())),
                    "webhook-signature": webhook.sign("msg_1", now, body),
                },
            )
            for webhook in (forged, true, true)
        ]
    output, errors = await asyncio.wait_for(program.communicate(), RUN_SECONDS)
    assert program.returncode == 0, errors.decode()
    assert [answer.status_code for answer in answers] == [401, 204, 204]
    told = [line.split()[0] for line in output.decode().splitlines()]
    assert told == ["webhook.test", "job.completed", "waltz.mp3:"]


class CuttingRelay:
    """Passes bytes to the gateway and back, and cuts the first event stream behind its first event."""

    def __init__(self, base_url: str) -> None:
        self._host, _, self._port = base_url.removeprefix("http://").partition(":")
        self.requests: list[str] = []
        self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._host, int(self._port))
        asking = asyncio.create_task(self._ask(reader, up_writer))
        try:
            while data := await up_reader.read(65_536):
                writer.write(data)
                await writer.drain()
                if b"event: progress" in data and not self.cuts:
                    self.cuts += 1
                    break
        finally:
            asking.cancel()
            up_writer.close()
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.requests.append(data.decode("latin-1").lower())
            up_writer.write(data)


async def test_a_broken_stream_goes_on_where_it_broke(stack: Stack, desk: Path) -> None:
    test_key = json.loads((stack.home / "keys.json").read_text())["test_key"]
    relay = CuttingRelay(stack.environ["ANTIPHON_BASE_URL"])
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        program = await asyncio.create_subprocess_exec(
            "python",
            "examples/events.py",
            "slow:3",
            env=stack.environ
            | {"ANTIPHON_BASE_URL": f"http://127.0.0.1:{port}", "ANTIPHON_API_KEY": test_key},
            cwd=desk,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(program.communicate(), RUN_SECONDS)
    assert program.returncode == 0, errors.decode()
    assert relay.cuts == 1
    assert b"the stream broke" in errors
    first, second, *_ = [request for request in relay.requests if "/events http/1.1" in request]
    assert "last-event-id" not in first
    assert "last-event-id: " in second
    lines = output.decode().splitlines()
    assert lines[-1].startswith("completed")
    assert lines[0] not in lines[1:]
