"""`antiphon ledger` finds what was planted and nothing else, remembers it, and hands out all entries."""

import asyncio
import csv
import io
import json
import re
from typing import Any

import asyncpg
import pytest

import billing
from tests.gateway.api.installation import Installation

Operator = Any


async def test_the_books_of_a_working_installation_are_right(
    operator: Operator, installation: Installation
) -> None:
    customer = await installation.customer()
    for _ in range(2):
        await installation.finish((await customer.submitted())["id"])
    await customer.submitted()
    report = (await operator.run("ledger", "verify", "--json")).json()
    assert (report["ok"], report["violations"]) == (True, [])
    assert report["entries"] >= 2 + 2 * 2
    people = await operator.run("ledger", "verify")
    assert (people.status, people.out.startswith("ok, ")) == (0, True)


async def test_a_changed_balance_is_found(operator: Operator, installation: Installation) -> None:
    customer = await installation.customer()
    change = "UPDATE account SET posted_nano = posted_nano + $2 WHERE id = $1"
    conn = await asyncpg.connect(installation.dsn)
    await conn.execute(change, customer.organization_id, 1)
    report = await operator.run("ledger", "verify", "--json")
    people = await operator.run("ledger", "verify")
    await conn.execute(change, customer.organization_id, -1)
    await conn.close()
    assert (report.status, people.status) == (3, 3)
    assert '"ok":false' in report.out
    assert str(customer.organization_id) in report.out
    assert "a balance is the sum of its entries" in report.out
    assert "VIOLATED" in people.out
    assert (await operator.run("ledger", "verify", "--json")).json()["ok"] is True


async def test_a_violation_is_remembered_until_nothing_is_found(
    operator: Operator, installation: Installation
) -> None:
    customer = await installation.customer()
    change = "UPDATE account SET posted_nano = posted_nano + $2 WHERE id = $1"
    await installation.live.pool.execute(change, customer.organization_id, 1)
    try:
        report = json.loads((await operator.invoke("ledger", "verify", "--json")).out)
        text = (await operator.invoke("ledger", "verify")).out
        gauge = await violations_metric(installation)
        halted_at = await installation.live.pool.fetchval("SELECT halted_at FROM ledger_watch")
        balance = await customer.get("/v1/balance")
    finally:
        await installation.live.pool.execute(change, customer.organization_id, -1)
    assert (report["ok"], report["halted"], report["lifted"]) == (False, True, False)
    assert gauge == len(report["violations"]) > 0
    assert text.splitlines()[-1] == "new jobs are refused until a check finds nothing"
    assert halted_at is not None
    assert balance.status_code == 200
    lines = (await operator.invoke("ledger", "verify")).out.splitlines()
    assert lines[0].startswith("ok, ")
    assert lines[1:] == ["new jobs are accepted again"]
    assert await violations_metric(installation) == 0
    report = (await operator.invoke("ledger", "verify", "--json")).json()
    assert (report["ok"], report["halted"], report["lifted"]) == (True, False, False)


async def violations_metric(installation: Installation) -> float:
    text = (await installation.http.get("/metrics")).text
    (line,) = re.findall(r"^antiphon_ledger_violation (\S+)$", text, re.MULTILINE)
    return float(line)


async def test_the_export_is_one_object_or_one_table(operator: Operator, installation: Installation) -> None:
    customer = await installation.customer()
    await installation.finish((await customer.submitted())["id"])
    document = (await operator.run("ledger", "export", "--json")).json()
    table = await operator.run("ledger", "export", "--csv")
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [row["id"] for row in rows] == [str(entry["id"]) for entry in document["entries"]]
    assert sum(int(row["amount_nano"]) for row in rows) == 0
    ours = [int(row["amount_nano"]) for row in rows if row["account_id"] == customer.organization_id.hex]
    balance = (await customer.get("/v1/balance")).json()["balance_usd"]
    assert sum(ours) == billing.parse_usd(balance)
    tomorrow = (await operator.invoke("ledger", "export", "--csv", "--since", "2999-01-01")).out
    assert tomorrow.count("\n") == 1
    refused = await operator.invoke("ledger", "export")
    assert (refused.status, "--json or --csv" in refused.err) == (2, True)


@pytest.mark.parametrize("form", ["--json", "--csv"])
async def test_an_export_ends_quietly_when_its_reader_has_enough(
    operator: Operator, installation: Installation, form: str
) -> None:
    customer = await installation.customer()
    async with installation.live.pool.acquire() as conn, conn.transaction():
        for _ in range(300):  # more than a pipe holds
            await billing.grant(conn, account_id=customer.organization_id, amount_nano=1, reason="x" * 200)
    process = await operator.start("ledger", "export", form)
    assert process.stdout is not None
    assert process.stderr is not None
    first = await process.stdout.readline()
    process.stdout._transport.close()
    assert await asyncio.wait_for(process.wait(), 30) == 141
    assert len(first) > 10
    assert await process.stderr.read() == b""
