"""`antiphon admin payment` and `antiphon reconcile`, beside a running gateway.

Processes of their own where the gateway of this one may have something to log meanwhile.
"""

import json
import uuid
from typing import Any

import pytest

import billing
from tests.gateway.api.installation import Installation
from tests.gateway.cli.conftest import Operator, operator_of
from tests.gateway.payments.shop import Shop, environ


@pytest.fixture
def operator(shop: Shop) -> Operator:
    plain = operator_of(shop.installation.dsn, shop.installation.settings.home)
    return Operator(plain.environ | environ(shop.stripe))


@pytest.fixture
def poor_operator(without_payments: Installation) -> Operator:
    return operator_of(without_payments.dsn, without_payments.settings.home)


async def listed(operator: Operator, shop: Shop) -> list[dict[str, Any]]:
    answer = await operator.run(
        "admin", "payment", "list", "--org", shop.customer.organization_id.hex, "--json"
    )
    return list(answer.json()["payments"])


async def test_payments_are_listed(shop: Shop, operator: Operator) -> None:
    intent = shop.pay(await shop.top_up("20"))
    await shop.stripe.deliveries.settled()
    await shop.top_up("5")
    waiting, paid = await listed(operator, shop)
    assert (waiting["status"], waiting["amount_usd"]) == ("pending", "5.000000000")
    assert (paid["status"], paid["payment_intent"]) == ("paid", intent)
    text = await operator.invoke("admin", "payment", "list", "--org", shop.customer.organization_id.hex)
    assert text.out.count("\n") == 2
    assert intent in text.out


async def test_a_payment_is_refunded_in_parts(shop: Shop, operator: Operator) -> None:
    shop.pay(await shop.top_up("20"))
    await shop.stripe.deliveries.settled()
    (payment,) = await listed(operator, shop)
    refund = ("admin", "payment", "refund", payment["id"], "--json")
    answer = await operator.run(*refund, "--usd", "5", "--reason", "a bad week")
    made = shop.stripe.account.refunds.where()[0]
    assert answer.json() == {"id": payment["id"], "refund": made["id"], "refunded_usd": "5.000000000"}
    assert await shop.posted() == 15_000_000_000
    too_much = await operator.run(*refund, "--usd", "16")
    assert too_much.status == 1
    assert "15.000000000 USD can still be paid back" in too_much.err
    assert (await operator.run(*refund)).json()["refunded_usd"] == "15.000000000"
    (payment,) = await listed(operator, shop)
    assert payment["refunded_usd"] == "20.000000000"


async def test_a_refund_of_what_is_spent_wants_force(shop: Shop, operator: Operator) -> None:
    shop.pay(await shop.top_up("1"))
    await shop.stripe.deliveries.settled()
    job = (await shop.customer.submit(audio_duration=600)).json()
    await shop.installation.finish(job["id"])
    (payment,) = await listed(operator, shop)
    refused = await operator.run("admin", "payment", "refund", payment["id"])
    assert refused.status == 1
    assert "0.850000000 USD are neither spent nor held" in refused.err
    assert (await operator.run("admin", "payment", "refund", payment["id"], "--force")).status == 0
    async with shop.installation.live.pool.acquire() as conn:
        account = await billing.read_account(conn, shop.customer.organization_id)
    assert (account.posted_nano, account.owed_nano) == (0, 150_000_000)


async def test_a_payment_that_there_is_not_cannot_be_refunded(operator: Operator) -> None:
    answer = await operator.invoke("admin", "payment", "refund", uuid.uuid4().hex)
    assert (answer.status, answer.err) == (1, "Error: there is no such payment\n")


