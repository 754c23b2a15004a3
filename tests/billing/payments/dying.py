"""A process of its own that runs automatic top-ups, to be killed in the middle."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import asyncio, sys
import asyncpg
from billing import payments

async def main(dsn, url, key):
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
        till = payments.open_till(pool, secret_key=key, base_url=url)
        print("ready", flush=True)
        await payments.run_auto_top_ups(pool, till.processor)

asyncio.run(main(*sys.argv[1:]))
"""


@contextlib.asynccontextmanager
async def doomed(dsn: str, url: str, key: str) -> AsyncIterator[None]:
    """It runs inside, and is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, dsn, url, key, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
