"""What the stand-in can be told to do to its caller."""

import asyncio
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from gateway.audio import QualityFailed
from gateway.audio.quality import check_quality
from tests.providers.stripe_requests import until
from tests.providers.wavespeed import (
    START_BALANCE_NANO,
    Cut,
    Delay,
    Drip,
    Drop,
    Fault,
    Hooks,
    Huge,
    Odd,
    Outputs,
    Raw,
    Status,
    Takes,
    TaskFails,
    WaveSpeedStandIn,
    running,
)
from tests.providers.wavespeed_clients import ONE, called, client, plain, run, short

pytestmark = pytest.mark.slow  # the adapters meet the same faults in every run

ROOT = Path(__file__).resolve().parents[2]
METADATA = "http://169.254.169.254/latest/meta-data/"


async def made(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, fault: Fault | None = None) -> Any:
    """A completed prediction as it is polled."""
    if fault:
        stand_in.fail_next("submit", fault)
    created = (await http.post(f"/{ONE}", json=short(seed=1))).json()["data"]["id"]
    await stand_in.predictions[created].ended.wait()
    return (await http.get(f"/predictions/{created}/result")).json()["data"]


def sound(content: bytes) -> tuple[Any, int]:
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    return samples.T, rate


@pytest.mark.parametrize("status", [401, 402, 403, 404, 429, 500, 502, 503, 504])
async def test_each_status_befalls_as_many_requests_as_told(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, status: int
) -> None:
    stand_in.fail_next("balance", Status(status, retry_after=2), times=2)

    answers = [await http.get("/balance") for _ in range(3)]

    assert [one.status_code for one in answers] == [status, status, 200]
    assert answers[0].headers["retry-after"] == "2"
    assert answers[0].json()["code"] == status


