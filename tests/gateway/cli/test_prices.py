"""`antiphon admin price`: what it sets is what the API charges, and it can tell every version."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.gateway.api.installation import Customer, Installation

Operator = Any
SET = ("admin", "price", "set", "--model")
LIST = ("admin", "price", "list", "--json")


async def versions(operator: Operator, *options: str) -> list[dict[str, Any]]:
    return list((await operator.invoke(*LIST, *options)).json()["prices"])


async def test_prices_change_within_a_second_and_old_jobs_keep_theirs(
    operator: Operator, installation: Installation
) -> None:
    customer = await installation.customer()
    old = await customer.submitted(audio_duration=10)
    answer = await operator.run(*SET, "sandbox", "--usd-per-second", "0.0002", "--was", "0.00025", "--json")
    set_price = answer.json()
    assert set_price["usd_per_second"] == set_price["list_usd_per_second"] == "0.000200000"
    await shown(customer, "0.000200000", "0.000250000", version=set_price["id"])
    new = await customer.submitted(audio_duration=10)
    assert new["cost"]["held_usd"] == "0.002000000"
    for job, usd in ((old, "0.002500000"), (new, "0.002000000")):
        await installation.finish(job["id"])
        assert (await customer.job(job["id"]))["cost"]["usd"] == usd
    assert (await customer.get("/v1/balance")).json()["balance_usd"] == "4.995500000"

    friend = await installation.customer()
    own = await operator.invoke(*SET, "sandbox", "--usd-per-second", "0", "--org", friend.organization_id.hex)
    assert own.status == 0, own.err
    await shown(friend, "0.000000000", None)
    await shown(customer, "0.000200000", "0.000250000")
    gift = await friend.submitted()
    await installation.finish(gift["id"])
    cost = (await friend.job(gift["id"]))["cost"]
    assert (cost["usd"], cost["charged"]) == ("0.000000000", True)
    verified = (await operator.invoke("ledger", "verify", "--json")).json()
    assert verified["ok"] is True, verified
    await operator.invoke(*SET, "sandbox", "--usd-per-second", "0.00025")
    await shown(customer, "0.000250000", None)


async def test_an_organization_gets_a_discount_and_later_the_list_price_again(
    operator: Operator, installation: Installation
) -> None:
    customer = await installation.customer()
    org = ("--org", customer.organization_id.hex)
    await operator.invoke(*SET, "sandbox", *org, "--usd-per-second", "0.0002", "--discount-percent", "12.5")
    await shown(customer, "0.000175000", None)
    ended = (await operator.invoke(*SET, "sandbox", *org, "--default", "--json")).json()
    assert (ended["default"], ended["usd_per_second"]) == (True, None)
    await shown(customer, "0.000250000", None)
    assert [(v["default"], v["state"], v["discount_percent"]) for v in await versions(operator, *org)] == [
        (True, "in_force", None),
        (False, "past", "12.5"),
    ]
    again = await operator.invoke(*SET, "sandbox", *org, "--default")
    assert (again.status, again.out) == (1, "")
    assert "no price of its own for sandbox" in again.err


async def test_a_price_can_be_dated_ahead_and_be_replaced_until_then(
    operator: Operator, installation: Installation
) -> None:
    customer = await installation.customer()
    org = ("--org", customer.organization_id.hex)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
    ahead = (*SET, "sandbox", *org, "--from", tomorrow, "--usd-per-second")
    for usd in ("0.0005", "0.0004"):
        assert (await operator.invoke(*ahead, usd)).status == 0
    listed = await versions(operator, *org)
    assert [(v["usd_per_second"], v["state"], v["effective_from"]) for v in listed] == [
        ("0.000400000", "scheduled", tomorrow),
        ("0.000500000", "replaced", tomorrow),
    ]
    started = time.monotonic()
    while (pricing := await pricing_of(customer))["next_usd_per_second"] != "0.000400000":
        assert time.monotonic() - started < 1
        await asyncio.sleep(0.02)
    assert datetime.fromisoformat(pricing["changes_at"]) == datetime.fromisoformat(tomorrow)
    assert pricing["usd_per_second"] == "0.000250000"


async def test_the_list_tells_everybodys_versions_but_no_agreed_ones(
    operator: Operator, installation: Installation
) -> None:
    customer = await installation.customer()
    await operator.invoke(
        *SET, "ace-step", "--org", customer.organization_id.hex, "--usd-per-second", "0.0001"
    )
    everybody = await versions(operator)
    assert {version["org"] for version in everybody} == {None}
    in_force = {v["model"]: v for v in everybody if v["state"] == "in_force"}
    listed = (await customer.get("/v1/models")).json()["data"]
    assert in_force.keys() == {model["id"] for model in listed}
    of_turbo = next(model["pricing"] for model in listed if model["id"] == "ace-step-1.5-xl")
    for name in ("usd_per_second", "list_usd_per_second", "was_usd_per_second", "discount_percent"):
        assert in_force["ace-step-1.5-xl"][name] == of_turbo[name]
    assert in_force["ace-step-1.5-xl"]["id"] == of_turbo["price_version"]
    lines = (await operator.invoke("admin", "price", "list")).out.splitlines()
    assert len(lines) == len(everybody)
    assert any("ace-step-1.5-xl " in line and "state in_force" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (("--usd-per-second", "0.00000001", "--discount-percent", "33"), 1, "30 % and 40 %"),
        (("--usd-per-second", "0.0001", "--was", "0.0001"), 2, "--was"),
        (("--usd-per-second", "0.0001", "--from", "2020-01-01"), 1, "now or later"),
        (("--usd-per-second", "0.0001", "--from", "9999-12-31T23:59:59-14:00"), 1, "now or later"),
        (("--usd-per-second", "1000.000000001"), 1, "from 0 to 1000"),
        (("--usd-per-second", "0.0001", "--org", "0" * 32), 1, "no organization"),
        (("--default", "--org", "0" * 32), 1, "no organization"),
        (("--usd-per-second", "-1"), 2, "negative"),
        (("--usd-per-second", "1e-4"), 2, "decimal"),
        (("--usd-per-second", "0.0001", "--discount-percent", "100.1"), 2, "0 to 100"),
        (("--usd-per-second", "0.0001", "--discount-percent", "12.34567"), 2, "0 to 100"),
        (("--usd-per-second", "0.0001", "--default"), 2, "--default"),
        (("--default",), 2, "--org"),
        (("--default", "--org", "0" * 32, "--was", "1"), 2, "no amounts"),
        ((), 2, "--usd-per-second"),
    ],
)
async def test_what_cannot_be_a_price_is_refused_in_one_line(
    operator: Operator, options: tuple[str, ...], status: int, told: str
) -> None:
    before = await versions(operator)
    answer = await operator.invoke(*SET, "sandbox", *options)
    assert (answer.status, answer.out) == (status, "")
    *usage, line = answer.err.splitlines()
    assert told in line
    assert bool(usage) is (status == 2)
    assert await versions(operator) == before


async def test_an_unknown_model_has_no_price(operator: Operator) -> None:
    answer = await operator.invoke(*SET, "sandbok", "--usd-per-second", "1")
    assert (answer.status, answer.out) == (1, "")
    assert "sandbok" in answer.err


async def test_an_alias_prices_its_model(operator: Operator, installation: Installation) -> None:
    org = ("--org", (await installation.customer()).organization_id.hex)
    answer = await operator.invoke(*SET, "ace-step-1-5-xl", *org, "--usd-per-second", "1", "--json")
    assert json.loads(answer.out)["model"] == "ace-step-1.5-xl"


async def shown(customer: Customer, price: str, was: str | None, *, version: str | None = None) -> None:
    """The model's page has this price, at the latest a second from now."""
    started = time.monotonic()
    while (pricing := await pricing_of(customer))["usd_per_second"] != price:
        assert time.monotonic() - started < 1
        await asyncio.sleep(0.02)
    assert pricing["was_usd_per_second"] == was
    assert version in {None, pricing["price_version"]}
    listed = (await customer.get("/v1/models")).json()["data"]
    assert next(model["pricing"] for model in listed if model["id"] == "sandbox") == pricing


async def pricing_of(customer: Customer) -> dict[str, Any]:
    return dict((await customer.get("/v1/models/sandbox")).json()["pricing"])
