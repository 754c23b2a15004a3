"""What a network and a large service do to a caller: slowness, dropped connections, errors, garbage."""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tests.providers.stripe.refusals import Refusal

Kind = Literal["slow", "drop", "rate_limit", "server_error", "garbage"]
When = Literal["before", "after"]


@dataclass(slots=True)
class Fault:
    """What befalls the next requests that match. After acting, the caller does not learn what was done."""

    kind: Kind
    when: When = "before"
    method: str | None = None
    path: str = "/v1/"
    times: int = 1
    seconds: float = 0

    def matches(self, method: str, path: str) -> bool:
        return self.times > 0 and self.method in (None, method) and path.startswith(self.path)


class Faults:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._woken = asyncio.Event()

    def add(
        self,
        kind: Kind,
        when: When = "before",
        *,
        method: str | None = None,
        path: str = "/v1/",
        times: int = 1,
        seconds: float = 0,
    ) -> Fault:
        """Befall the next `times` requests of that method whose path begins so."""
        if kind == "rate_limit" and when == "after":
            raise Refusal("A request over the rate limit is never acted on.")
        fault = Fault(kind, when, method, path, times, seconds)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """No more faults; those that are slow right now go on at once."""
        self._faults.clear()
        self._woken.set()
        self._woken = asyncio.Event()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault of this request, counted."""
        fault = next((one for one in self._faults if one.matches(method, path)), None)
        if fault:
            fault.times -= 1
        return fault

    async def pause(self, fault: Fault) -> None:
        woken = self._woken
        try:
            async with asyncio.timeout(fault.seconds):
                await woken.wait()
        except TimeoutError:
            pass

    def report(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._faults if fault.times > 0]
