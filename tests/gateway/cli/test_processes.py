"""`serve`, `work` and `migrate`: what they need is said in one line, and they leave in order."""

import asyncio
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from gateway.embedded import EmbeddedPostgres

Operator = Any
OperatorOf = Callable[[str, Path], Operator]
COMMANDS = [["serve"], ["work"], ["ledger", "verify"], ["admin", "org", "create", "--name", "n"]]


async def end(operator: Operator, command: list[str], **environ: str) -> Any:
    """Real processes for those that set up logging and event loops, which are this process' too."""
    call = operator.run if command[0] in {"serve", "work"} else operator.invoke
    return await call(*command, **environ)


def one_line(answer: Any, told: str) -> None:
    assert (answer.status != 0, answer.out) == (True, ""), answer
    lines = [line for line in answer.err.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, answer.err
    assert told in lines[0]


@pytest.mark.parametrize("command", [*COMMANDS, ["migrate"]], ids=" ".join)
async def test_without_a_database_there_is_one_clear_line(
    operator_of: OperatorOf, tmp_path: Path, command: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dsn = f"postgresql://user:hunter2@127.0.0.1:{taken.getsockname()[1]}/nothing"
    operator = operator_of(dsn, tmp_path)
    answer = await end(operator, command)
    one_line(answer, "database")
    assert "hunter2" not in answer.err
    one_line(await end(operator, command, ANTIPHON_DATABASE_URL=""), "ANTIPHON_DATABASE_URL")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_without_our_schema_there_is_one_clear_line(
    operator_of: OperatorOf, postgres: EmbeddedPostgres, tmp_path: Path, command: list[str]
) -> None:
    one_line(await end(operator_of(postgres.superuser_dsn, tmp_path), command), "antiphon migrate")


async def test_wrong_settings_are_all_told(operator_of: OperatorOf, tmp_path: Path) -> None:
    operator = operator_of("mysql://x", tmp_path)
    for command in (["serve"], ["migrate"], ["ledger", "verify"]):
        answer = await end(operator, command, ANTIPHON_BIND="x")
        assert answer.status == 2
        lines = [line for line in answer.err.splitlines() if not line.startswith("{")]
        assert [line.startswith("antiphon: ANTIPHON_") for line in lines] == [True, True]


async def test_migrate_makes_a_database_usable_and_again_changes_nothing(
    operator_of: OperatorOf, database: str, tmp_path: Path
) -> None:
    conn = await asyncpg.connect(database)
    await conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    operator = operator_of(database, tmp_path)
    first = (await operator.invoke("migrate", "--json")).json()
    assert (set(first), first["prices_seeded"]) == ({"revision", "prices_seeded"}, 7)
    assert (await operator.invoke("migrate", "--json")).json() == {**first, "prices_seeded": 0}
    assert await conn.fetchval("SELECT count(*) FROM price_version") == 7
    await conn.close()
    assert (await operator.invoke("ledger", "verify", "--json")).json() == {
        "ok": True,
        "violations": [],
        "entries": 0,
        "lifted": False,
        "halted": False,
    }


async def test_serve_answers_logs_without_secrets_and_leaves_in_order(
    operator_of: OperatorOf, database: str, tmp_path: Path
) -> None:
    operator = operator_of(database, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = await operator.start("serve", ANTIPHON_BIND=f"127.0.0.1:{port}")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        async with asyncio.timeout(30):
            while True:
                try:
                    answer = await http.get("/readyz")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
        assert answer.json()["checks"]["database"] == "ok"
        key = "aph_live_" + "x" * 49
        await http.get("/v1/jobs", headers={"authorization": f"Bearer {key}"})
        taken = await operator.run("serve", ANTIPHON_BIND=f"127.0.0.1:{port}")
    process.send_signal(signal.SIGTERM)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (0, b"")
    lines = [json.loads(line) for line in err.decode().splitlines()]
    assert [line["route"] for line in lines if line["event"] == "http.request"] == ["/v1/jobs"]
    assert key.encode() not in err
    assert taken.status != 0
    assert "Traceback" not in taken.err
    assert str(port) in taken.err


async def test_help_names_every_command(operator: Operator) -> None:
    answer = await operator.run("--help")
    assert answer.status == 0
    for command in ("up", "serve", "work", "migrate", "admin", "ledger"):
        assert command in answer.out
    version = await operator.run("--version")
    assert version.status == 0, version.err
