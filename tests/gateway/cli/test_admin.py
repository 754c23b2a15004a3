"""`antiphon admin`: its words on stdout, its effect in a running gateway within a second."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.keys import is_well_formed
from tests.gateway.api.installation import Installation

Operator = Any


async def submit(installation: Installation, key: str, **body: Any) -> Any:
    body = {"model": "sandbox", "prompt": "x", "audio_duration": 5} | body
    headers = {"authorization": f"Bearer {key}"}
    return await installation.http.post("/v1/audio/generations", json=body, headers=headers)


async def test_from_nothing_to_a_paid_song_and_back(installation: Installation, operator: Operator) -> None:
    org = (await operator.run("admin", "org", "create", "--name", "Ännchen & Co", "--json")).json()
    assert list(org) == ["id"]
    issued = (
        await operator.run("admin", "key", "create", "--org", org["id"], "--name", "k", "--json")
    ).json()
    assert list(issued) == ["id", "key"]
    assert is_well_formed(issued["key"])
    assert issued["key"].startswith("aph_live_")
    assert (await submit(installation, issued["key"])).status_code == 402

    grant = ("admin", "credit", "grant", "--org", org["id"], "--reason", "hello")
    answer = await operator.run(*grant, "--usd", "0.5", "--json")
    assert answer.out == '{"balance_usd":"0.500000000"}\n'
    assert answer.json() == {"balance_usd": "0.500000000"}
    job = await submit(installation, issued["key"])
    assert job.status_code == 202
    await installation.finish(job.json()["id"])
    assert (await operator.invoke(*grant, "--usd", "0.25", "--json")).json() == {"balance_usd": "0.748750000"}

    revoked = await operator.run("admin", "key", "revoke", issued["id"], "--json")
    done = time.monotonic()
    assert revoked.json() == {"id": issued["id"], "revoked": True}
    while (await submit(installation, issued["key"])).status_code != 401:
        assert time.monotonic() - done < 1
        await asyncio.sleep(0.02)
    assert (await operator.invoke("admin", "key", "revoke", issued["id"])).status == 0


async def test_a_key_with_every_limit(installation: Installation, operator: Operator) -> None:
    org = (await operator.invoke("admin", "org", "create", "--name", "n", "--json")).json()["id"]
    project = (
        await operator.invoke("admin", "project", "create", "--org", org, "--name", "p", "--json")
    ).json()
    answer = await operator.invoke(
        *("admin", "key", "create", "--org", org, "--name", "k", "--project", project["id"], "--test"),
        *(
            "--scopes",
            "generate, read",
            "--models",
            "sandbox,ace-step-1.5-xl",
            "--cidrs",
            "127.0.0.0/8,::1/128",
        ),
        *("--expires", "2099-12-31", "--budget-usd", "1.5", "--budget-window", "day"),
        *("--rpm", "3", "--concurrency", "2", "--json"),
    )
    key = answer.json()["key"]
    assert key.startswith("aph_test_")
    view = (await installation.http.get("/v1/key", headers={"x-api-key": key})).json()
    assert view == {
        "object": "key",
        "id": answer.json()["id"],
        "organization_id": org,
        "project_id": project["id"],
        "test": True,
        "scopes": ["generate", "read"],
        "models": ["ace-step-1.5-xl", "sandbox"],
        "requests_per_minute": 3,
        "max_open_jobs": 2,
        "expires_at": "2099-12-31T00:00:00Z",
    }
    statuses = [(await submit(installation, key)).status_code for _ in range(3)]
    assert statuses == [202, 202, 429]


async def test_an_alias_limits_a_key_to_its_model(installation: Installation, operator: Operator) -> None:
    org = (await operator.invoke("admin", "org", "create", "--name", "n", "--json")).json()["id"]
    key = (
        await operator.invoke(
            *("admin", "key", "create", "--org", org, "--name", "k", "--test"),
            *("--models", "ace-step-1-5-xl", "--json"),
        )
    ).json()["key"]
    answer = await submit(installation, key, model="ace-step-1-5-xl", audio_duration=10)
    assert answer.status_code == 202, answer.text


async def test_words_for_people_without_json(operator: Operator) -> None:
    answer = await operator.run("admin", "org", "create", "--name", "n")
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.split()[0] == "id"
    assert len(answer.out.split()[1]) == 32


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["admin", "credit", "grant", "--org", "nonsense", "--usd", "1", "--reason", "r"], "nonsense"),
        (["admin", "credit", "grant", "--org", "0" * 32, "--usd", "much", "--reason", "r"], "decimal"),
        (["admin", "credit", "grant", "--org", "0" * 32, "--usd", "-1", "--reason", "r"], "negative"),
        (
            ["admin", "credit", "grant", "--org", "0" * 32, "--usd", "0.0000000001", "--reason", "r"],
            "decimal",
        ),
        (["admin", "credit", "grant", "--org", "0" * 32, "--usd", "1"], "--reason"),
        (["admin", "key", "create", "--org", "0" * 32, "--name", "k", "--rpm", "0"], "--rpm"),
        (["admin", "key", "create", "--org", "0" * 32, "--name", "k", "--expires", "soon"], "2026-12-31"),
        (["admin", "key", "create", "--org", "0" * 32, "--name", "k", "--budget-window", "week"], "month"),
        (["admin", "price", "set", "--model", "sandbox", "--usd-per-second", "1", "--was", "1"], "--was"),
        (["admin", "key", "revoke"], "KEY_ID"),
        (["admin", "nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
    ],
)
async def test_what_cannot_be_meant_ends_with_2_and_says_so(
    operator: Operator, arguments: list[str], told: str
) -> None:
    answer = await operator.invoke(*arguments)
    assert (answer.status, answer.out) == (2, "")
    assert told in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["admin", "credit", "grant", "--org", "0" * 32, "--usd", "1", "--reason", "r"], "0" * 32),
        (["admin", "credit", "grant", "--org", "ORG", "--usd", "0", "--reason", "r"], "positive"),
        (["admin", "credit", "grant", "--org", "ORG", "--usd", "1", "--reason", " "], "reason"),
        (["admin", "credit", "grant", "--org", "ORG", "--usd", "9999999999", "--reason", "r"], "9999999999"),
        (["admin", "key", "create", "--org", "0" * 32, "--name", "k"], "organization"),
        (["admin", "key", "create", "--org", "ORG", "--name", "k", "--project", "0" * 32], "project"),
        (["admin", "key", "create", "--org", "ORG", "--name", "k", "--models", "sandbx"], "sandbx"),
        (["admin", "key", "create", "--org", "ORG", "--name", "k", "--scopes", "all"], "generate, read"),
        (["admin", "key", "create", "--org", "ORG", "--name", "k", "--cidrs", "10.0.0.1/8"], "10.0.0.1/8"),
        (["admin", "key", "create", "--org", "ORG", "--name", "k", "--scopes", ","], "scopes"),
        (["admin", "key", "revoke", "0" * 32], "key"),
        (["admin", "project", "create", "--org", "0" * 32, "--name", "p"], "organization"),
        (["admin", "price", "set", "--model", "sandbx", "--usd-per-second", "1"], "sandbx"),
        (["admin", "org", "create", "--name", " "], "name"),
    ],
)
async def test_what_does_not_fit_is_one_line_without_a_traceback(
    operator: Operator, installation: Installation, arguments: list[str], told: str
) -> None:
    customer = await installation.customer()
    before = await installation.live.pool.fetchval("SELECT count(*) FROM entry")
    answer = await operator.invoke(*(customer.organization_id.hex if a == "ORG" else a for a in arguments))
    assert (answer.status in {1, 2}, answer.out) == (True, ""), answer
    assert told in answer.err
    assert "Traceback" not in answer.err
    assert await installation.live.pool.fetchval("SELECT count(*) FROM entry") == before


async def test_a_broken_catalog_is_one_line(
    operator: Operator, installation: Installation, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text("[[model")
    customer = await installation.customer()
    for command in (
        ["admin", "price", "set", "--model", "sandbox", "--usd-per-second", "1"],
        ["admin", "key", "create", "--org", customer.organization_id.hex, "--name", "k"],
    ):
        answer = await operator.invoke(*command, ANTIPHON_CATALOG=str(catalog))
        assert (answer.status, answer.out) == (1, "")
        assert str(catalog) in answer.err
        assert len(answer.err.splitlines()) == 1


async def test_a_name_is_taken_once_per_organization(operator: Operator, installation: Installation) -> None:
    customer = await installation.customer()
    create = ("admin", "project", "create", "--org", customer.organization_id.hex, "--name", "twice")
    assert (await operator.invoke(*create)).status == 0
    answer = await operator.invoke(*create)
    assert (answer.status, answer.out) == (1, "")
    assert "twice" in answer.err
    assert len(answer.err.splitlines()) == 1
