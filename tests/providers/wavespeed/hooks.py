"""Signed webhooks of ended predictions, and everything that can happen to them on the way."""

import asyncio
import hmac
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import msgspec

from tests.providers.wavespeed.faults import Delay, Faults, Hooks
from tests.providers.wavespeed.predictions import Account, Prediction

HookKind = Literal["good", "forged", "old", "altered", "unsigned"]
TIMEOUT_S = 10
OLD_S = 301
WAITS = (0.0, 5.0, 30.0, 120.0, 600.0)
OK = range(200, 300)


@dataclass
class Hook:
    """One delivery and its answer; no status if there was none."""

    prediction_id: str
    url: str
    kind: HookKind
    body: bytes
    headers: dict[str, str]
    status: int | None = None
    error: str | None = None


@dataclass
class HookSender:
    """Sends each webhook until an answer 2xx, as the vendor does; or as a fault tells it to."""

    faults: Faults
    waits: tuple[float, ...] = WAITS
    """Seconds before each try."""
    sent: list[Hook] = field(default_factory=list)
    _client: httpx.AsyncClient | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def ended(self, account: Account, prediction: Prediction) -> None:
        """Onto its way, if the prediction asked for one and its end is one that is told."""
        if prediction.asked.webhook and prediction.status in ("completed", "failed"):
            fault = self.faults.take("webhook")
            task = asyncio.get_running_loop().create_task(self._deliver(account, prediction, fault))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def accepted(self, account: Account, prediction: Prediction) -> None:
        """Before the submit is answered: where it is time for an early one."""
        if prediction.asked.webhook and self.faults.take_early():
            await self.send(account, prediction, as_completed=True)

    async def send(
        self,
        account: Account,
        prediction: Prediction,
        kind: HookKind = "good",
        *,
        url: str | None = None,
        webhook_id: str | None = None,
        as_completed: bool = False,
    ) -> Hook:
        """One delivery. A forged one says that all is done, and offers a file of its own."""
        shown = prediction.shown(as_completed=as_completed or kind == "forged")
        if kind == "forged":
            shown["outputs"] = [f"{prediction.base_url}/outputs/forged.mp3"]
        body = msgspec.json.encode(shown)
        secret = f"whsec_{secrets.token_hex(24)}" if kind == "forged" else account.webhook_secret
        headers = signed_headers(
            body, secret, webhook_id or secrets.token_hex(16), time.time() - (OLD_S if kind == "old" else 0)
        )
        if kind == "altered":
            body = body.replace(b'"error":""', b'"error":"!"', 1)
        if kind == "unsigned":
            del headers["webhook-signature"]
        hook = Hook(prediction.id, url or prediction.asked.webhook or "", kind, body, headers)
        await self._post(hook)
        self.sent.append(hook)
        return hook

    async def settled(self) -> None:
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client:
            await self._client.aclose()

    async def _deliver(self, account: Account, prediction: Prediction, fault: Any) -> None:
        how = fault.kind if isinstance(fault, Hooks) else ""
        if how == "never":
            return
        if isinstance(fault, Delay) or how == "late":
            await self.faults.pause(fault.seconds)
        kind = how if how in ("forged", "old", "altered", "unsigned") else "good"
        webhook_id = secrets.token_hex(16)
        if how == "duplicate":
            await self.send(account, prediction, webhook_id=webhook_id)
        for wait in self.waits:
            await asyncio.sleep(wait)
            hook = await self.send(account, prediction, kind, webhook_id=webhook_id)
            if hook.status in OK:
                return

    async def _post(self, hook: Hook) -> None:
        self._client = self._client or httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        try:
            async with self._client.stream(
                "POST", hook.url, content=hook.body, headers=hook.headers
            ) as answer:
                hook.status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            hook.error = repr(error)


def signed_headers(body: bytes, secret: str, webhook_id: str, now: float) -> dict[str, str]:
    """The secret is used as text, without its prefix."""
    timestamp = str(int(now))
    signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
    signature = hmac.digest(secret.removeprefix("whsec_").encode(), signed, "sha256").hex()
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v3,{signature}",
    }
