"""What all of the vendor rests on: accounts, files, faults, deliveries, and work that goes on by itself."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from tests.providers.runware.account import Account, Task
from tests.providers.runware.deliveries import Deliveries
from tests.providers.runware.faults import Faults
from tests.providers.runware.files import Files
from tests.providers.runware.refusals import Refusal


class Vendor:
    def __init__(self) -> None:
        self.origin = ""
        self.accounts: dict[str, Account] = {}
        self.faults = Faults()
        self.files = Files()
        self.processing_seconds = 0.2
        self.flow = asyncio.Event()
        self.flow.set()
        self._stopped = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self.deliveries = Deliveries()

    def add_account(self, key: str, balance_nano: int) -> Account:
        account = Account(key, balance_nano)
        self.accounts[key] = account
        return account

    def account_of(self, key: Any) -> Account:
        if not key:
            raise Refusal("missingApiKey")
        account = self.accounts.get(key) if isinstance(key, str) else None
        if account is None:
            raise Refusal("invalidApiKey", parameter="apiKey")
        return account

    async def pause(self, seconds: float) -> None:
        """Or until the stand-in stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def ending(self, task: Task) -> None:
        """Until the task ended, or the stand-in stops."""
        waiting = {asyncio.ensure_future(task.ended.wait()), asyncio.ensure_future(self._stopped.wait())}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        if self._stopped.is_set():
            work.close()
            return
        background = asyncio.create_task(work)
        self._background.add(background)
        background.add_done_callback(self._background.discard)

    async def settled(self) -> None:
        while self._background:
            await asyncio.gather(*self._background)

    async def stop(self) -> None:
        self._stopped.set()
        for background in list(self._background):
            background.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.deliveries.close()
