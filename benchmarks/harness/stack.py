"""The real processes, on a database of their own: Postgres with fsync, `serve`, `work`."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import asyncpg
import httpx
import msgspec
import psutil
import uvloop

import billing
from gateway import schema
from gateway.auth.directory import create_key, create_organization
from gateway.auth.keys import derive_pepper
from gateway.config_watch import bump_revision
from gateway.embedded import EmbeddedPostgres

SECRET: Final = "a secret for benchmarks, nothing else"  # noqa: S105
CREDIT_NANO: Final = 10**14
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
SHOWN_OF_LOG: Final = 4000
_WORKERS: Final = "SELECT count(*) FROM worker WHERE seen_at > now() - interval '5 s'"


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A running Postgres and the folder in which everything lies."""

    home: Path
    dsn: str
    superuser_dsn: str
    pid: int

    def superuser(self, dsn: str) -> str:
        """The superuser's DSN of the same database."""
        return f"{self.superuser_dsn.rpartition('/')[0]}/{dsn.rpartition('/')[2]}"

    def create_database(self, name: str) -> str:
        """DSN of one more migrated database."""
        uvloop.run(_execute(self.dsn, f"CREATE DATABASE {name}"))
        dsn = f"{self.dsn.rpartition('/')[0]}/{name}"
        schema.upgrade(dsn)
        return dsn


class HttpProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A running `antiphon serve`."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        """Its origin."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def postgres() -> Iterator[Server]:
    """A fresh, migrated database; everything is removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix="antiphon-bench-"))
    home.chmod(0o711)
    server = EmbeddedPostgres(home)
    try:
        dsn = server.start()
        schema.upgrade(dsn)
        pid = next(child.pid for child in psutil.Process().children() if child.name().startswith("postgres"))
        yield Server(home=home, dsn=dsn, superuser_dsn=server.superuser_dsn, pid=pid)
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def http_process(server: Server, dsn: str, *command: str, **settings: str) -> Iterator[HttpProcess]:
    """`antiphon serve` on a free port, or `command` in its place, once it answers."""
    port = _free_port()
    arguments = command or ("-m", "gateway.cli", "serve")
    with _process(server, dsn, arguments, port=port, **settings) as process:
        _await(process, lambda: _answers(port))
        yield HttpProcess(pid=process.pid, port=port)


@contextmanager
def worker_process(server: Server, dsn: str, **settings: str) -> Iterator[int]:
    """`antiphon work`; yields its process id once it takes jobs."""
    with _process(server, dsn, ("-m", "gateway.cli", "work"), **settings) as process:
        _await(process, lambda: bool(uvloop.run(_fetchval(dsn, _WORKERS))))
        yield process.pid


def prepare_accounts(dsn: str, count: int) -> list[str]:
    """Organizations with plenty of credit; returns one live key of each."""
    return uvloop.run(_prepare_accounts(dsn, count))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def _process(
    server: Server, dsn: str, arguments: Sequence[str], *, port: int = 8000, **settings: str
) -> Iterator["subprocess.Popen[bytes]"]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    environ = (
        others
        | settings
        | {
            "ANTIPHON_DATABASE_URL": dsn,
            "ANTIPHON_HOME": str(server.home),
            "ANTIPHON_BIND": f"127.0.0.1:{port}",
            "ANTIPHON_SECRET_KEY": SECRET,
        }
    )
    log = server.home / f"{Path(arguments[-1]).stem}.log"
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, *arguments], env=environ, stderr=output)
    try:
        yield process
        _check_alive(process)
        process.terminate()
        process.wait(timeout=STOP_SECONDS)
        _check_stopped(process)
    except Exception:
        sys.stderr.write(log.read_text(errors="replace")[-SHOWN_OF_LOG:])
        raise
    finally:
        process.kill()
        process.wait()


def _await(process: "subprocess.Popen[bytes]", is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        _check_alive(process)
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready after {START_SECONDS:.0f} s: {process.args!r}")
        time.sleep(0.05)


def _check_alive(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        raise RuntimeError(f"ended with status {process.returncode}: {process.args!r}")


def _check_stopped(process: "subprocess.Popen[bytes]") -> None:
    if process.returncode != 0:
        raise RuntimeError(f"stopped with status {process.returncode}: {process.args!r}")


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
    except httpx.TransportError:
        return False
    return True


async def _prepare_accounts(dsn: str, count: int) -> list[str]:
    conn = await asyncpg.connect(dsn)
    pepper = derive_pepper(SECRET)
    keys = []
    try:
        async with conn.transaction():
            if not await conn.fetchval("SELECT count(*) FROM price_version"):
                await billing.set_price(conn, model="sandbox", nano_per_second=250_000)
            for number in range(count):
                owner = await create_organization(conn, name=f"bench {number}")
                await billing.grant(conn, account_id=owner, amount_nano=CREDIT_NANO, reason="benchmark")
                _, key = await create_key(conn, pepper=pepper, organization_id=owner, name="b", test=False)
                keys.append(key)
            await bump_revision(conn)
    finally:
        await conn.close()
    return keys


async def _execute(dsn: str, statement: str) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


async def _fetchval(dsn: str, query: str) -> object:
    conn = await asyncpg.connect(dsn)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()
