"""The stand-in on the wire, as the vendor's pages describe the vendor."""

import base64
import io
import uuid
from collections.abc import AsyncIterator

import numpy as np
import pytest
import soundfile
from litestar import Litestar, Request, put

from gateway.audio.quality import check_quality
from tests.providers.runware import Drop, RunwareStandIn
from tests.providers.runware.account import Json
from tests.providers.runware.audio import CONTENT_TYPES, make
from tests.providers.runware_requests import XL_BASE, Client, ask, client_of, line_to, song, utility
from tests.providers.serving import served

SONG_NANO = 3_000_000
"""30 s at 0.0001 USD."""


@pytest.fixture
async def client(runware_stand_in: RunwareStandIn) -> AsyncIterator[Client]:
    async with client_of(runware_stand_in) as client:
        yield client


def _samples(content: bytes) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T), rate


async def _stored(client: Client, content: bytes) -> str:
    media = base64.b64encode(content).decode()
    [item] = await client.data(utility("mediaStorage", operation="upload", media=media))
    return str(item["mediaUUID"])


async def test_a_sync_task_answers_its_finished_items(client: Client) -> None:
    task = song(numberResults=3, includeCost=True)

    items = await client.data(task)

    assert [item["seed"] for item in items] == [7, 8, 9]
    assert len({item["audioUUID"] for item in items}) == 3
    assert sum(item["cost"] for item in items) == pytest.approx(0.009)
    assert {item["taskUUID"] for item in items} == {task["taskUUID"]}
    assert {(item["taskType"], item["status"]) for item in items} == {("audioInference", "success")}
    assert client.stand_in.balance_nano == 100 * 10**9 - 3 * SONG_NANO


async def test_an_async_task_is_acknowledged_and_then_asked_for(client: Client) -> None:
    stand_in, task = client.stand_in, song(deliveryMethod="async")
    stand_in.hold()

    assert await client.data(task) == [{"taskType": "audioInference", "taskUUID": task["taskUUID"]}]
    [running] = await client.data(ask(task))
    assert (running["status"], running["taskType"]) == ("processing", "audioInference")
    assert 0 <= running["progress"] <= 99
    assert "audioUUID" not in running
    assert stand_in.balance_nano == 100 * 10**9

    stand_in.release()
    await stand_in.settled()
    first, second = await client.data(ask(task), ask(task))
    assert first == second
    assert first["status"] == "success"
    assert "cost" not in first
    assert stand_in.balance_nano == 100 * 10**9 - SONG_NANO


async def test_several_tasks_are_asked_for_in_one_array(client: Client) -> None:
    tasks = [song(deliveryMethod="async") for _ in range(3)]
    await client.data(*tasks)
    await client.stand_in.settled()

    answer = await client.send(*map(ask, tasks), ask(song()))

    assert answer.status_code == 200
    assert [item["taskUUID"] for item in answer.json()["data"]] == [task["taskUUID"] for task in tasks]
    assert [error["code"] for error in answer.json()["errors"]] == ["taskNotFound"]


async def test_a_task_uuid_serves_once(client: Client) -> None:
    task = song(deliveryMethod="async")
    await client.data(task)

    error = await client.refused(task)

    assert (error["http"], error["code"], error["parameter"]) == (400, "conflictTaskUUID", "taskUUID")
    assert error["taskUUID"] == task["taskUUID"]
    record = client.stand_in.tasks[task["taskUUID"]]
    assert (record.accepted, record.offered) == (1, 2)


async def test_a_forgotten_task_is_unknown_and_its_uuid_free(client: Client) -> None:
    task = song()
    await client.data(task)

    client.stand_in.forget(task["taskUUID"])

    error = await client.refused(ask(task))
    assert (error["http"], error["code"]) == (404, "taskNotFound")
    await client.data(task)
    assert client.stand_in.tasks[task["taskUUID"]].accepted == 2


async def test_accounts_do_not_see_each_other(client: Client) -> None:
    task = song(deliveryMethod="async")
    client.stand_in.add_account("another", balance_nano=10 * SONG_NANO)
    await client.data(task)

    unseen = await client.send(ask(task), key="another")
    own = await client.send(task, key="another")

    assert unseen.status_code == 404
    assert own.status_code == 200


