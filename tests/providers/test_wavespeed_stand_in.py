"""The unmodified `wavespeed` package and plain HTTP against the stand-in."""

import base64
import io
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from gateway.audio.quality import check_quality
from tests.providers.wavespeed import (
    START_BALANCE_NANO,
    Drop,
    Status,
    Takes,
    TaskFails,
    WaveSpeedStandIn,
)
from tests.providers.wavespeed_clients import ONE, ONE_FIVE, called, client, plain, run, short

PREDICTION = {
    "id": str,
    "model": str,
    "input": dict,
    "outputs": list,
    "urls": dict,
    "has_nsfw_contents": list,
    "status": str,
    "created_at": str,
    "error": str,
    "code": int,
    "executionTime": int,
    "timings": dict,
}


def only(stand_in: WaveSpeedStandIn) -> Any:
    (prediction,) = stand_in.predictions.values()
    return prediction


async def test_the_package_runs_a_song_and_it_is_charged_by_the_second(stand_in: WaveSpeedStandIn) -> None:
    stand_in.processing_seconds = 0.05

    answer = await run(stand_in, duration=10)

    async with httpx.AsyncClient(trust_env=False) as anybody:
        song = await anybody.get(answer["outputs"][0])
    samples, rate = soundfile.read(io.BytesIO(song.content), dtype="float32")
    report = check_quality(samples.T, sample_rate=rate, expected_frames=10 * rate)
    assert song.headers["content-type"] == "audio/mpeg"
    assert (report.channels, report.silent_share, report.clipped_share) == (2, 0, 0)
    assert stand_in.balance_nano == START_BALANCE_NANO - 10 * 300_000
    assert stand_in.submits == 1 < stand_in.polls
    headers = stand_in.requests[0].headers
    assert headers["authorization"] == f"Bearer {stand_in.key}"
    assert headers["x-client-name"] == "wavespeed-python"


