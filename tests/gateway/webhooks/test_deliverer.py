"""What arrives at a customer's server, what is tried again, and who waits for whom."""

import asyncio
import socket
import uuid
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import WebhookVerificationError
from structlog.testing import capture_logs

from gateway.jobs.reading import read_own_job
from gateway.outbound import guard
from gateway.webhooks import claims, endpoints, outbox
from gateway.webhooks.deliverer import AT_ONCE
from gateway.webhooks.endpoints import EndpointChanges, read_endpoint, update_endpoint
from gateway.webhooks.rotation import (
    endpoint_secret,
    request_secret,
    rotate_endpoint_secret,
    rotate_request_secret,
)
from gateway.webhooks.schedule import DELAYS_SECONDS, JITTER, Kind
from tests.factories import new_key, new_project, until
from tests.gateway.webhooks.conftest import Office, ended_job
from tests.gateway.webhooks.receiver import Receiver
from tests.workbench import Workbench


async def note(office: Office, organization_id: uuid.UUID, count: int = 1) -> None:
    """Events of money, which need no job."""
    event = outbox.Event(organization_id=organization_id, type="balance.low", payload={"balance_usd": "1"})
    async with office.pool.acquire() as conn, conn.transaction():
        await outbox.note_events(conn, [event] * count)


