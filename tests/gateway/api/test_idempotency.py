"""The same key and body are the same job, whatever happens on the way."""

import asyncio

import pytest

from tests.gateway.api.installation import Customer, Installation, facts_of


async def test_a_repeated_submit_gives_the_same_job(customer: Customer, installation: Installation) -> None:
    first = await customer.submit(idempotency_key="a-1")
    assert "idempotent-replayed" not in first.headers
    again = await customer.submit(idempotency_key="a-1")
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert facts_of(again.json()) == facts_of(first.json())
    assert again.headers["location"] == first.headers["location"]
    await installation.finish(first.json()["id"])
    late = await customer.submit(idempotency_key="a-1")
    assert (late.status_code, late.json()["status"], late.json()["id"]) == (
        202,
        "completed",
        first.json()["id"],
    )
    assert await customer.count_jobs() == 1
    assert (await customer.get("/v1/balance")).json()["balance_usd"] == "4.998750000"


async def test_a_quoted_key_is_the_bare_one(customer: Customer) -> None:
    jobs = [await customer.submitted(idempotency_key=key) for key in ('"q"', "q", ' "q" '.strip())]
    assert len({job["id"] for job in jobs}) == 1


async def test_another_body_is_refused(customer: Customer) -> None:
    await customer.submitted(idempotency_key="b")
    for body in ({"prompt": "something else"}, {"audio_duration": 6}, {"metadata": {}}):
        answer = await customer.submit(idempotency_key="b", **body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert await customer.count_jobs() == 1


async def test_many_at_once_are_one_job(customer: Customer) -> None:
    answers = await asyncio.gather(*(customer.submit(idempotency_key="c") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 9
    assert await customer.count_jobs() == 1


async def test_keys_of_others_and_of_test_mode_do_not_meet(
    customer: Customer, installation: Installation
) -> None:
    other = await installation.customer()
    project = await customer.key(project_id=await customer.project("p"))
    jobs = [
        await customer.submitted(idempotency_key="d"),
        await customer.submitted(idempotency_key="d", key=customer.test_key),
        await customer.submitted(idempotency_key="d", key=project),
        await other.submitted(idempotency_key="d"),
    ]
    assert len({job["id"] for job in jobs}) == 4


async def test_a_refused_request_does_not_use_its_key_up(installation: Installation) -> None:
    customer = await installation.customer(usd="0.00125")
    assert (await customer.submit(idempotency_key="e", audio_duration=600)).status_code == 402
    await customer.submitted(idempotency_key="e")


@pytest.mark.parametrize("key", ["", '""', " ", "x" * 256, '"' + "x" * 256 + '"', "a\tb", "é", "\x80"])
async def test_what_cannot_be_a_key_is_told(customer: Customer, key: str) -> None:
    headers = {name: value.encode() for name, value in customer.headers().items()}
    answer = await customer.http.post(
        "/v1/audio/generations",
        json={"model": "sandbox", "prompt": "x"},
        headers=headers | {"idempotency-key": key.strip(" ").encode("latin-1")},
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", "Idempotency-Key")
    assert await customer.count_jobs() == 0


@pytest.mark.parametrize("key", ["x" * 255, '"' + "y" * 255 + '"', "a b", "!~{}", '"', "%00"])
async def test_what_can_be_a_key_is_one(customer: Customer, key: str) -> None:
    job = await customer.submitted(idempotency_key=key)
    assert (await customer.submitted(idempotency_key=key))["id"] == job["id"]
