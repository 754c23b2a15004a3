"""What is written down about requests: enough to find them, never what is in them."""

import asyncio
import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gateway.observability import configure_logging
from tests.gateway.api.installation import Customer, Installation

PROMPT = "an unmistakable bassoon"
LYRICS = "the words that nobody may read"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.BytesIO]:
    """Our logs as the real processes write them."""
    stream = io.BytesIO()
    before = structlog.get_config()
    text = io.TextIOWrapper(stream)
    monkeypatch.setattr(sys, "stderr", text)
    configure_logging("test")
    structlog.configure(cache_logger_on_first_use=False)  # other tests log too
    yield stream
    assert not text.closed
    structlog.reset_defaults()
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


async def test_no_line_holds_a_key_a_prompt_or_a_signature(
    customer: Customer, installation: Installation, lines: io.BytesIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [
        await customer.submit(prompt=PROMPT, lyrics=LYRICS, metadata={"a": PROMPT}),
        await customer.submit(prompt=PROMPT, bpm=1),
        await customer.submit(prompt=PROMPT, nonsense=LYRICS),
        await customer.submit(prompt=PROMPT, idempotency_key="same"),
        await customer.submit(prompt=PROMPT, idempotency_key="same"),
        await customer.get("/v1/jobs", key=customer.live_key[:-1]),
        await customer.http.get("/nowhere", params={"key": customer.live_key}),
        await customer.http.get("/v1/jobs", headers={"x-api-key": customer.test_key}),
    ]
    job = answers[0].json()
    await installation.finish(job["id"])
    url = (await customer.job(job["id"]))["result"]["data"][0]["url"]
    answers += [await customer.http.get(url), await customer.http.get(url + "0")]

    async def fail(*_: object, **__: object) -> None:
        await asyncio.sleep(0)
        raise LookupError

    with monkeypatch.context() as patched:
        patched.setattr("gateway.jobs.service.Jobs.submit", fail)
        answers.append(await customer.submit(prompt=PROMPT, lyrics=LYRICS))
    assert answers[-1].status_code == 500

    text = lines.getvalue().decode()
    signature = url.partition("signature=")[2]
    for secret in (customer.live_key, customer.test_key, customer.live_key[9:40], PROMPT, LYRICS, signature):
        assert secret not in text
    found: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    requests = [line for line in found if line["event"] == "http.request"]
    logged = [line["request_id"] for line in requests]
    assert [answer.headers["x-request-id"] for answer in answers if answer is not None] == [
        request_id for request_id in logged if request_id in {a.headers["x-request-id"] for a in answers}
    ]
    for line in requests:
        assert set(line) >= {"timestamp", "level", "method", "route", "status", "milliseconds"}
    (defect,) = [line for line in found if line["level"] == "error"]
    assert defect["request_id"] == answers[-1].headers["x-request-id"]
    assert defect["exception"][0]["exc_type"] == "LookupError"


async def test_probes_leave_no_lines(customer: Customer, lines: io.BytesIO) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        await customer.get(path)
    assert "http.request" not in lines.getvalue().decode()
