"""A job's events as they are sent, and who stops hearing them when."""

import asyncio
import contextlib
import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway import schema
from gateway.auth.directory import revoke_key
from gateway.dialects.native import events
from gateway.embedded import EmbeddedPostgres
from gateway.jobs import queue
from gateway.jobs.job import JobErrorCode
from tests.factories import until
from tests.gateway.api.event_stream import Event, following
from tests.gateway.api.installation import Customer, Installation, running

PATIENCE_SECONDS = 30
FIELDS = {"job_id", "status", "progress", "queue_position", "eta_seconds"}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, places in the queue are known."""
    monkeypatch.setattr("gateway.jobs.forecast.PATIENCE_SECONDS", float(PATIENCE_SECONDS))


async def beat(installation: Installation, claim: queue.Claim, progress: float) -> None:
    async with installation.live.pool.acquire() as conn:
        await queue.beat(conn, [queue.Beat(job_id=claim.job_id, fence=claim.fence, progress=progress)])


def unsigned(value: Any) -> Any:
    """Without the signatures of links, which hold the moment of their making."""
    if isinstance(value, dict):
        return {name: unsigned(part) for name, part in value.items()}
    if isinstance(value, list):
        return [unsigned(part) for part in value]
    return value.partition("?")[0] if isinstance(value, str) else value


def names_and_states(told: list[Event]) -> list[tuple[str, str]]:
    return [(event.name, event.data["status"]) for event in told]


async def test_a_stream_tells_the_way_of_a_job_to_its_song(
    customer: Customer, installation: Installation
) -> None:
    job = await customer.submitted()
    async with following(customer, job) as stream:
        first = await stream.next()
        assert first is not None
        assert stream.retry == 2000
        assert set(first.data) == FIELDS
        assert (first.name, first.data["job_id"], first.data["status"]) == ("progress", job["id"], "queued")
        assert first.data["queue_position"] >= 1
        claim = await installation.claim(job["id"])
        await stream.until("processing")
        for progress in (0.25, 0.75):
            await beat(installation, claim, progress)
            event = (await stream.until("processing"))[-1]
            assert (event.data["progress"], event.data["queue_position"]) == (progress, None)
        await installation.end(claim)
        told = await stream.rest()
    assert names_and_states(told) == [("completed", "completed")]
    assert unsigned(told[-1].data) == unsigned(await customer.job(job["id"]))
    song = told[-1].data["result"]["data"][0]
    assert (await customer.http.get(song["url"])).status_code == 200


async def test_the_head_of_the_answer_keeps_caches_and_proxies_out(customer: Customer) -> None:
    async with following(customer, await customer.submitted()) as stream:
        headers = stream.answer.headers
    assert headers["content-type"].partition(";")[0] == "text/event-stream"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    assert "content-length" not in headers
    assert re.fullmatch(r"req_[0-9a-f]{24}", headers["x-request-id"])


async def test_a_failure_and_a_cancellation_are_told_as_failed(
    customer: Customer, installation: Installation
) -> None:
    failing, cancelled = await customer.submitted(), await customer.submitted()
    async with following(customer, failing) as one, following(customer, cancelled) as other:
        await installation.finish(failing["id"], error=JobErrorCode.QUALITY_FAILED)
        await customer.http.delete(cancelled["poll_url"], headers=customer.headers())
        for stream, code in ((one, "quality_failed"), (other, "job_cancelled")):
            last = (await stream.rest())[-1]
            assert (last.name, last.data["status"], last.data["error"]["code"]) == ("failed", "failed", code)
            assert last.data["cost"]["charged"] is False


async def test_inline_audio_is_left_out(customer: Customer, installation: Installation) -> None:
    job = await customer.submitted(response_format="b64_json")
    async with following(customer, job) as stream:
        await installation.finish(job["id"])
        (track,) = (await stream.until("completed"))[-1].data["result"]["data"]
    assert "b64_json" not in track
    assert "url" in track


async def test_a_finished_job_is_told_at_once_and_never_again(
    customer: Customer, installation: Installation
) -> None:
    job = await customer.submitted()
    await installation.finish(job["id"])
    for last_seen in (None, "queued-0-1", "processing-1-5000"):
        async with following(customer, job, last_seen=last_seen) as stream:
            (event,) = await stream.rest()
            assert event.name == "completed"
    answer = await customer.http.get(
        f"{job['poll_url']}/events", headers=customer.headers(**{"last-event-id": event.id})
    )
    assert (answer.status_code, answer.content) == (204, b"")


async def test_who_comes_back_is_not_told_the_same_again(
    customer: Customer, installation: Installation, tmp_path: Path
) -> None:
    job = await customer.submitted()
    claim = await installation.claim(job["id"])
    await beat(installation, claim, 0.5)
    async with following(customer, job) as stream:
        seen = (await stream.until("processing"))[-1]
    async with running(installation.dsn, tmp_path) as other:  # ids mean the same in every process
        for http in (customer.http, other.http):
            async with following(customer, job, last_seen=seen.id, http=http) as again:
                progress = 0.6 if http is customer.http else 0.7
                await beat(installation, claim, progress)
                event = await again.next()
                assert event is not None
                assert event.data["progress"] == progress
                seen = event
        async with following(customer, job, last_seen="processing-1-5000") as stream:
            repeated = await stream.next()
            assert repeated == seen


@pytest.mark.parametrize("last_seen", ["", "1", "x" * 2_000, "completed-1", "é", "queued-0-1\t;"])
async def test_an_unknown_last_event_means_from_the_start(customer: Customer, last_seen: str) -> None:
    async with following(
        customer, await customer.submitted(), last_seen=last_seen.encode("latin-1")
    ) as stream:
        event = await stream.next()
        assert event is not None
        assert event.data["status"] == "queued"


async def test_silence_is_broken_by_comments(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.05)
    job = await customer.submitted()
    async with following(customer, job) as stream:
        await stream.next()
        assert [await stream.comment() for _ in range(3)] == [": keep-alive"] * 3


async def test_a_place_in_the_queue_is_told_anew_when_it_changes(
    customer: Customer, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.jobs.watching.OUTLOOK_SECONDS", 0.1)
    monkeypatch.setattr("gateway.jobs.forecast.REFRESH_SECONDS", 0.1)
    first, second = await customer.submitted(), await customer.submitted()
    async with following(customer, second) as stream:
        before = await stream.next()
        assert before is not None
        await installation.finish(first["id"])
        after = await stream.next()
        assert after is not None
    assert (before.data["status"], after.data["status"]) == ("queued", "queued")
    assert after.data["queue_position"] < before.data["queue_position"]
    assert after.id != before.id


async def test_many_follow_many_jobs_and_all_are_told_the_end(
    customer: Customer, installation: Installation
) -> None:
    jobs = [await customer.submitted() for _ in range(50)]
    ears = httpx.AsyncClient(
        base_url=customer.http.base_url, trust_env=False, timeout=PATIENCE_SECONDS, limits=httpx.Limits()
    )

    async def listen(job: dict[str, Any]) -> list[Event]:
        async with following(customer, job, http=ears) as stream:
            return await stream.rest()

    listening = [asyncio.create_task(listen(job)) for job in jobs * 2]
    watch = installation.live.job_watch
    await until(lambda: _is(watch._followers == 100), what="a hundred listeners")
    for job in jobs:
        await installation.finish(job["id"])
    async with asyncio.timeout(PATIENCE_SECONDS):
        told = await asyncio.gather(*listening)
    for job, heard in zip(jobs * 2, told, strict=True):
        assert heard[0].data["status"] == "queued"
        assert (heard[-1].name, heard[-1].data["id"]) == ("completed", job["id"])
        assert len({event.id for event in heard}) == len(heard)
    assert (watch._followers, watch._watched) == (0, {})
    await ears.aclose()


async def _is(fact: bool) -> bool:  # noqa: FBT001
    return fact


async def test_who_hangs_up_is_forgotten(customer: Customer, installation: Installation) -> None:
    watch = installation.live.job_watch
    job = await customer.submitted()
    async with following(customer, job) as stream:
        await stream.next()
        assert watch._followers == 1
    await until(lambda: _is(watch._followers == 0), what="the end of the stream")
    assert watch._watched == {}


async def test_who_does_not_read_keeps_nobody_waiting(customer: Customer, installation: Installation) -> None:
    job = await customer.submitted()
    url = urlsplit(str(customer.http.base_url))
    deaf = socket.create_connection((url.hostname, url.port))
    deaf.sendall(
        f"GET {job['poll_url']}/events HTTP/1.1\r\nhost: {url.netloc}\r\n"
        f"authorization: Bearer {customer.live_key}\r\n\r\n".encode()
    )
    async with following(customer, job) as stream:
        await stream.next()
        await until(lambda: _is(installation.live.job_watch._followers == 2), what="the deaf one")
        await installation.finish(job["id"])
        assert (await stream.rest())[-1].name == "completed"
    deaf.close()


async def test_a_stream_shows_no_more_than_a_read(customer: Customer, installation: Installation) -> None:
    other = await installation.customer()
    own = await customer.key(project_id=await customer.project("p"))
    foreign, whole = await other.submitted(), await customer.submitted()
    for job_id in (foreign["id"], whole["id"], "0" * 32, "short", foreign["id"] + "0"):
        read = await customer.get(f"/v1/jobs/{job_id}", key=own)
        follow = await customer.get(f"/v1/jobs/{job_id}/events", key=own)
        assert follow.status_code == read.status_code == 404
        bodies = [answer.json()["error"] for answer in (read, follow)]
        for body in bodies:
            del body["request_id"]
        assert bodies[0] == bodies[1]
        assert set(read.headers) == set(follow.headers)


async def test_a_stream_needs_a_key_that_may_read(customer: Customer) -> None:
    job = await customer.submitted()
    path = f"{job['poll_url']}/events"
    assert (await customer.http.get(path)).json()["error"]["code"] == "missing_api_key"
    blind = await customer.key(scopes=["generate"])
    assert (await customer.get(path, key=blind)).json()["error"]["code"] == "scope_denied"
    assert (await customer.http.head(path, headers=customer.headers())).status_code == 405


async def test_a_revoked_key_hears_no_more(customer: Customer, installation: Installation) -> None:
    job = await customer.submitted()
    key_id, key = await customer.key_with_id()
    async with following(customer, job, key=key) as revoked, following(customer, job) as kept:
        await revoked.next()
        await kept.next()
        async with installation.live.pool.acquire() as conn, conn.transaction():
            await revoke_key(conn, key_id)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await revoked.rest() == []
        await installation.finish(job["id"])
        assert (await kept.rest())[-1].name == "completed"


async def test_an_expired_key_hears_no_more(customer: Customer) -> None:
    job = await customer.submitted()
    key = await customer.key(expires_at=datetime.now(UTC) + timedelta(seconds=2))
    async with asyncio.timeout(PATIENCE_SECONDS), following(customer, job, key=key) as stream:
        told = await stream.rest()
    assert {event.name for event in told} == {"progress"}


async def test_too_many_streams_are_refused_with_patience(
    customer: Customer, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation.live.job_watch, "_max_followers", 1)
    job = await customer.submitted()
    async with following(customer, job) as stream:
        await stream.next()
        answer = await customer.get(f"{job['poll_url']}/events")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["retryable"]) == (503, "overloaded", True)
        assert int(answer.headers["retry-after"]) > 0
        assert (await customer.get(job["poll_url"])).status_code == 200


async def test_the_end_of_the_process_ends_its_streams_and_the_next_one_goes_on(
    installation: Installation, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as first:
        old = await first.enter_async_context(running(installation.dsn, tmp_path / "one"))
        customer = await old.customer()
        job = await customer.submitted()
        async with (
            httpx.AsyncClient(base_url=customer.http.base_url, trust_env=False) as http,
            following(customer, job, http=http) as stream,
        ):
            seen = await stream.next()
            assert seen is not None
            listening = asyncio.create_task(stream.rest())
            async with asyncio.timeout(PATIENCE_SECONDS):
                await first.aclose()  # waits for all requests, without any limit
                assert await listening == []
    async with (
        running(installation.dsn, tmp_path / "two") as new,
        following(customer, job, last_seen=seen.id, http=new.http) as stream,
    ):
        await new.finish(job["id"])
        told = await stream.rest()
    assert seen.id not in {event.id for event in told}
    assert told[-1].name == "completed"


async def test_a_stream_outlasts_a_restart_of_the_database(scratch: Path, tmp_path: Path) -> None:
    server = EmbeddedPostgres(scratch / "own", durable=False)
    try:
        dsn = server.start()
        await asyncio.to_thread(schema.upgrade, dsn)
        async with running(dsn, tmp_path) as installation:
            customer = await installation.customer()
            job = await customer.submitted()
            async with following(customer, job) as stream:
                await stream.next()
                server.stop()
                assert (await customer.get("/v1/balance")).status_code == 503
                server.start()
                await installation.finish(job["id"])
                assert (await stream.rest())[-1].name == "completed"
    finally:
        server.stop()


async def test_the_reference_tells_of_the_stream(http: httpx.AsyncClient) -> None:
    document = (await http.get("/docs/openapi.json")).json()
    operation = document["paths"]["/v1/jobs/{job_id}/events"]["get"]
    assert set(operation["responses"]["200"]["content"]) == {"text/event-stream"}
    assert {"200", "204", "401", "403", "404", "503"} <= set(operation["responses"])
    assert "Last-Event-ID" in {parameter["name"] for parameter in operation["parameters"]}
