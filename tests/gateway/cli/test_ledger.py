"""`antiphon ledger verify` finds what was planted, and nothing else."""

from typing import Any

import asyncpg

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
