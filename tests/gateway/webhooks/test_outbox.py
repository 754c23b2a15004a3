"""Events are written in the commit that makes them true, and only where somebody wants to hear of them."""

import re
import uuid
from pathlib import Path
from typing import Any

import pytest

import billing
from gateway.bookkeeping import tell_notices
from gateway.jobs import settlement
from gateway.jobs.settlement import Ending
from gateway.webhooks import outbox
from gateway.webhooks.endpoints import EndpointChanges, delete_endpoint, update_endpoint
from gateway.webhooks.events import EventType
from tests.factories import USD, new_key, new_project, new_result
from tests.gateway.webhooks.conftest import Office, ended_job
from tests.workbench import Workbench

URL = "https://hooks.example/here"


async def told(office: Office) -> list[tuple[str, str]]:
    rows = await office.pool.fetch(
        """
        SELECT event.type, delivery.url FROM webhook_event event
          JOIN webhook_delivery delivery ON event_id = event.id ORDER BY delivery.id
        """
    )
    return [(row["type"], row["url"]) for row in rows]


async def test_what_nobody_wants_to_hear_of_leaves_no_row(bench: Workbench, office: Office) -> None:
    stranger, customer = await bench.customer(), await bench.customer()
    await office.endpoint(stranger, URL)
    await ended_job(bench, customer)
    assert await office.rows("webhook_event") == []


async def test_where_nobody_listens_the_end_of_a_batch_costs_one_read(
    bench: Workbench, office: Office
) -> None:
    customer = await bench.customer()
    for _ in range(3):
        await bench.submit(customer)
    claims = await bench.claim(3)
    seen: list[str] = []

    def note(record: Any) -> None:
        seen.append(record.query)

    async with office.pool.acquire() as conn, conn.transaction():
        conn.add_query_logger(note)
        await outbox.note_ended(conn, [claim.job_id for claim in claims])
        conn.remove_query_logger(note)
    assert len(seen) == 1
    assert seen[0].split()[0] == "SELECT"


@pytest.mark.parametrize("is_test", [False, True])
async def test_the_url_of_a_job_is_told_of_its_end(bench: Workbench, office: Office, is_test: bool) -> None:  # noqa: FBT001
    customer = await bench.customer(test=is_test)
    job_id = await ended_job(bench, customer, webhook_url=URL)
    (event,), (delivery,) = await office.rows("webhook_event"), await office.rows("webhook_delivery")
    assert (event["type"], event["job_id"], event["payload"]) == ("job.completed", job_id, None)
    assert (delivery["event_id"], delivery["url"], delivery["state"]) == (event["id"], URL, "pending")


