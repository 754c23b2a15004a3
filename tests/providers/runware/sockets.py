"""The WebSocket at `/v1`: authentication, pings, tasks beside each other, resumption."""

import asyncio
import contextlib
import uuid
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tests.providers.runware.account import Account, Json, Request, Task
from tests.providers.runware.faults import Delay, Drop, Fault, Hostile, Huge, Raw, Status
from tests.providers.runware.generation import Answer
from tests.providers.runware.hostile import mangle
from tests.providers.runware.refusals import Refusal, for_authentication, of_status
from tests.providers.runware.service import Service
from tests.providers.runware.web import headers_of, parse, place_of

IDLE = 1000
RESTART = 1012


@dataclass(slots=True, eq=False)
class Session:
    """What outlives a connection: answers that found nobody, for the client that comes back."""

    account: Account
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    socket: "Socket | None" = None
    undelivered: list[str] = field(default_factory=list)
    followed: set[str] = field(default_factory=set)

    async def deliver(self, text: str) -> None:
        if self.socket is None or not await self.socket.give(text):
            self.undelivered.append(text)


class Socket:
    """One connection."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope, self.receive, self._send = scope, receive, send
        self.session: Session | None = None
        self.ending = asyncio.Event()

    async def accept(self) -> None:
        await self.receive()
        await self._send({"type": "websocket.accept"})

    async def give(self, text: str) -> bool:
        """Whether it was taken; not after the connection ended."""
        if self.ending.is_set():
            return False
        try:
            await self._send({"type": "websocket.send", "text": text})
        except (OSError, RuntimeError):
            return False
        return True

    async def close(self, code: int) -> None:
        if not self.ending.is_set():
            self.ending.set()
            with contextlib.suppress(OSError, RuntimeError):
                await self._send({"type": "websocket.close", "code": code})

    def cut(self) -> None:
        """As a network does: no close frame."""
        self.ending.set()

    async def frame(self, silence_seconds: float) -> str | None:
        """The next one; None when the connection is over."""
        receiving = asyncio.ensure_future(self.receive())
        ending = asyncio.ensure_future(self.ending.wait())
        done, _ = await asyncio.wait(
            {receiving, ending}, timeout=silence_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        ending.cancel()
        if receiving not in done:
            receiving.cancel()
            await self.close(IDLE)
            return None
        message = receiving.result()
        if message["type"] != "websocket.receive":
            return None
        return str(message.get("text") or (message.get("bytes") or b"").decode("utf-8", "replace"))


class Sockets:
    def __init__(self, service: Service, requests: list[Request]) -> None:
        self._service = service
        self._requests = requests
        self._sessions: dict[str, Session] = {}
        self.open: set[Socket] = set()
        self.silence_seconds = 120.0

    async def serve(self, socket: Socket) -> None:
        await socket.accept()
        self.open.add(socket)
        try:
            while (text := await socket.frame(self.silence_seconds)) is not None:
                await self._take(socket, text)
        finally:
            socket.ending.set()
            self.open.discard(socket)
            if socket.session and socket.session.socket is socket:
                socket.session.socket = None

    def cut(self) -> None:
        for socket in list(self.open):
            socket.cut()

    async def close(self, code: int) -> None:
        for socket in list(self.open):
            await socket.close(code)

    async def _take(self, socket: Socket, text: str) -> None:
        tasks = parse(text)
        request = self._record(socket, text, tasks)
        if tasks is None:
            await socket.give(_text({"errors": [Refusal("invalidJSON").error()]}))
            return
        if await self._befallen(socket, request):
            return
        for task in tasks:
            if task.get("taskType") == "ping":
                await socket.give(_text({"data": [{"taskType": "ping", "pong": True}]}))
            elif task.get("taskType") == "authentication":
                await self._authenticate(socket, task)
            elif socket.session is None:
                await socket.give(_text({"errors": [Refusal("missingApiKey").error(task)]}))
            else:
                self._service.start(self._work(socket.session, task, request.fault))
        if isinstance(request.fault, Drop):
            await asyncio.sleep(0)  # the tasks come into being
            await self._until_accepted(socket, tasks)
            socket.cut()

    def _record(self, socket: Socket, text: str, tasks: list[Json] | None) -> Request:
        scope = socket.scope
        query = scope["query_string"].decode()
        request = Request("websocket", "", scope["path"], query, headers_of(scope), text.encode())
        request.tasks = tasks or []
        request.fault = self._service.faults.take(place_of(tasks))
        self._requests.append(request)
        return request

    async def _befallen(self, socket: Socket, request: Request) -> bool:
        """Whether the fault was the whole answer."""
        fault = request.fault
        if isinstance(fault, Delay) and not fault.after_accepting:
            await self._service.pause(fault.seconds)
        elif isinstance(fault, Drop) and not fault.after_accepting:
            socket.cut()
            return True
        elif isinstance(fault, Status):
            refusal = of_status(fault)
            await socket.give(_text({"errors": [refusal.error(task) for task in request.tasks]}))
            return True
        elif isinstance(fault, Raw):
            await socket.give(fault.body.decode("utf-8", "replace"))
            return True
        elif isinstance(fault, Huge):
            await socket.give(" " * fault.bytes_count)
            return True
        return False

    async def _authenticate(self, socket: Socket, task: Json) -> None:
        try:
            account = self._service.account_of(task.get("apiKey"))
        except Refusal as refusal:
            await socket.give(_text(for_authentication(refusal)))
            return
        former = self._sessions.get(str(task.get("connectionSessionUUID")))
        session = former if former and former.account is account else Session(account)
        self._sessions[session.uuid] = session
        session.socket, socket.session = socket, session
        item = {"taskType": "authentication", "connectionSessionUUID": session.uuid}
        await socket.give(_text({"data": [item]}))
        waiting, session.undelivered = session.undelivered, []
        for text in waiting:
            await session.deliver(text)

    async def _work(self, session: Session, task: Json, fault: Fault | None) -> None:
        answer = await self._service.handle(session.account, task, fault)
        if isinstance(fault, Drop):
            return
        if isinstance(fault, Delay) and fault.after_accepting:
            await self._service.pause(fault.seconds)
        hostile = fault if isinstance(fault, Hostile) else None
        await _deliver(session, answer, hostile)
        if answer.running and task.get("taskType") == "getResponse":
            await self._follow(session, answer.running)

    async def _follow(self, session: Session, task: Task) -> None:
        """The end of a task that was asked for while it ran, unasked and as soon as it is there."""
        if task.uuid in session.followed:
            return
        session.followed.add(task.uuid)
        await self._service.ending(task)
        if task.ended.is_set():
            await _deliver(session, self._service.result(task), None)

    async def _until_accepted(self, socket: Socket, tasks: list[Json]) -> None:
        """A submit that must be there when its connection is cut waits for nothing but its source."""
        account = socket.session.account if socket.session else None
        wanted = [task["taskUUID"] for task in tasks if task.get("taskType") == "audioInference"]
        for _ in range(100):
            if account is None or all(account.known(one) for one in wanted):
                return
            await asyncio.sleep(0.01)


async def _deliver(session: Session, answer: Answer, hostile: Hostile | None) -> None:
    """A frame per item and per error: one package ignores `data` beside `errors`."""
    frames: list[Json] = [{"data": [item]} for item in answer.data]
    frames += [{"errors": [error]} for error in answer.errors]
    for frame in frames:
        await session.deliver(mangle(frame, hostile.kind).decode() if hostile else _text(frame))


def _text(frame: Json) -> str:
    return msgspec.json.encode(frame).decode()
