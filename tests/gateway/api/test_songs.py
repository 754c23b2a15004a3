"""The whole way with a real worker: a song ordered over HTTP, rendered, checked, stored, charged, fetched."""

import asyncio
import base64
import hashlib
import io
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import soundfile

from gateway.embedded import EmbeddedPostgres
from tests.databases import fresh_database
from tests.gateway.api.event_stream import following
from tests.gateway.api.installation import SECRET, Customer, Installation, running

ROOT = Path(__file__).parent.parent.parent.parent
WAIT_SECONDS = 60
CONTENT_TYPES = {"flac": "audio/flac", "wav": "audio/wav", "mp3": "audio/mpeg", "ogg": "audio/ogg"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio(
    postgres: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    """An installation of this module's own, with a worker process."""
    home = tmp_path_factory.mktemp("studio")
    async with fresh_database(postgres, template_database) as dsn, running(dsn, home) as installation:
        settings = {"ANTIPHON_HOME": str(home), "ANTIPHON_DATABASE_URL": dsn, "ANTIPHON_SECRET_KEY": SECRET}
        with (home / "log").open("w") as log:
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.cli", "work"),
                env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
                stderr=log,
            )
            yield installation
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(worker.wait(), 30) == 0, (home / "log").read_text()


@pytest_asyncio.fixture(loop_scope="session")
async def listener(studio: Installation) -> Customer:
    return await studio.customer()


async def ended(customer: Customer, job: dict[str, Any]) -> dict[str, Any]:
    """The job when it is final; progress never goes back on the way."""
    progress = 0.0
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            job = await customer.job(job["id"])
            assert job["progress"] >= progress or job["status"] == "queued"
            progress = job["progress"]
            if job["status"] in {"completed", "failed"}:
                return job
            await asyncio.sleep(0.1)


async def song(customer: Customer, **body: Any) -> dict[str, Any]:
    job = await ended(customer, await customer.submitted(**body))
    assert job["status"] == "completed", job["error"]
    return job


@pytest.mark.parametrize("audio_format", CONTENT_TYPES)
async def test_a_song_in_every_format_is_what_was_ordered(
    listener: Customer, studio: Installation, audio_format: str
) -> None:
    job = await song(listener, format=audio_format, seed=11)
    (track,) = job["result"]["data"]
    answer = await studio.http.get(track["url"])
    assert answer.status_code == 200
    assert (track["format"], track["content_type"]) == (audio_format, CONTENT_TYPES[audio_format])
    assert answer.headers["content-type"] == track["content_type"]
    assert hashlib.sha256(answer.content).hexdigest() == track["sha256"]
    heard, rate = soundfile.read(io.BytesIO(answer.content))
    assert (rate, heard.shape[1]) == (track["sample_rate"], track["channels"]) == (48_000, 2)
    frames_off = abs(heard.shape[0] - 5 * 48_000)
    assert frames_off == 0 if audio_format in {"flac", "wav"} else frames_off < 4_800
    assert abs(heard).max() > 0.05
    assert (track["seed"], track["duration_seconds"]) == (11, 5.0)
    assert job["result"]["usage"] == {"billable_units": 5.0, "billing_unit": "second"}
    assert job["cost"] == {
        "usd": "0.001250000",
        "usd_per_second": "0.000250000",
        "billed_seconds": 5.0,
        "held_usd": "0.001250000",
        "charged": True,
    }
    balance = (await listener.get("/v1/balance")).json()
    assert (balance["balance_usd"], balance["held_usd"]) == ("4.998750000", "0.000000000")
    assert balance["available_usd"] == "4.998750000"


async def test_the_same_seed_is_the_same_song(listener: Customer) -> None:
    jobs = [await song(listener, seed=seed, prompt="a waltz") for seed in (3, 3, 4)]
    hashes = [job["result"]["data"][0]["sha256"] for job in jobs]
    assert hashes[0] == hashes[1] != hashes[2]
    assert jobs[0]["result"]["deterministic"] is True


async def test_mp3_settings_are_kept(listener: Customer, studio: Installation) -> None:
    settings = {"bitrate": 64, "channels": 1, "sample_rate": 44_100}
    track = (await song(listener, format="mp3", audio_settings=settings))["result"]["data"][0]
    assert (track["channels"], track["sample_rate"]) == (1, 44_100)
    content = (await studio.http.get(track["url"])).content
    assert soundfile.info(io.BytesIO(content)).samplerate == 44_100
    assert abs(len(content) - 64_000 / 8 * 5) < 3_000


async def test_base64_is_the_file(listener: Customer, studio: Installation) -> None:
    only = (await song(listener, format="mp3", response_format="b64_json"))["result"]["data"][0]
    assert "url" not in only
    assert hashlib.sha256(base64.b64decode(only["b64_json"], validate=True)).hexdigest() == only["sha256"]
    both = (await song(listener, format="mp3", return_base64=True))["result"]["data"][0]
    assert base64.b64decode(both["b64_json"]) == (await studio.http.get(both["url"])).content


async def test_a_download_as_browsers_and_players_do_it(listener: Customer, studio: Installation) -> None:
    job = await song(listener, format="flac")
    url = job["result"]["data"][0]["url"]
    whole = await studio.http.get(url)
    head = await studio.http.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    name = re.fullmatch(
        r'attachment; filename="([^"]+)"; filename\*=UTF-8\'\'(\S+)', head.headers["content-disposition"]
    )
    assert name is not None
    assert name[1] == name[2] == f"sandbox-{job['id'][-8:]}-1.flac"
    part = await studio.http.get(url, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    tail = await studio.http.get(url, headers={"range": "bytes=-10"})
    assert (tail.status_code, tail.content) == (206, whole.content[-10:])
    known = await studio.http.get(url, headers={"if-none-match": head.headers["etag"]})
    assert known.status_code == 304


async def test_a_download_that_cannot_be_is_an_error_like_any_other(
    listener: Customer, studio: Installation
) -> None:
    job = await song(listener)
    url = httpx.URL(job["result"]["data"][0]["url"])

    async def refusal(url: httpx.URL | str, **headers: str) -> tuple[int, str]:
        answer = await studio.http.get(url, headers=headers)
        error = answer.json()["error"]
        assert error["request_id"] == answer.headers["x-request-id"]
        assert (error["charged"], error["doc_url"]) == (False, f"/docs/errors#{error['code']}")
        return answer.status_code, error["code"]

    assert await refusal(url, range="bytes=99999999-") == (416, "range_not_satisfiable")
    past = await studio.http.get(url, headers={"range": "bytes=99999999-"})
    assert past.headers["content-range"].startswith("bytes */")
    for changed in (
        str(url) + "0",
        str(url).replace("expires=", "expires=1"),
        str(url).replace("name=", "name=x"),
        str(url).replace("/1-0", "/2-0"),
        str(url).partition("?")[0],
    ):
        assert await refusal(changed) == (403, "link_refused")
    expired = studio.live.signer.sign(url.path, expires_at=await long_ago(studio))
    assert await refusal(f"{url.path}?{expired}") == (403, "link_refused")
    await studio.live.store.delete(url.path.removeprefix("/audio/"))
    assert await refusal(url) == (404, "file_not_found")
    gone = (await studio.http.head(url)).status_code
    assert gone == 404


async def long_ago(studio: Installation) -> Any:
    return await studio.live.pool.fetchval("SELECT now() - interval '1 second'")


@pytest.mark.parametrize(
    ("trigger", "code"),
    [("fail:provider", "upstream_error"), ("fail:timeout", "timeout"), ("fail:quality", "quality_failed")],
)
async def test_a_rehearsed_failure_ends_the_job_that_way(listener: Customer, trigger: str, code: str) -> None:
    job = await ended(
        listener, await listener.submitted(key=listener.test_key, prompt=f"a song {trigger} slow:500")
    )
    assert (job["status"], job["error"]["code"], job["result"]) == ("failed", code, None)
    assert (job["cost"]["charged"], job["test"]) == (False, True)
    attempts = (await listener.job(job["id"], include="attempts"))["attempts"]
    assert attempts[-1]["state"] == "failed"
    assert attempts[-1]["error_code"] == code


async def test_a_live_key_rehearses_nothing(listener: Customer) -> None:
    assert (await song(listener, prompt="fail:provider slow:500"))["cost"]["charged"] is True


async def test_a_test_key_renders_any_model_for_free(listener: Customer, studio: Installation) -> None:
    job = await song(
        listener, key=listener.test_key, model="ace-step-1.5-xl", audio_duration=10, prompt="slow:2"
    )
    assert (job["model"], job["test"], job["cost"]["charged"]) == ("ace-step-1.5-xl", True, False)
    assert job["cost"]["usd"] == "0.000000000"
    assert (await listener.get("/v1/balance")).json()["balance_usd"] == "5.000000000"
    content = (await studio.http.get(job["result"]["data"][0]["url"])).content
    assert soundfile.info(io.BytesIO(content)).frames == 10 * 48_000
    took = await studio.live.pool.fetchval(
        "SELECT extract(epoch FROM completed_at - created_at)::float8 FROM job WHERE id = $1", job["id"]
    )
    assert took >= 2


async def test_a_running_job_can_be_cancelled_and_is_free(listener: Customer) -> None:
    job = await listener.submitted(key=listener.test_key, prompt="slow:300")
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            if (await listener.job(job["id"]))["status"] == "processing":
                break
            await asyncio.sleep(0.05)
    answer = await listener.http.post(job["poll_url"] + "/cancel", headers=listener.headers())
    assert answer.json()["cancel_requested_at"] is not None
    job = await ended(listener, job)
    assert (job["status"], job["error"]["code"]) == ("failed", "job_cancelled")
    assert (job["error"]["charged"], job["cost"]["charged"]) == (False, False)


async def test_a_stream_shows_the_song_being_made(listener: Customer) -> None:
    await song(listener)  # only from the last songs can be told how fast the worker is
    job = await listener.submitted(key=listener.test_key, prompt="slow:5")
    async with asyncio.timeout(WAIT_SECONDS), following(listener, job) as stream:
        told = await stream.rest()
    *way, last = told
    assert (last.name, last.data["status"], last.data["id"]) == ("completed", "completed", job["id"])
    progress = [event.data["progress"] for event in way if event.data["status"] == "processing"]
    assert progress == sorted(progress)
    assert len({part for part in progress if 0 < part < 1}) >= 2
    assert way[-1].data["eta_seconds"] >= 0


async def test_ready_means_that_somebody_renders(studio: Installation) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            if (answer := await studio.http.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0.1)
    assert set(answer.json()["checks"].values()) == {"ok"}
