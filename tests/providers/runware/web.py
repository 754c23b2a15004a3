"""HTTP: the API, the files, and the control route."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from tests.providers.runware.account import Account, Json, Request
from tests.providers.runware.faults import Delay, Drop, Fault, Hostile, Huge, Raw, Status
from tests.providers.runware.files import File
from tests.providers.runware.generation import Answer
from tests.providers.runware.hostile import mangle
from tests.providers.runware.refusals import Refusal, of_status
from tests.providers.runware.service import Service

HUGE_FILE = 600_000_000
_CHUNK = 1 << 20
_METADATA = "http://169.254.169.254/latest/meta-data/"


class Exchange:
    """One HTTP request and its answer, over ASGI."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers = headers_of(scope)

    async def body(self) -> bytes:
        parts, more = [], True
        while more:
            message = await self._receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(parts)

    def request(self, body: bytes) -> Request:
        query = self._scope["query_string"].decode()
        return Request("http", self.method, self.path, query, self.headers, body)

    async def answer(self, status: int, content: bytes, content_type: str = "application/json") -> None:
        sized = {"content-type": content_type, "content-length": str(len(content))}
        await self.start(status, sized)
        await self.finish(content)

    async def finish(self, content: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else content})

    async def start(self, status: int, headers: dict[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def stream(self, status: int, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        await self.start(status, {"content-type": content_type})
        async for chunk in chunks:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self.finish()

    async def half(self, content: bytes, content_type: str) -> None:
        """Half of what was promised, and the connection is cut."""
        await self.start(200, {"content-type": content_type, "content-length": str(len(content))})
        part = content[: len(content) // 2]
        await self._send({"type": "http.response.body", "body": part, "more_body": True})
        self._scope["state"]["connection"].close()

    async def redirect(self, url: str) -> None:
        await self.start(302, {"location": url, "content-length": "0"})
        await self.finish()

    async def cut(self) -> None:
        self._scope["state"]["connection"].abort()
        await asyncio.sleep(0)  # so that the server notices before it misses an answer


def headers_of(scope: Any) -> dict[str, str]:
    return {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}


def parse(body: bytes | str) -> list[Json] | None:
    """The tasks; None unless it is an array of objects."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(one, dict) for one in found) else None


def place_of(tasks: list[Json] | None) -> str:
    """The task type that a whole request counts as: its first that is not about itself."""
    kinds = [str(task.get("taskType")) for task in tasks or []]
    return next((kind for kind in kinds if kind not in ("authentication", "ping")), (kinds or [""])[0])


async def huge(bytes_count: int) -> AsyncIterator[bytes]:
    for sent in range(0, bytes_count, _CHUNK):
        yield b" " * min(_CHUNK, bytes_count - sent)


class Web:
    def __init__(self, service: Service, requests: list[Request], downloads: list[Request]) -> None:
        self._service = service
        self._requests = requests
        self._downloads = downloads

    async def post(self, exchange: Exchange) -> None:
        """`POST /v1`."""
        body = await exchange.body()
        tasks = parse(body)
        request = exchange.request(body)
        request.tasks = tasks or []
        request.fault = fault = self._service.faults.take(place_of(tasks))
        self._requests.append(request)
        if await self._befallen(exchange, fault, request.tasks):
            return
        status, answer = await self._answer(tasks, request.headers, fault)
        if isinstance(fault, Drop):
            await exchange.cut()
            return
        if isinstance(fault, Delay) and fault.after_accepting:
            await self._service.pause(fault.seconds)
        content = mangle(answer, fault.kind) if isinstance(fault, Hostile) else msgspec.json.encode(answer)
        await exchange.answer(status, content)

    async def get_file(self, exchange: Exchange, name: str) -> None:
        """`GET /files/...`: no key is asked for."""
        request = exchange.request(b"")
        request.fault = fault = self._service.faults.take("download")
        self._downloads.append(request)
        if await self._befallen(exchange, fault, []):
            return
        file = self._service.files.named(name)
        if file is None or file.kind == "missing":
            await exchange.answer(404, b"not found", "text/plain")
        elif file.kind == "redirect":
            await exchange.redirect(_METADATA)
        elif file.kind == "huge":
            await exchange.stream(200, file.content_type, huge(HUGE_FILE))
        else:
            await self._give(exchange, file, fault)

    async def _give(self, exchange: Exchange, file: File, fault: Fault | None) -> None:
        content = await self._service.files.content(file)
        if isinstance(fault, Delay) and fault.after_accepting:
            await self._service.pause(fault.seconds)
        if isinstance(fault, Drop):
            await exchange.half(content, file.content_type)
            return
        await exchange.answer(200, content, file.content_type)

    async def get_media(self, exchange: Exchange, media_uuid: str) -> None:
        content = self._service.files.media(media_uuid)
        if content is None:
            await exchange.answer(404, b"not found", "text/plain")
        else:
            await exchange.answer(200, content, "application/octet-stream")

    async def _befallen(self, exchange: Exchange, fault: Fault | None, tasks: list[Json]) -> bool:
        """Whether the fault was the whole answer."""
        if isinstance(fault, Delay) and not fault.after_accepting:
            await self._service.pause(fault.seconds)
        elif isinstance(fault, Drop) and not fault.after_accepting:
            await exchange.cut()
            return True
        elif isinstance(fault, Status):
            await self._refuse(exchange, fault, tasks)
            return True
        elif isinstance(fault, Raw):
            await exchange.answer(fault.code, fault.body, fault.content_type)
            return True
        elif isinstance(fault, Huge):
            await exchange.stream(fault.code, "application/json", huge(fault.bytes_count))
            return True
        return False

    async def _refuse(self, exchange: Exchange, fault: Status, tasks: list[Json]) -> None:
        refusal = of_status(fault)
        content = msgspec.json.encode({"errors": [refusal.error(task) for task in tasks or [{}]]})
        headers = {"content-type": "application/json", "content-length": str(len(content))}
        if fault.retry_after is not None:
            headers["retry-after"] = f"{fault.retry_after:g}"
        await exchange.start(fault.code, headers)
        await exchange.finish(content)

    async def _answer(
        self, tasks: list[Json] | None, headers: dict[str, str], fault: Fault | None
    ) -> tuple[int, Json]:
        """Status and body: 200 when any task succeeded, else the worst."""
        try:
            account, rest = self._authenticate(tasks, headers)
        except Refusal as refusal:
            return refusal.status, {"errors": [refusal.error()]}
        answers = await asyncio.gather(*(self._service.handle(account, task, fault) for task in rest))
        body: Json = {"data": [item for answer in answers for item in answer.data]}
        errors = [error for answer in answers for error in answer.errors]
        if errors:
            body["errors"] = errors
        return worst(answers), body

    def _authenticate(self, tasks: list[Json] | None, headers: dict[str, str]) -> tuple[Account, list[Json]]:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given: Any = key if scheme.lower() == "bearer" else None
        rest = tasks or []
        if rest and rest[0].get("taskType") == "authentication":
            given, rest = rest[0].get("apiKey"), rest[1:]
        account = self._service.account_of(given)
        if tasks is None:
            raise Refusal("invalidJSON")
        return account, rest


def worst(answers: list[Answer]) -> int:
    statuses = [answer.status for answer in answers]
    return 200 if not statuses or 200 in statuses else max(statuses)
