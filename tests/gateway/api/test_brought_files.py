"""Requests that name uploaded files: whose they may be, and what becomes of a request whose file has gone."""

import io
import wave
from pathlib import Path
from typing import Any

from tests.gateway.api.installation import Customer, Installation
from tests.gateway.api.test_quotes import quoted

SECONDS = 6


def sound() -> bytes:
    """A saw of a few bits: quickly made, decoded and measured."""
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(b"\x00\x10\x00\xf0" * (4_000 * SECONDS))
    return data.getvalue()


async def uploaded(customer: Customer, **options: Any) -> str:
    answer = await customer.http.post(
        "/v1/files", files={"file": ("saw.wav", sound())}, headers=customer.headers(**options)
    )
    assert answer.is_success, answer.text
    return str(answer.json()["id"])


async def test_an_uploaded_source_is_held_and_charged_by_its_length(
    customer: Customer, installation: Installation
) -> None:
    body: dict[str, Any] = {
        "task": "repaint",
        "source_audio": await uploaded(customer),
        "audio_duration": None,
    }
    told = await quoted(customer, **body, repainting_end=8)
    job = await customer.submitted(**body, repainting_end=8, reference_audio=body["source_audio"])
    request = await customer.stored(job)
    assert request.source_audio is not None
    assert request.source_audio.frames == SECONDS * 48_000
    assert request.reference_audio == request.source_audio
    assert (request.frames, request.open_length) == (8 * 48_000, False)
    await installation.finish(job["id"])
    done = await customer.job(job["id"])
    assert told["max_cost_usd"] == job["cost"]["held_usd"] == done["cost"]["usd"] == "0.002000000"


async def test_what_a_file_makes_too_short_or_too_long_is_refused_before_money(customer: Customer) -> None:
    source = await uploaded(customer)
    for model, fields, param in (
        ("ace-step-1.5-base", {"task": "cover"}, "source_audio"),
        ("sandbox", {"task": "repaint", "repainting_start": -595, "repainting_end": 5}, "repainting_start"),
        ("sandbox", {"task": "repaint", "repainting_start": 7, "repainting_end": 9}, "repainting_start"),
    ):
        answer = await customer.submit(model=model, source_audio=source, audio_duration=None, **fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert await customer.count_jobs() == 0


async def test_a_file_of_somebody_else_is_a_file_that_is_not_there(
    customer: Customer, installation: Installation
) -> None:
    other = await installation.customer()
    for source in (await uploaded(other), "0" * 32, "nonsense", "../../etc/passwd"):
        answer = await customer.submit(task="cover", source_audio=source, audio_duration=None)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (404, "file_not_found", "source_audio")
    assert await customer.count_jobs() == 0


async def test_a_key_that_may_only_generate_may_use_its_files(customer: Customer) -> None:
    key = await customer.key(scopes=["generate"])
    source = await uploaded(customer, key=key)
    await customer.submitted(key=key, task="cover", source_audio=source, audio_duration=None)


async def test_a_repeat_is_told_of_its_job_after_the_file_has_gone(customer: Customer) -> None:
    source = await uploaded(customer)
    body: dict[str, Any] = {"task": "cover", "source_audio": source, "audio_duration": None}
    first = await customer.submitted(idempotency_key="once", **body)
    retried = customer.headers(**{"x-stainless-retry-count": "1"})
    again = {"model": "sandbox", "prompt": "a calm piano"} | body
    second = await customer.http.post("/v1/audio/generations", json=again, headers=customer.headers())
    await customer.http.delete(f"/v1/files/{source}", headers=customer.headers())
    replayed = await customer.submit(idempotency_key="once", **body)
    assert (replayed.status_code, replayed.json()["id"]) == (202, first["id"])
    assert replayed.headers["idempotent-replayed"] == "true"
    replayed = await customer.http.post("/v1/audio/generations", json=again, headers=retried)
    assert (replayed.status_code, replayed.json()["id"]) == (202, second.json()["id"])
    for options in ({}, {"idempotency_key": "twice"}, {"idempotency_key": "once", "prompt": "another"}):
        assert (await customer.submit(**body | options)).status_code == 404
    assert await customer.count_jobs() == 2


def write_sound(folder: Path) -> Path:
    """The same as a file."""
    path = folder / "saw.wav"
    path.write_bytes(sound())
    return path