async def test_faults_of_one_place_befall_one_request_each_in_order(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.fail_next("list", Status(503, body="<html>down</html>"))
    stand_in.fail_next("balance", Status(500))
    stand_in.fail_next("list", Status(302, location=METADATA))

    answers = [await http.post("/predictions", json={}) for _ in range(3)]

    assert [one.status_code for one in answers] == [503, 302, 200]
    assert answers[0].text == "<html>down</html>"
    assert answers[1].headers["location"] == METADATA


@pytest.mark.parametrize("after", [False, True])
async def test_a_dropped_submit_is_accepted_or_not(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, *, after: bool
) -> None:
    stand_in.fail_next("submit", Drop(after_accepting=after))
    stand_in.fail_next("submit", TaskFails(1403))

    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(f"/{ONE}", json=short())

    assert len(stand_in.predictions) == int(after)
    again = await made(stand_in, http)
    assert again["status"] == ("completed" if after else "failed")  # the task's fault waits for a task
    assert (await http.post("/predictions", json={})).json()["data"]["total"] == 1 + int(after)


@pytest.mark.parametrize("after", [False, True])
async def test_a_delay_keeps_the_caller_waiting_and_the_work_is_done_all_the_same(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, *, after: bool
) -> None:
    stand_in.fail_next("submit", Delay(600, after_accepting=after))

    with pytest.raises(httpx.ReadTimeout):
        await http.post(f"/{ONE}", json=short(), timeout=0.05)

    await until(lambda: stand_in.submits == 1)
    assert len(stand_in.predictions) == int(after)
    stand_in.clear_faults()
    await until(lambda: len(stand_in.predictions) == 1)
    assert stand_in.submits == 1


async def test_garbage_is_a_body_or_no_http_at_all(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.fail_next("submit", Raw(b"\xff\xfe{"))
    stand_in.fail_next("submit", Raw(b"\x00\x01\x02\r\n\r\n", instead_of_http=True))

    answer = await http.post(f"/{ONE}", json=short())
    assert (answer.status_code, answer.content) == (200, b"\xff\xfe{")
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(f"/{ONE}", json=short())
    assert len(stand_in.predictions) == 2


async def test_a_huge_body_never_ends_for_who_reads_on(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.fail_next("poll", Huge(3_000_000))
    stand_in.fail_next("download", Huge())
    output = (await http.get("/predictions/a/result")).content
    assert (len(output), output[:10]) == (3_000_000, b'{"code":20')

    done = await made(stand_in, http)
    async with http.stream("GET", done["outputs"][0]) as answer:  # left in the middle
        assert "content-length" not in answer.headers
        assert answer.headers["content-type"] == "audio/mpeg"
        assert await anext(answer.aiter_raw()) != b""


async def test_a_small_body_unpacks_to_a_huge_one(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.fail_next("balance", Huge(3_000_000, compressed=True))

    async with http.stream("GET", "/balance") as answer:
        packed = b"".join([block async for block in answer.aiter_raw()])

    assert answer.headers["content-encoding"] == "gzip"
    assert len(packed) < 10_000
    assert len(gzip.decompress(packed)) == 3_000_000


async def test_an_answer_is_cut_or_comes_in_drops(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.fail_next("submit", Cut())
    stand_in.fail_next("balance", Drip(0.001))

    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        await http.post(f"/{ONE}", json=short())
    async with http.stream("GET", "/balance") as answer:
        drops = [drop async for drop in answer.aiter_raw()]

    assert len(stand_in.predictions) == 1
    assert len(drops) > 5
    assert json.loads(b"".join(drops))["data"] == {"balance": 99.999}


ODDITIES = {
    "nulls": lambda answer: set(answer["data"].values()) == {None},
    "wrong_types": lambda answer: answer["data"]["id"] == 7 and isinstance(answer["data"]["outputs"], dict),
    "bare": lambda answer: "data" not in answer and "id" in answer,
    "no_data": lambda answer: answer == {"code": 200, "message": "success"},
    "no_id": lambda answer: "id" not in answer["data"] and "status" in answer["data"],
    "list": lambda answer: answer == [],
    "infinite": lambda answer: answer["data"]["balance"] == float("inf"),
    "foreign_id": lambda answer: len(answer["data"]["id"]) == 32,
    "path_in_id": lambda answer: answer["data"]["id"].startswith("../"),
    "long_id": lambda answer: len(answer["data"]["id"]) == 100_000,
    "odd_outputs": lambda answer: answer["data"]["outputs"][:2] == [None, 5],
}


@pytest.mark.parametrize("kind", ODDITIES)
async def test_odd_json_is_an_answer_to_a_submit_that_was_accepted(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, kind: Any
) -> None:
    stand_in.fail_next("submit", Odd(kind))

    answer = await http.post(f"/{ONE}", json=short())

    (accepted,) = stand_in.predictions
    assert answer.status_code == 200
    assert ODDITIES[kind](answer.json())
    assert kind not in ("foreign_id", "path_in_id") or answer.json()["data"]["id"] != accepted


async def test_deep_json_is_deeper_than_readers_go(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.fail_next("poll", Odd("deep"))

    with pytest.raises(RecursionError):
        (await http.get("/predictions/a/result")).json()


async def test_a_list_is_odd_item_by_item(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    await made(stand_in, http)
    for kind in ("nulls", "no_id", "wrong_types"):
        stand_in.fail_next("list", Odd(kind))

    nulls, no_id, wrong = [(await http.post("/predictions", json={})).json()["data"] for _ in range(3)]

    assert nulls["items"] == [None]
    assert "id" not in no_id["items"][0]
    assert (wrong["items"], wrong["total"]) == ({"0": 1}, "many")


@pytest.mark.parametrize("code", [1200, 1400, 1401, 1402, 1403, 1405, 5000, 5003, 5004])
async def test_a_task_fails_with_each_code_and_is_free(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, code: int
) -> None:
    failed = await made(stand_in, http, TaskFails(code, "the reason"))

    assert (failed["status"], failed["code"], failed["error"]) == ("failed", code, "the reason")
    assert failed["outputs"] == failed["has_nsfw_contents"] == []
    assert stand_in.balance_nano == START_BALANCE_NANO


async def test_a_task_takes_as_long_as_told(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    stand_in.fail_next("submit", Takes())
    stand_in.fail_next("submit", Outputs("empty"))
    created = (await http.post(f"/{ONE}", json=short())).json()["data"]["id"]
    quick = await run(stand_in)

    slow = await http.get(f"/predictions/{created}/result")
    stand_in.complete(created)
    done = await http.get(f"/predictions/{created}/result")

    assert slow.json()["data"]["status"] == "processing"
    assert (done.json()["data"]["status"], done.json()["data"]["outputs"]) == ("completed", [])
    assert len(quick["outputs"]) == 1


@pytest.mark.parametrize("kind", ["silent", "clipped", "half", "double", "truncated"])
async def test_a_spoiled_song_plays_and_fails_quality_control(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, kind: Any
) -> None:
    done = await made(stand_in, http, Outputs(kind))
    answer = await http.get(done["outputs"][0])
    samples, rate = sound(answer.content)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    with pytest.raises(QualityFailed):
        check_quality(samples, sample_rate=rate, expected_frames=5 * rate)


@pytest.mark.parametrize(("outputs", "seconds"), [(Outputs("short"), 4.85), (Outputs("short", 0.9), 4.5)])
async def test_a_song_is_short_by_as_much_as_told(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, outputs: Outputs, seconds: float
) -> None:
    done = await made(stand_in, http, outputs)
    samples, rate = sound((await http.get(done["outputs"][0])).content)

    assert samples.shape[1] / rate == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "form", "media_type"), [("wav", "WAV", "audio/wav"), ("flac", "FLAC", "audio/flac")]
)
async def test_a_song_comes_in_another_format(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, kind: Any, form: str, media_type: str
) -> None:
    done = await made(stand_in, http, Outputs(kind))
    answer = await http.get(done["outputs"][0])

    assert done["outputs"][0].endswith(f".{kind}")
    assert answer.headers["content-type"] == media_type
    with soundfile.SoundFile(io.BytesIO(answer.content)) as file:
        assert (file.format, file.frames) == (form, 5 * file.samplerate)


async def test_a_file_is_missing_leads_away_or_is_no_audio(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    async def fetched(kind: Any) -> httpx.Response:
        done = await made(stand_in, http, Outputs(kind))
        return await http.get(done["outputs"][0])

    assert (await fetched("missing")).status_code == 404
    led = await fetched("redirect")
    assert (led.status_code, led.headers["location"]) == (302, METADATA)
    text = await fetched("text")
    assert (text.headers["content-type"], text.content[:9]) == ("audio/mpeg", b"This file")
    assert (await fetched("page")).headers["content-type"] == "text/html"
    assert (await made(stand_in, http, Outputs("private")))["outputs"] == [METADATA]
    assert (await made(stand_in, http, Outputs("local")))["outputs"] == ["file:///etc/passwd"]
    assert (await made(stand_in, http, Outputs("empty")))["outputs"] == []


async def test_a_huge_file_begins_as_a_song(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    usual = (await http.get((await made(stand_in, http))["outputs"][0])).content
    done = await made(stand_in, http, Outputs("huge"))
    async with http.stream("GET", done["outputs"][0]) as answer:
        read = b""
        async for block in answer.aiter_raw():
            read += block
            if len(read) > 1_000_000:
                break

    assert answer.headers["content-type"] == "audio/mpeg"
    assert read.startswith(usual)


async def test_a_download_breaks_off(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    done = await made(stand_in, http)
    stand_in.fail_next("download", Cut())
    stand_in.fail_next("download", Status(503))

    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        await http.get(done["outputs"][0])
    assert (await http.get(done["outputs"][0])).status_code == 503
    assert (await http.get(done["outputs"][0])).status_code == 200


async def test_nothing_listens_while_it_is_down(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    stand_in.processing_seconds = None
    created = (await http.post(f"/{ONE}", json=short())).json()["data"]["id"]

    async with stand_in.down():
        with pytest.raises(httpx.ConnectError):
            await http.get("/balance")
        stand_in.complete(created)

    found = await http.get(f"/predictions/{created}/result")
    assert found.json()["data"]["status"] == "completed"


async def test_a_stand_in_ends_at_once_with_whoever_is_waiting() -> None:
    async with asyncio.timeout(20), running() as stand_in, plain(stand_in) as http:
        stand_in.processing_seconds = None
        stand_in.fail_next("balance", Delay(600))
        stand_in.fail_next("models", Huge(10**12))
        waiting = [
            asyncio.create_task(http.get("/balance")),
            asyncio.create_task(http.post(f"/{ONE}", json=short(enable_sync_mode=True))),
        ]
        async with http.stream("GET", "/models"):
            await until(lambda: len(stand_in.requests) == 3)
            await stand_in._close()
        endings = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(one, httpx.HTTPError | httpx.Response) for one in endings)


@pytest.mark.parametrize(
    ("where", "fault"),
    [("polls", Drop()), ("poll", TaskFails()), ("poll", Hooks("never")), ("webhook", Status(500))],
)
async def test_a_fault_in_the_wrong_place_is_refused(
    stand_in: WaveSpeedStandIn, where: Any, fault: Fault
) -> None:
    with pytest.raises(ValueError, match=str(where)):
        stand_in.fail_next(where, fault)


async def test_the_control_route_does_the_same(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    async def control(**order: Any) -> httpx.Response:
        return await http.post(f"{stand_in.url}/_control", json=order)

    await control(do="set", processing_seconds=None, balance_nano=5_000_000)
    await control(do="fail_next", where="submit", fault={"type": "Drop", "after_accepting": True})
    await control(do="fail_next", where="submit", fault={"type": "Outputs", "kind": "silent"})
    queued = await control(do="fail_next", where="poll", fault={"type": "Status", "code": 503}, times=2)
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(f"/{ONE}", json=short())
    (created,) = stand_in.predictions
    state = (await control(do="complete", id=created)).json()

    assert [one["where"] for one in queued.json()["faults"]] == ["submit", "task", "poll"]
    assert state["predictions"] == [{"id": created, "model": ONE, "status": "completed", "deleted": False}]
    assert (state["balance_nano"], state["submits"]) == (4_000_000, 1)
    assert (await http.get(f"/predictions/{created}/result")).status_code == 503
    assert (await control(do="clear_faults")).json()["faults"] == []
    for wrong in ({"do": "dance"}, {"do": "complete", "id": "abc"}, {"do": "set", "balance": 1}):
        assert (await control(**wrong)).status_code == 400
    assert all(one.path != "/_control" for one in stand_in.requests)


async def test_it_runs_alone_and_prints_its_address() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.providers.wavespeed", "--processing-seconds", "0"),
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    try:
        printed = json.loads(await process.stdout.readline())
        alone = WaveSpeedStandIn(printed["key"])
        alone.url = printed["url"]
        answer = await called(client(alone).run, ONE, short(), poll_interval=0.02)
    finally:
        process.terminate()

    assert answer["outputs"][0].startswith(printed["url"])
    assert await process.wait() == 0
