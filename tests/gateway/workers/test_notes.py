"""What workers write down of attempts, when thousands of them begin at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from gateway.backends.base import RemoteTask
from gateway.workers.notes import NOTES_AT_ONCE, AttemptNotes
from tests.factories import Pool
from tests.workbench import Workbench


class CountingPool:
    """A pool that knows how many of its connections are out at most."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.out = self.most = 0

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        async with self._pool.acquire() as conn:
            self.out += 1
            self.most = max(self.most, self.out)
            yield conn
            self.out -= 1


async def test_many_notes_leave_connections_for_heartbeats(bench: Workbench) -> None:
    principal = await bench.customer()
    for _ in range(20):
        await bench.submit(principal, seconds=5)
    claims = await bench.claim(20)
    pool: Any = CountingPool(bench.pool)
    notes = AttemptNotes(pool, resumable=True)
    remotes = [RemoteTask(backend="engine", ref=claim.job_id.hex) for claim in claims]
    sent = await asyncio.gather(*map(notes.sent, claims, remotes))
    assert sent == [True] * 20
    assert pool.most == NOTES_AT_ONCE
    await asyncio.gather(*map(notes.accepted, claims, remotes))
    assert {await bench.pool.fetchval("SELECT count(*) FROM attempt WHERE state = 'accepted'")} == {20}
