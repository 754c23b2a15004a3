"""The vendor's own packages, unmodified: `runware` over sockets, `runware-sdk` over both transports."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.providers.runware import Drop, RunwareStandIn, Status, TaskFails
from tests.providers.runware.audio import make
from tests.providers.runware.packages import classic, current
from tests.providers.runware_requests import TURBO, XL_BASE

SONG = {"model": TURBO, "positivePrompt": "calm piano", "duration": 30, "seed": 7, "outputFormat": "WAV"}
TASK = {"taskType": "audioInference", **SONG}
NANO = 10**9


@asynccontextmanager
async def classic_client(stand_in: RunwareStandIn, key: str | None = None) -> AsyncIterator[Any]:
    client = classic("server").RunwareServer(api_key=key or stand_in.key, url=stand_in.ws_url)
    await client.connect()
    try:
        yield client
    finally:
        await client.disconnect()


@asynccontextmanager
async def current_client(stand_in: RunwareStandIn, transport: str, **options: Any) -> AsyncIterator[Any]:
    settings = {"api_key": stand_in.key, "http_base_url": stand_in.url, "ws_base_url": stand_in.ws_url}
    client = current("client").Runware(transport=transport, **(settings | {"retry_delay": 1} | options))
    async with client:
        yield client


def classic_song(**changes: Any) -> Any:
    return classic("types").IAudioInference(**(SONG | changes))


async def raised(work: Awaitable[Any]) -> Any:
    """The vendor's error, whose class is not importable by name here."""
    try:
        await work
    except Exception as error:  # noqa: BLE001
        return error
    pytest.fail("nothing was raised")


def test_the_packages_are_those_that_were_published() -> None:
    assert (version("runware"), version("runware-sdk")) == ("0.5.24", "1.8.0")
    assert classic("version").__version__ == "0.5.24"
    assert current("client").Runware is not classic("server").RunwareServer


async def test_classic_gets_all_results_of_a_sync_task(runware_stand_in: RunwareStandIn) -> None:
    async with classic_client(runware_stand_in) as client:
        songs = await client.audioInference(classic_song(numberResults=2, includeCost=True))

    assert [song.cost for song in songs] == [0.003, 0.003]
    assert all(song.audioURL.startswith(runware_stand_in.origin) for song in songs)
    assert len({song.audioUUID for song in songs}) == 2
    kinds = [kind for request in runware_stand_in.requests for kind in request.task_types]
    assert kinds[0] == "authentication"
    assert kinds.count("audioInference") == 1


async def test_classic_gets_bytes(runware_stand_in: RunwareStandIn) -> None:
    async with classic_client(runware_stand_in) as client:
        [song] = await client.audioInference(classic_song(outputType="base64Data", outputFormat="OGG"))

    assert b64decode(song.audioBase64Data).startswith(b"OggS")
    assert song.audioURL is None


async def test_classic_sees_which_field_was_refused(runware_stand_in: RunwareStandIn) -> None:
    async with classic_client(runware_stand_in) as client:
        error = await raised(client.audioInference(classic_song(duration=10)))

    assert (error.code, error.error_data["parameter"]) == ("invalidDuration", "duration")


async def test_classic_sees_that_a_job_failed(runware_stand_in: RunwareStandIn) -> None:
    runware_stand_in.fail_next("audioInference", TaskFails(message="out of memory"))
    async with classic_client(runware_stand_in) as client:
        error = await raised(client.audioInference(classic_song()))

    assert (error.code, error.error_data["message"]) == ("inferenceError", "out of memory")
    assert runware_stand_in.balance_nano == 100 * NANO


async def test_classic_polls_once_and_is_told_the_end(runware_stand_in: RunwareStandIn) -> None:
    runware_stand_in.processing_seconds = 0.1
    async with classic_client(runware_stand_in) as client:
        accepted = await client.audioInference(classic_song(deliveryMethod="async"))
        [song] = await client.getResponse(accepted.taskUUID)
        details = await client.getTaskDetails(accepted.taskUUID)

    assert song.status == "success"
    assert details.response[0].audioUUID == song.audioUUID
    polls = [one for one in runware_stand_in.requests if one.task_types == ["getResponse"]]
    assert len(polls) == 1


async def test_classic_uploads_a_file_and_makes_a_cover_of_it(
    runware_stand_in: RunwareStandIn, tmp_path: Path
) -> None:
    source = tmp_path / "source.ogg"
    source.write_bytes(make(12, 1, "OGG", 48_000))
    async with classic_client(runware_stand_in) as client:
        media = await client.uploadMedia(str(source))
        cover = classic_song(duration=None, inputs={"audio": media.mediaUUID}, strength=0.5)
        [song] = await client.audioInference(cover)

    assert runware_stand_in.media[media.mediaUUID].content == source.read_bytes()
    assert runware_stand_in.tasks[song.taskUUID].seconds == 12


async def test_current_gets_the_results_of_a_sync_task(runware_stand_in: RunwareStandIn) -> None:
    settings = {"lyrics": "[Verse]\nhello there", "keyScale": "C major"}
    asked = TASK | {"model": XL_BASE, "settings": settings, "includeCost": True, "deliveryMethod": "sync"}
    for transport in ("rest", "websocket"):
        async with current_client(runware_stand_in, transport) as client:
            items = await client.run(asked | {"numberResults": 2})
        assert [(item["seed"], item["status"]) for item in items] == [(7, "success"), (8, "success")]
        assert [item["cost"] for item in items] == [0.018, 0.018]


