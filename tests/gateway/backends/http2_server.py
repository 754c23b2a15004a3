"""A server that speaks HTTP/2 and nothing else, and answers or breaks off each stream as it is told."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

import h2.config
import h2.connection
import h2.events
import msgspec

Answer = bytes | str
"""JSON; or `reset` for a stream that is broken off, `goaway` for a connection that is."""


class Http2Server(msgspec.Struct, kw_only=True):
    """Where it listens, and what came."""

    url: str = ""
    connections: int = 0
    paths: list[str] = []


@contextlib.asynccontextmanager
async def http2_server(answer: Callable[[str], Answer], tls: ssl.SSLContext) -> AsyncIterator[Http2Server]:
    tls.set_alpn_protocols(["h2"])
    found = Http2Server()
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        writers.add(writer)
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conn.initiate_connection()
        paths: dict[int, str] = {}
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            writer.write(conn.data_to_send())
            while data := await reader.read(1 << 16):
                for event in conn.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        paths[event.stream_id] = dict(event.headers)[b":path"].decode()
                    elif isinstance(event, h2.events.StreamEnded):
                        path = paths.pop(event.stream_id)
                        found.paths.append(path)
                        _respond(conn, event.stream_id, answer(path))
                writer.write(conn.data_to_send())
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        found.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield found
        for writer in writers:
            writer.transport.abort()


def _respond(conn: h2.connection.H2Connection, stream: int, answer: Answer) -> None:
    if answer == "reset":
        conn.reset_stream(stream, error_code=2)
    elif answer == "goaway":
        conn.close_connection(error_code=2, last_stream_id=stream)
    elif isinstance(answer, bytes):
        conn.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
        conn.send_data(stream, answer, end_stream=True)