async def test_a_key_is_needed_and_may_stand_in_the_body(client: Client) -> None:
    stand_in, task = client.stand_in, song()
    inside = {"taskType": "authentication", "apiKey": stand_in.key}

    missing = await client.http.post(stand_in.url, json=[task])
    wrong = await client.send(task, key="wrong")
    given = await client.http.post(stand_in.url + "/?sdk=js&version=1.3.2", json=[inside, task])

    assert (missing.status_code, missing.json()["errors"][0]["code"]) == (401, "missingApiKey")
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (401, "invalidApiKey")
    assert (given.status_code, len(given.json()["data"])) == (200, 1)


async def test_a_balance_that_does_not_cover_all_running_tasks_refuses(client: Client) -> None:
    stand_in = client.stand_in
    stand_in.balance_nano = 2 * SONG_NANO
    stand_in.hold()

    await client.data(song(deliveryMethod="async"), song(deliveryMethod="async"))
    error = await client.refused(song(deliveryMethod="async"))

    assert (error["http"], error["code"]) == (402, "insufficientCredits")
    [details] = await client.data(utility("accountManagement", operation="getDetails"))
    assert details["balance"] == pytest.approx(0.006)


@pytest.mark.parametrize("output_format", ["MP3", "WAV", "FLAC", "OGG"])
async def test_a_result_plays_for_as_long_as_asked(client: Client, output_format: str) -> None:
    [item] = await client.data(song(outputFormat=output_format))

    answer = await client.http.get(item["audioURL"])

    assert answer.headers["content-type"] == CONTENT_TYPES[output_format]
    samples, rate = _samples(answer.content)
    assert rate == (44_100 if output_format == "MP3" else 48_000)
    check_quality(samples, sample_rate=rate, expected_frames=30 * rate)
    assert abs(samples.shape[1] / rate - 30) < 0.05


async def test_seeds_differ_and_repeat(client: Client) -> None:
    items = await client.data(song(), song(), song(seed=8))

    first, again, other = [(await client.http.get(item["audioURL"])).content for item in items]

    assert first == again
    assert first != other


async def test_audio_settings_are_heard(client: Client) -> None:
    wanted = {"sampleRate": 24_000, "bitrate": 64, "channels": 1}
    [item] = await client.data(song(outputFormat="MP3", audioSettings=wanted))

    content = (await client.http.get(item["audioURL"])).content

    samples, rate = _samples(content)
    assert (rate, samples.shape[0]) == (24_000, 1)
    assert len(content) == pytest.approx(30 * 64_000 / 8, rel=0.02)


async def test_bytes_come_in_the_answer_when_asked(client: Client) -> None:
    [encoded] = await client.data(song(outputType="base64Data"))
    [linked] = await client.data(song(outputType="dataURI"))

    content = base64.b64decode(encoded["audioBase64Data"])
    assert len(content) == 30 * 48_000 * 4 + 44
    assert linked["audioDataURI"] == "data:audio/wav;base64," + encoded["audioBase64Data"]
    assert "audioURL" not in encoded | linked
    assert encoded["result"]


async def test_a_file_is_gone_after_its_ttl_and_not_there_before_its_end(client: Client) -> None:
    [item] = await client.data(song(ttl=60))
    task = client.stand_in.tasks[item["taskUUID"]]
    task.state = "processing"
    early = await client.http.get(item["audioURL"])
    task.state = "success"
    there = await client.http.head(item["audioURL"])
    task.since -= 60
    gone = await client.http.get(item["audioURL"])

    assert (early.status_code, there.status_code, gone.status_code) == (404, 200, 404)


SOURCE_SECONDS = 12
WINDOWS = [
    ({}, SOURCE_SECONDS),
    ({"repaintingStart": 2, "repaintingEnd": 5}, SOURCE_SECONDS),
    ({"repaintingStart": -4, "repaintingEnd": 5}, SOURCE_SECONDS + 4),
    ({"repaintingStart": 10, "repaintingEnd": 20}, 20),
    ({"repaintingStart": -3, "repaintingEnd": 20.5}, 23.5),
]