async def test_current_polls_a_task_over_both_transports(runware_stand_in: RunwareStandIn) -> None:
    async def run(transport: str) -> Any:
        async with current_client(runware_stand_in, transport) as client:
            return await client.run(TASK | {"outputType": "base64Data", "outputFormat": "OGG"})

    for [item] in await asyncio.gather(run("rest"), run("websocket")):  # whose frames end at 1 MiB
        assert b64decode(item["audioBase64Data"]).startswith(b"OggS")
    assert len(runware_stand_in.tasks) == 2
    assert {task.accepted for task in runware_stand_in.tasks.values()} == {1}


async def test_current_uses_the_utilities_over_both_transports(runware_stand_in: RunwareStandIn) -> None:
    content = make(12, 1, "OGG", 48_000)
    encode = current("utils.file").file_to_base64
    for transport in ("rest", "websocket"):
        async with current_client(runware_stand_in, transport) as client:
            [stored] = await client.media_storage({"operation": "upload", "media": encode(content)})
            [details] = await client.account_management({"operation": "getDetails"})
            [item] = await client.run(TASK | {"deliveryMethod": "sync"})
            [again] = await client.get_response({"taskUUID": item["taskUUID"]})
            [record] = await client.get_task_details({"taskUUID": item["taskUUID"]})
        assert runware_stand_in.media[stored["mediaUUID"]].content == content
        assert details["balance"] > 0
        assert again == item
        assert record["request"][0]["seed"] == 7


Fault = Callable[[RunwareStandIn], None]
ERRORS: list[tuple[dict[str, Any], Fault | None, tuple[str, str | None]]] = [
    ({"duration": 10}, None, ("validation", "duration")),
    ({"model": "runware:none@1"}, None, ("validation", "model")),
    ({}, lambda one: setattr(one, "balance_nano", 0), ("quota", None)),
    ({}, lambda one: one.fail_next("audioInference", TaskFails()), ("provider", None)),
    (
        {},
        lambda one: one.fail_next("audioInference", Status(400, "contentPolicyViolation")),
        ("safety", None),
    ),
]


@pytest.mark.parametrize("transport", ["rest", "websocket"])
async def test_current_tells_each_error_by_its_class(
    runware_stand_in: RunwareStandIn, transport: str
) -> None:
    async with current_client(runware_stand_in, transport) as client:
        for changes, fault, expected in ERRORS:
            if fault:
                fault(runware_stand_in)
            error = await raised(client.run(TASK | changes | {"deliveryMethod": "sync"}))
            assert (error.code, error.parameter) == expected
            runware_stand_in.balance_nano = NANO
        unknown = {"taskUUID": "00000000-0000-4000-8000-000000000000"}
        error = await raised(client.get_response(unknown))
        assert error.code == "notFound"


@pytest.mark.parametrize("transport", ["rest", "websocket"])
async def test_current_refuses_a_wrong_key(runware_stand_in: RunwareStandIn, transport: str) -> None:
    async def run() -> None:
        async with current_client(runware_stand_in, transport, api_key="wrong") as client:
            await client.account_management({"operation": "getDetails"})

    error = await raised(run())

    assert error.code == "auth"


async def test_current_repeats_what_was_not_accepted_under_the_same_uuid(
    runware_stand_in: RunwareStandIn,
) -> None:
    runware_stand_in.fail_next("audioInference", Status(503))
    async with current_client(runware_stand_in, "rest") as client:
        [item] = await client.run(TASK | {"deliveryMethod": "sync"})

    sent = [one.tasks[0]["taskUUID"] for one in runware_stand_in.requests]
    assert sent == [item["taskUUID"]] * 2
    assert runware_stand_in.tasks[item["taskUUID"]].accepted == 1


async def test_current_does_not_repeat_a_job_that_failed(runware_stand_in: RunwareStandIn) -> None:
    runware_stand_in.fail_next("audioInference", TaskFails())
    async with current_client(runware_stand_in, "rest") as client:
        await raised(client.run(TASK | {"deliveryMethod": "sync"}))

    assert len(runware_stand_in.requests) == 1


async def test_classic_finds_its_task_again_after_a_cut(runware_stand_in: RunwareStandIn) -> None:
    runware_stand_in.fail_next("audioInference", Drop(after_accepting=True))
    async with classic_client(runware_stand_in) as client:
        [song] = await client.audioInference(classic_song())

    record = runware_stand_in.tasks[song.taskUUID]
    assert (record.accepted, record.offered) == (1, 2)


@pytest.mark.slow
async def test_current_finds_its_task_again_after_a_restart(runware_stand_in: RunwareStandIn) -> None:
    runware_stand_in.hold()
    async with current_client(runware_stand_in, "websocket") as client:
        running = asyncio.create_task(client.run(TASK))
        async with asyncio.timeout(10):
            while not runware_stand_in.tasks:  # noqa: ASYNC110 - what it waits for has no event
                await asyncio.sleep(0.01)
        await runware_stand_in.close_sockets(1012)
        runware_stand_in.release()
        [item] = await running

    assert runware_stand_in.tasks[item["taskUUID"]].accepted == 1


@pytest.mark.slow
async def test_classic_gives_up_on_a_wrong_key(runware_stand_in: RunwareStandIn) -> None:
    async def run() -> None:
        async with classic_client(runware_stand_in, key="wrong") as client:
            await client.audioInference(classic_song())

    error = await raised(run())

    assert isinstance(error, ConnectionError)
    assert not runware_stand_in.tasks
