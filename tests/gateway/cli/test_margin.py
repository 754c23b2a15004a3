"""`antiphon margin`: what customers paid against what providers took."""

from typing import Any

import billing
from gateway.jobs.balances import note_balances
from tests.gateway.api.installation import Installation

Operator = Any


async def test_a_margin_is_what_was_paid_less_what_it_cost(
    installation: Installation, operator: Operator
) -> None:
    customer = await installation.customer()
    job = await customer.submitted()
    claim = await installation.claim(job["id"])
    await installation.end(claim, cost_nano=400_000)
    answer = (await operator.invoke("margin", "--job", job["id"], "--json")).json()
    (line,) = answer["margins"]
    assert (line["revenue_usd"], line["cost_usd"]) == ("0.001250000", "0.000400000")
    assert (line["margin_usd"], line["possible_cost_usd"]) == ("0.000850000", "0.000000000")
    assert (line["backend"], line["status"], line["attempts"]) == ("engine", "completed", 1)
    for group in ("day", "model", "backend", "job"):
        told = await operator.invoke("margin", "--by", group, "--json")
        sums = told.json()["margins"]
        assert sum(billing.parse_usd(one["cost_usd"]) for one in sums) >= 400_000
    assert "USD left of" in (await operator.invoke("margin")).out


async def test_what_an_account_lost_without_a_booking_is_told(
    installation: Installation, operator: Operator
) -> None:
    pool = installation.live.pool
    for nano in (50_000_000_000, 48_000_000_000, 60_000_000_000, 59_000_000_000):
        await pool.execute("UPDATE provider_balance SET at = at - interval '5 minutes'")
        async with pool.acquire() as conn:
            await note_balances(conn, {"runware": nano})
            await note_balances(conn, {"runware": 60_000_000_000})  # of a worker that looked earlier
    answer = await operator.invoke("reconcile", "--json")
    await pool.execute("DELETE FROM provider_balance")
    assert answer.status == 3
    assert '"backend":"runware"' in answer.out
    assert '"spent_usd":"3.000000000","paid_in_usd":"12.000000000","books_usd":"0.000000000"' in answer.out
    assert '"explained":false' in answer.out
