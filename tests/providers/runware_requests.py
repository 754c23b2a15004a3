"""Tasks as a client of Runware sends them, and the least client that sends them."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from tests.providers.runware import RunwareStandIn
from tests.providers.runware.account import Json

TURBO = "runware:ace-step@v1.5-turbo"
XL_BASE = "runware:ace-step@v1.5-xl-base"


def song(**changes: Any) -> Json:
    """A task of 30 s that nothing is wrong with; a member that is None is left out."""
    task = {
        "taskType": "audioInference",
        "taskUUID": str(uuid.uuid4()),
        "model": TURBO,
        "positivePrompt": "calm piano",
        "duration": 30,
        "seed": 7,
        "outputFormat": "WAV",
    }
    return {name: value for name, value in (task | changes).items() if value is not None}


def utility(task_type: str, **members: Any) -> Json:
    return {"taskType": task_type, "taskUUID": str(uuid.uuid4())} | members


def ask(task: Json) -> Json:
    return {"taskType": "getResponse", "taskUUID": task["taskUUID"]}


class Client:
    """Tasks in, status and body out."""

    def __init__(self, stand_in: RunwareStandIn, http: httpx.AsyncClient) -> None:
        self.stand_in, self.http = stand_in, http

    async def send(self, *tasks: Any, key: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.stand_in.key}"}
        return await self.http.post(self.stand_in.url, json=list(tasks), headers=headers)

    async def data(self, *tasks: Any) -> list[Json]:
        answer = await self.send(*tasks)
        assert answer.status_code == 200, answer.text
        assert "errors" not in answer.json()
        items: list[Json] = answer.json()["data"]
        return items

    async def refused(self, task: Json) -> Json:
        """The one error of a task, with the answer's status in it as `http`."""
        answer = await self.send(task)
        assert answer.json().get("data", []) == []
        errors: list[Json] = answer.json()["errors"]
        assert len(errors) == 1
        return errors[0] | {"http": answer.status_code}

    async def end_of(self, task: Json) -> list[Json]:
        """Submit it as it is, let it end, and ask."""
        await self.data(task)
        await self.stand_in.settled()
        return await self.data(ask(task))


@asynccontextmanager
async def client_of(stand_in: RunwareStandIn) -> AsyncIterator[Client]:
    transport = httpx.AsyncHTTPTransport(verify=False)
    async with httpx.AsyncClient(transport=transport, timeout=10) as http:
        yield Client(stand_in, http)


class Line:
    """A socket: frames in, frames out."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, *tasks: Any) -> None:
        await self.connection.send(msgspec.json.encode(tasks).decode())

    async def frame(self) -> Json:
        found: Json = msgspec.json.decode(await self.connection.recv())
        return found

    async def authenticate(self, key: str, session: str | None = None) -> str:
        """The session's UUID."""
        task = {"taskType": "authentication", "apiKey": key}
        await self.send(task | ({"connectionSessionUUID": session} if session else {}))
        [item] = (await self.frame())["data"]
        assert item["taskType"] == "authentication"
        return str(item["connectionSessionUUID"])


@asynccontextmanager
async def line_to(stand_in: RunwareStandIn) -> AsyncIterator[Line]:
    async with connect(stand_in.ws_url) as connection:
        yield Line(connection)
