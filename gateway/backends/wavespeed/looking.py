"""Many tasks in few requests: pages of the list while they hold enough of ours, each of the rest alone."""

import asyncio
import random
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final

import msgspec

from gateway.backends.base import BackendUnavailable, Reason
from gateway.backends.remote.connection import Connection, RequestFailed, Response
from gateway.backends.remote.provider import Made, Sight, Unknown, Waiting
from gateway.backends.wavespeed.outcomes import no_answer, sight, unavailable
from gateway.backends.wavespeed.wire import Garbage, Prediction, read_page, read_prediction

PAGE_ITEMS: Final = 100
MOST_PAGE_BYTES: Final = 8_000_000
MOST_BYTES: Final = 1_000_000
"""Of any other answer: it repeats the prompt and the lyrics."""
FEW: Final = 20
"""So many are asked for one by one."""
MOST_PAGES: Final = 200
MOST_SINGLES: Final = 200
"""In one look. Who was not asked for is asked for later: chance decides, so nobody always waits."""
_AT_ONCE: Final = 8
_WORTHWHILE: Final = 2
"""Tasks of ours on a page that are worth another page."""
_FINAL_REASONS: Final = frozenset({Reason.RATE_LIMITED, Reason.MISCONFIGURED, Reason.NO_CREDIT})
"""The next question would hear the same."""
_MOST_FAILURES: Final = 8
"""In one look: a vendor that hangs must not keep it for long."""


async def ask(question: Awaitable[Response]) -> Response:
    """The answer to a question that changes nothing; raises BackendUnavailable instead of no answer."""
    try:
        return await question
    except RequestFailed as error:
        raise no_answer() from error


async def see(connection: Connection, ref: str) -> Prediction | None:
    """One task; None: the vendor knows no such task. Raises BackendUnavailable."""
    answer = await ask(connection.get(f"/predictions/{ref}/result", max_bytes=MOST_BYTES))
    if answer.status == 404:
        return None
    if not answer.is_success:
        raise unavailable(answer)
    try:
        return read_prediction(answer.body, expected=ref)
    except Garbage as error:
        raise no_answer() from error


async def list_page(connection: Connection, page: int, **filters: str) -> tuple[list[Prediction], int]:
    """Newest first: those that can be read, and how many stand on the page. Raises BackendUnavailable."""
    content = msgspec.json.encode({"page": page, "page_size": PAGE_ITEMS, **filters})
    seconds = connection.timeouts.query
    answer = await ask(connection.post("/predictions", content, max_bytes=MOST_PAGE_BYTES, seconds=seconds))
    if not answer.is_success:
        raise unavailable(answer)
    try:
        return read_page(answer.body)
    except Garbage as error:
        raise no_answer() from error


class Look:
    """One look at many tasks."""

    def __init__(self, connection: Connection, refs: Sequence[str]) -> None:
        self._connection = connection
        self._open = dict.fromkeys(refs)
        self._seen: dict[str, Sight] = {}
        self._trouble: BackendUnavailable | None = None
        self._failures = 0
        self._is_over = False

    async def run(self) -> Mapping[str, Sight]:
        """What was seen; raises BackendUnavailable if that is nothing."""
        if len(self._open) > FEW:
            await self._read_list()
        singles = list(self._open)
        if len(singles) > MOST_SINGLES:
            singles = random.sample(singles, MOST_SINGLES)
        turns = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(self._see(ref, turns) for ref in singles))
        if self._trouble is not None and not self._seen:
            raise self._trouble
        return self._seen

    async def _read_list(self) -> None:
        """Unfinished tasks are among the newest; where ours become rare, pages cost more than they tell."""
        for page in range(1, MOST_PAGES + 1):
            try:
                items, length = await list_page(self._connection, page)
            except BackendUnavailable as trouble:
                # It is documented and was never seen at work: where it fails, single questions may not.
                self._trouble = trouble
                self._is_over = trouble.reason is Reason.RATE_LIMITED
                return
            ours = [item for item in items if item.id in self._open]
            for item in ours:
                self._take(item)
            if len(ours) < _WORTHWHILE or length < PAGE_ITEMS or len(self._open) <= FEW:
                return

    def _take(self, item: Prediction) -> None:
        """The list may leave out why a task failed, or where its music is: such are asked for alone."""
        state = sight(item)
        if isinstance(state, Waiting | Made):
            self._seen[item.id] = state
            del self._open[item.id]

    async def _see(self, ref: str, turns: asyncio.Semaphore) -> None:
        async with turns:
            if self._is_over:
                return
            try:
                found = await see(self._connection, ref)
            except BackendUnavailable as trouble:
                self._trouble = trouble
                self._failures += 1
                if trouble.reason in _FINAL_REASONS or self._failures >= _MOST_FAILURES:
                    self._is_over = True
                return
        self._seen[ref] = Unknown() if found is None else sight(found)