async def test_a_source_gives_the_length_and_a_window_may_extend_it(client: Client) -> None:
    media = await _stored(client, make(SOURCE_SECONDS, 1, "FLAC", 48_000))
    tasks = [
        song(duration=None, inputs={"audio": media}, settings=window or None, deliveryMethod="async")
        for window, _ in WINDOWS
    ]

    await client.data(*tasks)

    made = [client.stand_in.tasks[task["taskUUID"]].seconds for task in tasks]
    assert made == [seconds for _, seconds in WINDOWS]


async def test_media_is_stored_from_every_form_and_deleted(client: Client) -> None:
    content = make(SOURCE_SECONDS, 2, "OGG", 48_000)
    encoded = base64.b64encode(content).decode()
    first = await _stored(client, content)
    url = f"{client.stand_in.origin}/media/{first}"

    for media in (f"data:audio/ogg;base64,{encoded}", url):
        [item] = await client.data(utility("mediaStorage", operation="upload", media=media))
        assert (await client.http.get(item["mediaURL"])).content == content
    await client.data(song(duration=None, inputs={"audio": url}, deliveryMethod="async"))
    await client.data(utility("mediaStorage", operation="delete", media=first))

    error = await client.refused(song(duration=None, inputs={"audio": first}))
    assert (error["code"], error["parameter"]) == ("invalidInputsAudio", "inputs.audio")
    error = await client.refused(utility("mediaStorage", operation="upload", media="not base64!"))
    assert (error["http"], error["code"]) == (400, "invalidMedia")


async def test_task_details_repeat_the_request_and_its_answer(client: Client) -> None:
    task = song()
    items = await client.data(task)

    [details] = await client.data(utility("getTaskDetails", taskUUID=task["taskUUID"]))

    assert details["request"] == [task]
    assert details["response"] == {"data": items}


async def test_results_are_put_to_the_upload_endpoint(client: Client) -> None:
    received: list[tuple[bytes, str]] = []

    @put("/bucket/song")
    async def take(request: Request) -> None:
        received.append((await request.body(), request.headers["content-type"]))

    async with served(Litestar([take], openapi_config=None, logging_config=None)) as bucket:
        [item] = await client.data(song(uploadEndpoint=f"{bucket}/bucket/song?signature=1"))
        await client.stand_in.settled()

    content = (await client.http.get(item["audioURL"])).content
    assert received == [(content, "audio/wav")]
    assert [sent.status for sent in client.stand_in.uploads] == [200]


