"""The stand-in as a running server: in a test's own event loop, or alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec

from tests.providers.runware.account import STARTING_BALANCE_NANO, Account, Json, Request, Task
from tests.providers.runware.faults import Fault, Where
from tests.providers.runware.service import Service
from tests.providers.runware.sockets import RESTART, Socket, Sockets
from tests.providers.runware.web import Exchange, Web
from tests.providers.serving import LOOPBACK, served

API_KEY = "runware-stand-in-key-of-the-first-account"


class _State:
    """Where the stand-in listens, what it keeps, and what of it may be set."""

    def __init__(self, key: str = API_KEY, *, balance_nano: int = STARTING_BALANCE_NANO) -> None:
        self.key = key
        self.requests: list[Request] = []
        self.downloads: list[Request] = []
        self.service = Service()
        self.account = self.service.add_account(key, balance_nano)
        self.tasks = self.account.tasks
        self.media = self.account.media
        self.hooks = self.service.deliveries.hooks
        self.uploads = self.service.deliveries.uploads
        self.sockets = Sockets(self.service, self.requests)

    @property
    def origin(self) -> str:
        return self.service.origin

    @property
    def url(self) -> str:
        """Of the HTTP API."""
        return f"{self.origin}/v1"

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    @property
    def balance_nano(self) -> int:
        return self.account.balance_nano

    @balance_nano.setter
    def balance_nano(self, nano: int) -> None:
        self.account.balance_nano = nano

    @property
    def processing_seconds(self) -> float:
        """Of tasks that are accepted from now on."""
        return self.service.processing_seconds

    @processing_seconds.setter
    def processing_seconds(self, seconds: float) -> None:
        self.service.processing_seconds = seconds

    @property
    def hook_retry_seconds(self) -> tuple[float, ...]:
        """Pauses before each try of a webhook."""
        return self.service.deliveries.retry_seconds

    @hook_retry_seconds.setter
    def hook_retry_seconds(self, pauses: tuple[float, ...]) -> None:
        self.service.deliveries.retry_seconds = pauses

    def report(self) -> Json:
        """The state in JSON, without contents."""
        return {
            "url": self.url,
            "balance_nano": self.balance_nano,
            "processing_seconds": self.processing_seconds,
            "requests": [{"transport": one.transport, "tasks": one.task_types} for one in self.requests],
            "downloads": [one.path for one in self.downloads],
            "tasks": {
                task.uuid: {
                    "state": task.state,
                    "accepted": task.accepted,
                    "offered": task.offered,
                    "cost_nano": task.cost_nano,
                }
                for task in self.tasks.values()
            },
            "hooks": [{"url": sent.url, "status": sent.status, "forged": sent.forged} for sent in self.hooks],
            "pending_faults": self.service.faults.pending(),
        }


class RunwareStandIn(_State):
    """Runware behind a socket, and its controls."""

    def add_account(self, key: str, balance_nano: int = STARTING_BALANCE_NANO) -> Account:
        return self.service.add_account(key, balance_nano)

    def fail_next(self, where: Where, fault: Fault, times: int = 1) -> None:
        """The next `times` requests of that place; they queue behind what was told before."""
        self.service.faults.add(where, fault, times)

    def pending_faults(self) -> dict[str, list[Fault]]:
        return self.service.faults.pending()

    def clear_faults(self) -> None:
        self.service.faults.clear()

    def hold(self) -> None:
        """No task ends until released."""
        self.service.flow.clear()

    def release(self) -> None:
        self.service.flow.set()

    async def finish(self, task_uuid: str) -> Task:
        """End that task now, whatever holds it."""
        task = self.tasks[task_uuid]
        await self.service.end(self.account, task)
        return task

    def forget(self, task_uuid: str) -> None:
        """From now on the task is unknown; its UUID may be used again."""
        self.tasks[task_uuid].forgotten = True

    def cut_sockets(self) -> None:
        self.sockets.cut()

    async def close_sockets(self, code: int = RESTART) -> None:
        await self.sockets.close(code)

    async def settled(self) -> None:
        """All tasks have ended, all webhooks and uploads are sent."""
        await self.service.settled()


class FailNext(msgspec.Struct, forbid_unknown_fields=True):
    where: Where
    fault: Fault
    times: int = 1


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    processing_seconds: float | None = None
    balance_nano: int | None = None
    hook_retry_seconds: tuple[float, ...] | None = None


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /_control`."""

    fail_next: FailNext | None = None
    set: Settings | None = None
    do: list[Literal["hold", "release", "clear_faults", "cut_sockets"]] = []
    forget: str | None = None

    async def carry_out(self, stand_in: RunwareStandIn) -> None:
        if self.fail_next:
            stand_in.fail_next(self.fail_next.where, self.fail_next.fault, self.fail_next.times)
        for name, value in msgspec.structs.asdict(self.set or Settings()).items():
            if value is not None:
                setattr(stand_in, name, value)
        for name in self.do:
            getattr(stand_in, name)()
        if self.forget:
            stand_in.forget(self.forget)


def application(stand_in: RunwareStandIn) -> Any:
    """The ASGI application: API, files, and the control route."""
    web = Web(stand_in.service, stand_in.requests, stand_in.downloads)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].rstrip("/")
        if scope["type"] == "websocket":
            if path == "/v1":
                await stand_in.sockets.serve(Socket(scope, receive, send))
            return
        exchange = Exchange(scope, receive, send)
        room, _, name = path.removeprefix("/").partition("/")
        reading = exchange.method in ("GET", "HEAD")
        if path == "/v1" and exchange.method == "POST":
            await web.post(exchange)
        elif room == "files" and reading:
            await web.get_file(exchange, name)
        elif room == "media" and reading:
            await web.get_media(exchange, name)
        elif path == "/_control" and exchange.method == "POST":
            await _control(stand_in, exchange)
        else:
            await exchange.answer(404, b'{"errors":[{"code":"notFound","message":"no such path"}]}')

    return app


async def _control(stand_in: RunwareStandIn, exchange: Exchange) -> None:
    try:
        order = msgspec.json.decode(await exchange.body() or b"{}", type=Order)
        await order.carry_out(stand_in)
    except (msgspec.DecodeError, ValueError, KeyError) as error:
        await exchange.answer(400, msgspec.json.encode({"error": str(error)}))
        return
    await exchange.answer(200, msgspec.json.encode(stand_in.report()))


@asynccontextmanager
async def running(
    port: int = 0, *, host: str = LOOPBACK, key: str = API_KEY, balance_nano: int = STARTING_BALANCE_NANO
) -> AsyncIterator[RunwareStandIn]:
    """A stand-in in this event loop; on a free port of the loopback interface unless told otherwise."""
    stand_in = RunwareStandIn(key, balance_nano=balance_nano)
    async with served(application(stand_in), host, port) as origin:
        stand_in.service.origin = origin
        try:
            yield stand_in
        finally:
            stand_in.cut_sockets()
            await stand_in.service.stop()
