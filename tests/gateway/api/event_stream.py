"""A client of event streams, as plain as the format allows."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec

from tests.gateway.api.installation import Customer


class Event(msgspec.Struct):
    """One event."""

    id: str
    name: str
    data: dict[str, Any]


class Events:
    """An open stream."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.comments: list[str] = []
        self.retry: int | None = None
        self._lines = answer.aiter_lines()

    async def next(self) -> Event | None:
        """The next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments.append(line)
            elif name == "retry":
                self.retry = int(value)
            elif line:
                fields[name] = value
            elif fields:
                assert set(fields) == {"id", "event", "data"}
                return Event(fields["id"], fields["event"], json.loads(fields["data"]))
        assert not fields
        return None

    async def comment(self) -> str:
        """The next comment, when no event comes before it."""
        async for line in self._lines:
            if line.startswith(":"):
                return line
            assert not line
        raise AssertionError("the stream has ended")

    async def until(self, name: str) -> list[Event]:
        """All events up to and with the next one of that name, or of that status."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
            if name in {event.name, event.data["status"]}:
                return events
        raise AssertionError(f"the stream ended after {events}")

    async def rest(self) -> list[Event]:
        """All events until the end of the stream."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


@contextlib.asynccontextmanager
async def following(
    customer: Customer,
    job: dict[str, Any],
    *,
    key: str | None = None,
    last_seen: str | None = None,
    http: httpx.AsyncClient | None = None,
) -> AsyncIterator[Events]:
    """The stream of a job, open."""
    headers = customer.headers(key, accept="text/event-stream")
    if last_seen is not None:
        headers["last-event-id"] = last_seen
    async with (http or customer.http).stream(
        "GET", f"/v1/jobs/{job['id']}/events", headers=headers
    ) as answer:
        if answer.status_code != 200:
            await answer.aread()
        assert answer.status_code == 200, answer.text
        yield Events(answer)
