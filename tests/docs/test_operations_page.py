"""The operations page: every command is run, and an installation survives its own destruction."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml

from gateway.embedded import EmbeddedPostgres
from gateway.ids import parse_id
from tests.databases import fresh_database
from tests.docs.code_blocks import ROOT, as_one_script, blocks, run_shell
from tests.docs.stack import Stack, finished, free_port, submit

PAGE = "docs/operations.md"
CHECKS = ("Check a restoration", "The books")
ELSEWHERE = ("Several processes and machines",)
DRILLS = (("Dump", "Restore a dump"), ("Base backup", "Restore a base backup"))
DRILL_SECONDS = 240
MOVE = "Move a dump to another server"
EXAMPLE_PORT = "8010"


@pytest.fixture
def site(scratch: Path) -> Iterator[Stack]:
    """An installation of the test's own, with a place for its backups."""
    with Stack(scratch) as stack:
        stack.environ["BACKUP"] = str(scratch / "safe" / "antiphon")
        yield stack


def run_sections(stack: Stack, *headings: str) -> str:
    """What a terminal shows in which the blocks below those headings were run."""
    answer = run_shell(
        as_one_script(blocks(PAGE, *headings)),
        environ=stack.environ,
        folder=stack.home.parent,
        seconds=DRILL_SECONDS,
    )
    assert answer.returncode == 0, f"{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
    return answer.stdout


def fetch(job: dict[str, Any]) -> bytes:
    link = job["result"]["data"][0]["url"]
    return httpx.get(link, trust_env=False, timeout=20).raise_for_status().content


def balance(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/v1/balance").raise_for_status().json())


@pytest.mark.slow
@pytest.mark.parametrize(("backup", "restoration"), DRILLS)
def test_a_destroyed_installation_comes_back_from_its_backup(
    site: Stack, backup: str, restoration: str
) -> None:
    ready = site.start()
    with site.client() as client:
        song = finished(client, submit(client))
        bytes_before = fetch(song)
        waiting = submit(client, audio_duration=240)
        run_sections(site, "Preparation", backup)
        held_before = balance(client)
    site.stop()
    shutil.rmtree(site.home)

    run_sections(site, "Preparation", restoration)
    assert site.start() == ready
    with site.client() as client:
        assert fetch(client.get(song["poll_url"]).raise_for_status().json()) == bytes_before
        finished(client, client.get(waiting["poll_url"]).raise_for_status().json())
        after = balance(client)
    assert after["held_usd"] == "0.000000000"
    assert after["balance_usd"] == "4.938750000"  # 5 USD less 245 s
    assert held_before["balance_usd"] in {"4.998750000", after["balance_usd"]}
    checked = run_sections(site, *CHECKS)
    assert '"ok":true' in checked


async def test_a_running_installation_is_backed_up_in_both_ways_and_moved(
    stack: Stack, scratch: Path, postgres: EmbeddedPostgres, template_database: str
) -> None:
    with stack.client() as client:
        song = finished(client, submit(client))
    safe = scratch / "safe"
    environ = stack.environ | {"BACKUP": str(safe)}
    backup = as_one_script(blocks(PAGE, "Preparation", *(backup for backup, _ in DRILLS)))
    backup += '\ntar -tzf "$BACKUP/postgres/base.tar.gz"'
    answer = run_shell(backup, environ=environ, folder=scratch, seconds=DRILL_SECONDS)
    assert answer.returncode == 0, f"{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
    assert "PG_VERSION" in answer.stdout.splitlines()
    assert [path for path in (safe / "audio").rglob("*.mp3") if song["id"] in str(path)]
    assert (safe / "secret_key").stat().st_mode & 0o077 == 0

    async with fresh_database(postgres, template_database, empty=True) as dsn:
        move = as_one_script([*blocks(PAGE, "Preparation", MOVE), *blocks(PAGE, *CHECKS)])
        elsewhere = {"ANTIPHON_DATABASE_URL": dsn, "ANTIPHON_HOME": str(scratch / "elsewhere")}
        answer = run_shell(move, environ=environ | elsewhere, folder=scratch, seconds=DRILL_SECONDS)
        assert answer.returncode == 0, f"{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
        assert '"ok":true' in answer.stdout
        conn = await asyncpg.connect(dsn)
        status = await conn.fetchval("SELECT status FROM job WHERE id = $1", parse_id(song["id"]))
        await conn.close()
    assert status == "completed"


def test_more_processes_run_beside_up(stack: Stack) -> None:
    script = as_one_script(blocks(PAGE, *ELSEWHERE))
    assert script.count(EXAMPLE_PORT) == 2
    script = script.replace(EXAMPLE_PORT, str(free_port()))
    answer = run_shell(script, environ=stack.environ, folder=stack.home.parent, seconds=DRILL_SECONDS)
    assert answer.returncode == 0, f"{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
    assert '"status":"ok"' in answer.stdout


def test_every_block_of_the_page_is_run_by_a_test_above() -> None:
    run = {"Preparation", MOVE, *CHECKS, *ELSEWHERE, *(heading for drill in DRILLS for heading in drill)}
    assert {block.heading for block in blocks(PAGE)} == run


def test_the_page_lists_the_metrics_that_there_are_and_alerts_on_no_others(stack: Stack) -> None:
    with stack.client() as client:
        finished(client, submit(client))
        text = client.get("/metrics").raise_for_status().text
    families = dict(re.findall(r"^# TYPE (antiphon_\w+) (\w+)$", text, re.MULTILINE))
    families = {name: kind for name, kind in families.items() if not name.endswith("_created")}
    page = (ROOT / PAGE).read_text()
    listed = re.findall(r"^\| `(antiphon_[a-z_]+)", page, re.MULTILINE)
    assert sorted(listed) == sorted(families)

    rules = re.search(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert rules is not None
    expressions = [rule["expr"] for group in yaml.safe_load(rules[1])["groups"] for rule in group["rules"]]
    assert len(expressions) > 5
    for expression in expressions:
        for name, matchers in re.findall(r"(antiphon_\w+)(?:\{([^}]*)\})?", expression):
            known = [*families, *(f"{family}_{part}" for family in families for part in ("count", "bucket"))]
            assert name in known, name
            lines = re.findall(rf"^{name}{{.*}} ", text, re.MULTILINE)
            for label in re.findall(r"(\w+)(?==|!=|=~)", matchers):
                assert f'{label}="' in lines[0], expression
