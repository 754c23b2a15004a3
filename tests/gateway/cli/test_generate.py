"""`antiphon generate`, as a user and as a script sees it."""

import asyncio
import signal
from pathlib import Path

import pytest

from gateway.jobs.job import JobErrorCode
from tests.gateway.api.installation import Customer, Installation
from tests.gateway.api.test_brought_files import SECONDS, write_sound
from tests.gateway.cli.conftest import Answer, Operator

DELAY_SECONDS = 1.5


@pytest.fixture
def base_url(installation: Installation) -> str:
    return str(installation.http.base_url)


async def jobs_of(customer: Customer, count: int) -> list[dict[str, object]]:
    """The customer's jobs, when there are that many."""
    async with asyncio.timeout(30):
        while True:
            jobs: list[dict[str, object]] = (await customer.get("/v1/jobs")).json()["data"]
            if len(jobs) >= count:
                return jobs
            await asyncio.sleep(0.02)


def saved(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.stat().st_size > 0]


async def finished(process: asyncio.subprocess.Process) -> Answer:
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return Answer(process.returncode or 0, out.decode(), err.decode())


async def test_songs_are_saved_and_told_as_json(
    installation: Installation, operator: Operator, base_url: str, tmp_path: Path
) -> None:
    customer = await installation.customer()
    process = await operator.start(
        *("generate", "-q", "--json", "-c", "slow bossa nova", "-d", "5", "-b", "2", "--seed", "4294967295"),
        *("-o", str(tmp_path / "songs"), "--poll-interval", "0.1"),
        ANTIPHON_BASE_URL=base_url,
        ANTIPHON_API_KEY=customer.live_key,
    )
    (job,) = await jobs_of(customer, 1)
    await installation.finish(str(job["id"]))
    made = (await finished(process)).json()
    assert (made["id"], made["cost_usd"]) == (job["id"], "0.002500000")
    assert [(song["seed"], song["duration_seconds"]) for song in made["songs"]] == [
        (4294967295, 5.0),
        (0, 5.0),
    ]
    assert {song["path"] for song in made["songs"]} == {str(path) for path in saved(tmp_path / "songs")}
    assert len(saved(tmp_path / "songs")) == 2


async def test_what_the_options_say_becomes_the_request(
    installation: Installation, operator: Operator, base_url: str
) -> None:
    customer = await installation.customer()
    url = "https://music.example/song.flac"
    for arguments, stored in (
        (
            ["--task", "repaint", "--source", url, "--start", "-2.5", "--end", "30", "--reference", url],
            {"repainting_start": -2.5, "repainting_end": 30.0, "open_length": True, "frames": 600 * 48_000},
        ),
        (["--task", "cover", "--source", url, "--cover-strength", "0.25"], {"cover_strength": 0.25}),
        (["--task", "lego", "--source", url, "--track", "drums"], {"track_name": "drums"}),
        (
            ["--task", "complete", "--source", url, "--track", "drums", "--track", "bass", "-b", "3"],
            {"track_classes": ("drums", "bass"), "n": 3},
        ),
    ):
        answer = await operator.invoke(
            *("generate", "-q", "-c", "x", "--timeout", "1", "--poll-interval", "0.5", *arguments),
            ANTIPHON_BASE_URL=base_url,
            ANTIPHON_API_KEY=customer.live_key,
        )
        assert answer.status == 8, answer.err
        job = (await customer.get("/v1/jobs", limit=1)).json()["data"][0]
        request = await customer.stored(job)
        assert (request.source_audio and request.source_audio.url, request.task) == (url, arguments[1])
        assert {name: getattr(request, name) for name in stored} == stored


async def test_a_source_of_this_machine_is_uploaded(
    installation: Installation, operator: Operator, base_url: str, tmp_path: Path
) -> None:
    customer = await installation.customer()
    answer = await operator.invoke(
        *("generate", "-q", "-c", "x", "--timeout", "1", "--poll-interval", "0.5", "--task", "cover"),
        *("--source", str(write_sound(tmp_path))),
        ANTIPHON_BASE_URL=base_url,
        ANTIPHON_API_KEY=customer.live_key,
    )
    assert answer.status == 8, answer.err
    request = await customer.stored((await customer.get("/v1/jobs", limit=1)).json()["data"][0])
    assert request.source_audio is not None
    assert (request.source_audio.frames, request.frames) == (SECONDS * 48_000, SECONDS * 48_000)


