"""A stop in order: who was heard is answered, what is rendered is finished or handed over, within 30 s."""

import asyncio
import json
import signal
import time
from typing import Any

import asyncpg
import httpx
import pytest

from tests.crash.books import judge
from tests.crash.load import FINAL, Accepted, Customers, Register, Wallet, begin_request, open_accounts
from tests.crash.stack import Machine
from tests.factories import until

EXIT_SECONDS = 30.0
PATIENCE_SECONDS = 60.0


class Requests:
    """Requests to one machine, and what they were answered."""

    def __init__(self, machine: Machine, customers: Customers) -> None:
        self._machine = machine
        self._wallets = {wallet.name: wallet for wallet in customers.wallets}
        self.register = Register()
        self.http = httpx.AsyncClient(
            base_url=machine.base_url,
            trust_env=False,
            timeout=PATIENCE_SECONDS,
            limits=httpx.Limits(max_connections=None),
        )

    def wallet(self, name: str) -> Wallet:
        """By its name."""
        return self._wallets[name]

    async def submit(self, wallet: Wallet, key: str, prompt: str, *, seconds: int = 5) -> Accepted:
        """In one piece."""
        headers = {"authorization": f"Bearer {wallet.key}", "idempotency-key": key}
        body = {"model": "sandbox", "prompt": prompt, "audio_duration": seconds}
        answer = await self.http.post("/v1/audio/generations", json=body, headers=headers)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        return self.register.accept(wallet, key, answer.json())

    async def submit_in_two_pieces(self, wallet: Wallet, key: str, pause: asyncio.Event) -> Accepted:
        """The head and the first character, and after the pause the rest."""
        body = json.dumps({"model": "sandbox", "prompt": "fail:provider", "audio_duration": 5})
        reader, writer = await asyncio.open_connection("127.0.0.1", self._machine.port)
        head = begin_request(wallet.key, length=len(body), idempotency_key=key)
        writer.write(head.encode())
        await pause.wait()
        writer.write(body[1:].encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith("HTTP/1.1 202"), answer
        return self.register.accept(wallet, key, json.loads(answer.partition("\r\n\r\n")[2]))

    async def job(self, known: Accepted) -> dict[str, Any]:
        """As it stands."""
        answer = await self.http.get(
            f"/v1/jobs/{known.job_id}", headers={"authorization": f"Bearer {known.wallet.key}"}
        )
        assert answer.status_code == httpx.codes.OK, answer.text
        self.register.see(known, answer.json())
        return dict(answer.json())

    async def await_status(self, status: str, *jobs: Accepted) -> None:
        """Until all of them are in that state."""
        for known in jobs:

            async def is_there(known: Accepted = known) -> bool:
                return bool((await self.job(known))["status"] == status)

            await until(is_there, PATIENCE_SECONDS, what=f"{status} of {known.job_id}")

    async def await_end(self) -> None:
        """Until all that was accepted has ended."""
        for known in self.register.unfinished():

            async def has_ended(known: Accepted = known) -> bool:
                return (await self.job(known))["status"] in FINAL

            await until(has_ended, PATIENCE_SECONDS, what=f"the end of {known.job_id}")


async def await_deaf(machine: Machine) -> None:
    """Until nobody listens on its port any more."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", machine.port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def attempts_of(machine: Machine) -> set[int]:
    """How often its jobs were begun; what a stop interrupts does not count."""
    conn = await asyncpg.connect(machine.dsn())
    try:
        return {row[0] for row in await conn.fetch("SELECT attempts FROM job")}
    finally:
        await conn.close()


@pytest.mark.slow
async def test_a_stop_answers_fifty_open_requests_and_finishes_three_songs(machine: Machine) -> None:
    machine.start()
    customers = await open_accounts(machine)
    requests = Requests(machine, customers)
    live, test = requests.wallet("rich-live"), requests.wallet("rich-test")
    songs = [
        await requests.submit(live, "song-0", "a long song", seconds=30),
        await requests.submit(test, "song-1", "a song slow:3"),
        await requests.submit(test, "song-2", "a song slow:4"),
    ]
    await requests.await_status("processing", *songs)
    pause = asyncio.Event()
    conn = await asyncpg.connect(machine.dsn())
    async with conn.transaction():
        # No request of this customer can be written as long as its account is locked.
        await conn.execute("SELECT FROM account WHERE id = $1 FOR UPDATE", live.organization_id)
        waiting = [
            *(asyncio.create_task(requests.submit(live, f"live-{n}", "a song")) for n in range(5)),
            *(asyncio.create_task(requests.submit(test, f"test-{n}", "fail:provider")) for n in range(20)),
            *(
                asyncio.create_task(requests.submit_in_two_pieces(test, f"half-{n}", pause))
                for n in range(25)
            ),
        ]
        await asyncio.sleep(1)
        assert not any(task.done() for task in waiting)
        machine.up.send(signal.SIGTERM)
        stopped = time.monotonic()
        await await_deaf(machine)
        pause.set()
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
    await conn.close()
    await asyncio.gather(*waiting)
    assert await asyncio.to_thread(machine.up.wait) == 0
    assert time.monotonic() - stopped < EXIT_SECONDS
    assert machine.processes() == []

    await asyncio.to_thread(machine.start)
    await requests.await_end()
    assert len(requests.register.accepted) == 53
    assert [song.final and song.final["status"] for song in songs] == ["completed"] * 3
    assert await attempts_of(machine) == {1}
    assert await judge(machine, customers, requests.register) == []
    await requests.http.aclose()
    assert machine.up.stop() == 0


@pytest.mark.slow
async def test_a_stop_hands_over_what_would_take_too_long(machine: Machine) -> None:
    machine.start()
    customers = await open_accounts(machine)
    requests = Requests(machine, customers)
    test = requests.wallet("rich-test")
    songs = [await requests.submit(test, f"song-{n}", "a song slow:600") for n in range(3)]
    await requests.await_status("processing", *songs)
    stopped = time.monotonic()
    machine.up.send(signal.SIGTERM)
    assert await asyncio.to_thread(machine.up.wait) == 0
    assert time.monotonic() - stopped < EXIT_SECONDS
    assert machine.processes() == []

    await asyncio.to_thread(machine.start)
    await requests.await_status("processing", *songs)
    assert await attempts_of(machine) == {1}
    for song in songs:
        answer = await requests.http.delete(
            f"/v1/jobs/{song.job_id}", headers={"authorization": f"Bearer {test.key}"}
        )
        assert answer.status_code == httpx.codes.OK, answer.text
        song.cancelled = True
    await requests.await_end()
    assert await judge(machine, customers, requests.register) == []
    await requests.http.aclose()
    assert machine.up.stop() == 0