async def test_a_job_is_told_as_get_shows_it_and_verifies(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    job_id = await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    await office.deliver()
    (message,) = receiver.received
    secret = await request_secret(office.pool, office.secrets, customer)
    body = message.verified(secret.value)
    async with office.pool.acquire() as conn:
        job = await read_own_job(conn, customer.organization_id, job_id)
    assert job is not None
    shown = msgspec.to_builtins(await office.renderer.view(job, origin="https://music.example"))
    link = body["data"]["result"]["data"][0].pop("url")
    shown["result"]["data"][0].pop("url")  # signed anew each time
    assert link.startswith("https://music.example/audio/")
    assert body["data"] == shown
    assert body["type"] == "job.completed"
    assert (message.method, message.headers["content-type"]) == ("POST", "application/json")
    (event,), (delivery,) = await office.rows("webhook_event"), await office.rows("webhook_delivery")
    assert message.headers["webhook-id"] == f"msg_{event['id'].hex}"
    assert body["timestamp"] == event["created_at"].isoformat(timespec="milliseconds")[:-6] + "Z"
    assert (delivery["state"], delivery["attempts"], delivery["lease_until"]) == ("delivered", 1, None)


async def test_base64_audio_is_told_as_a_link(bench: Workbench, office: Office, receiver: Receiver) -> None:
    customer = await bench.customer()
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"), return_base64=True)
    await office.deliver()
    (track,) = receiver.received[0].json["data"]["result"]["data"]
    assert "url" in track
    assert "b64_json" not in track


async def test_what_failed_is_tried_again_with_the_same_id_until_it_arrives(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.answers["/mine"] = [500, 302, 202]
    receiver.text = b"out of \xff order\x00" + b"." * 2000
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    for state in ("pending", "pending", "delivered"):
        await office.deliver()
        assert await office.states() == [state]
        await office.pass_time()
    assert receiver.paths() == ["/mine"] * 3
    assert len({message.headers["webhook-id"] for message in receiver.received}) == 1
    attempts = await office.rows("webhook_attempt")
    assert [(a["n"], a["status"], a["error"]) for a in attempts] == [
        (1, 500, None),
        (2, 302, None),
        (3, 202, None),
    ]
    assert attempts[0]["answer"].startswith(
        "out of \N{REPLACEMENT CHARACTER} order\N{REPLACEMENT CHARACTER}..."
    )
    assert len(attempts[0]["answer"]) == 1024
    assert await office.totals() == {("webhook", "failed"): 2, ("webhook", "delivered"): 1}


async def test_after_ten_attempts_on_schedule_it_is_exhausted(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.answers["/mine"] = [500] * 20
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    for delay in DELAYS_SECONDS[Kind.WEBHOOK][1:]:
        await office.deliver()
        waits = await office.pool.fetchval(
            "SELECT extract(epoch FROM next_attempt_at - at)::float8 FROM webhook_delivery, webhook_attempt"
            " ORDER BY n DESC LIMIT 1"
        )
        assert delay <= waits <= delay * (1 + JITTER) + 10
        await office.pass_time(timedelta(seconds=waits))
    await office.deliver()
    assert await office.states() == ["exhausted"]
    await office.pass_time()
    await office.deliver()
    assert len(receiver.received) == len(await office.rows("webhook_attempt")) == 10
    assert await office.totals() == {("webhook", "failed"): 9, ("webhook", "exhausted"): 1}


async def test_nothing_is_sent_before_its_time(bench: Workbench, office: Office, receiver: Receiver) -> None:
    customer = await bench.customer()
    receiver.answers["/mine"] = [500]
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    await office.deliver()
    await office.deliver()
    assert len(receiver.received) == 1


async def test_who_takes_no_connection_is_an_error_in_plain_words(bench: Workbench, office: Office) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        customer = await bench.customer()
        await ended_job(bench, customer, webhook_url=url)
        await office.deliver()
    (attempt,) = await office.rows("webhook_attempt")
    assert attempt["status"] is None
    assert "connection" in attempt["error"]
    assert "127.0.0.1" not in attempt["error"]


async def test_a_url_that_leads_inside_is_given_up_and_never_reached(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"), upload_url=receiver.url("/put"))
    await office.store.put_file("a/b/1-0.flac", await song(office), "audio/flac")
    await office.deliver(office.new_deliverer(allow_private_hosts=False))
    assert receiver.received == []
    assert await office.states() == ["dropped", "dropped"]


async def test_410_disables_the_endpoint_drops_what_waits_and_tells_the_others(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    gone = await office.endpoint(customer, receiver.url("/gone"), events=["balance.low"])
    await office.endpoint(customer, receiver.url("/other"), events=["endpoint.disabled"])
    receiver.answers["/gone"] = [500, 500, 410]
    await note(office, customer.organization_id, 2)
    await office.deliver()
    assert await office.states() == ["pending"] * 2
    await note(office, customer.organization_id)
    with capture_logs() as logs:
        await office.deliver()
    found = await read_endpoint(office.pool, customer, gone.id)
    assert (found.status, found.disabled_reason) == ("disabled", "gone")
    assert await office.states() == ["dropped"] * 3 + ["delivered"]
    told = receiver.received[-1]
    assert (told.path, told.json["type"]) == ("/other", "endpoint.disabled")
    assert told.json["data"] == {"endpoint_id": gone.id.hex, "url": gone.url, "reason": "gone"}
    (warning,) = [entry for entry in logs if entry["event"] == "webhooks.endpoint_disabled"]
    assert warning["log_level"] == "warning"
    assert receiver.address not in str(logs)
    totals = await office.totals()
    assert totals["webhook", "disabled"] == 1
    assert totals["webhook", "dropped"] == 3


async def test_410_ends_the_telling_of_a_jobs_own_url(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.answers["/mine"] = [410]
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    await office.deliver()
    assert await office.states() == ["dropped"]


async def test_five_days_without_success_disable_an_endpoint_and_one_success_resets_them(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    for answer, age, status in (
        (500, 0, "enabled"),
        (200, 6, "enabled"),
        (500, 0, "enabled"),
        (500, 6, "disabled"),
    ):
        await office.pool.execute(
            "UPDATE webhook_endpoint SET failing_since = failing_since - make_interval(days => $1)", age
        )
        receiver.answers["/e"] = [answer]
        await note(office, customer.organization_id)
        await office.deliver()
        found = await read_endpoint(office.pool, customer, endpoint.id)
        assert (found.status, found.failing_since is None) == (status, answer == 200)
    assert found.disabled_reason == "failing"


async def test_what_waits_for_a_disabled_endpoint_is_dropped_also_while_it_is_claimed(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    await note(office, customer.organization_id)
    await update_endpoint(office.pool, customer, endpoint.id, EndpointChanges(enabled=False))
    assert await office.states() == ["dropped"]
    # As if the event had been written at the moment of the disabling.
    await office.pool.execute(
        "UPDATE webhook_delivery SET state = 'pending', next_attempt_at = now(), completed_at = NULL"
    )
    await office.deliver()
    assert await office.states() == ["dropped"]
    assert receiver.received == []


async def test_an_endpoint_that_has_moved_is_not_disabled_for_what_its_old_url_answered(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/old"))
    receiver.hangs.add("/old")
    receiver.answers = {"/old": [410], "/new": [500]}
    await note(office, customer.organization_id)
    await office.deliverer._claim()

    async def is_under_way() -> bool:
        return bool(receiver.received)

    await until(is_under_way)
    await office.pool.execute("UPDATE webhook_endpoint SET failing_since = now() - interval '6 days'")
    moved = EndpointChanges(url=receiver.url("/new"))
    await update_endpoint(office.pool, customer, endpoint.id, moved)
    receiver.closing.set()
    await office.deliver()
    await note(office, customer.organization_id)
    await office.deliver()
    assert receiver.paths() == ["/old", "/new"]
    assert (await read_endpoint(office.pool, customer, endpoint.id)).status == "enabled"


async def test_a_long_backlog_is_dropped_by_batches_and_what_is_left_when_it_is_claimed(
    bench: Workbench, office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "_DROPPED_AT_ONCE", 2)
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    await note(office, customer.organization_id, 5)
    await update_endpoint(office.pool, customer, endpoint.id, EndpointChanges(enabled=False))
    assert await office.states() == ["dropped"] * 5
    await office.pool.execute(
        "UPDATE webhook_delivery SET state = 'pending', completed_at = NULL, next_attempt_at = now()"
    )
    await office.deliver()
    assert (await office.states(), receiver.received) == (["dropped"] * 5, [])
    assert await office.totals() == {("webhook", "dropped"): 10}


async def test_what_has_waited_for_five_days_is_given_up(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    await ended_job(bench, customer, webhook_url=receiver.url("/late"))
    await office.pool.execute("UPDATE webhook_delivery SET created_at = now() - interval '5 days 1 minute'")
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    await office.deliver()
    assert await office.states() == ["exhausted", "delivered"]
    assert receiver.paths() == ["/mine"]


def test_all_attempts_are_made_before_anything_is_given_up_for_its_age() -> None:
    longest = max(sum(delays) for delays in DELAYS_SECONDS.values()) * (1 + JITTER)
    assert timedelta(seconds=longest) < timedelta(days=claims.LATE_DAYS)


async def test_what_waits_goes_to_the_new_url_of_its_endpoint(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/old"))
    await note(office, customer.organization_id)
    await update_endpoint(office.pool, customer, endpoint.id, EndpointChanges(url=receiver.url("/new")))
    await office.deliver()
    assert receiver.paths() == ["/new"]


async def test_a_hanging_receiver_delays_nobody_and_never_has_more_than_four(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.hangs.add("/hangs")
    await office.endpoint(customer, receiver.url("/hangs"))
    await note(office, customer.organization_id, 40)
    await office.endpoint(customer, receiver.url("/good"))
    await note(office, customer.organization_id, 12)

    async def good_has_all() -> bool:
        return receiver.paths().count("/good") == 12

    # Two processes, and the older backlog is the one that hangs.
    async with office.running(), office.running(office.new_deliverer()):
        await until(good_has_all)
        assert receiver.at_once["/hangs"] == 4
    assert receiver.most_at_once["/hangs"] == 4
    assert receiver.paths().count("/hangs") == 4


async def test_an_organization_with_many_lanes_leaves_room_for_others(
    bench: Workbench, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "AT_ONCE_PER_ORGANIZATION", 4)
    monkeypatch.setattr(claims, "MOST_PER_ORGANIZATION", 6)
    bad, good = await bench.customer(), await bench.customer()
    for n in range(8):
        await office.endpoint(bad, f"https://hooks.example/{n}")
    await note(office, bad.organization_id, 5)
    await office.endpoint(good, "https://hooks.example/good")
    await note(office, good.organization_id, 9)
    (taken, _) = await claims.claim(office.pool, after="", limit=100)
    of_bad = [claim for claim in taken if claim.organization_id == bad.organization_id]
    assert len({claim.endpoint_id for claim in of_bad}) == len(of_bad) == 6
    assert len(taken) - len(of_bad) == 4
    assert await claims.claim(office.pool, after="", limit=100) == ([], None)


async def test_where_there_is_little_room_each_organization_has_some(
    bench: Workbench, office: Office
) -> None:
    customers = [await bench.customer() for _ in range(3)]
    for customer in customers:
        await office.endpoint(customer, "https://hooks.example/")
        await note(office, customer.organization_id, 5)
    (taken, _) = await claims.claim(office.pool, after="", limit=3)
    assert {claim.organization_id for claim in taken} == {one.organization_id for one in customers}


async def test_an_endpoint_waits_for_no_other_of_its_organization(
    bench: Workbench, office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "AT_ONCE_PER_ORGANIZATION", 4)
    customer = await bench.customer()
    receiver.hangs.add("/hangs")
    await office.endpoint(customer, receiver.url("/hangs"))
    await note(office, customer.organization_id, 9)
    async with office.running():

        async def hangs() -> bool:
            return receiver.at_once["/hangs"] == 4

        await until(hangs)
        await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
        await office.endpoint(customer, receiver.url("/good"))
        await note(office, customer.organization_id, 5)

        async def good_has_all() -> bool:
            return receiver.paths().count("/good") == 5 and "/mine" in receiver.paths()

        await until(good_has_all)
    assert receiver.most_at_once["/good"] == 1


def test_lookups_that_outlive_their_attempts_leave_threads_for_others() -> None:
    assert guard._LOOKUPS._max_workers >= 2 * AT_ONCE


async def test_an_answer_that_does_not_come_in_time_is_an_error(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.hangs.add("/mine")
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    await office.deliver(office.new_deliverer(webhook_seconds=0.2))
    (attempt,) = await office.rows("webhook_attempt")
    assert "in time" in attempt["error"]
    assert await office.states() == ["pending"]


async def test_many_lanes_are_walked_in_turns(
    bench: Workbench, office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LANES_PER_WALK", 2)
    customer = await bench.customer()
    for n in range(5):
        await office.endpoint(customer, receiver.url(f"/{n}"))
    await note(office, customer.organization_id, 2)
    await office.deliver()
    assert sorted(receiver.paths()) == sorted([f"/{n}" for n in range(5)] * 2)


async def test_processes_share_the_work_and_send_each_event_once(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    for n in range(4):
        await office.endpoint(customer, receiver.url(f"/{n}"))
    await note(office, customer.organization_id, 10)
    await asyncio.gather(*(office.deliver(office.new_deliverer()) for _ in range(3)))
    # A process that found another one claiming may have stopped looking.
    await office.deliver()
    sent = [(message.path, message.headers["webhook-id"]) for message in receiver.received]
    assert len(sent) == len(set(sent)) == 40


async def test_a_killed_process_delays_its_deliveries_by_a_lease_and_comes_too_late(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    ((lost,), _) = await claims.claim(office.pool, after="", limit=1)
    await office.deliver()
    assert receiver.received == []
    await office.pool.execute(
        "UPDATE webhook_delivery SET lease_until = now() - interval '1 s', next_attempt_at = now()"
    )
    await office.deliver()
    assert (await office.states(), len(receiver.received)) == (["delivered"], 1)
    late = await office.deliverer._postman.bring(lost)
    async with office.pool.acquire() as conn:
        assert await claims.record(conn, lost, late) is False
    assert [attempt["n"] for attempt in await office.rows("webhook_attempt")] == [2]


async def test_a_last_attempt_that_was_cut_off_is_the_last(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
    await office.pool.execute("UPDATE webhook_delivery SET attempts = 10")
    await office.deliver()
    assert await office.states() == ["exhausted"]
    assert receiver.received == []


async def test_a_process_that_stops_gives_back_what_is_under_way(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.hangs.add("/mine")
    await ended_job(bench, customer, webhook_url=receiver.url("/mine"))

    async def is_under_way() -> bool:
        return receiver.at_once["/mine"] == 1

    async with office.running():
        await until(is_under_way)
    receiver.hangs.clear()
    await office.deliver(office.new_deliverer())
    assert await office.states() == ["delivered"]


async def test_what_arrived_although_its_endpoint_was_disabled_meanwhile_is_delivered(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    await note(office, customer.organization_id, 2)
    (taken, _) = await claims.claim(office.pool, after="", limit=2)
    await update_endpoint(office.pool, customer, endpoint.id, EndpointChanges(enabled=False))
    receiver.answers["/e"] = [200, 500]
    for claim in taken:
        await office.deliverer._finish(claim, await office.deliverer._postman.bring(claim))
    assert sorted(await office.states()) == ["delivered", "dropped"]
    assert len(await office.rows("webhook_attempt")) == 2


async def test_an_endpoint_signs_with_its_own_secret_and_after_a_rotation_with_both(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    endpoint = await office.endpoint(customer, receiver.url("/e"))
    values = [(await endpoint_secret(office.pool, office.secrets, customer, endpoint.id)).value]
    for _ in range(2):
        rotated = await rotate_endpoint_secret(office.pool, office.secrets, customer, endpoint.id)
        values.append(rotated.value)
    await note(office, customer.organization_id)
    await office.deliver()
    assert receiver.received[0].verified(values[2]) == receiver.received[0].verified(values[1])
    with pytest.raises(WebhookVerificationError):
        receiver.received[0].verified(values[0])
    await office.pool.execute("UPDATE webhook_endpoint SET old_secret_until = now() - interval '1 s'")
    await note(office, customer.organization_id)
    await office.deliver()
    receiver.received[1].verified(values[2])
    with pytest.raises(WebhookVerificationError):
        receiver.received[1].verified(values[1])


async def test_the_url_of_a_job_is_signed_for_its_project_or_organization(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    async with bench.pool.acquire() as conn:
        project_id = await new_project(conn, customer.organization_id, "red")
        key = await new_key(conn, customer.organization_id, project_id=project_id)
    first = await request_secret(office.pool, office.secrets, key)
    second = await rotate_request_secret(office.pool, office.secrets, key)
    assert (first.version, second.version, second.old_until is None) == (1, 2, False)
    await ended_job(bench, key, webhook_url=receiver.url("/red"))
    await ended_job(bench, customer, webhook_url=receiver.url("/all"))
    await office.deliver()
    messages = {message.path: message for message in receiver.received}
    messages["/red"].verified(first.value)
    messages["/red"].verified(second.value)
    whole = await request_secret(office.pool, office.secrets, customer)
    messages["/all"].verified(whole.value)
    with pytest.raises(WebhookVerificationError):
        messages["/red"].verified(whole.value)


async def song(office: Office) -> Any:
    path = office.store._folder / "brought.flac"  # type: ignore[operator]
    path.write_bytes(bytes(range(256)) * 3000)
    return path


async def test_a_song_is_put_where_the_job_says_and_without_credentials(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    path = await song(office)
    await office.store.put_file("a/b/1-0.flac", path, "audio/flac")
    await ended_job(bench, customer, upload_url=receiver.url("/bucket/song"))
    await office.deliver()
    (message,) = receiver.received
    assert message.method == "PUT"
    assert message.body == path.read_bytes()
    assert message.headers["content-type"] == "audio/flac"
    assert message.headers["content-length"] == str(path.stat().st_size)
    assert not {"authorization", "cookie", "webhook-signature", "transfer-encoding"} & set(message.headers)
    assert await office.states() == ["delivered"]
    assert await office.totals() == {("upload", "delivered"): 1}


async def test_an_upload_is_tried_five_times(bench: Workbench, office: Office, receiver: Receiver) -> None:
    customer = await bench.customer()
    await office.store.put_file("a/b/1-0.flac", await song(office), "audio/flac")
    receiver.answers["/song"] = [503] * 9
    await ended_job(bench, customer, upload_url=receiver.url("/song"))
    for _ in range(6):
        await office.deliver()
        await office.pass_time()
    assert len(receiver.received) == 5
    assert await office.states() == ["exhausted"]


async def test_a_song_that_is_not_kept_any_more_is_not_uploaded(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    await ended_job(bench, customer, upload_url=receiver.url("/song"))
    await office.deliver()
    assert receiver.received == []
    assert await office.states() == ["dropped"]
    assert [a["error"] for a in await office.rows("webhook_attempt")] == ["the audio is not kept any more"]


async def test_no_url_and_no_secret_comes_into_the_log(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()
    receiver.answers["/token-in-the-path"] = [500]
    await ended_job(bench, customer, webhook_url=receiver.url("/token-in-the-path"))
    with capture_logs() as logs:
        await office.deliver()
        await office.pass_time()
        await office.deliver()
    assert [entry["event"] for entry in logs].count("webhooks.attempt") == 2
    assert "token-in-the-path" not in str(logs)
    assert "whsec_" not in str(logs)


async def test_the_task_outlives_a_database_that_is_away(
    bench: Workbench, office: Office, receiver: Receiver
) -> None:
    customer = await bench.customer()

    async def it_arrived() -> bool:
        return bool(receiver.received)

    with capture_logs() as logs:
        async with office.running():
            async with office.pool.acquire() as conn:
                await conn.execute("ALTER TABLE webhook_delivery RENAME TO elsewhere")

            async def it_failed() -> bool:
                return any(entry["event"] == "webhooks.failed" for entry in logs)

            await until(it_failed)
            async with office.pool.acquire() as conn:
                await conn.execute("ALTER TABLE elsewhere RENAME TO webhook_delivery")
            await ended_job(bench, customer, webhook_url=receiver.url("/mine"))
            await until(it_arrived)
    assert receiver.paths() == ["/mine"]