REFUSED: list[tuple[Json, str, str]] = [
    ({"model": "runware:ace-step@v2"}, "invalidModel", "model"),
    ({"model": None}, "missingModel", "model"),
    ({"taskUUID": "7"}, "invalidTaskUUID", "taskUUID"),
    ({"taskUUID": None}, "missingTaskUUID", "taskUUID"),
    ({"positivePrompt": None}, "missingPositivePrompt", "positivePrompt"),
    ({"positivePrompt": "a"}, "invalidPositivePrompt", "positivePrompt"),
    ({"positivePrompt": "a" * 3001}, "invalidPositivePrompt", "positivePrompt"),
    ({"duration": 29.9}, "invalidDuration", "duration"),
    ({"duration": 300.1}, "invalidDuration", "duration"),
    ({"duration": "30"}, "invalidDuration", "duration"),
    ({"duration": 30.05}, "invalidDuration", "duration"),
    ({"duration": True}, "invalidDuration", "duration"),
    ({"seed": -1}, "invalidSeed", "seed"),
    ({"seed": 2**31}, "invalidSeed", "seed"),
    ({"steps": 21}, "invalidSteps", "steps"),
    ({"steps": 301, "model": XL_BASE}, "invalidSteps", "steps"),
    ({"CFGScale": 7}, "unsupportedCFGScaleForModel", "CFGScale"),
    ({"CFGScale": 0.5, "model": XL_BASE}, "invalidCFGScale", "CFGScale"),
    ({"negativePrompt": "noise"}, "unsupportedParameter", "negativePrompt"),
    (
        {"negativePrompt": "noise", "CFGScale": 1, "model": XL_BASE},
        "unsupportedParameter",
        "negativePrompt",
    ),
    ({"advancedFeatures": {"modularScheduler": {}}}, "unsupportedParameter", "advancedFeatures"),
    ({"shift": 3}, "unsupportedParameter", "shift"),
    ({"strength": 0.5}, "unsupportedParameter", "strength"),
    ({"numberResults": 5}, "invalidNumberResults", "numberResults"),
    ({"ttl": 59}, "invalidTtl", "ttl"),
    ({"ttl": 60, "outputType": "dataURI"}, "unsupportedParameter", "ttl"),
    ({"outputType": "url"}, "invalidOutputType", "outputType"),
    ({"outputFormat": "AAC"}, "invalidOutputFormat", "outputFormat"),
    ({"deliveryMethod": "later"}, "invalidDeliveryMethod", "deliveryMethod"),
    ({"webhookURL": "ftp://a.example"}, "invalidWebhookURL", "webhookURL"),
    ({"includeCost": "yes"}, "invalidIncludeCost", "includeCost"),
    ({"settings": {}}, "invalidSettings", "settings"),
    ({"settings": {"lyrics": "too short"}}, "invalidSettingsLyrics", "settings.lyrics"),
    ({"settings": {"bpm": 29}}, "invalidSettingsBpm", "settings.bpm"),
    ({"settings": {"bpm": 90.5}}, "invalidSettingsBpm", "settings.bpm"),
    ({"settings": {"keyScale": "H major"}}, "invalidSettingsKeyScale", "settings.keyScale"),
    ({"settings": {"timeSignature": 5}}, "invalidSettingsTimeSignature", "settings.timeSignature"),
    ({"settings": {"timeSignature": "4"}}, "invalidSettingsTimeSignature", "settings.timeSignature"),
    ({"settings": {"vocalLanguage": "xx"}}, "invalidSettingsVocalLanguage", "settings.vocalLanguage"),
    ({"settings": {"guidanceType": "apg"}}, "unsupportedParameter", "settings.guidanceType"),
    ({"settings": {"repaintingStart": 1}}, "unsupportedParameter", "settings.repaintingStart"),
    ({"settings": {"swing": 1}}, "unsupportedParameter", "settings.swing"),
    ({"inputs": {"audio": "https://a.example/x.mp3"}}, "unsupportedParameter", "duration"),
    ({"audioSettings": {"channels": 2}}, "unsupportedParameter", "audioSettings"),
]


async def test_what_the_vendor_refuses_is_refused_and_named(client: Client) -> None:
    for changes, code, parameter in REFUSED:
        task = song(**changes)
        error = await client.refused(task)
        assert (error["http"], error["code"], error["parameter"]) == (400, code, parameter), changes
        assert error.get("taskUUID") == task.get("taskUUID")
        assert error["taskType"] == "audioInference"
    assert not client.stand_in.tasks


BITRATES = [
    ("MP3", 8_000, 2, (8, 64)),
    ("MP3", 22_050, 1, (8, 160)),
    ("MP3", 44_100, 2, (32, 320)),
    ("MP3", None, None, (32, 320)),
    ("OGG", 12_000, 1, (16, 48)),
    ("OGG", 16_000, 2, (24, 192)),
    ("OGG", 48_000, 1, (32, 224)),
    ("OGG", None, None, (48, 256)),
]


async def test_bitrates_have_the_published_limits(client: Client) -> None:
    client.stand_in.hold()
    for output_format, rate, channels, (least, most) in BITRATES:
        given = {"sampleRate": rate, "channels": channels}
        rest = {name: value for name, value in given.items() if value}
        for kbps, accepted in ((least, True), (most, True), (least - 1, False), (most + 1, False)):
            settings = {"bitrate": kbps, **rest}
            task = song(outputFormat=output_format, audioSettings=settings, deliveryMethod="async")
            assert ((await client.send(task)).status_code == 200) is accepted, settings
    error = await client.refused(song(outputFormat="OGG", audioSettings={"sampleRate": 44_100}))
    assert error["parameter"] == "audioSettings.sampleRate"


