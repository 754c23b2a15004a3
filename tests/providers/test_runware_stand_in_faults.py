"""What the stand-in can be told to do wrong."""

import asyncio
import io
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import soundfile
from litestar import Litestar, Request, Response, post

from gateway.audio.errors import QualityFailed
from gateway.audio.quality import check_quality
from tests.providers.runware import (
    Delay,
    Drop,
    Hook,
    Hostile,
    Huge,
    Outputs,
    Raw,
    RunwareStandIn,
    Status,
    TaskFails,
)
from tests.providers.runware.account import Json
from tests.providers.runware_requests import Client, ask, client_of, line_to, song, utility
from tests.providers.serving import served

pytestmark = pytest.mark.slow  # the adapters meet the same faults in every run

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ["audioInference", "getResponse", "mediaStorage", "accountManagement"]


@pytest.fixture
async def client(runware_stand_in: RunwareStandIn) -> AsyncIterator[Client]:
    async with client_of(runware_stand_in) as client:
        yield client


async def _until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not fact():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.01)


STATUSES = [
    (401, None, "invalidApiKey"),
    (402, None, "insufficientCredits"),
    (400, "contentPolicyViolation", "contentPolicyViolation"),
    (404, None, "taskNotFound"),
    (429, None, "rateLimitExceeded"),
    (500, None, "internalServerError"),
    (502, None, "providerError"),
    (503, None, "serviceUnavailable"),
    (504, None, "timeoutProvider"),
]


async def test_a_status_is_answered_as_told_and_nothing_is_accepted(client: Client) -> None:
    stand_in, task = client.stand_in, song()
    for status, code, expected in STATUSES:
        stand_in.fail_next("audioInference", Status(status, code, retry_after=3))
        answer = await client.send(task)
        [error] = answer.json()["errors"]
        assert (answer.status_code, error["code"]) == (status, expected)
        assert answer.headers["retry-after"] == "3"
        assert error.get("taskUUID") == (None if status == 401 else task["taskUUID"])
    assert not stand_in.tasks
    await client.data(task)


async def test_faults_befall_their_own_place_and_queue_up(client: Client) -> None:
    stand_in, task = client.stand_in, song(deliveryMethod="async")
    stand_in.fail_next("getResponse", Status(404), times=2)
    stand_in.fail_next("getResponse", Status(503))
    await client.data(task)

    answers = [(await client.send(ask(task))).status_code for _ in range(4)]

    assert answers == [404, 404, 503, 200]
    assert [type(one.fault) for one in stand_in.requests] == [type(None), *[Status] * 3, type(None)]
    stand_in.fail_next("accountManagement", Status(500))
    assert set(stand_in.pending_faults()) == {"accountManagement"}
    stand_in.clear_faults()
    await client.data(utility("accountManagement", operation="getDetails"))


async def test_faults_that_make_no_sense_at_a_place_are_refused(runware_stand_in: RunwareStandIn) -> None:
    for where, fault in (("download", TaskFails()), ("webhook", Status(500)), ("getResponse", Hook("late"))):
        with pytest.raises(ValueError) as refused:
            runware_stand_in.fail_next(where, fault)  # type: ignore[arg-type]
        assert "cannot befall" in str(refused.value)


async def test_a_connection_drops_before_or_after_the_task_exists(client: Client) -> None:
    stand_in = client.stand_in
    for after, made in ((False, 0), (True, 1)):
        task = song()
        stand_in.fail_next("audioInference", Drop(after_accepting=after))
        with pytest.raises(httpx.RemoteProtocolError):
            await client.send(task)
        assert len(stand_in.tasks) == made
    await stand_in.settled()
    [item] = await client.data(ask(task))
    assert item["status"] == "success"


async def test_a_delayed_request_is_handled_later_and_a_delayed_answer_at_once(client: Client) -> None:
    stand_in, before, after = client.stand_in, song(), song(deliveryMethod="async")
    stand_in.fail_next("audioInference", Delay(600))
    stand_in.fail_next("audioInference", Delay(600, after_accepting=True))
    waiting = []
    for task in (before, after):
        waiting.append(asyncio.create_task(client.send(task)))
        await _until(lambda: len(stand_in.requests) == len(waiting))

    await client.data(utility("accountManagement", operation="getDetails"))

    assert list(stand_in.tasks) == [after["taskUUID"]]
    assert not any(one.done() for one in waiting)
    for one in waiting:
        one.cancel()


