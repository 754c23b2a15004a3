"""The job object, the list of jobs, who sees them, and their early end."""

from datetime import datetime
from typing import Any

import pytest

from gateway.jobs.job import JobErrorCode
from tests.gateway.api.installation import SONG, Customer, Installation, facts_of

TYPES: dict[str, Any] = {
    "job_id": str,
    "id": str,
    "object": str,
    "model": str,
    "task": str,
    "status": str,
    "progress": float,
    "queue_position": int | None,
    "eta_seconds": float | None,
    "created_at": str,
    "completed_at": str | None,
    "expires_at": str | None,
    "result": dict | None,
    "error": dict | None,
    "warnings": list,
    "poll_url": str,
    "backend": str | None,
    "cost": dict,
    "metadata": dict,
    "test": bool,
}


def check_shape(job: dict[str, Any]) -> None:
    for name, type_ in TYPES.items():
        assert isinstance(job[name], type_), name
    assert job["job_id"] == job["id"]
    assert job["object"] == "job"
    assert job["poll_url"] == f"/v1/jobs/{job['id']}"
    assert job["status"] in {"queued", "processing", "completed", "failed"}
    assert 0 <= job["progress"] <= 1
    for name in ("created_at", "completed_at", "expires_at"):
        assert job[name] is None or datetime.fromisoformat(job[name]).utcoffset() is not None
    assert set(job["cost"]) == {"usd", "usd_per_second", "billed_seconds", "held_usd", "charged"}
    for name in ("usd", "usd_per_second", "held_usd"):
        assert len(job["cost"][name].partition(".")[2]) == 9


async def test_a_job_from_its_submit_to_its_end(customer: Customer, installation: Installation) -> None:
    answer = await customer.submit(metadata={"a": "b"}, seed=7)
    queued = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, queued["poll_url"])
    check_shape(queued)
    assert (queued["status"], queued["progress"], queued["cost"]["charged"]) == ("queued", 0.0, False)
    assert queued["cost"]["held_usd"] == "0.001250000"
    assert facts_of(await customer.job(queued["id"])) == facts_of(queued)

    await installation.claim(queued["id"])
    processing = await customer.job(queued["id"])
    check_shape(processing)
    assert (processing["status"], processing["backend"]) == ("processing", "engine")
    assert (await customer.get("/v1/balance")).json() == {
        "object": "balance",
        "balance_usd": "5.000000000",
        "held_usd": "0.001250000",
        "available_usd": "4.998750000",
        "owed_usd": "0.000000000",
        "level": "fine",
        "low_usd": "1.000000000",
        "critical_usd": "0.100000000",
        "grants": [{"kind": "promotional", "remaining_usd": "5.000000000", "expires_at": None}],
    }


async def test_a_completed_job_shows_its_song_and_its_price(
    customer: Customer, installation: Installation
) -> None:
    job = await customer.submitted(seed=7, audio_duration=6.5)
    await installation.finish(job["id"])
    job = await customer.job(job["id"])
    check_shape(job)
    assert (job["status"], job["progress"], job["error"]) == ("completed", 1.0, None)
    track = job["result"]["data"][0]
    assert track["url"].startswith(str(customer.http.base_url))
    assert (track["content_type"], track["format"], track["duration_seconds"]) == ("audio/flac", "flac", 6.5)
    assert (track["sample_rate"], track["channels"], track["seed"]) == (48_000, 2, 7)
    assert "b64_json" not in track
    assert job["result"]["usage"] == {"billable_units": 6.5, "billing_unit": "second"}
    assert job["result"]["deterministic"] is True
    assert job["cost"] == {
        "usd": "0.001625000",
        "usd_per_second": "0.000250000",
        "billed_seconds": 6.5,
        "held_usd": "0.001625000",
        "charged": True,
    }
    assert (await customer.get("/v1/balance")).json()["balance_usd"] == "4.998375000"
    assert (await customer.http.get(track["url"])).content == SONG


@pytest.mark.parametrize("code", JobErrorCode)
async def test_a_failed_job_is_free_and_says_why(
    customer: Customer, installation: Installation, code: JobErrorCode
) -> None:
    job = await customer.submitted()
    await installation.finish(job["id"], error=code)
    job = await customer.job(job["id"])
    check_shape(job)
    assert (job["status"], job["result"], job["cost"]["charged"]) == ("failed", None, False)
    assert (job["error"]["code"], job["error"]["charged"]) == (code.value, False)
    assert {"message", "type", "param"} <= set(job["error"])
    assert (await customer.get("/v1/balance")).json()["available_usd"] == "5.000000000"


