"""What the vendor sends by itself: a POST to `webhookURL` per item, a PUT to `uploadEndpoint` per file."""

import asyncio
from functools import cached_property
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from tests.providers.runware.account import Json, Sent, Task
from tests.providers.runware.faults import Faults, Hook

TIMEOUT_SECONDS = 10
RETRY_SECONDS = (0.0, 5.0, 30.0, 120.0, 600.0)


class Deliveries:
    def __init__(self) -> None:
        self.hooks: list[Sent] = []
        self.uploads: list[Sent] = []
        self.retry_seconds: tuple[float, ...] = RETRY_SECONDS

    @cached_property
    def http(self) -> httpx.AsyncClient:
        """For all that the vendor fetches and sends; it takes 20 ms to make."""
        return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(), timeout=TIMEOUT_SECONDS)

    async def close(self) -> None:
        if "http" in self.__dict__:
            await self.http.aclose()

    @staticmethod
    def take(faults: Faults) -> Hook | None:
        fault = faults.take("webhook")
        return fault if isinstance(fault, Hook) else None

    async def hook(self, task: Task) -> None:
        """All of a task's messages, in the way that its fault says."""
        kind = task.hook.kind if task.hook else None
        if kind == "never":
            return
        if task.hook and kind == "late":
            await asyncio.sleep(task.hook.seconds)
        url = task.request["webhookURL"]
        messages: list[Json] = [{"data": [item]} for item in task.items]
        if task.error:
            messages = [{"errors": [task.error]}]
        if kind == "forged":
            await asyncio.gather(*(self._forge(url, message) for message in messages))
        copies = 2 if kind == "duplicate" else 1
        await asyncio.gather(*(self._post(url, message) for message in messages * copies))

    async def put(self, url: str, content: bytes, content_type: str) -> None:
        sent = Sent(url, content)
        self.uploads.append(sent)
        await self._send("PUT", sent, content_type)

    async def _post(self, url: str, message: Json) -> None:
        """Until it is answered 2xx, or the schedule ends."""
        for pause in self.retry_seconds:
            await asyncio.sleep(pause)
            sent = Sent(url, msgspec.json.encode(message))
            self.hooks.append(sent)
            await self._send("POST", sent, "application/json")
            if sent.status and 200 <= sent.status < 300:
                return

    async def _forge(self, url: str, message: Json) -> None:
        """A stranger knows the address and the task, and not the secret in the query."""
        address = urlunsplit(urlsplit(url)._replace(query="token=guessed"))
        items = [
            item | {"audioURL": "http://169.254.169.254/song.mp3", "cost": 0}
            for item in message.get("data", [])
        ]
        sent = Sent(address, msgspec.json.encode({"data": items} if items else message), forged=True)
        self.hooks.append(sent)
        await self._send("POST", sent, "application/json")

    async def _send(self, method: str, sent: Sent, content_type: str) -> None:
        headers = {"content-type": content_type}
        try:
            answer = await self.http.request(method, sent.url, content=sent.body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL):
            return
        sent.status = answer.status_code
