"""Money for some jobs admits exactly these, however many are asked for at the same moment, and of whom."""

import asyncio
import socket
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import msgspec
import pytest
import pytest_asyncio

import billing
from tests.crash.stack import Service
from tests.factories import NANO_PER_SECOND, until, violations
from tests.gateway.api.installation import SECRET, Customer, Installation

COST = 5 * NANO_PER_SECOND
"""Of five seconds of the sandbox."""
REST = COST - 1
"""Not enough for one more."""
ROUTES = {"/v1/audio/generations": {"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5}}
"""Every route that holds money, with a body."""
REFUSED = {"credit": "insufficient_credits"} | dict.fromkeys(billing.BUDGET_SCOPES, "budget_exceeded")


class Gateways(msgspec.Struct, frozen=True):
    """Two processes of one installation."""

    clients: tuple[httpx.AsyncClient, httpx.AsyncClient]

    async def rush(self, keys: Sequence[str], route: str, count: int) -> Counter[str]:
        """So many at once, dealt to processes and keys in turn; what was answered."""
        answers = await asyncio.gather(
            *(
                self.clients[n % 2].post(
                    route,
                    json=ROUTES[route],
                    headers={
                        "authorization": f"Bearer {keys[n // 2 % len(keys)]}",
                        **({"idempotency-key": uuid.uuid4().hex} if n % 3 else {}),
                    },
                )
                for n in range(count)
            )
        )
        return Counter("admitted" if a.is_success else a.json()["error"]["code"] for a in answers)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateways(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateways]:
    """The one in this process, and `antiphon serve` beside it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        bind = f"127.0.0.1:{probe.getsockname()[1]}"
    home = tmp_path_factory.mktemp("beside")
    environ = {
        "ANTIPHON_HOME": str(home),
        "ANTIPHON_DATABASE_URL": installation.dsn,
        "ANTIPHON_SECRET_KEY": SECRET,
        "ANTIPHON_BIND": bind,
    }
    service = Service(("serve",), environ=environ, folder=Path(home))
    service.start()

    try:
        async with httpx.AsyncClient(base_url=f"http://{bind}", trust_env=False, timeout=20) as beside:

            async def answers() -> bool:
                assert service.runs(), service.stderr.read_text()
                try:
                    return (await beside.get("/healthz")).is_success
                except httpx.TransportError:
                    return False

            await until(answers, 60, what="the second process")
            yield Gateways((installation.http, beside))
    finally:
        assert await asyncio.to_thread(service.stop) == 0


async def capped_at(customer: Customer, limit: str, jobs: int, period: str) -> tuple[list[str], list[str]]:
    """Limit it; which keys the limit counts for, and the others."""
    project_id = await customer.project("one")
    inside = [await customer.key_with_id(project_id=project_id) for _ in range(2)]
    outside = [await customer.key_with_id() for _ in range(2)]
    if limit == "credit":
        return [key for _, key in (*inside, *outside)], []
    capped = {"key": inside[:1], "project": inside, "organization": [*inside, *outside]}[limit]
    subject = {"key": inside[0][0], "project": project_id, "organization": customer.organization_id}[limit]
    async with customer.live.pool.acquire() as conn:
        await billing.set_budget(
            conn,
            account_id=customer.organization_id,
            subject=subject,
            scope=limit,
            period=period,
            limit_nano=jobs * COST + REST,
        )
    others = [key for _, key in (*inside, *outside) if key not in {key for _, key in capped}]
    return [key for _, key in capped], others


async def test_every_route_that_can_cost_something_is_raced(installation: Installation) -> None:
    # A refusal for want of money that is documented is one that can happen.
    answer = await installation.http.get("/docs/openapi.json")
    assert answer.status_code == httpx.codes.OK
    admitting = {
        path
        for path, operations in answer.json()["paths"].items()
        if "402" in operations.get("post", {}).get("responses", {})
    }
    assert admitting == set(ROUTES)


@pytest.mark.parametrize("affordable", [8, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("limit", ["credit", *billing.BUDGET_SCOPES])
@pytest.mark.parametrize("route", ROUTES)
async def test_twenty_times_as_many_requests_as_there_is_money_for_admit_exactly_these(
    installation: Installation, gateways: Gateways, route: str, limit: str, affordable: int
) -> None:
    jobs = affordable if limit == "credit" else 100 * affordable
    customer = await installation.customer(usd=billing.format_usd(jobs * COST + REST))
    period = billing.BUDGET_PERIODS[affordable % 3]
    capped, free = await capped_at(customer, limit, affordable, period)
    refused = REFUSED[limit]
    answers = await gateways.rush(capped, route, 20 * affordable)
    assert answers == {"admitted": affordable, refused: 19 * affordable}
    assert await customer.count_jobs() == affordable
    assert await held(customer) == affordable * COST

    ids = await customer.live.pool.fetch(
        "SELECT id FROM job WHERE organization_id = $1 LIMIT 3", customer.organization_id
    )
    for row in ids:
        canceled = await customer.http.delete(f"/v1/jobs/{row['id'].hex}", headers=customer.headers())
        assert canceled.status_code == httpx.codes.OK
    assert await gateways.rush(capped, route, 60) == {"admitted": 3, refused: 57}
    if free:
        assert await gateways.rush(free, route, 20) == {"admitted": 20}
    assert await held(customer) == (affordable + (20 if free else 0)) * COST
    assert await violations(installation.dsn) == []


async def held(customer: Customer) -> int:
    balance = (await customer.get("/v1/balance")).json()
    return billing.parse_usd(balance["held_usd"])
