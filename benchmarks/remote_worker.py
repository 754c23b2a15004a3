"""What 10,000 jobs under way at a provider cost a real worker and its Postgres: leases, beats, polls.

    python benchmarks/remote_worker.py [--tasks 10000] [--seconds 20] [--quick] [--json]

`antiphon serve` admits them, `antiphon work` sends them to a server that answers Runware's wire (that of
remote_inflight) and follows them; when all are accepted, CPU time of the worker and of Postgres is measured.
The baseline is the same worker with one job, before. The claim: less than one core for the worker.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import uvloop

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import billing  # noqa: E402
from benchmarks.harness import cpu, stack  # noqa: E402

MODEL: Final = "ace-step-1.5"
CLIENTS: Final = 32
PATIENCE_SECONDS: Final = 400.0
_ACCEPTED: Final = "SELECT count(*) FROM attempt WHERE accepted_at IS NOT NULL"


def main(options: argparse.Namespace) -> None:
    tasks = 300 if options.quick else options.tasks
    seconds = 3.0 if options.quick else options.seconds
    provider = [sys.executable, str(ROOT / "benchmarks" / "remote_inflight.py"), "--provider", "--endless"]
    with stack.postgres() as server, subprocess.Popen(provider, stdout=subprocess.PIPE) as runware:
        try:
            assert runware.stdout is not None
            settings = {
                "ANTIPHON_RUNWARE_API_KEY": "key",
                "ANTIPHON_RUNWARE_BASE_URL": f"http://127.0.0.1:{int(runware.stdout.readline())}/v1",
                "ANTIPHON_PROVIDER_CONCURRENCY": str(tasks + 1),
            }
            rows = measured(server, settings, tasks, seconds)
        finally:
            runware.kill()
    if options.as_json:
        print(json.dumps({"remote_worker": rows}))
        return
    print(f"{'jobs':>8}{'worker, cores':>16}{'Postgres, cores':>18}{'sent per second':>18}")
    for row in rows:
        cores = f"{row['worker']:>16.3f}{row['postgres']:>18.3f}"
        print(f"{row['jobs']:>8}{cores}{row['sent']:>18.0f}")
    one, many = rows
    times = many["worker"] / max(one["worker"], 1e-9)
    print(f"{many['jobs']} jobs take {times:.0f} times the worker's CPU for one")
    assert many["worker"] < 1, "more than a core"


def measured(
    server: stack.Server, settings: dict[str, str], tasks: int, seconds: float
) -> list[dict[str, Any]]:
    """With one job under way, then with all of them."""
    (key,) = stack.prepare_accounts(server.dsn, 1)
    uvloop.run(set_price(server.dsn))
    rows = []
    with (
        stack.http_process(server, server.dsn, **settings) as http,
        stack.worker_process(server, server.dsn, **settings) as worker,
    ):
        for jobs in (1, tasks - 1):
            began = time.perf_counter()
            asyncio.run(submit(http.url, key, jobs))
            under_way = uvloop.run(accepted(server.dsn, 1 if jobs == 1 else tasks))
            sent = jobs / (time.perf_counter() - began)
            time.sleep(min(seconds, 10))
            with cpu.measured({"worker": worker, "postgres": server.pid}) as use:
                time.sleep(seconds)
            cores = {name: used / use.wall for name, used in use.seconds.items()}
            rows.append({"jobs": under_way, "sent": sent, "others": use.others, **cores})
    return rows


async def set_price(dsn: str) -> None:
    conn = await asyncpg.connect(dsn)
    async with conn.transaction():
        await billing.set_price(conn, model=MODEL, nano_per_second=300_000)
    await conn.close()


async def submit(url: str, key: str, jobs: int) -> None:
    body = {"model": MODEL, "prompt": "a calm song", "audio_duration": 60, "provider": "runware"}
    headers = {"authorization": f"Bearer {key}"}
    left = iter(range(jobs))
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=60) as client:

        async def one_client() -> None:
            for _ in left:
                answer = await client.post("/v1/audio/generations", json=body)
                assert answer.status_code == 202, answer.text

        await asyncio.gather(*(one_client() for _ in range(CLIENTS)))


async def accepted(dsn: str, jobs: int) -> int:
    """How many are under way, once they all are."""
    conn = await asyncpg.connect(dsn)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := await conn.fetchval(_ACCEPTED)) < jobs:
        assert time.monotonic() < deadline, f"only {found} of {jobs} were accepted"
        await asyncio.sleep(0.5)
    await conn.close()
    return int(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", dest="as_json")
    main(parser.parse_args())