async def test_songs_differ_by_seed_and_repeat_with_it(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    songs = []
    for members in ({"seed": 7}, {"seed": 8}, {"seed": 7}, {}, {}):
        answer = await run(stand_in, **members)
        songs.append((await http.get(answer["outputs"][0])).content)

    assert songs[0] == songs[2]
    assert len(set(songs)) == 4


async def test_the_models_differ_in_price(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    await run(stand_in, ONE, duration=100.5)
    asked = {"model_id": ONE_FIVE, "inputs": {"tags": "a", "duration": 30}}
    priced = await http.post("/model/pricing", json=asked)
    known = await http.get("/models")

    assert stand_in.balance_nano == START_BALANCE_NANO - 20_100_000
    assert priced.json()["data"] == {"model_id": ONE_FIVE, "unit_price": 0.009, "currency": "USD"}
    assert [one["model_id"] for one in known.json()["data"]] == [ONE, ONE_FIVE]


async def test_a_prediction_goes_from_created_over_processing_to_completed(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.processing_seconds = None

    created = await http.post(f"/{ONE_FIVE}", json=short(seed=3, enable_sync_mode=False, mood="unknown"))
    made = created.json()["data"]
    running_now = (await http.get(f"/predictions/{made['id']}/result")).json()["data"]
    stand_in.complete(made["id"])
    done = (await http.get(f"/predictions/{made['id']}")).json()["data"]

    assert (created.status_code, created.json()["code"], created.json()["message"]) == (200, 200, "success")
    assert [one["status"] for one in (made, running_now, done)] == ["created", "processing", "completed"]
    assert {name: type(value) for name, value in done.items()} == PREDICTION
    assert made["input"] == short(seed=3)
    assert made["urls"] == {"get": f"{stand_in.url}/api/v3/predictions/{made['id']}/result"}
    assert (made["outputs"], made["has_nsfw_contents"]) == ([], [])
    assert (len(done["outputs"]), done["has_nsfw_contents"], done["error"], done["code"]) == (
        1,
        [False],
        "",
        0,
    )
    assert datetime.fromisoformat(done["created_at"]).tzinfo is not None
    assert stand_in.balance_nano == START_BALANCE_NANO - 5 * 300_000


async def test_sync_mode_answers_with_the_end(stand_in: WaveSpeedStandIn) -> None:
    stand_in.processing_seconds = 0.05

    answer = await called(client(stand_in).run, ONE_FIVE, short(), enable_sync_mode=True)

    assert answer["outputs"] == [only(stand_in).output_url]
    assert stand_in.polls == 0


async def test_sync_mode_that_gives_up_names_the_prediction(stand_in: WaveSpeedStandIn) -> None:
    stand_in.sync_seconds = 0.02
    stand_in.fail_next("submit", Takes())

    answer = await called(client(stand_in).run_no_throw, ONE_FIVE, short(), enable_sync_mode=True)

    made = only(stand_in)
    assert (answer["status"], answer["task_id"]) == ("processing", made.id)
    assert f"/api/v3/predictions/{made.id}/result" in answer["error"]
    stand_in.complete(made.id)
    later = await called(client(stand_in).get_result, made.id)
    assert later["data"]["status"] == "completed"


async def test_base64_is_the_bare_file(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    polled = await run(stand_in, enable_base64_output=True)
    sync = await called(
        client(stand_in).run, ONE_FIVE, short(seed=1, enable_base64_output=True), enable_sync_mode=True
    )

    file = (await http.get(next(iter(stand_in.predictions.values())).output_url)).content
    assert base64.b64decode(polled["outputs"][0], validate=True) == file
    assert sync["outputs"] == polled["outputs"]


async def test_a_failed_prediction_says_why_and_costs_nothing(stand_in: WaveSpeedStandIn) -> None:
    stand_in.fail_next("submit", TaskFails(1200, "content refused"), times=2)

    with pytest.raises(RuntimeError, match=r"Prediction failed \(task_id: .*\): content refused"):
        await run(stand_in)
    with pytest.raises(RuntimeError, match="content refused"):
        await called(client(stand_in).run, ONE_FIVE, short(), enable_sync_mode=True)

    assert [(one.status, one.code) for one in stand_in.predictions.values()] == [("failed", 1200)] * 2
    assert stand_in.balance_nano == START_BALANCE_NANO


@pytest.mark.parametrize("word", ["cancelled", "timeout", "deleted"])
async def test_the_package_stops_on_the_other_words_for_an_end(stand_in: WaveSpeedStandIn, word: str) -> None:
    stand_in.fail_next("submit", TaskFails(5004, "too late", status=word))

    with pytest.raises(RuntimeError, match=f"Prediction {word}"):
        await run(stand_in)


async def test_the_package_polls_on_through_errors(stand_in: WaveSpeedStandIn) -> None:
    for fault in (Status(503), Status(429, retry_after=1), Drop(), Status(500), Status(502)):
        stand_in.fail_next("poll", fault)

    answer = await run(stand_in)

    assert len(answer["outputs"]) == 1
    assert (stand_in.submits, stand_in.polls) == (1, 6)


async def test_the_package_gives_up_polling_after_six_errors(stand_in: WaveSpeedStandIn) -> None:
    stand_in.fail_next("poll", Status(504), times=None)

    with pytest.raises(RuntimeError, match=r"HTTP 504: .*gateway timeout"):
        await run(stand_in)

    assert (stand_in.submits, stand_in.polls) == (1, 6)


@pytest.mark.parametrize(
    ("fault", "accepted"),
    [
        (Drop(), 0),
        (Drop(after_accepting=True), 1),
        (Status(503), 0),
        (Status(504, after_accepting=True), 1),
        (Status(429, retry_after=1), 0),
    ],
)
async def test_the_package_never_sends_a_submit_again(
    stand_in: WaveSpeedStandIn, fault: Drop | Status, accepted: int
) -> None:
    stand_in.fail_next("submit", fault)
    eager = client(stand_in, max_retries=3)

    with pytest.raises(RuntimeError):
        await called(eager.run, ONE_FIVE, short())

    assert (stand_in.submits, len(stand_in.predictions)) == (1, accepted)


async def test_the_package_uploads_a_file_that_anybody_may_read(
    stand_in: WaveSpeedStandIn, tmp_path: Path
) -> None:
    (tmp_path / "a song.mp3").write_bytes(b"ID3" + bytes(500))

    url = await called(client(stand_in).upload, str(tmp_path / "a song.mp3"))
    nameless = await called(client(stand_in).upload, io.BytesIO(b"RIFF"))

    async with httpx.AsyncClient(trust_env=False) as anybody:
        assert (await anybody.get(url)).content == b"ID3" + bytes(500)
        assert (await anybody.get(url)).headers["content-type"] == "audio/mpeg"
        assert (await anybody.get(nameless)).content == b"RIFF"
    puts = [one for one in stand_in.requests if one.kind == "put"]
    assert ["authorization" in one.headers for one in puts] == [False, False]


async def test_an_upload_needs_its_token_its_size_and_no_key(http: httpx.AsyncClient) -> None:
    asked = {"filename": "a.mp3", "size": 3, "content_type": "audio/mpeg"}
    ticket = (await http.post("/media/uploads", json=asked)).json()["data"]
    url, headers = ticket["upload"]["url"], ticket["upload"]["headers"]

    assert (await http.put(url, content=b"ID3", headers=headers)).status_code == 400
    del http.headers["authorization"]
    assert (await http.put(url, content=b"ID3", headers={"content-type": "audio/mpeg"})).status_code == 403
    assert (await http.put(url, content=b"ID3", headers=headers | {"Content-Type": "a/b"})).status_code == 403
    assert (await http.put(url, content=b"ID3+", headers=headers)).status_code == 400
    assert (await http.get(ticket["download_url"])).status_code == 404
    assert (await http.put(url, content=b"ID3", headers=headers)).status_code == 200
    assert (await http.get(ticket["download_url"])).content == b"ID3"
    assert (ticket["type"], ticket["size"]) == ("audio", 3)


@pytest.mark.parametrize("path", ["/media/upload/binary", "/upload", "/../v2/media/upload/binary"])
async def test_the_older_uploads_take_a_form(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.post(path, files={"file": ("a.wav", b"RIFF", "audio/wav")})
    data = answer.json()["data"]

    assert data["url"] == data["download_url"]
    assert (data["type"], data["size"]) == ("audio", 4)
    assert (await http.get(data["url"])).content == b"RIFF"
    assert (await http.post(path, content=b"RIFF")).status_code == 400
    assert (await http.post(path, files={"other": b"RIFF"})).status_code == 400


async def test_a_ticket_for_too_large_a_file_is_413(http: httpx.AsyncClient) -> None:
    answer = await http.post("/media/uploads", json={"filename": "a.wav", "size": 201 * 1024 * 1024})

    assert (answer.status_code, answer.json()["message"]) == (413, "file too large")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"tags": None}, "property tags is required"),
        ({"tags": ""}, "property tags is required"),
        ({"tags": 5}, "property tags must be a string"),
        ({"lyrics": ["la"]}, "property lyrics must be a string"),
        ({"duration": 4.9}, "property duration must be between 5 and 240"),
        ({"duration": 241}, "property duration must be between 5 and 240"),
        ({"duration": "60"}, "property duration must be a number"),
        ({"duration": True}, "property duration must be a number"),
        ({"seed": -2}, "property seed must be between -1 and 2147483647"),
        ({"seed": 2**31}, "property seed must be between -1 and 2147483647"),
        ({"seed": 1.5}, "property seed must be a integer"),
        ({"enable_sync_mode": 1}, "property enable_sync_mode must be a boolean"),
        ({"webhook_url": "ftp://a"}, "the webhook must be an http or https URL"),
        (
            {"webhook_url": "https://a.example", "enable_base64_output": True},
            "webhook callback does not support base64 output, remove one of the two",
        ),
    ],
)
async def test_what_the_model_does_not_take_is_400(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, members: dict[str, Any], message: str
) -> None:
    answer = await http.post(f"/{ONE_FIVE}", json=short(**members))

    assert answer.status_code == 400
    assert (answer.json()["message"], answer.json()["error"]) == (message, message)
    assert stand_in.predictions == {}


async def test_errors_name_their_task_code(http: httpx.AsyncClient) -> None:
    missing = await http.post(f"/{ONE_FIVE}", json={"lyrics": "la"})
    broken = await http.post(f"/{ONE_FIVE}", content=b"{")
    deep = await http.post(f"/{ONE_FIVE}", content=b"[" * 100_000)
    no_object = await http.post(f"/{ONE_FIVE}", json=[])

    codes = [one.json()["data"]["code"] for one in (missing, broken, deep, no_object)]
    assert codes == [1400, 1401, 1401, 1401]


@pytest.mark.parametrize("edge", [{"duration": 5}, {"duration": 240}, {"seed": -1}, {"seed": 2**31 - 1}])
async def test_the_ends_of_the_ranges_are_taken(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient, edge: dict[str, Any]
) -> None:
    stand_in.processing_seconds = None

    assert (await http.post(f"/{ONE}", json=short(**edge))).status_code == 200


async def test_without_a_duration_a_song_has_a_minute(stand_in: WaveSpeedStandIn) -> None:
    stand_in.processing_seconds = None
    async with plain(stand_in) as http:
        await http.post(f"/{ONE}", json={"tags": "a"})

    assert (only(stand_in).seconds, only(stand_in).cost_nano) == (60, 12_000_000)


@pytest.mark.parametrize("header", ["", "Bearer other", "bearer wsk_stand_in_of_the_provider", "Basic a"])
async def test_without_the_key_nothing_is_done(stand_in: WaveSpeedStandIn, header: str) -> None:
    async with plain(stand_in) as http:
        http.headers["authorization"] = header
        for answer in (
            await http.post(f"/{ONE}", json=short()),
            await http.get("/balance"),
            await http.post("/predictions", json={}),
            await http.get("/nowhere"),
        ):
            assert (answer.status_code, answer.json()["message"]) == (401, "invalid authentication")

    assert stand_in.predictions == {}


async def test_what_is_not_there_is_404(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    for model in ("wavespeed-ai/ace-step-2", "wavespeed-ai/ace-step/audio-inpaint", "nobody"):
        answer = await http.post(f"/{model}", json=short())
        assert (answer.status_code, answer.json()["message"]) == (404, f"model {model} not found")
    for path in ("/predictions/abc/result", "/predictions/abc"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["message"]) == (404, "prediction not found")
    assert (await http.get("/nowhere")).status_code == 404
    with pytest.raises(RuntimeError, match="HTTP 404"):
        await called(client(stand_in).get_result, "abc")


async def test_no_more_is_taken_than_the_balance_pays_for(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.processing_seconds = None
    stand_in.balance_nano = 3_000_000
    taken = [await http.post(f"/{ONE_FIVE}", json=short()) for _ in range(3)]

    assert [one.status_code for one in taken] == [200, 200, 402]
    assert taken[2].json()["message"] == "insufficient balance"
    first, second = stand_in.predictions
    stand_in.complete(first)
    stand_in.fail(second)
    assert (await http.get("/balance")).json()["data"] == {"balance": 0.0015}
    assert (await http.get("/account/balance")).json()["data"] == {"balance": 0.0015, "currency": "USD"}


async def test_an_account_may_have_so_many_tasks_at_once(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.processing_seconds = None
    stand_in.tasks_at_once = 1
    await http.post(f"/{ONE}", json=short())

    refused = await http.post(f"/{ONE}", json=short())
    stand_in.complete(only(stand_in).id)
    taken = await http.post(f"/{ONE}", json=short())

    assert (refused.status_code, refused.headers["retry-after"], taken.status_code) == (429, "1", 200)


async def test_accounts_do_not_see_each_other(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    other = stand_in.add_account("wsk_other", 5 * 10**9)
    await run(stand_in)
    made = only(stand_in)

    async with plain(stand_in, other.key) as theirs:
        assert (await theirs.get(f"/predictions/{made.id}/result")).status_code == 404
        assert (await theirs.post("/predictions", json={})).json()["data"]["total"] == 0
        deleted = await theirs.post("/predictions/delete", json={"ids": [made.id]})
        assert deleted.json()["data"] == {"deleted_count": 0}
        assert (await theirs.get("/balance")).json()["data"] == {"balance": 5.0}
        secrets = {(await one.get("/webhook/secret")).json()["data"]["secret"] for one in (http, theirs)}
    assert len(secrets) == 2
    assert all(one.startswith("whsec_") for one in secrets)


async def test_the_list_is_newest_first_in_pages(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    stand_in.processing_seconds = None
    made = [(await http.post(f"/{ONE}", json=short())).json()["data"]["id"] for _ in range(5)]

    first = (await http.post("/predictions", json={"page": 1, "page_size": 2})).json()["data"]
    last = (await http.post("/predictions", json={"page": 3, "page_size": 2})).json()["data"]
    beyond = (await http.post("/predictions", json={"page": 4, "page_size": 2})).json()["data"]

    assert [one["id"] for one in first["items"]] == [made[4], made[3]]
    assert [one["id"] for one in last["items"]] == [made[0]]
    assert (first["page"], first["total"], beyond["items"]) == (1, 5, [])
    assert first["items"][0]["input"] == short()
    for wrong in ({"page_size": 101}, {"page_size": 0}, {"page": 0}, {"page": "1"}):
        assert (await http.post("/predictions", json=wrong)).status_code == 400


async def test_the_list_is_filtered_and_ends_after_seven_days(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.processing_seconds = None
    old, day, new = [(await http.post(f"/{ONE}", json=short())).json()["data"]["id"] for _ in range(3)]
    other = (await http.post(f"/{ONE_FIVE}", json=short())).json()["data"]["id"]
    now = datetime.now(UTC)
    stand_in.predictions[old].created_at = now - timedelta(days=7, minutes=1)
    stand_in.predictions[day].created_at = now - timedelta(days=1)
    stand_in.complete(new)

    async def listed(**wanted: str) -> list[str]:
        answer = await http.post("/predictions", json=wanted)
        return [one["id"] for one in answer.json()["data"]["items"]]

    assert await listed() == [other, new, day]
    assert await listed(model=ONE) == [new, day]
    assert await listed(status="completed") == [new]
    assert await listed(created_before=(now - timedelta(hours=1)).isoformat()) == [day]
    assert await listed(created_after=(now - timedelta(hours=1)).isoformat()) == [other, new]
    assert (await http.post("/predictions", json={"created_after": "soon"})).status_code == 400


async def test_the_list_may_learn_late_of_a_prediction(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.list_lag_seconds = 60
    await run(stand_in)

    assert (await http.post("/predictions", json={})).json()["data"]["items"] == []
    only(stand_in).created_at -= timedelta(seconds=61)
    assert (await http.post("/predictions", json={})).json()["data"]["total"] == 1


async def test_a_deleted_prediction_stops_is_404_and_costs_nothing(
    stand_in: WaveSpeedStandIn, http: httpx.AsyncClient
) -> None:
    stand_in.processing_seconds = None
    made = (await http.post(f"/{ONE}", json=short())).json()["data"]["id"]

    deleted = await http.post("/predictions/delete", json={"ids": [made, made, "unknown"]})
    stand_in.complete(made)

    assert deleted.json()["data"] == {"deleted_count": 1}
    assert (await http.get(f"/predictions/{made}/result")).status_code == 404
    assert (await http.get(stand_in.predictions[made].output_url)).status_code == 404
    assert (await http.post("/predictions", json={})).json()["data"]["total"] == 0
    assert stand_in.balance_nano == START_BALANCE_NANO
    assert (await http.post("/predictions/delete", json={"ids": made})).status_code == 400


async def test_the_older_path_is_the_same_api(stand_in: WaveSpeedStandIn, http: httpx.AsyncClient) -> None:
    made = (await http.post(f"{stand_in.url}/api/v2/{ONE}", json=short())).json()["data"]["id"]
    found = await http.get(f"{stand_in.url}/api/v2/predictions/{made}/result")

    assert found.json()["data"]["id"] == made


async def test_a_balance_is_a_finite_number_of_usd(stand_in: WaveSpeedStandIn) -> None:
    async with plain(stand_in) as http:
        balance = (await http.get("/balance")).json()["data"]["balance"]

    assert math.isclose(balance, 100)