async def test_bodies_may_be_garbage_or_huge(client: Client) -> None:
    stand_in = client.stand_in
    for kind in KINDS:
        stand_in.fail_next(kind, Raw(b"\xff\xfe<html>", 200, "text/html"))  # type: ignore[arg-type]
        stand_in.fail_next(kind, Huge(3_000_000))  # type: ignore[arg-type]
        task = utility(kind)
        assert (await client.send(task)).content == b"\xff\xfe<html>"
        huge = await client.send(task)
        assert len(huge.content) == 3_000_000
        assert "content-length" not in huge.headers
    assert not stand_in.tasks


async def test_hostile_answers_are_json_of_another_shape(client: Client) -> None:
    stand_in, task = client.stand_in, song(includeCost=True)
    [item] = await client.data(task)

    async def turned(kind: Any) -> bytes:
        stand_in.fail_next("getResponse", Hostile(kind))
        return (await client.send(ask(task))).content

    async def items(kind: str) -> list[Json]:
        found: list[Json] = json.loads(await turned(kind))["data"]
        return found

    [wrong] = await items("wrong_types")
    assert [type(wrong[name]) for name in ("audioURL", "cost", "status")] == [dict, str, dict]
    [nulls] = await items("nulls")
    assert {name: nulls[name] for name in ("audioURL", "seed", "taskUUID")} == {
        "audioURL": None,
        "seed": None,
        "taskUUID": task["taskUUID"],
    }
    assert await items("missing") == [{"taskType": "audioInference"}]
    assert (await items("foreign"))[0]["taskUUID"] != task["taskUUID"]
    assert await items("duplicates") == [item, item]
    assert len(str((await items("huge_numbers"))[0]["cost"])) == 400
    both = json.loads(await turned("both"))
    assert both["data"] == [item]
    assert both["errors"][0]["taskUUID"] != task["taskUUID"]
    assert isinstance(json.loads(await turned("not_object")), list)
    assert await turned("no_data") == b"{}"
    with pytest.raises(RecursionError):
        msgspec.json.decode(await turned("deep"))


async def test_a_failed_task_costs_nothing_and_is_told_in_every_way(client: Client) -> None:
    stand_in = client.stand_in
    for code in ("inferenceError", "contentPolicyViolation"):
        stand_in.fail_next("audioInference", TaskFails(code, "it went wrong"), times=2)
        task = song(deliveryMethod="async")
        error = await client.refused(song())
        assert (error["http"], error["code"], error["message"]) == (400, code, "it went wrong")
        await client.data(task)
        await stand_in.settled()
        error = await client.refused(ask(task))
        assert (error["code"], error["taskUUID"], error["status"]) == (code, task["taskUUID"], "error")
    assert stand_in.balance_nano == 100 * 10**9


async def test_a_held_task_ends_when_told_and_then_in_the_way_that_was_told(client: Client) -> None:
    stand_in, lost, won = client.stand_in, song(deliveryMethod="async"), song(deliveryMethod="async")
    stand_in.hold()
    await client.data(lost, won)
    stand_in.tasks[lost["taskUUID"]].failure = TaskFails()

    for task in (lost, won, won):
        await stand_in.finish(task["taskUUID"])

    answer = await client.send(ask(lost), ask(won))
    assert answer.json()["errors"][0]["taskUUID"] == lost["taskUUID"]
    assert answer.json()["data"][0]["status"] == "success"
    assert stand_in.account.promised_nano == 0
    assert stand_in.balance_nano == 100 * 10**9 - 3_000_000


BAD_AUDIO = {
    "silent": "SILENCE",
    "clipped": "CLIPPING",
    "half": "LENGTH",
    "double": "LENGTH",
    "short": "LENGTH",
    "long": "LENGTH",
}


