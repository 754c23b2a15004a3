"""`antiphon admin credit | budget | alerts`: what an operator says about money is what the gateway does."""

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import billing
from gateway.ids import parse_id
from tests.factories import expire_now, until
from tests.gateway.api.installation import Customer, Installation

Operator = Any
OperatorOf = Callable[[str, Path], Operator]

COST_USD = "0.001250000"
"""Of five seconds of the sandbox."""


@pytest_asyncio.fixture(loop_scope="session")
async def customer_org(installation: Installation) -> str:
    return (await installation.customer()).organization_id.hex


async def balance(customer: Customer) -> str:
    return str((await customer.get("/v1/balance")).json()["balance_usd"])


async def code(customer: Customer, key: str | None = None) -> str:
    """What a request comes to: `accepted`, or why not."""
    answer = await customer.submit(key=key)
    return "accepted" if answer.is_success else str(answer.json()["error"]["code"])


async def until_code(customer: Customer, wanted: str, key: str | None = None) -> None:
    """Configuration is in force within a second."""

    async def is_so() -> bool:
        return await code(customer, key) == wanted

    await until(is_so, what=wanted)


async def test_credit_for_a_time_is_spent_first_and_then_over(
    installation: Installation, operator: Operator
) -> None:
    customer = await installation.customer(usd="0.001")
    org = customer.organization_id.hex
    answer = await operator.invoke(
        *("admin", "credit", "grant", "--org", org, "--usd", "0.005", "--reason", "a week"),
        *("--expires", "2099-12-31", "--json"),
    )
    assert answer.json() == {"balance_usd": "0.006000000"}
    await installation.finish((await customer.submitted())["id"])
    async with installation.live.pool.acquire() as conn:
        left = await conn.fetch(
            "SELECT remaining_nano, expires_at FROM credit_grant WHERE account_id = $1 ORDER BY created_at",
            customer.organization_id,
        )
        assert [row[0] for row in left] == [1_000_000, 3_750_000]
        assert str(left[1]["expires_at"]) == "2099-12-31 00:00:00+00:00"
        await expire_now(conn, customer.organization_id)
    assert await code(customer) == "insufficient_credits"


@pytest.mark.parametrize("moment", ["2020-01-01", "2020-01-01T00:00:00Z"])
async def test_credit_that_would_be_over_at_once_is_a_mistake(
    installation: Installation, operator: Operator, moment: str
) -> None:
    customer = await installation.customer()
    answer = await operator.invoke(
        *("admin", "credit", "grant", "--org", customer.organization_id.hex),
        *("--usd", "1", "--reason", "r", "--expires", moment),
    )
    assert (answer.status, answer.out) == (2, "")
    assert "future" in answer.err
    assert await balance(customer) == "5.000000000"


async def test_more_credit_than_the_books_can_hold_is_one_clear_line(
    operator_of: OperatorOf, database: str, tmp_path: Path
) -> None:
    operator = operator_of(database, tmp_path)
    org = (await operator.invoke("admin", "org", "create", "--name", "n", "--json")).json()["id"]
    grant = ("admin", "credit", "grant", "--org", org, "--reason", "r", "--usd")
    most = "4611686018.427387904"
    assert (await operator.invoke(*grant, most, "--json")).json() == {"balance_usd": most}
    for usd, status in ((most, 1), ("4611686018.427387905", 2), ("99999999999", 2)):
        answer = await operator.invoke(*grant, usd)
        assert (answer.status, answer.out) == (status, "")
        assert ("--usd" if status == 2 else "the books cannot hold") in answer.err
    assert (await operator.invoke(*grant, "0.000000001", "--json")).json() == {
        "balance_usd": "4611686018.427387905"
    }


async def test_a_job_is_given_back_once(installation: Installation, operator: Operator) -> None:
    customer = await installation.customer()
    done, running = await customer.submitted(), await customer.submitted()
    await installation.finish(done["id"])
    assert await balance(customer) == "4.998750000"
    refund = ("admin", "credit", "refund")
    first = await operator.run(*refund, done["id"], "--reason", "clicks in the second verse", "--json")
    assert first.json() == {"balance_usd": "5.000000000"}
    reason = await installation.live.pool.fetchval(
        "SELECT reason FROM transfer WHERE kind = 'usage_refund' AND reference = $1", parse_id(done["id"])
    )
    assert reason == "clicks in the second verse"
    for job_id, told in (
        (done["id"], "already"),
        (running["id"], "nothing was charged"),
        (uuid.uuid4().hex, "nothing was charged"),
    ):
        answer = await operator.invoke(*refund, job_id, "--reason", "again")
        assert (answer.status, answer.out) == (1, "")
        assert told in answer.err
    assert (await operator.invoke(*refund, done["id"])).status == 2
    assert await balance(customer) == "5.000000000"
    assert (await customer.job(done["id"]))["cost"]["usd"] == COST_USD