@pytest.mark.parametrize(("method", "tail"), [("DELETE", ""), ("POST", "/cancel")])
async def test_a_queued_job_is_cancelled_at_once_and_for_free(
    customer: Customer, method: str, tail: str
) -> None:
    job = await customer.submitted()
    for _ in range(2):  # again changes nothing
        answer = await customer.http.request(method, job["poll_url"] + tail, headers=customer.headers())
        assert answer.status_code == 200
        ended = answer.json()
        check_shape(ended)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "job_cancelled")
        assert (ended["error"]["charged"], ended["cost"]["charged"]) == (False, False)
    assert (await customer.get("/v1/balance")).json()["available_usd"] == "5.000000000"


async def test_a_running_job_says_that_its_end_was_asked_for(
    customer: Customer, installation: Installation
) -> None:
    job = await customer.submitted()
    await installation.claim(job["id"])
    answer = await customer.http.delete(job["poll_url"], headers=customer.headers())
    assert answer.json()["status"] == "processing"
    assert answer.json()["cancel_requested_at"] is not None


async def test_base64_is_in_the_job_but_not_in_lists(customer: Customer, installation: Installation) -> None:
    for fields, has_url in (
        ({"response_format": "b64_json"}, False),
        ({"return_base64": True}, True),
        ({"response_format": "b64_json", "return_base64": True}, False),
    ):
        job = await customer.submitted(**fields)
        await installation.finish(job["id"])
        track = (await customer.job(job["id"]))["result"]["data"][0]
        assert track["b64_json"].startswith("ZkxhQ")
        assert ("url" in track) is has_url
    for job in (await customer.get("/v1/jobs")).json()["data"]:
        assert "b64_json" not in job["result"]["data"][0]
        assert "url" in job["result"]["data"][0]


async def test_attempts_are_told_when_asked_for(customer: Customer, installation: Installation) -> None:
    job = await customer.submitted()
    assert "attempts" not in await customer.job(job["id"])
    assert (await customer.job(job["id"], include="attempts"))["attempts"] == []
    await installation.finish(job["id"])
    (attempt,) = (await customer.job(job["id"], include="attempts"))["attempts"]
    assert (attempt["n"], attempt["backend"], attempt["state"]) == (1, "engine", "done")
    assert attempt["reason"] == job["route_reason"] == "the only route"
    assert set(attempt) == {
        "n",
        "backend",
        "reason",
        "state",
        "started_at",
        "finished_at",
        "error_code",
        "error_message",
    }
    answer = await customer.get(f"/v1/jobs/{job['id']}", include="everything")
    assert (answer.status_code, answer.json()["error"]["suggestion"]) == (400, "attempts")


async def test_what_one_may_not_see_is_what_does_not_exist(
    customer: Customer, installation: Installation
) -> None:
    other = await installation.customer()
    first, second = await customer.project("first"), await customer.project("second")
    own = await customer.key(project_id=first)
    foreign = await other.submitted()
    sibling = await customer.submitted(key=await customer.key(project_id=second))
    whole = await customer.submitted()
    await installation.finish(foreign["id"])
    ids = [foreign["id"], sibling["id"], whole["id"], "0" * 32, "x" * 32, "short", foreign["id"] + "0", "%00"]
    answers = [
        await customer.http.request(method, f"/v1/jobs/{job_id}{tail}", headers=customer.headers(own))
        for job_id in ids
        for method, tail in (("GET", ""), ("GET", "?include=attempts"), ("DELETE", ""), ("POST", "/cancel"))
    ]
    bodies = []
    for answer in answers:
        assert answer.status_code == 404
        body = answer.json()["error"]
        assert body.pop("request_id") == answer.headers["x-request-id"]
        bodies.append(body)
    assert all(body == bodies[0] for body in bodies)
    assert {
        key: value for key, value in answers[0].headers.items() if key not in {"x-request-id", "date"}
    } == {
        "content-type": "application/json",
        "content-length": answers[0].headers["content-length"],
        "x-should-retry": "false",
    }