async def test_reconcile_books_what_nobody_told_us(shop: Shop, operator: Operator) -> None:
    shop.stripe.deliveries.usual(lose=True)
    intent = shop.pay(await shop.top_up("20"))
    dry = await operator.invoke("reconcile", "--dry-run", "--json")
    assert dry.status == 3
    report = json.loads(dry.out)
    assert not report["ok"]
    assert report["stripe"]["differences"] == [
        {
            "problem": "not_booked",
            "kind": "top_up",
            "id": intent,
            "stripe_usd": "20.000000000",
            "books_usd": None,
            "booked": False,
        }
    ]
    assert await shop.posted() == 0
    wet = await operator.invoke("reconcile")
    assert (wet.status, wet.out.splitlines()[-1]) == (0, "ok")
    assert f"BOOKED   not_booked top_up {intent}: Stripe 20.000000000, books None" in wet.out
    assert await shop.posted() == 20_000_000_000
    again = (await operator.invoke("reconcile", "--json")).json()
    assert (again["ok"], again["stripe"]["differences"]) == (True, [])
    assert [(day["stripe_usd"], day["books_usd"]) for day in again["stripe"]["days"]] == [
        ("20.000000000", "20.000000000")
    ]


async def test_reconcile_says_what_differs_and_exits_with_3(shop: Shop, operator: Operator) -> None:
    async with shop.installation.live.pool.acquire() as conn, conn.transaction():
        await billing.top_up(
            conn,
            account_id=shop.customer.organization_id,
            amount_nano=1_000_000_000,
            external_ref="pi_of_nobody",
        )
    answer = await operator.invoke("reconcile", "--since", "2026-01-01")
    assert answer.status == 3
    assert "DIFFERS  not_at_processor top_up pi_of_nobody: Stripe None, books 1.000000000" in answer.out


async def test_reconcile_works_without_a_stripe_key(poor_operator: Operator) -> None:
    answer = await poor_operator.invoke("reconcile")
    assert answer.status == 0
    assert "no key is set (ANTIPHON_STRIPE_SECRET_KEY)" in answer.out
    assert (await poor_operator.invoke("reconcile", "--json")).json()["stripe"] is None
    refused = await poor_operator.invoke("admin", "payment", "refund", uuid.uuid4().hex)
    assert (refused.status, "ANTIPHON_STRIPE_SECRET_KEY" in refused.err) == (1, True)


async def test_reconcile_compares_what_attempts_cost(
    without_payments: Installation, poor_operator: Operator
) -> None:
    customer = await without_payments.customer()
    jobs = [(await customer.submitted())["id"] for _ in range(5)]
    pool = without_payments.live.pool
    for job, cost in zip(jobs, (1000, 2000, 3000, None, 4000), strict=True):
        await without_payments.finish(job)
        await pool.execute(
            "UPDATE attempt SET provider_cost_nano = $2 WHERE job_id = $1", uuid.UUID(hex=job), cost
        )
    async with pool.acquire() as conn, conn.transaction():
        costs = [(jobs[0], 1000), (jobs[1], 2500), (jobs[3], 7), (jobs[4], 4000)]
        await billing.book_provider_costs(
            conn,
            [
                billing.ProviderCost(
                    reference=uuid.UUID(hex=job), attempt=1, amount_nano=nano, is_possible=job == jobs[4]
                )
                for job, nano in costs
            ],
        )
    answer = await poor_operator.invoke("reconcile", "--json")
    assert answer.status == 3
    report = json.loads(answer.out)
    assert report["provider_costs"] == [
        {
            "backend": "engine",
            "attempts": 4,
            "attempts_usd": "0.000010000",
            "books_usd": "0.000007500",
        }
    ]
    assert report["provider_cost_differences"] == sorted(
        [
            {"id": f"{jobs[1]}:1", "attempt_usd": "0.000002000", "books_usd": "0.000002500"},
            {"id": f"{jobs[2]}:1", "attempt_usd": "0.000003000", "books_usd": None},
            {"id": f"{jobs[3]}:1", "attempt_usd": None, "books_usd": "0.000000007"},
            {"id": f"{jobs[4]}:1", "attempt_usd": "0.000004000", "books_usd": None},
        ],
        key=lambda one: str(one["id"]),
    )
