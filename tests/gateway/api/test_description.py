"""The OpenAPI description tells the truth: a fuzzer that knows nothing else finds no other answer."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.jobs.job import JobErrorCode
from tests.gateway.api.installation import Customer, Installation

HOOKS = Path(__file__).with_name("fuzzing_hooks.py")
SEED = 20_260_501
CONFIG = """\
hooks = {hooks}
base-url = {url}
continue-on-failure = true
request-timeout = 20.0
warnings = false

[auth.openapi]
bearer = {{ bearer = {key} }}

[generation]
allow-x00 = false
allow-extra-parameters = false
database = "none"

[checks]
use_after_free.enabled = false  # a deleted job is a cancelled one: it stays
positive_data_acceptance.expected-statuses = {accepted}

[phases.fuzzing]
error-feedback.enabled = false

[dictionaries.jobs]
values = {jobs}

[parameters]
"path.job_id" = {{ dictionary = "jobs", probability = 0.6 }}
"query.cursor" = {{ dictionary = "jobs", probability = 0.3 }}
"""
ACCEPTED = ["2xx", "401", "403", "404", "409"]


async def jobs_of_every_kind(customer: Customer, installation: Installation) -> list[str]:
    """The first one has ended; the last one is somebody else's."""
    key = customer.test_key
    done, queued, failed, cancelled = [await customer.submitted(key=key) for _ in range(4)]
    await installation.finish(done["id"])
    await installation.finish(failed["id"], error=JobErrorCode.TIMEOUT)
    await customer.http.delete(f"/v1/jobs/{cancelled['id']}", headers=customer.headers(key))
    foreign = await (await installation.customer()).submitted()
    return [job["id"] for job in (done, queued, failed, cancelled, foreign)]


async def strict_document(http: httpx.AsyncClient) -> dict[str, Any]:
    """The document, as if no answer could ever have more fields than it has today."""
    document = dict((await http.get("/docs/openapi.json")).json())
    for schema in document["components"]["schemas"].values():
        schema.setdefault("additionalProperties", False)
    return document


async def fuzz(
    customer: Customer, installation: Installation, folder: Path, *options: str
) -> tuple[int, str]:
    """Exit status and report of `schemathesis run` in a process of its own."""
    jobs = await jobs_of_every_kind(customer, installation)
    document, config = folder / "openapi.json", folder / "schemathesis.toml"
    document.write_text(json.dumps(await strict_document(customer.http)))
    url = str(customer.http.base_url)
    config.write_text(
        CONFIG.format(
            hooks=json.dumps(str(HOOKS)),
            url=json.dumps(url),
            key=json.dumps(customer.test_key),
            accepted=json.dumps(ACCEPTED),
            jobs=json.dumps(jobs),
        )
    )
    arguments = [
        "--config-file",
        str(config),
        "run",
        f"{url}/docs/openapi.json",
        "--seed",
        str(SEED),
        *options,
    ]
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        *arguments,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "NO_PROXY": "*", "ENDED_JOB": jobs[0]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    report, _ = await process.communicate()
    return process.returncode or 0, report.decode()


async def test_no_request_gets_an_answer_that_is_not_described(
    customer: Customer, installation: Installation, tmp_path: Path
) -> None:
    status, report = await fuzz(customer, installation, tmp_path, "--max-examples", "6", "--no-shrink")
    assert status == 0, report


@pytest.mark.slow
async def test_no_request_of_many_gets_an_answer_that_is_not_described(
    customer: Customer, installation: Installation, tmp_path: Path
) -> None:
    status, report = await fuzz(customer, installation, tmp_path, "--max-examples", "500")
    assert status == 0, report
