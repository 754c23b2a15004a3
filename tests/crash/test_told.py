"""Processes are killed while customers are told: every end arrives, under one id, and verifies."""

import asyncio
from collections import defaultdict
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from gateway.settings import read_settings
from gateway.webhooks.signing import Secrets
from tests.crash.stack import Machine
from tests.factories import until
from tests.gateway.webhooks.receiver import Receiver, receiving

JOBS = 40
KILLS = 6
PATIENCE_SECONDS = 240.0
"""What a killed process had under way is sent by another one after a lease of a minute."""


async def submit(client: httpx.AsyncClient, place: int, url: str) -> str:
    """Until there is an answer; the key makes it one job."""
    body = {"model": "sandbox", "prompt": f"song {place}", "audio_duration": 5, "webhook_url": url}
    while True:
        try:
            answer = await client.post(
                "/v1/audio/generations", json=body, headers={"idempotency-key": f"song {place}"}
            )
            if answer.status_code == httpx.codes.ACCEPTED:
                return str(answer.json()["id"])
            assert answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR, answer.text
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.2)


async def kill_again_and_again(machine: Machine, receiver: Receiver) -> None:
    """Whoever tells, at a moment when something is under way; every other time who makes the songs, too."""

    async def is_telling() -> bool:
        return receiver.at_once.total() > 0 and machine.child("serve") is not None

    for n in range(KILLS):
        await until(is_telling, PATIENCE_SECONDS, what="a message under way")
        for name in ("serve", "work")[: 1 + n % 2]:
            if (process := machine.child(name)) is not None:
                kill(process)
        await asyncio.sleep(1)


def kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


@pytest.mark.slow
async def test_whatever_is_killed_every_job_is_told_under_one_id(machine: Machine) -> None:
    machine.up._environ["ANTIPHON_ALLOW_PRIVATE_HOSTS"] = "1"
    key = (await asyncio.to_thread(machine.start))["test_key"]
    headers = {"authorization": f"Bearer {key}"}
    async with (
        receiving(delay_seconds=0.2) as receiver,
        httpx.AsyncClient(base_url=machine.base_url, headers=headers, timeout=20) as client,
    ):
        kills = asyncio.create_task(kill_again_and_again(machine, receiver))
        jobs = {await submit(client, place, receiver.url(f"/{place}")): f"/{place}" for place in range(JOBS)}
        await kills

        async def all_are_told() -> bool:
            return len(await states(machine)) == JOBS and set(await states(machine)) == {"delivered"}

        await until(all_are_told, PATIENCE_SECONDS, what="the last delivery")
        conn = await asyncpg.connect(machine.dsn())
        owner = await conn.fetchval("SELECT organization_id FROM webhook_delivery LIMIT 1")
        await conn.close()
    secret = Secrets(read_settings(machine.environ).secret_key).value(owner, 1)
    told: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for message in receiver.received:
        body = message.verified(secret)
        assert body["type"] == "job.completed"
        told[body["data"]["id"]].add((message.path, message.headers["webhook-id"]))
    assert {job_id: {path for path, _ in sent} for job_id, sent in told.items()} == {
        job_id: {path} for job_id, path in jobs.items()
    }
    assert all(len(sent) == 1 for sent in told.values())
    assert len(receiver.received) > JOBS, "no kill hit a message under way"


async def states(machine: Machine) -> list[Any]:
    conn = await asyncpg.connect(machine.dsn())
    try:
        return [row["state"] for row in await conn.fetch("SELECT state FROM webhook_delivery")]
    finally:
        await conn.close()