async def test_bad_audio_is_bad_in_the_way_that_was_told(client: Client) -> None:
    for kind, reason in BAD_AUDIO.items():
        client.stand_in.fail_next("audioInference", Outputs(kind))  # type: ignore[arg-type]
        [item] = await client.data(song())
        content = (await client.http.get(item["audioURL"])).content
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
        with pytest.raises(QualityFailed) as failed:
            check_quality(np.ascontiguousarray(samples.T), sample_rate=rate, expected_frames=30 * rate)
        assert failed.value.reason.name == reason


async def test_a_file_may_be_no_audio_or_not_be_there(client: Client) -> None:
    async def given(kind: Any) -> httpx.Response:
        client.stand_in.fail_next("audioInference", Outputs(kind))
        [item] = await client.data(song())
        return await client.http.get(item["audioURL"])

    whole = (await client.http.get((await client.data(song()))[0]["audioURL"])).content
    assert (await given("truncated")).content == whole[: len(whole) // 2]
    assert (await given("text")).content.startswith(b"<html>")
    assert (await given("empty")).content == b""
    assert (await given("missing")).status_code == 404
    redirected = await given("redirect")
    assert (redirected.status_code, redirected.next_request is not None) == (302, True)
    assert redirected.headers["location"].startswith("http://169.254.169.254/")
    assert soundfile.info(io.BytesIO((await given("mono")).content)).channels == 1


async def test_a_file_may_be_endless(client: Client) -> None:
    client.stand_in.fail_next("audioInference", Outputs("huge"))
    [item] = await client.data(song())
    taken = 0
    async with client.http.stream("GET", item["audioURL"]) as answer:
        async for chunk in answer.aiter_raw():
            taken += len(chunk)
            if taken > 4_000_000:
                break
    assert "content-length" not in answer.headers


async def test_items_may_be_missing_or_point_inside(client: Client) -> None:
    stand_in = client.stand_in
    for kind, expected in (("fewer", 1), ("none", 0), ("private", 2)):
        stand_in.fail_next("audioInference", Outputs(kind))  # type: ignore[arg-type]
        items = await client.data(song(numberResults=2))
        assert len(items) == expected
    assert all(item["audioURL"].startswith("http://169.254.169.254/") for item in items)


async def test_a_download_may_fail_by_itself(client: Client) -> None:
    stand_in = client.stand_in
    [item] = await client.data(song())
    stand_in.fail_next("download", Status(503, retry_after=2))
    stand_in.fail_next("download", Drop())
    stand_in.fail_next("download", Drop(after_accepting=True))

    refused = await client.http.get(item["audioURL"])
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.http.get(item["audioURL"])

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert (await client.http.get(item["audioURL"])).status_code == 200
    assert len(stand_in.downloads) == 4
    assert "authorization" not in stand_in.downloads[0].headers


async def test_sockets_have_the_same_faults(runware_stand_in: RunwareStandIn) -> None:
    task = song(deliveryMethod="async")
    async with line_to(runware_stand_in) as line:
        await line.authenticate(runware_stand_in.key)
        runware_stand_in.fail_next("audioInference", Status(429))
        runware_stand_in.fail_next("audioInference", Raw(b'{"data":7}'))
        runware_stand_in.fail_next("audioInference", Hostile("missing"))
        runware_stand_in.fail_next("audioInference", Drop(after_accepting=True))
        await line.send(task)
        assert (await line.frame())["errors"][0]["code"] == "rateLimitExceeded"
        await line.send(task)
        assert await line.frame() == {"data": 7}
        await line.send(task)
        assert await line.frame() == {"data": [{"taskType": "audioInference"}]}
        dropped = song()
        await line.send(dropped)
        await line.connection.wait_closed()
    assert list(runware_stand_in.tasks) == [task["taskUUID"], dropped["taskUUID"]]


class Receiver:
    """A webhook's address; what came, by token, and what is answered next."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[tuple[str, Json]] = []
        self.answers: list[int] = []


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()

    @post("/hooks")
    async def take(request: Request[Any, Any, Any]) -> Response[None]:
        receiver.received.append((request.query_params["token"], json.loads(await request.body())))
        return Response(None, status_code=receiver.answers.pop(0) if receiver.answers else 204)

    async with served(Litestar([take], openapi_config=None, logging_config=None)) as address:
        receiver.url = f"{address}/hooks?token=ours"
        yield receiver


async def test_webhooks_come_once_per_item_and_again_until_taken(client: Client) -> None:
    client.stand_in.hook_retry_seconds = (0, 0, 0)
    async with receiving() as receiver:
        receiver.answers = [500, 200]
        task = song(webhookURL=receiver.url, numberResults=2)
        assert await client.data(task) == [{"taskType": "audioInference", "taskUUID": task["taskUUID"]}]
        await client.stand_in.settled()

    items = await client.data(ask(task))
    assert sorted(sent.status or 0 for sent in client.stand_in.hooks) == [200, 204, 500]
    assert {token for token, _ in receiver.received} == {"ours"}
    assert all(body["data"][0] in items for _, body in receiver.received)
    assert {body["data"][0]["seed"] for _, body in receiver.received} == {7, 8}


async def test_webhooks_tell_of_failure(client: Client) -> None:
    client.stand_in.fail_next("audioInference", TaskFails())
    async with receiving() as receiver:
        await client.data(song(webhookURL=receiver.url))
        await client.stand_in.settled()

    [(_, body)] = receiver.received
    assert body["errors"][0]["code"] == "inferenceError"


async def test_webhooks_come_twice_early_forged_late_or_never(client: Client) -> None:
    stand_in = client.stand_in
    kinds = {"duplicate": ["ours"] * 2, "late": ["ours"], "forged": ["guessed", "ours"], "never": []}
    for kind, expected in kinds.items():
        async with receiving() as receiver:
            stand_in.fail_next("webhook", Hook(kind, 0.01))  # type: ignore[arg-type]
            await client.data(song(webhookURL=receiver.url))
            await stand_in.settled()
        assert [token for token, _ in receiver.received] == expected, kind
        if kind == "forged":
            assert receiver.received[0][1]["data"][0]["audioURL"].startswith("http://169.254.169.254/")


async def test_an_early_webhook_comes_while_the_task_runs(client: Client) -> None:
    stand_in = client.stand_in
    stand_in.hold()
    async with receiving() as receiver:
        stand_in.fail_next("webhook", Hook("early"))
        task = song(webhookURL=receiver.url)
        await client.data(task)
        await _until(lambda: bool(receiver.received))
        [running] = await client.data(ask(task))
        url = receiver.received[0][1]["data"][0]["audioURL"]
        assert running["status"] == "processing"
        assert (await client.http.get(url)).status_code == 404
        stand_in.release()
        await stand_in.settled()
    assert len(receiver.received) == 1


async def test_the_control_route_does_what_the_object_does(client: Client) -> None:
    stand_in = client.stand_in

    async def control(**order: Any) -> httpx.Response:
        return await client.http.post(f"{stand_in.origin}/_control", json=order)

    fault = {"type": "Status", "code": 429, "retry_after": 1}
    await control(fail_next={"where": "audioInference", "fault": fault, "times": 2})
    await control(set={"processing_seconds": 0.5, "balance_nano": 5}, do=["hold"])
    assert stand_in.pending_faults() == {"audioInference": [Status(429, retry_after=1)] * 2}
    assert (stand_in.processing_seconds, stand_in.balance_nano) == (0.5, 5)
    report = (await control(do=["clear_faults", "release"])).json()
    assert report["pending_faults"] == {}
    for wrong in ({"fail_next": {"where": "nowhere", "fault": fault}}, {"forget": "unknown"}, {"what": 1}):
        assert (await control(**wrong)).status_code == 400


async def test_it_runs_alone_and_says_where() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.providers.runware", cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    said = json.loads(await process.stdout.readline())
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {said['key']}"}) as http:
        answer = await http.post(said["url"], json=[song()])
    process.send_signal(signal.SIGTERM)

    assert answer.json()["data"][0]["status"] == "success"
    assert await process.wait() == 0