async def test_many_operators_who_give_back_the_same_job_do_it_once(
    installation: Installation, operator: Operator
) -> None:
    customer = await installation.customer()
    job = await customer.submitted()
    await installation.finish(job["id"])
    refund = ("admin", "credit", "refund", job["id"], "--reason", "sorry")
    answers = await asyncio.gather(*(operator.run(*refund) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [0, 1, 1]
    assert await balance(customer) == "5.000000000"


async def test_a_budget_of_each_level_is_in_force_in_a_running_gateway_and_lifted_again(
    installation: Installation, operator: Operator
) -> None:
    customer = await installation.customer()
    org = customer.organization_id.hex
    project_id = await customer.project("p")
    key_id, key = await customer.key_with_id(project_id=project_id)
    assert await code(customer, key) == "accepted"
    for whom in ((), ("--project", project_id.hex), ("--key", key_id.hex)):
        target = ("--org", org, *whom)
        answer = await operator.invoke("admin", "budget", "set", *target, "--usd", "0.0012", "--json")
        assert answer.json() == {"window": "total", "limit_usd": "0.001200000"}
        await until_code(customer, "budget_exceeded", key)
        gone = await operator.invoke("admin", "budget", "remove", *target, "--json")
        assert gone.json() == {"window": "total", "removed": True}
        await until_code(customer, "accepted", key)
        again = await operator.invoke("admin", "budget", "remove", *target)
        assert (again.status, again.out) == (1, "")
        assert "no such cap per total" in again.err


async def test_the_list_says_what_is_capped_spent_and_held(
    installation: Installation, operator: Operator
) -> None:
    customer = await installation.customer()
    org = customer.organization_id.hex
    key_id, key = await customer.key_with_id()
    budget = ("admin", "budget")
    assert (await operator.invoke(*budget, "list", "--org", org, "--json")).json() == {"budgets": []}
    for arguments in (
        ("--usd", "10", "--window", "month", "--alert-percent", "80"),
        ("--usd", "1", "--window", "day", "--key", key_id.hex),
        ("--usd", "2", "--window", "day", "--key", key_id.hex),
    ):
        assert (await operator.invoke(*budget, "set", "--org", org, *arguments)).status == 0
    done = await customer.submitted(key=key)
    await installation.finish(done["id"])
    await customer.submitted(key=key)
    listed = (await operator.invoke(*budget, "list", "--org", org, "--json")).json()["budgets"]
    numbers = {"spent_usd": COST_USD, "held_usd": COST_USD}
    assert listed == [
        {
            "scope": "key", "subject": key_id.hex, "window": "day",
            "limit_usd": "2.000000000", **numbers, "alert_usd": None,
        },
        {
            "scope": "organization", "subject": org, "window": "month",
            "limit_usd": "10.000000000", **numbers, "alert_usd": "8.000000000",
        },
    ]  # fmt: skip
    lines = (await operator.invoke(*budget, "list", "--org", org)).out.splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["scope", "key", "subject", key_id.hex],
        ["scope", "organization", "subject", org],
    ]


async def test_budgets_of_others_and_of_two_at_once_are_refused(
    installation: Installation, operator: Operator
) -> None:
    customer, stranger = await installation.customer(), await installation.customer()
    org = customer.organization_id.hex
    foreign_key, _ = await stranger.key_with_id()
    foreign_project = await stranger.project("theirs")
    own_project = await customer.project("ours")
    for target, status, told in (
        (("--org", org, "--key", foreign_key.hex), 1, "has no key"),
        (("--org", org, "--project", foreign_project.hex), 1, "has no project"),
        (("--org", uuid.uuid4().hex), 1, "no organization"),
        (("--org", org, "--project", own_project.hex, "--key", foreign_key.hex), 2, "name one of them"),
    ):
        for command in (("set", "--usd", "1"), ("remove",)):
            answer = await operator.invoke("admin", "budget", *command, *target)
            assert (answer.status, answer.out) == (status, ""), answer
            assert told in answer.err
    for organization_id in (customer.organization_id, stranger.organization_id):
        async with installation.live.pool.acquire() as conn:
            assert await billing.read_budgets(conn, organization_id) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--usd", "-1"),
        ("--usd", "much"),
        ("--usd", "1", "--window", "week"),
        ("--usd", "1", "--alert-percent", "0"),
        ("--usd", "1", "--alert-percent", "101"),
        (),
    ],
)
async def test_a_budget_that_cannot_be_meant_ends_with_2(
    customer_org: str, operator: Operator, arguments: tuple[str, ...]
) -> None:
    answer = await operator.invoke("admin", "budget", "set", "--org", customer_org, *arguments)
    assert (answer.status, answer.out) == (2, "")


async def test_the_smallest_budget_can_still_be_told_of(customer_org: str, operator: Operator) -> None:
    for usd in ("0", "0.000000001"):
        answer = await operator.invoke(
            *("admin", "budget", "set", "--org", customer_org, "--usd", usd, "--alert-percent", "1")
        )
        assert answer.status == 0, answer.err
    listed = await operator.invoke("admin", "budget", "list", "--org", customer_org, "--json")
    assert listed.json()["budgets"][0]["alert_usd"] == "0.000000001"


async def test_warnings_come_at_the_thresholds_that_were_set(
    installation: Installation, operator: Operator
) -> None:
    customer = await installation.customer()
    org = customer.organization_id.hex
    alerts = ("admin", "alerts", "--org", org)
    answer = await operator.invoke(*alerts, "--low-usd", "4.999", "--critical-usd", "4.998", "--json")
    assert answer.json() == {"low_usd": "4.999000000", "critical_usd": "4.998000000"}
    noted = []
    for _ in range(3):
        await installation.finish((await customer.submitted())["id"])
        rows = await installation.live.pool.fetch(
            "SELECT kind FROM notice WHERE account_id = $1 ORDER BY id", customer.organization_id
        )
        noted.append([row["kind"] for row in rows])
    both = ["balance.low", "balance.critical"]
    assert noted == [["balance.low"], both, both]


async def test_warnings_in_the_wrong_order_or_of_nobody_are_refused(
    customer_org: str, operator: Operator
) -> None:
    for org, low, status, told in (
        (customer_org, "1", 2, "--critical-usd"),
        (uuid.uuid4().hex, "3", 1, "no organization"),
    ):
        answer = await operator.invoke(
            "admin", "alerts", "--org", org, "--low-usd", low, "--critical-usd", "2"
        )
        assert (answer.status, answer.out) == (status, "")
        assert told in answer.err
