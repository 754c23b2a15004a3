"""What listens: finds what is asked for, lets the faults befall it, and writes the answer."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tests.providers.wavespeed import odd
from tests.providers.wavespeed.api import Api
from tests.providers.wavespeed.control import Control
from tests.providers.wavespeed.faults import Cut, Delay, Drip, Drop, Fault, Huge, Odd, Raw, Status
from tests.providers.wavespeed.models import Refusal
from tests.providers.wavespeed.requests import Recorded, Reply, recorded

if TYPE_CHECKING:
    from tests.providers.wavespeed.stand_in import WaveSpeedStandIn

Act = Callable[[], Awaitable[Reply]]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
BLOCK_BYTES = 1 << 16
MESSAGES = {
    401: "invalid authentication",
    402: "insufficient balance",
    403: "forbidden",
    404: "prediction not found",
    429: "too many requests",
    500: "internal error",
    502: "bad gateway",
    503: "service unavailable",
    504: "gateway timeout",
}


class _HungUp(Exception):
    """The connection is to be cut without an answer."""


class Server:
    """An ASGI application."""

    def __init__(self, stand_in: "WaveSpeedStandIn") -> None:
        self._stand_in = stand_in
        self._api = Api(stand_in)
        self._control = Control(stand_in)
        self._working: dict[asyncio.Task[None], asyncio.Transport] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        connection: asyncio.Transport = scope["state"]["connection"]
        work = asyncio.create_task(self._serve(scope, receive, send))
        self._working[work] = connection
        try:
            await asyncio.wait([work])
        finally:
            work.cancel()
            del self._working[work]
        if work.cancelled() or isinstance(work.exception(), _HungUp):
            connection.abort()
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            work.result()

    def hang_up(self) -> None:
        """Cut what is being answered right now."""
        for work in self._working:
            work.cancel()

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        request = recorded(scope, await _body(receive))
        if request.path == "/_control":
            await _write(send, await self._control.act(request))
            return
        self._stand_in.requests.append(request)
        fault = self._stand_in.faults.take(request.kind) if request.kind else None
        reply = await self._reply(request, fault)
        match fault:
            case Raw(instead_of_http=True):
                scope["state"]["connection"].write(fault.body)
                await asyncio.sleep(0)
                raise _HungUp
            case Cut():
                await _cut(send, reply)
                raise _HungUp
            case Huge():
                blocks = odd.huge(reply.media_type, fault.bytes_count)
                if fault.compressed:
                    await _stream(send, odd.compressed(blocks), reply.media_type, encoding="gzip")
                else:
                    await _stream(send, blocks, reply.media_type)
            case Drip():
                await _stream(send, self._drops(reply.body, fault.pause_seconds), reply.media_type)
            case _:
                if reply.status == 200 and request.action == "output":
                    endless = self._api.endless_output(request, reply)
                    if endless:
                        await _stream(send, endless, reply.media_type)
                        return
                await _write(send, reply)

    async def _reply(self, request: Recorded, fault: Fault | None) -> Reply:
        """What is answered, and done before or after the fault, as that says."""

        async def act() -> Reply:
            return await self._act(request)

        done = await act() if getattr(fault, "after_accepting", False) else None
        match fault:
            case Delay():
                await self._stand_in.faults.pause(fault.seconds)
            case Drop():
                raise _HungUp
            case Status():
                return _status(fault)
            case Raw():
                return Reply(200, fault.body)
            case Odd():
                return Reply(200, odd.body(fault.kind, done.body if done else b"{}"))
        return done or await act()

    async def _act(self, request: Recorded) -> Reply:
        try:
            return await self._api.act(request)
        except Refusal as refusal:
            body = refusal.body | {"error": refusal.body["message"]}
            return Reply(refusal.status, msgspec.json.encode(body), refusal.headers)
        except Exception as error:  # noqa: BLE001 - a defect of the stand-in: shown to whoever runs it
            traceback.print_exception(error)
            return Reply(500, msgspec.json.encode({"code": 500, "message": f"stand-in broken: {error!r}"}))

    async def _drops(self, body: bytes, pause_seconds: float) -> AsyncIterator[bytes]:
        for place in range(len(body)):
            yield body[place : place + 1]
            await self._stand_in.faults.pause(pause_seconds)


def _status(fault: Status) -> Reply:
    headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
    if fault.location is not None:
        headers["location"] = fault.location
    if fault.body is not None:
        return Reply(fault.code, fault.body.encode(), headers)
    message = MESSAGES.get(fault.code, "error")
    return Reply(fault.code, msgspec.json.encode({"code": fault.code, "message": message}), headers)


async def _body(receive: Receive) -> bytes:
    blocks, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUp
        blocks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(blocks)


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def _write(send: Send, reply: Reply) -> None:
    sizes = {"content-type": reply.media_type, "content-length": str(len(reply.body))}
    await _start(send, reply.status, reply.headers | sizes)
    await send({"type": "http.response.body", "body": reply.body})


async def _cut(send: Send, reply: Reply) -> None:
    sizes = {"content-type": reply.media_type, "content-length": str(len(reply.body))}
    await _start(send, reply.status, reply.headers | sizes)
    await send({"type": "http.response.body", "body": reply.body[: len(reply.body) // 2], "more_body": True})


async def _stream(
    send: Send, blocks: AsyncIterator[bytes], media_type: str, *, encoding: str | None = None
) -> None:
    encoded = {"content-encoding": encoding} if encoding else {}
    await _start(send, 200, {"content-type": media_type} | encoded)
    async for block in blocks:
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