async def test_what_the_vendor_takes_is_taken(client: Client) -> None:
    client.stand_in.hold()
    settings = {
        "lyrics": "[Verse]\nhello there",
        "bpm": 90,
        "keyScale": "F# minor",
        "timeSignature": 6,
        "vocalLanguage": "unknown",
    }
    guided = {"guidanceType": "cfg", "cfgIntervalStart": 0.1, "cfgIntervalEnd": 0.95}
    taken = [
        song(settings=settings, steps=20, duration=240.1),
        song(model="ace-step-v1-5-xl-turbo", advancedFeatures={"modularScheduler": {"a": 1}}),
        song(model=XL_BASE, CFGScale=7.25, negativePrompt="noise", steps=300, settings=settings | guided),
        song(model="runware:ace-step@v1.5-base", seed=2**31 - 1),
        song(model="runware:ace-step@v1.5-xl-sft", duration=None, seed=None, outputFormat=None),
    ]
    await client.data(*(task | {"deliveryMethod": "async"} for task in taken))
    assert len(client.stand_in.tasks) == len(taken)


async def test_statuses_are_the_worst_unless_something_succeeded(client: Client) -> None:
    nothing = [ask(song()), song(duration=1)]

    worst = await client.send(*nothing)
    mixed = await client.send(*nothing, {"taskType": "ping", "ping": True})
    broken = await client.http.post(
        client.stand_in.url, content=b'{"a":', headers={"authorization": f"Bearer {client.stand_in.key}"}
    )
    unknown = await client.send(utility("imageInference"))

    assert (worst.status_code, len(worst.json()["errors"])) == (404, 2)
    assert (mixed.status_code, mixed.json()["data"]) == (200, [{"taskType": "ping", "pong": True}])
    assert (broken.status_code, broken.json()["errors"][0]["code"]) == (400, "invalidJSON")
    assert (unknown.status_code, unknown.json()["errors"][0]["code"]) == (400, "unsupportedTaskType")


async def test_a_socket_needs_a_key_and_answers_pings_at_any_time(runware_stand_in: RunwareStandIn) -> None:
    async with line_to(runware_stand_in) as line:
        await line.send({"taskType": "ping", "ping": True})
        assert await line.frame() == {"data": [{"taskType": "ping", "pong": True}]}
        task = song()
        await line.send(task)
        [error] = (await line.frame())["errors"]
        assert error["code"] == "missingApiKey"
        await line.send({"taskType": "authentication", "apiKey": "wrong"})
        refused = await line.frame()
        assert refused["errors"] == [refused["error"]]
        assert (refused["error"]["code"], refused["error"]["taskType"]) == ("invalidApiKey", "authentication")
        assert uuid.UUID(await line.authenticate(runware_stand_in.key))


async def test_a_socket_gets_the_end_of_a_task_it_asked_for_unasked(runware_stand_in: RunwareStandIn) -> None:
    task = song(deliveryMethod="async")
    runware_stand_in.hold()
    async with line_to(runware_stand_in) as line:
        await line.authenticate(runware_stand_in.key)
        await line.send(task)
        assert (await line.frame())["data"] == [{"taskType": "audioInference", "taskUUID": task["taskUUID"]}]
        await line.send(ask(task))
        assert (await line.frame())["data"][0]["status"] == "processing"
        runware_stand_in.release()
        assert (await line.frame())["data"][0]["status"] == "success"


async def test_a_session_resumes_with_what_could_not_be_delivered(runware_stand_in: RunwareStandIn) -> None:
    task = song()
    async with line_to(runware_stand_in) as line:
        session = await line.authenticate(runware_stand_in.key)
        runware_stand_in.fail_next("ping", Drop())
        await line.send(task)
        await line.send({"taskType": "ping", "ping": True})
        await line.connection.wait_closed()
        assert line.connection.close_code == 1006
    await runware_stand_in.settled()

    async with line_to(runware_stand_in) as line:
        assert await line.authenticate(runware_stand_in.key, session) == session
        [item] = (await line.frame())["data"]
        assert (item["taskUUID"], item["status"]) == (task["taskUUID"], "success")
        await runware_stand_in.close_sockets()
        await line.connection.wait_closed()
        assert line.connection.close_code == 1012