async def test_a_project_key_sees_its_project_and_the_organization_sees_all(customer: Customer) -> None:
    key = await customer.key(project_id=await customer.project("p"))
    inside, outside = await customer.submitted(key=key), await customer.submitted()
    assert [job["id"] for job in (await customer.get("/v1/jobs", key=key)).json()["data"]] == [inside["id"]]
    listed = (await customer.get("/v1/jobs", key=customer.test_key)).json()["data"]
    assert [job["id"] for job in listed] == [outside["id"], inside["id"]]
    assert (await customer.job(inside["id"]))["id"] == inside["id"]


async def test_a_dashed_id_is_the_same_id(customer: Customer) -> None:
    job = await customer.submitted()
    plain = job["id"]
    dashed = "-".join([plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]])
    assert (await customer.job(dashed))["id"] == plain
    assert (await customer.job(plain.upper()))["id"] == plain


async def test_pages_follow_each_other_without_gaps(customer: Customer) -> None:
    made = [(await customer.submitted())["id"] for _ in range(7)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await customer.get("/v1/jobs", limit=3, **cursor)).json()
        assert page["object"] == "list"
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            break
        assert len(page["data"]) == 3
        cursor = {"cursor": page["next_cursor"]}
    assert seen == made[::-1]
    whole = (await customer.get("/v1/jobs", limit=7)).json()
    assert (len(whole["data"]), whole["has_more"]) == (7, False)


@pytest.mark.parametrize(
    ("params", "param", "suggestion"),
    [
        ({"limit": 0}, "limit", "1"),
        ({"limit": 101}, "limit", "100"),
        ({"limit": -(10**20)}, "limit", "1"),
        ({"limit": "ten"}, "limit", None),
        ({"limit": "1.5"}, "limit", None),
        ({"cursor": "zzz"}, "cursor", None),
        ({"cursor": ""}, "cursor", None),
        ({"status": "done"}, "status", "completed"),
        ({"status": "canceled"}, "status", "completed"),
        ({"created[gte]": "yesterday"}, "created[gte]", "2026-01-31T00:00:00Z"),
    ],
)
async def test_a_wrong_filter_is_told(
    customer: Customer, params: dict[str, Any], param: str, suggestion: str | None
) -> None:
    answer = await customer.get("/v1/jobs", **params)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["suggestion"]) == (400, param, suggestion)
    assert error["message"]


async def test_the_list_can_be_filtered(customer: Customer, installation: Installation) -> None:
    done, failed, cancelled, running, queued = [await customer.submitted() for _ in range(5)]
    other = await customer.submitted(key=customer.test_key, model="ace-step-1.5-xl", audio_duration=10)
    await installation.finish(done["id"])
    await installation.finish(failed["id"], error=JobErrorCode.TIMEOUT)
    await customer.http.delete(cancelled["poll_url"], headers=customer.headers())
    await installation.claim(running["id"])

    async def listed(**params: Any) -> set[str]:
        return {job["id"] for job in (await customer.get("/v1/jobs", **params)).json()["data"]}

    assert await listed(status="completed") == {done["id"]}
    assert await listed(status="failed") == {failed["id"], cancelled["id"]}
    assert await listed(status="processing") == {running["id"]}
    assert await listed(status="queued") == {queued["id"], other["id"]}
    assert await listed(model="ace-step-1.5-xl") == await listed(model="ace-step-1-5-xl") == {other["id"]}
    assert await listed(model="none") == set()
    assert await listed(model="sandbox", status="queued") == {queued["id"]}
    later = {"created[gte]": running["created_at"]}
    assert await listed(**later) == {running["id"], queued["id"], other["id"]}
    assert await listed(**{"created[gte]": "4000000000"}) == set()
    assert len(await listed(**{"created[gte]": "2020-01-01"})) == 6


async def test_a_key_tells_what_it_may(customer: Customer) -> None:
    project = await customer.project("p")
    key_id, key = await customer.key_with_id(
        project_id=project,
        scopes=["read", "generate"],
        models=["sandbox"],
        requests_per_minute=5,
        max_open_jobs=2,
    )
    answer = await customer.get("/v1/key", key=key)
    assert key not in answer.text
    assert answer.json() == {
        "object": "key",
        "id": key_id.hex,
        "organization_id": customer.organization_id.hex,
        "project_id": project.hex,
        "test": False,
        "scopes": ["generate", "read"],
        "models": ["sandbox"],
        "requests_per_minute": 5,
        "max_open_jobs": 2,
        "expires_at": None,
    }
