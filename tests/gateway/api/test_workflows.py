"""Paid songs of models with weights, over HTTP: every workflow rendered, measured, charged and booked."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import soundfile
from numpy.typing import NDArray

from gateway.embedded import EmbeddedPostgres
from gateway.jobs.audit import verify_ledger
from tests.checkpoints.tiny import write_checkpoint
from tests.checkpoints.tiny_planner import save_planner
from tests.databases import fresh_database
from tests.gateway.api.installation import SECRET, Customer, Installation, running

ROOT = Path(__file__).parent.parent.parent.parent
WAIT_SECONDS = 240
RATE = 48_000
TURBO, BASE = "ace-step-1.5", "ace-step-1.5-base"
USD_PER_SECOND = {TURBO: 0.0003, BASE: 0.0006}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studio(
    postgres: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Installation]:
    """An installation whose worker has tiny models and a tiny planner."""
    home = tmp_path_factory.mktemp("models")
    models = {TURBO: write_checkpoint(home / "turbo", "turbo"), BASE: write_checkpoint(home / "base", "base")}
    more = {
        "ANTIPHON_ENGINE_MODELS": ",".join(f"{name}={folder}" for name, folder in models.items()),
        "ANTIPHON_ENGINE_PLANNER": str(save_planner(home / "planner")),
        "ANTIPHON_ENGINE_DEVICE": "cpu",
        # Threads that wait for each other in turn are slowest where other tests use the same cores.
        "OMP_NUM_THREADS": "1",
    }
    async with fresh_database(postgres, template_database) as dsn, running(dsn, home, **more) as installation:
        settings = {"ANTIPHON_HOME": str(home), "ANTIPHON_DATABASE_URL": dsn, "ANTIPHON_SECRET_KEY": SECRET}
        with (home / "log").open("w") as log:
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway.cli", "work"),
                env={**os.environ, **settings, **more, "PYTHONPATH": str(ROOT)},
                stderr=log,
            )
            try:
                yield installation
            finally:
                worker.send_signal(signal.SIGTERM)
                status = await asyncio.wait_for(worker.wait(), 30)
            assert status == 0, (home / "log").read_text()


@pytest_asyncio.fixture(loop_scope="session")
async def listener(studio: Installation) -> Customer:
    return await studio.customer()


@pytest_asyncio.fixture(loop_scope="session")
async def source(listener: Customer) -> str:
    """The id of an uploaded file of twelve seconds."""
    return await upload(listener, a_source())


def a_source(seconds: float = 12.0) -> NDArray[np.float32]:
    """[frames, 2]: a chord that swells, with a click every half second."""
    time = np.arange(round(seconds * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220.0, 277.2, 329.6))
    clicks = (np.arange(time.size) % (RATE // 2) < 200) * 0.3
    left = 0.1 * tones * (0.6 + 0.4 * np.sin(time)) + clicks
    return np.stack([left, 0.8 * left], axis=1).astype(np.float32)


async def upload(customer: Customer, samples: NDArray[np.float32]) -> str:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_24")
    answer = await customer.http.post(
        "/v1/files", files={"file": ("song.flac", file.getvalue())}, headers=customer.headers()
    )
    assert answer.status_code in {200, 201}, answer.text
    return str(answer.json()["id"])


async def ended(customer: Customer, **body: Any) -> dict[str, Any]:
    """The job at its end."""
    job = await customer.submitted(**body)
    async with asyncio.timeout(WAIT_SECONDS):
        while job["status"] not in {"completed", "failed"}:
            await asyncio.sleep(0.1)
            job = await customer.job(job["id"])
    return job


async def heard(customer: Customer, track: dict[str, Any]) -> NDArray[np.float32]:
    """[frames, 2]"""
    answer = await customer.http.get(track["url"])
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    assert rate == RATE
    return np.asarray(samples, np.float32)


WORKFLOWS: list[Any] = [
    ("text2music", TURBO, 10.03, {"audio_duration": 10.03, "bpm": 96, "key_scale": "Am"}),
    ("text2music", BASE, 10.0, {"audio_duration": 10, "guidance_scale": 5, "negative_prompt": "noise"}),
    ("cover", TURBO, 12.0, {"cover_strength": 0.5}),
    ("repaint", TURBO, 12.0, {"repainting_start": 4, "repainting_end": 7}),
    pytest.param(
        *("repaint", TURBO, 15.0, {"repainting_start": 11, "repainting_end": 15}), marks=pytest.mark.slow
    ),
    ("extract", BASE, 12.0, {"track_name": "vocals"}),
    pytest.param(*("lego", BASE, 12.0, {"track_name": "drums"}), marks=pytest.mark.slow),
    ("complete", BASE, 12.0, {"track_classes": ["bass", "strings"]}),
]


@pytest.mark.parametrize(("task", "model", "seconds", "fields"), WORKFLOWS)
async def test_a_workflow_is_rendered_delivered_and_charged(
    listener: Customer, source: str, task: str, model: str, seconds: float, fields: dict[str, Any]
) -> None:
    given = {"source_audio": source, "audio_duration": None} if task != "text2music" else {}
    body = {"model": model, "task": task, "num_inference_steps": 4, "seed": 3, **given, **fields}
    job = await ended(listener, **body)
    assert job["status"] == "completed", job["error"]
    assert (job["task"], job["model"], job["backend"]) == (task, model, "engine")
    (track,) = job["result"]["data"]
    assert job["result"]["deterministic"] == "best_effort"
    samples = await heard(listener, track)
    assert samples.shape == (round(seconds * RATE), 2)
    assert 0.01 < np.abs(samples).max() <= 1
    assert job["cost"]["charged"] is True
    assert job["cost"]["billed_seconds"] == seconds
    assert float(job["cost"]["usd"]) == pytest.approx(seconds * USD_PER_SECOND[model], abs=1e-9)
    if task == "repaint":
        old = a_source()
        kept = round(fields["repainting_start"] * RATE)
        assert np.allclose(samples[:kept], old[:kept], atol=1e-4)


async def test_variations_are_rendered_together_and_charged_together(listener: Customer) -> None:
    job = await ended(listener, model=TURBO, audio_duration=10, n=3, seed=4, reference_audio=None)
    assert job["status"] == "completed", job["error"]
    songs = [await heard(listener, track) for track in job["result"]["data"]]
    assert [track["seed"] for track in job["result"]["data"]] == [4, 5, 6]
    assert not np.allclose(songs[0], songs[1], atol=1e-3)
    assert job["cost"]["billed_seconds"] == 30.0
    assert job["result"]["usage"]["billable_units"] == 30.0
    alone = await ended(listener, model=TURBO, audio_duration=10, seed=4)
    assert np.abs(songs[0] - await heard(listener, alone["result"]["data"][0])).max() < 1e-3


async def test_a_planned_song_is_as_long_as_planned_and_costs_no_more(listener: Customer) -> None:
    job = await ended(listener, model=TURBO, audio_duration=10, thinking=True, seed=5)
    assert job["status"] == "completed", job["error"]
    assert job["cost"]["billed_seconds"] == 10.0


async def test_a_reference_changes_the_song_and_not_its_length(listener: Customer, source: str) -> None:
    plain, coloured = [
        await ended(listener, model=TURBO, audio_duration=10, seed=6, reference_audio=reference)
        for reference in (None, source)
    ]
    songs = [await heard(listener, job["result"]["data"][0]) for job in (plain, coloured)]
    assert songs[0].shape == songs[1].shape
    assert not np.allclose(songs[0], songs[1], atol=1e-3)


async def test_a_test_key_edits_with_the_composer_and_pays_nothing(listener: Customer, source: str) -> None:
    job = await ended(
        listener, key=listener.test_key, model=TURBO, task="cover", source_audio=source, audio_duration=None
    )
    assert job["status"] == "completed", job["error"]
    assert (job["cost"]["charged"], job["test"]) == (False, True)
    assert (await heard(listener, job["result"]["data"][0])).shape == (12 * RATE, 2)


async def test_what_the_variant_cannot_do_is_refused_before_money_is_held(
    listener: Customer, source: str
) -> None:
    before = (await listener.get("/v1/balance")).json()
    answer = await listener.submit(model=TURBO, task="extract", source_audio=source, track_name="vocals")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "task")
    assert (await listener.get("/v1/balance")).json() == before


async def test_models_tell_what_the_engine_has_loaded(listener: Customer) -> None:
    await ended(listener, model=TURBO, audio_duration=10)
    listed = {model["id"]: model for model in (await listener.get("/v1/models")).json()["data"]}
    assert listed[TURBO]["available"] is True
    assert listed["ace-step-1.5-xl"]["available"] is False
    (route,) = listed[TURBO]["routes"]
    assert (route["backend"], route["state"], route["warm"]) == ("engine", "ready", True)
    assert route["realtime_factor"] > 0
    assert route["load_seconds"] > 0
    assert route["longest_seconds"] >= 600
    metrics = (await listener.http.get("/metrics")).text
    assert f'antiphon_model_warm{{backend="engine",model="{TURBO}"}} 1.0' in metrics
    assert f'antiphon_realtime_factor{{backend="engine",model="{TURBO}"}}' in metrics


async def test_the_books_of_all_of_it_are_in_order(studio: Installation) -> None:
    async with studio.live.pool.acquire() as conn:
        violations, entries = await verify_ledger(conn)
    assert list(violations) == []
    assert entries > 0