@pytest.mark.parametrize(
    ("code", "status"),
    [(JobErrorCode.UPSTREAM_ERROR, 6), (JobErrorCode.TIMEOUT, 8), (JobErrorCode.JOB_CANCELLED, 7)],
)
async def test_the_exit_status_tells_why_there_is_no_song(
    installation: Installation, operator: Operator, base_url: str, code: JobErrorCode, status: int
) -> None:
    customer = await installation.customer()
    process = await operator.start(
        *("generate", "-q", "-c", "x", "-d", "5", "--poll-interval", "0.1"),
        ANTIPHON_BASE_URL=base_url,
        ANTIPHON_API_KEY=customer.live_key,
    )
    (job,) = await jobs_of(customer, 1)
    await installation.finish(str(job["id"]), error=code)
    answer = await finished(process)
    assert answer.status == status
    assert "nothing was charged" in answer.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["-c", "x", "-d", "1000"], 2, "between 5 and 600"),
        (["-c", "x", "-d", "nan"], 2, "--duration is a number"),
        (["-c", "x", "--task", "cover"], 2, "source_audio"),
        (["-c", "x", "--task", "cover", "--source", "nowhere.flac"], 2, "no file 'nowhere.flac'"),
        (["-c", "x", "--task", "lego", "--track", "bass", "--track", "drums"], 2, "one track"),
        (["-c", "x", "--model", "ace-step", "--task", "cover"], 2, "no task cover"),
        (["-c", "x", "--model", "sandbx"], 2, "sandbox"),
        (["-c", "x", "--provider", "runware"], 2, "provider leaves no route of sandbox"),
        (["-c", "x", "--key", "aph_live_bad"], 3, "invalid_api_key"),
        (["-c", "x", "--key", "é"], 3, "no API key"),
        (["-c", "x", "-d", "600", "-b", "8"], 4, "insufficient_credits"),
        (["-c", "x", "-o", "song.mp3", "--format", "flac"], 2, "ends in .mp3"),
        (["-c", "x", "--api-url", "127.0.0.1:1"], 2, "http://host:port"),
        (["-c", "x", "--api-url", "http://127.0.0.1:1"], 1, "make run"),
        (["-d", "5"], 2, "--caption"),
    ],
)
async def test_what_cannot_work_says_so_and_makes_no_job(
    installation: Installation,
    operator: Operator,
    base_url: str,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    customer = await installation.customer(usd="0.16")
    answer = await operator.invoke(
        "generate", "-q", *arguments, ANTIPHON_BASE_URL=base_url, ANTIPHON_API_KEY=customer.live_key
    )
    assert (answer.status, words in answer.err) == (status, True), answer.err
    assert customer.live_key not in answer.err
    assert all(job["status"] == "queued" for job in (await customer.get("/v1/jobs")).json()["data"])


async def test_the_guides_are_printed_without_a_key(operator: Operator) -> None:
    assert "[Chorus]" in (await operator.invoke("generate", "--show-lyrics-help")).out
    assert "genre" in (await operator.invoke("generate", "--show-caption-help")).out


async def test_an_interrupt_while_the_submit_is_under_way_leaves_nothing_to_pay(
    installation: Installation, operator: Operator
) -> None:
    customer = await installation.customer()
    host, port = installation.http.base_url.host, installation.http.base_url.port
    submitted = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes requests on at once, and answers late."""
        upstream, back = await asyncio.open_connection(host, port)

        async def forward() -> None:
            while data := await reader.read(65_536):
                back.write(data)
                submitted.set()
            back.close()

        forwarding = asyncio.create_task(forward())
        while data := await upstream.read(65_536):
            await asyncio.sleep(DELAY_SECONDS)
            writer.write(data)
        await forwarding
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    process = await operator.start(
        *("generate", "-q", "-c", "a drone", "-d", "600"),
        ANTIPHON_BASE_URL=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        ANTIPHON_API_KEY=customer.live_key,
    )
    await submitted.wait()
    await jobs_of(customer, 1)
    process.send_signal(signal.SIGINT)
    answer = await finished(process)
    server.close()
    assert (answer.status, "canceled" in answer.err) == (7, True), answer.err
    (job,) = await jobs_of(customer, 1)
    assert (job["status"], job["cost"]["charged"]) == ("failed", False)  # type: ignore[index]
    assert (await customer.get("/v1/balance")).json()["held_usd"] == "0.000000000"
