"""Customers who use the API as real clients do: they retry under one key, poll, cancel, hang up."""

import asyncio
import contextlib
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import httpx
import msgspec

import billing
from gateway.auth.directory import KeyLimits, create_key, create_organization
from gateway.auth.keys import derive_pepper
from gateway.settings import read_settings
from tests.crash.stack import Machine
from tests.factories import USD

FINAL: Final = {"completed", "failed"}
AGAIN: Final = {409, 429, 503}
"""What a client answers by trying again."""
MAX_FORGOTTEN: Final = 20
"""Jobs that nobody polls any more until the end, so that the backlog stays what two workers can do."""
ANSWER_SECONDS: Final = 180
"""Until every client that was told to stop has the answer to its last request."""
SEATS: Final = 20
"""Connections that are open and do nothing, or have sent half a request."""


class Wallet(msgspec.Struct, frozen=True, kw_only=True):
    """A key, and whose money it spends."""

    name: str
    organization_id: uuid.UUID
    key: str
    test: bool
    weight: int


class Customers(msgspec.Struct, kw_only=True):
    """Organizations with what was granted to each, and their keys."""

    granted: dict[uuid.UUID, int]
    wallets: list[Wallet]


async def open_accounts(machine: Machine) -> Customers:
    """Two customers with credit, one who has less than its songs cost, a key with limits, a test key each."""
    pepper = derive_pepper(read_settings(machine.environ).secret_key)
    customers = Customers(granted={}, wallets=[])
    limits = KeyLimits(max_open_jobs=3, requests_per_minute=240, budget_nano=USD // 20)
    conn = await asyncpg.connect(machine.dsn())
    try:
        async with conn.transaction():
            for name, nano, limited in (
                ("rich", 5 * USD, None),
                ("capped", USD, limits),
                ("poor", USD // 150, None),
            ):
                owner = await create_organization(conn, name=name)
                await billing.grant(conn, account_id=owner, amount_nano=nano, reason="to begin with")
                customers.granted[owner] = nano
                for test in (False, True):
                    _, key = await create_key(
                        conn,
                        pepper=pepper,
                        organization_id=owner,
                        name=f"{name} {test}",
                        test=test,
                        limits=None if test else limited,
                    )
                    weight = 1 if test or name == "poor" else 4
                    wallet = Wallet(
                        name=f"{name}-{'test' if test else 'live'}",
                        organization_id=owner,
                        key=key,
                        test=test,
                        weight=weight,
                    )
                    customers.wallets.append(wallet)
    finally:
        await conn.close()
    return customers


class Accepted(msgspec.Struct, kw_only=True):
    """A job whose 202 a client has seen, and what the client knows of it."""

    job_id: str
    wallet: Wallet
    idempotency_key: str
    cancelled: bool = False
    final: dict[str, Any] | None = None


class Register:
    """What all clients were told, and what contradicted it."""

    def __init__(self) -> None:
        self.accepted: dict[str, Accepted] = {}
        """By idempotency key."""
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()

    def accept(self, wallet: Wallet, idempotency_key: str, job: dict[str, Any]) -> Accepted:
        """A 202: the same key must always name the same job."""
        known = self.accepted.get(idempotency_key)
        if known is None:
            known = Accepted(job_id=job["id"], wallet=wallet, idempotency_key=idempotency_key)
            self.accepted[idempotency_key] = known
        elif known.job_id != job["id"]:
            self.faults.append(f"{idempotency_key} is {known.job_id} and {job['id']}")
        self.see(known, job)
        return known

    def see(self, known: Accepted, job: dict[str, Any]) -> None:
        """A job as an answer shows it: what was final once stays as it was."""
        if known.final is not None and essence(job) != essence(known.final):
            self.faults.append(f"{known.job_id} was {essence(known.final)} and is {essence(job)}")
        if job["status"] in FINAL:
            known.final = job

    def unfinished(self) -> list[Accepted]:
        """Jobs whose end nobody has seen."""
        return [known for known in self.accepted.values() if known.final is None]


def essence(job: dict[str, Any]) -> tuple[Any, ...]:
    """What may never change after the end."""
    error = job["error"] and job["error"]["code"]
    sums = [track["sha256"] for track in job["result"]["data"]] if job["result"] else None
    return (job["status"], error, job["cost"]["usd"], job["completed_at"], sums)


class Client:
    """One customer's program: one job after another until it is told to stop."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        customers: Customers,
        register: Register,
        *,
        dice: random.Random,
        name: str,
    ) -> None:
        self._http = http
        self._customers = customers
        self._register = register
        self._dice = dice
        self._name = name
        self.stopping = False

    async def run(self) -> None:
        """Until `stopping`; every request that was sent by then gets its answer."""
        wallets = self._customers.wallets
        number = 0
        while not self.stopping:
            number += 1
            (wallet,) = self._dice.choices(wallets, [wallet.weight for wallet in wallets])
            known = await self._submit(wallet, f"{self._name}-{number}", self._body(wallet))
            if known is None:
                await asyncio.sleep(0.2)
                continue
            if self._dice.random() < 0.15:
                await asyncio.sleep(self._dice.random())
                await self._cancel(known)
            if self._dice.random() < 0.3 and len(self._register.unfinished()) < MAX_FORGOTTEN:
                self._register.counts["forgotten"] += 1
                continue
            while known.final is None and not self.stopping:
                await asyncio.sleep(self._dice.uniform(0.1, 0.3))
                await self.poll(known)

    async def poll(self, known: Accepted) -> None:
        """Look at the job once."""
        answer = await self._ask("GET", f"/v1/jobs/{known.job_id}", known.wallet)
        if answer is None or answer.status_code in AGAIN:
            return
        if answer.status_code != httpx.codes.OK:
            self._fault(f"GET of {known.job_id}", answer)
            return
        self._register.see(known, answer.json())

    def _body(self, wallet: Wallet) -> dict[str, Any]:
        script = (
            self._dice.choice(["slow:1", "slow:3", "fail:provider", "fail:quality", ""])
            if wallet.test
            else ""
        )
        return {
            "model": "sandbox",
            "prompt": f"a song {script}",
            "audio_duration": self._dice.choice([5, 5, 6.5]),
            "format": self._dice.choice(["flac", "flac", "mp3", "wav"]),
        }

    async def _submit(self, wallet: Wallet, key: str, body: dict[str, Any]) -> Accepted | None:
        """Send it under one key until there is an answer; None if it was refused for good.

        Some clients hang up early, and some send again what they have an answer to.
        """
        headers = {"idempotency-key": key}
        again = self._dice.random() < 0.1
        patience = 0.01 if self._dice.random() < 0.1 else 15.0
        while True:
            answer = await self._ask(
                "POST", "/v1/audio/generations", wallet, json=body, headers=headers, timeout=patience
            )
            patience = 15.0
            if answer is None or answer.status_code in AGAIN - {429}:
                self._register.counts["sent again"] += 1
                await asyncio.sleep(self._dice.uniform(0.05, 0.4))
                continue
            if answer.status_code in {402, 429}:
                self._register.counts[f"refused {answer.status_code}"] += 1
                return None
            if answer.status_code != httpx.codes.ACCEPTED:
                self._fault(f"POST of {key}", answer)
                return None
            known = self._register.accept(wallet, key, answer.json())
            if not again:
                return known
            again = False

    async def _cancel(self, known: Accepted) -> None:
        for _ in range(100):
            answer = await self._ask("POST", f"/v1/jobs/{known.job_id}/cancel", known.wallet)
            if answer is not None and answer.status_code == httpx.codes.OK:
                known.cancelled = True
                self._register.see(known, answer.json())
                return
            if answer is not None and answer.status_code == httpx.codes.CONFLICT:
                return
            if answer is not None and answer.status_code not in AGAIN:
                self._fault(f"cancel of {known.job_id}", answer)
                return
            await asyncio.sleep(0.2)

    async def _ask(self, method: str, path: str, wallet: Wallet, **options: Any) -> httpx.Response | None:
        """The answer; None if the connection was lost or nobody listens."""
        headers = {"authorization": f"Bearer {wallet.key}"} | options.pop("headers", {})
        try:
            return await self._http.request(method, path, headers=headers, **options)
        except httpx.TransportError as error:
            self._register.counts[type(error).__name__] += 1
            return None

    def _fault(self, what: str, answer: httpx.Response) -> None:
        self._register.faults.append(f"{what}: {answer.status_code} {answer.text[:300]}")


class Load:
    """Several clients at once, and connections that only sit there."""

    def __init__(self, base_url: str, customers: Customers, *, seed: int, clients: int) -> None:
        self.register = Register()
        self.customers = customers
        self._http = httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=15.0)
        self._clients = [
            Client(
                self._http,
                customers,
                self.register,
                dice=random.Random(f"{seed}-{number}"),
                name=f"{seed}-{number}",
            )
            for number in range(clients)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._sitting: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Under way; at the end every request has been answered, jobs may still be open."""
        host, port = self._http.base_url.host, self._http.base_url.port or 80
        key = self.customers.wallets[0].key
        self._tasks = [asyncio.create_task(client.run()) for client in self._clients]
        self._sitting = [
            asyncio.create_task(sit(host, port, key if seat % 2 else None, self.register))
            for seat in range(SEATS)
        ]
        try:
            yield
        finally:
            for client in self._clients:
                client.stopping = True
            for sitting in self._sitting:
                sitting.cancel()
            await asyncio.gather(*self._sitting, return_exceptions=True)
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.gather(*self._tasks)

    async def await_end(self, seconds: float) -> list[Accepted]:
        """Poll what nobody has seen ending; those that have not ended after so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (unfinished := self.register.unfinished()) and loop.time() < deadline:
            await asyncio.gather(*(self._clients[0].poll(known) for known in unfinished))
            await asyncio.sleep(0.1)
        return unfinished

    async def read_again(self) -> None:
        """Look once more at every job: it is there, and as it was."""
        for known in self.register.accepted.values():
            await self._clients[0].poll(known)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


async def sit(host: str, port: int, key: str | None, register: Register) -> None:
    """Keep a connection open that asks nothing more, or, with a key, whose request never comes to its end.

    Come back when it is cut.
    """
    head = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" if key is None else begin_request(key)
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.3)
            continue
        try:
            writer.write(head.encode())
            while await reader.read(4096):
                pass
            register.counts["connections cut"] += 1
        except OSError:
            register.counts["connections reset"] += 1
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def begin_request(key: str, *, length: int = 1000, idempotency_key: str | None = None) -> str:
    """A submit up to the first character of its body."""
    fields = [
        "POST /v1/audio/generations HTTP/1.1",
        "host: localhost",
        "connection: close",
        "content-type: application/json",
        f"content-length: {length}",
        f"x-api-key: {key}",
        *([f"idempotency-key: {idempotency_key}"] if idempotency_key else []),
    ]
    return "\r\n".join(fields) + "\r\n\r\n{"


def summary(register: Register) -> str:
    """What happened, for whoever reads the output."""
    outcomes: Counter[str] = Counter()
    for known in register.accepted.values():
        job = known.final
        outcomes["open" if job is None else (job["error"] or {"code": "completed"})["code"]] += 1
    return json.dumps({"jobs": len(register.accepted), **outcomes, **register.counts})