async def test_a_failed_and_a_cancelled_job_are_told_as_failed(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    await ended_job(bench, customer, webhook_url=URL, fails=True)
    waiting = await bench.submit(customer, webhook_url=URL + "/2")
    async with bench.pool.acquire() as conn, conn.transaction():
        assert await settlement.cancel_queued(conn, waiting.id)
    assert await told(office) == [("job.failed", URL), ("job.failed", URL + "/2")]


async def test_what_nobody_will_finish_is_told_as_failed(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    await bench.submit(customer, webhook_url=URL + "/held")
    await bench.claim_one()
    await bench.submit(customer, webhook_url=URL + "/late")
    await bench.pool.execute(
        """
        UPDATE job SET deadline_at = now() - interval '1 s',
                       lease_until = CASE status WHEN 'processing' THEN now() - interval '1 s' END
        """
    )
    assert await settlement.end_hopeless(bench.pool) == 2
    assert sorted(await told(office)) == [("job.failed", URL + "/held"), ("job.failed", URL + "/late")]


async def test_a_song_is_uploaded_only_when_there_is_one(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    await ended_job(bench, customer, upload_url=URL, fails=True)
    assert await office.rows("webhook_event") == []
    await ended_job(bench, customer, upload_url=URL)
    (delivery,) = await office.rows("webhook_delivery")
    assert (delivery["kind"], delivery["url"]) == ("upload", URL)


async def test_an_endpoint_hears_of_what_it_chose(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    await office.endpoint(customer, URL + "/all")
    await office.endpoint(customer, URL + "/failed", events=["job.failed"])
    await office.endpoint(customer, URL + "/money", events=["balance.low"])
    await ended_job(bench, customer)
    assert await told(office) == [("job.completed", URL + "/all")]


async def test_an_endpoint_of_a_project_hears_of_its_own_project_only(
    bench: Workbench, office: Office
) -> None:
    customer = await bench.customer()
    keys = {}
    for name in ("red", "blue"):
        async with bench.pool.acquire() as conn:
            project_id = await new_project(conn, customer.organization_id, name)
            keys[name] = await new_key(conn, customer.organization_id, project_id=project_id)
        await office.endpoint(keys[name], f"{URL}/{name}")
    await office.endpoint(customer, URL)
    await ended_job(bench, keys["red"])
    assert sorted(await told(office)) == [("job.completed", URL), ("job.completed", f"{URL}/red")]


async def test_a_disabled_and_a_deleted_endpoint_hear_nothing(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    off, gone = await office.endpoint(customer, URL), await office.endpoint(customer, URL)
    await update_endpoint(office.pool, customer, off.id, EndpointChanges(enabled=False))
    await delete_endpoint(office.pool, customer, gone.id)
    await ended_job(bench, customer)
    assert await office.rows("webhook_event") == []


async def test_one_job_has_one_event_for_all_its_listeners(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    await office.endpoint(customer, URL + "/a")
    await office.endpoint(customer, URL + "/b")
    await ended_job(bench, customer, webhook_url=URL + "/own", upload_url=URL + "/put")
    (event,) = await office.rows("webhook_event")
    deliveries = await office.rows("webhook_delivery")
    assert {row["event_id"] for row in deliveries} == {event["id"]}
    assert sorted(row["url"].removeprefix(URL) for row in deliveries) == ["/a", "/b", "/own", "/put"]


async def test_many_jobs_of_one_commit_are_told_one_by_one(bench: Workbench, office: Office) -> None:
    customer, other = await bench.customer(), await bench.customer()
    await office.endpoint(customer, URL)
    for _ in range(3):
        await bench.submit(customer)
    await bench.submit(other)
    claims = await bench.claim(4)
    endings = [Ending(job_id=c.job_id, fence=c.fence, result=new_result(c.request.frames)) for c in claims]
    await settlement.finish(bench.pool, endings, retry=False)
    assert len({row["job_id"] for row in await office.rows("webhook_event")}) == 3
    assert await told(office) == [("job.completed", URL)] * 3


async def test_an_end_that_is_not_committed_is_not_told(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    job = await bench.submit(customer, webhook_url=URL)
    async with bench.pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await settlement.cancel_queued(conn, job.id)
        assert await conn.fetchval("SELECT count(*) FROM webhook_delivery") == 1
        await transaction.rollback()
    assert await office.rows("webhook_event") == []


async def test_an_end_that_was_told_before_is_not_told_again(bench: Workbench, office: Office) -> None:
    customer = await bench.customer()
    await bench.submit(customer, webhook_url=URL)
    claim = await bench.claim_one()
    await bench.deliver(claim)
    assert (await bench.deliver(claim, retry=True)).won
    assert len(await told(office)) == 1


async def test_money_is_told_to_the_organization_in_the_commit_that_marks_it_as_told(
    bench: Workbench, office: Office
) -> None:
    customer = await bench.customer(credit_nano=20 * USD)
    async with bench.pool.acquire() as conn:
        project_id = await new_project(conn, customer.organization_id, "red")
        project_key = await new_key(conn, customer.organization_id, project_id=project_id)
    await office.endpoint(customer, URL)
    await office.endpoint(project_key, URL + "/red")
    async with bench.pool.acquire() as conn, conn.transaction():
        await billing.note(conn, customer.organization_id, "balance.low", {"balance_usd": "1.000000000"})
    await tell_notices(bench.pool)
    await tell_notices(bench.pool)
    assert await told(office) == [("balance.low", URL)]
    (event,) = await office.rows("webhook_event")
    assert event["payload"] == '{"balance_usd": "1.000000000"}'


def test_everything_that_the_ledger_tells_is_an_event() -> None:
    folder = Path(billing.__file__).parent
    source = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    calls = re.findall(r'note\(\s*conn,\s*[\w.]+,\s*f?"([^"]+)"', source)
    kinds = {kind for kind in calls if "{" not in kind} | {"balance.low", "balance.critical"}
    assert len(calls) >= 7
    assert kinds <= set(EventType)


def test_the_name_of_a_lane_comes_from_any_url_at_all() -> None:
    def lane(url: str) -> Any:
        return outbox._Place(
            event_id=uuid.UUID(int=1),
            organization_id=uuid.UUID(int=2),
            project_id=None,
            endpoint_id=None,
            kind=outbox.Kind.WEBHOOK,
            url=url,
        ).lane

    same = "https://Hooks.Example:8443", "https://hooks.example:8443/b", "https://hooks.example:8443?job=1"
    assert len({lane(url) for url in same}) == 1
    assert lane("https://hooks.example/") != lane("https://other.example/")
    many = {lane(f"https://job-{n}.hooks.example/") for n in range(10 * outbox.LANES_OF_URLS)}
    assert len(many) <= outbox.LANES_OF_URLS
    for strange in ("", "no url", "http://[", "http://" + "a" * 3000):
        assert lane(strange).startswith("webhook ")
