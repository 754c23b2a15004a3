"""A stand-in's application on a real socket, in a test's own event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

LOOPBACK = "127.0.0.1"


class _Protocol(HttpToolsProtocol):
    """Lets a request's handler cut its connection, as a network does."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self.transport


@asynccontextmanager
async def served(app: Any, host: str = LOOPBACK, port: int = 0) -> AsyncIterator[str]:
    """An ASGI application on a socket in this event loop; its base address."""
    listener = socket.create_server((host, port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for an ACK
    config = uvicorn.Config(app, http=_Protocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Protocol(config, state, {}), sock=listener)
    try:
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        await asyncio.gather(*state.tasks)
        await server.wait_closed()
        await asyncio.sleep(0)  # the connections' last call
