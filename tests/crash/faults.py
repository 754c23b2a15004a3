"""What is killed, how, and how long it takes until the service is back."""

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import AsyncIterator
from enum import StrEnum
from statistics import median
from typing import Final

import httpx
import msgspec
import psutil

from tests.crash.gauge import Gauge
from tests.crash.stack import Machine, Service, children_of, end_at_once

PROMISE_SECONDS: Final = 10.0
"""From a kill to the next accepted request."""
GIVE_UP_SECONDS: Final = 120.0
"""However loaded the machine is."""
RESTART_SECONDS: Final = 0.5
"""How long the supervisor of the system waits before it starts a command again."""


class Victim(StrEnum):
    """Whom SIGKILL hits."""

    HTTP = "the HTTP process"
    WORKER = "a worker"
    BACKEND = "one process of Postgres"
    POSTMASTER = "the main process of Postgres"
    DATABASE = "all of Postgres"
    SUPERVISOR = "`antiphon up`"
    EVERYTHING = "everything"


WEIGHTS: Final = {
    Victim.HTTP: 6,
    Victim.WORKER: 6,
    Victim.BACKEND: 3,
    Victim.POSTMASTER: 2,
    Victim.DATABASE: 2,
    Victim.SUPERVISOR: 2,
    Victim.EVERYTHING: 2,
}


class Recovery(msgspec.Struct, frozen=True):
    """One blow and what came of it."""

    victims: tuple[Victim, ...]
    """Two, if the second was killed while the service was still recovering from the first."""
    seconds: float
    """From the last kill to an accepted request, by the clock."""
    granted: float
    """Those that the machine had for us, see Gauge."""


class Plant:
    """A machine with a second worker beside `up`, and the system's supervisor, who starts both again."""

    def __init__(self, machine: Machine, *, dice: random.Random) -> None:
        self.machine = machine
        self.second = machine.add_worker()
        self._dice = dice

    @contextlib.asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """What ends is started again as long as this runs."""
        supervising = asyncio.create_task(self._supervise())
        try:
            yield
        finally:
            supervising.cancel()
            await asyncio.gather(supervising, return_exceptions=True)

    def kill(self, victim: Victim) -> bool:
        """False when there is no such process at this moment."""
        found = self._find(victim)
        end_at_once(found)
        return bool(found)

    def _find(self, victim: Victim) -> list[psutil.Process]:
        machine = self.machine
        postmaster = machine.postmaster()
        backends = children_of(postmaster.pid) if postmaster else []
        match victim:
            case Victim.HTTP:
                found = [machine.child("serve")]
            case Victim.WORKER:
                found = self._one([machine.child("work"), alive(self.second)])
            case Victim.BACKEND:
                found = self._one(backends)
            case Victim.POSTMASTER:
                found = [postmaster]
            case Victim.DATABASE:
                found = [postmaster, *backends]
            case Victim.SUPERVISOR:
                found = [alive(machine.up)]
            case Victim.EVERYTHING:
                own = [alive(machine.up), alive(self.second)]
                found = [
                    *own,
                    *(child for root in own if root for child in children_of(root.pid, recursive=True)),
                ]
        return [process for process in found if process is not None]

    def _one(self, candidates: list[psutil.Process | None]) -> list[psutil.Process | None]:
        running = [process for process in candidates if process is not None]
        return [self._dice.choice(running)] if running else []

    async def _supervise(self) -> None:
        while True:
            for service in (self.machine.up, self.second):
                if not service.runs():
                    service.start()
            await asyncio.sleep(RESTART_SECONDS)


def alive(service: Service) -> psutil.Process | None:
    """Its process, if it runs."""
    try:
        return psutil.Process(service.pid) if service.runs() else None
    except psutil.NoSuchProcess:
        return None


async def await_accepted(http: httpx.AsyncClient, key: str) -> None:
    """Submit again and again until one request is accepted."""
    body = {"model": "sandbox", "prompt": "fail:provider", "audio_duration": 5}
    headers = {"authorization": f"Bearer {key}"}
    async with asyncio.timeout(GIVE_UP_SECONDS):
        while True:
            headers["idempotency-key"] = secrets.token_hex(8)
            with contextlib.suppress(httpx.TransportError):
                answer = await http.post("/v1/audio/generations", json=body, headers=headers, timeout=3.0)
                if answer.status_code == httpx.codes.ACCEPTED:
                    return
            await asyncio.sleep(0.05)


class Campaign:
    """Kills at random moments, each followed by the wait for the service, or by another one too soon."""

    def __init__(self, plant: Plant, gauge: Gauge, *, key: str, dice: random.Random) -> None:
        self._plant = plant
        self._gauge = gauge
        self._key = key
        self._dice = dice
        self.recoveries: list[Recovery] = []

    async def strike(self, victims: list[Victim], *, longest_pause: float, doubles: float) -> None:
        """Kill each of them; that share of them comes within two seconds of the one before."""
        left = list(victims)
        while left:
            await asyncio.sleep(self._dice.uniform(0.0, longest_pause))
            struck = [await self._kill(left.pop(0))]
            if left and self._dice.random() < doubles:
                await asyncio.sleep(self._dice.uniform(0.0, 2.0))
                struck.append(await self._kill(left.pop(0)))
            self.recoveries.append(await self._recovery(tuple(struck)))

    async def _kill(self, victim: Victim) -> Victim:
        """As soon as there is such a process."""
        async with asyncio.timeout(GIVE_UP_SECONDS):
            while not self._plant.kill(victim):  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.05)
        return victim

    async def _recovery(self, victims: tuple[Victim, ...]) -> Recovery:
        killed = time.monotonic()
        async with httpx.AsyncClient(base_url=self._plant.machine.base_url, trust_env=False) as http:
            try:
                await await_accepted(http, self._key)
            except TimeoutError as error:
                raise AssertionError(f"not back {GIVE_UP_SECONDS:g} s after the end of {victims}") from error
        return Recovery(victims, time.monotonic() - killed, self._gauge.granted(killed))

    def late(self) -> list[Recovery]:
        """Where the promise was broken."""
        return [recovery for recovery in self.recoveries if recovery.granted > PROMISE_SECONDS]

    def report(self) -> str:
        """How long it took, by victim; blows with two of them apart."""
        groups: dict[str, list[Recovery]] = {}
        for recovery in self.recoveries:
            name = "two, the second too soon" if len(recovery.victims) > 1 else recovery.victims[0].value
            groups.setdefault(name, []).append(recovery)
        return "\n".join(
            f"{name}: {len(group)}, back after {median(one.seconds for one in group):.1f} s (median), "
            f"{max(one.seconds for one in group):.1f} s (longest), "
            f"{max(one.granted for one in group):.1f} s of a free core (longest)"
            for name, group in sorted(groups.items())
        )


def draw(dice: random.Random, count: int) -> list[Victim]:
    """So many victims; the first are one of each kind, if there is room for them."""
    each = list(Victim)
    dice.shuffle(each)
    others = dice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=max(0, count - len(each)))
    return (each + others)[:count]
