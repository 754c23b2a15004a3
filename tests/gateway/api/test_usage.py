"""Usage reports: what was charged, by whatever one asks for, in pages and as a table; and usage events."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.jobs.job import JobErrorCode
from tests.gateway.api.installation import Customer, Installation
from tests.gateway.api.money_history import History, nano, rows_of

SONG_USD = "0.001250000"
ALL = "hour,model,backend,project,key"


def midnight(*, days_ago: int = 0) -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days_ago)


def iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"


def sums(rows: list[dict[str, Any]], *fields: str) -> dict[tuple[Any, ...], int]:
    """Jobs by these fields; each line is about something else."""
    found = {tuple(row[field] for field in fields): row["jobs"] for row in rows}
    assert len(found) == len(rows)
    return found


async def busy(history: History) -> dict[str, str]:
    """Three keys, two of them of projects, two models, three days; returns the ids by name."""
    customer = history.customer
    first, second = await customer.project("first"), await customer.project("second")
    first_id, first_key = await customer.key_with_id(project_id=first)
    second_id, second_key = await customer.key_with_id(project_id=second)
    for key, model, count in (
        (None, None, 1),
        (first_key, None, 2),
        (first_key, "other", 1),
        (second_key, "other", 1),
    ):
        for _ in range(count):
            await history.song(key=key, model=model)
    await history.passes(days=1)
    await history.song(seconds=7, key=first_key)
    await history.passes(days=1)
    await history.song(seconds=6.5)
    await history.gather_days()
    whole = (await history.read("/v1/key"))["id"]
    return {
        "first": first.hex,
        "second": second.hex,
        "whole key": whole,
        "first id": first_id.hex,
        "second id": second_id.hex,
        "first key": first_key,
        "second key": second_key,
    }


async def test_without_any_job_there_is_no_line(history: History) -> None:
    report = await history.read("/v1/usage")
    assert report["data"] == []
    assert report["totals"] == {"jobs": 0, "billed_seconds": 0.0, "cost_usd": "0.000000000"}
    assert (report["has_more"], report["next_cursor"]) == (False, None)
    assert await history.table("/v1/usage") == []
    assert (await history.read("/v1/usage", group_by="model"))["data"] == []


async def test_the_last_thirty_days_by_day_are_what_comes_unasked(history: History) -> None:
    await history.song()
    await history.passes(days=29)
    await history.song(seconds=6)
    report = await history.read("/v1/usage")
    assert report["object"] == "list"
    assert (report["start"], report["group_by"]) == (iso(midnight(days_ago=29)), ["day"])
    assert (
        datetime.now(UTC) <= datetime.fromisoformat(report["end"]) <= datetime.now(UTC) + timedelta(hours=1)
    )
    assert report["data"] == [
        {
            "start": iso(midnight(days_ago=29)),
            "jobs": 1,
            "billed_seconds": 5.0,
            "cost_usd": SONG_USD,
        },
        {"start": iso(midnight()), "jobs": 1, "billed_seconds": 6.0, "cost_usd": "0.001500000"},
    ]
    assert report["totals"] == {"jobs": 2, "billed_seconds": 11.0, "cost_usd": "0.002750000"}
    await history.passes(days=1)
    assert (await history.read("/v1/usage"))["totals"]["jobs"] == 1


async def test_only_what_was_charged_is_usage(history: History) -> None:
    customer = history.customer
    failed, cancelled, free = [
        await customer.submitted(),
        await customer.submitted(),
        await customer.submitted(key=customer.test_key),
    ]
    await history.installation.finish(failed["id"], error=JobErrorCode.TIMEOUT)
    await customer.http.delete(cancelled["poll_url"], headers=customer.headers())
    await history.installation.finish(free["id"])
    await customer.submitted()
    assert (await history.read("/v1/usage"))["data"] == []
    job = await history.song()
    await history.refund(job)
    assert (await history.read("/v1/usage"))["totals"]["cost_usd"] == SONG_USD


async def test_a_report_can_be_divided_by_everything(history: History) -> None:
    names = await busy(history)

    async def jobs(group_by: str, *fields: str) -> dict[tuple[Any, ...], int]:
        return sums((await history.read("/v1/usage", group_by=group_by))["data"], *fields)

    days = [iso(midnight(days_ago=ago)) for ago in (2, 1, 0)]
    assert await jobs("day", "start") == {(days[0],): 5, (days[1],): 1, (days[2],): 1}
    assert await jobs("model", "model") == {("sandbox",): 5, ("other",): 2}
    assert await jobs("backend", "backend") == {("engine",): 7}
    assert await jobs("project", "project_id") == {(None,): 2, (names["first"],): 4, (names["second"],): 1}
    by_key = {(names["whole key"],): 2, (names["first id"],): 4, (names["second id"],): 1}
    assert await jobs("key", "key_id") == by_key
    assert await jobs("model,day", "start", "model") == {
        (days[0], "sandbox"): 3,
        (days[0], "other"): 2,
        (days[1], "sandbox"): 1,
        (days[2], "sandbox"): 1,
    }
    everything = await history.read("/v1/usage", group_by=ALL)
    assert sum(row["jobs"] for row in everything["data"]) == 7
    assert sum(nano(row["cost_usd"]) for row in everything["data"]) == nano(everything["totals"]["cost_usd"])
    assert set(everything["data"][0]) == {
        *("start", "model", "backend", "project_id", "key_id"),
        *("jobs", "billed_seconds", "cost_usd"),
    }


async def test_a_report_without_time_begins_with_its_range(history: History) -> None:
    await history.song()
    report = await history.read("/v1/usage", group_by="model", start="2024-02-03T04:05:06Z")
    assert report["start"] == "2024-02-03T04:00:00.000Z"
    assert [row["start"] for row in report["data"]] == ["2024-02-03T04:00:00.000Z"]


async def test_hours_say_their_days(history: History) -> None:
    await history.song()
    by_hour = await history.read("/v1/usage", group_by="hour")
    for words in ("day,hour", "hour,day", "hour,hour", "hour,day,hour"):
        assert await history.read("/v1/usage", group_by=words) == by_hour


async def test_the_order_of_words_changes_nothing(history: History) -> None:
    await busy(history)
    one = await history.read("/v1/usage", group_by="key,model,project,hour,backend")
    assert one == await history.read("/v1/usage", group_by=ALL)


async def test_a_report_can_be_filtered(history: History) -> None:
    names = await busy(history)

    async def jobs(**params: Any) -> int:
        report = await history.read("/v1/usage", **params)
        assert report["totals"]["jobs"] == sum(row["jobs"] for row in report["data"])
        return int(report["totals"]["jobs"])

    assert await jobs(model="sandbox") == 5
    assert await jobs(model="other") == 2
    assert await jobs(model="never seen") == 0
    assert await jobs(key=names["first id"]) == 4
    assert await jobs(key=names["first id"], model="other") == 1
    assert await jobs(project=names["second"]) == 1
    assert await jobs(project=names["first"], key=names["second id"]) == 0
    assert await jobs(project="0" * 32) == 0
    assert await jobs(start=midnight(days_ago=1).isoformat()) == 2
    assert await jobs(end=midnight(days_ago=1).isoformat()) == 5
    assert await jobs(start=int(midnight(days_ago=1).timestamp()), end=int(midnight().timestamp())) == 1
    assert await jobs(start="2030-01-01", end="2020-01-01") == 0
    assert await jobs(start="0001-01-01", end="9999-12-31T23:59:59Z") == 7


async def test_an_alias_is_its_model(history: History) -> None:
    await history.song(model="ace-step-1.5-xl")
    report = await history.read("/v1/usage", model="ace-step-1-5-xl", group_by="model")
    assert [row["model"] for row in report["data"]] == ["ace-step-1.5-xl"]


async def test_a_moment_within_an_hour_is_the_whole_hour(history: History) -> None:
    await history.song()
    now = datetime.now(UTC)
    report = await history.read("/v1/usage", start=now.isoformat(), end=now.isoformat())
    assert report["start"] == f"{now:%Y-%m-%dT%H}:00:00.000Z"
    assert report["end"] == f"{now + timedelta(hours=1):%Y-%m-%dT%H}:00:00.000Z"
    assert report["totals"]["jobs"] == 1


async def test_a_project_sees_its_own_and_strangers_see_nothing(
    history: History, installation: Installation
) -> None:
    names = await busy(history)
    report = await history.read("/v1/usage", by=names["first key"], group_by="project,key")
    assert sums(report["data"], "project_id", "key_id") == {(names["first"], names["first id"]): 4}
    assert report["totals"]["jobs"] == 4
    theirs = await history.read("/v1/usage", by=names["first key"], project=names["second"])
    assert theirs["totals"]["jobs"] == 0
    assert len(await history.table("/v1/usage", by=names["first key"], group_by="key")) == 1
    other = await installation.customer()
    for project in ({}, {"project": names["first"]}):
        answer = await other.get("/v1/usage", **project)
        assert answer.json()["totals"]["jobs"] == 0
    assert rows_of(await other.get("/v1/usage", format="csv")) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7])
async def test_pages_follow_each_other_without_gaps(history: History, limit: int) -> None:
    await busy(history)
    whole = await history.read("/v1/usage", group_by=ALL)
    assert len(whole["data"]) == 6
    assert await history.pages("/v1/usage", group_by=ALL, limit=limit) == whole["data"]
    by_project = await history.read("/v1/usage", group_by="project")
    assert await history.pages("/v1/usage", group_by="project", limit=limit) == by_project["data"]


async def test_usage_that_arrives_between_two_pages_repeats_no_line_and_hides_none(history: History) -> None:
    names = await busy(history)
    before = (await history.read("/v1/usage", group_by=ALL))["data"]
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await history.read("/v1/usage", group_by=ALL, limit=1, **cursor)
        seen += page["data"]
        await history.song(key=names["second key"])
        await history.song()
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}

    def about(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[field] for field in ("start", "model", "backend", "project_id", "key_id"))

    assert len({about(row) for row in seen}) == len(seen)
    assert {about(row) for row in before} <= {about(row) for row in seen}
    days = [row for row in seen if row["start"] < iso(midnight())]
    assert days == [row for row in before if row["start"] < iso(midnight())]


async def test_a_cursor_keeps_the_range_of_its_report(history: History) -> None:
    await busy(history)
    page = await history.read("/v1/usage", start="2024-01-01", limit=1)
    later = await history.read("/v1/usage", limit=1, cursor=page["next_cursor"])
    assert (later["start"], later["end"]) == (page["start"], page["end"])


def cursor_of(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "é",
        "%",
        "WyJ",
        "a" * 5_000,
        cursor_of(),
        cursor_of("day", 0, 0, []),
        cursor_of("day", 0, 0, ["1"]),
        cursor_of("day", 0, 0, [1, 2]),
        cursor_of("day", 0, 0, [10**30]),
        cursor_of("day", 0, 0, [2**62]),
        cursor_of("day", 1, 0, [0]),
        cursor_of("day", 0, 10**18, [0]),
        cursor_of("day", -(10**12), 0, [0]),
        cursor_of("day", 0, 0, [0], 0),
        cursor_of("model", 0, 0, ["sandbox"]),
        cursor_of("model,day", 0, 0, [0, "sandbox"]),
    ],
)
async def test_a_wrong_cursor_is_told(customer: Customer, cursor: str) -> None:
    answer = await customer.get("/v1/usage", cursor=cursor)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor"), answer.text


@pytest.mark.parametrize(
    ("group_by", "values"),
    [("model", ["a\x00b"]), ("model", [1]), ("key", ["z" * 32]), ("key", [7]), ("project", ["1"])],
)
async def test_a_wrong_place_in_a_cursor_is_told(
    customer: Customer, group_by: str, values: list[Any]
) -> None:
    cursor = cursor_of(group_by, 0, 0, values)
    answer = await customer.get("/v1/usage", group_by=group_by, cursor=cursor)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor"), answer.text


@pytest.mark.parametrize(
    ("params", "param", "suggestion"),
    [
        ({"limit": 0}, "limit", "1"),
        ({"limit": 101}, "limit", "100"),
        ({"group_by": "week"}, "group_by", "day,model"),
        ({"group_by": "day,"}, "group_by", "day,model"),
        ({"group_by": ""}, "group_by", "day,model"),
        ({"group_by": "day;model"}, "group_by", "day,model"),
        ({"start": "yesterday"}, "start", "2026-01-31T00:00:00Z"),
        ({"end": "1e3"}, "end", "2026-01-31T00:00:00Z"),
        ({"key": "mine"}, "key", None),
        ({"project": "0" * 31}, "project", None),
        ({"model": "a\x00b"}, "model", None),
        ({"format": "xml"}, "format", "json"),
    ],
)
async def test_a_wrong_parameter_is_told(
    history: History, params: dict[str, Any], param: str, suggestion: str | None
) -> None:
    answer = await history.get("/v1/usage", **params)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["suggestion"]) == (400, param, suggestion)


@pytest.mark.parametrize("group_by", ["day", "hour", "model", ALL, "project,key"])
async def test_the_table_has_what_the_pages_have(history: History, group_by: str) -> None:
    await busy(history)
    pages = await history.pages("/v1/usage", group_by=group_by, limit=2)
    table = await history.table("/v1/usage", group_by=group_by, limit=1, cursor="not looked at")
    assert [
        row
        | {"jobs": str(row["jobs"]), "billed_seconds": f"{row['billed_seconds']:.3f}"}
        | ({"project_id": row["project_id"] or ""} if "project_id" in row else {})
        for row in pages
    ] == table


async def test_a_table_can_be_asked_for_by_its_type(history: History) -> None:
    await history.song()
    customer = history.customer
    for accept, is_table in (
        ("text/csv", True),
        ("text/csv; q=0.9, application/json; q=0.1", True),
        ("application/json", False),
        ("*/*", False),
    ):
        answer = await customer.http.get("/v1/usage", headers=customer.headers(accept=accept))
        assert answer.headers["content-type"].startswith("text/csv" if is_table else "application/json")
    answer = await customer.http.get("/v1/usage?format=json", headers=customer.headers(accept="text/csv"))
    assert answer.headers["content-type"] == "application/json"
    answer = await customer.get("/v1/usage", format="csv")
    name = f"usage-{midnight(days_ago=29):%Y-%m-%d}-{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%d}.csv"
    assert f'filename="{name}"' in answer.headers["content-disposition"]
    assert answer.headers["cache-control"] == "no-store"


async def test_a_table_of_many_lines_is_whole(history: History) -> None:
    job = await history.song()
    await history.by_hand(
        """
        INSERT INTO api_key (id, organization_id, name, mode, prefix, digest, pepper_id)
        SELECT gen_random_uuid(), organization_id, 'many', mode, prefix, decode(md5(k.id::text || n), 'hex'),
               pepper_id
          FROM api_key k, generate_series(1, 700) AS n WHERE organization_id = $1 AND mode = 'live'
        """,
        """
        INSERT INTO usage_hour
               (organization_id, hour, key_id, project_id, model, backend, jobs, billed_ms, cost_nano)
        SELECT u.organization_id, u.hour, k.id, NULL, u.model, u.backend, 2, 10000, 3
          FROM usage_hour u JOIN api_key k USING (organization_id)
         WHERE organization_id = $1 AND k.name = 'many'
        """,
    )
    report = await history.read("/v1/usage", group_by="hour,key", limit=100)
    assert (report["totals"]["jobs"], report["has_more"]) == (1401, True)
    table = await history.table("/v1/usage", group_by="hour,key")
    assert (len(table), sum(int(row["jobs"]) for row in table)) == (701, 1401)
    assert len({row["key_id"] for row in table}) == 701
    await history.by_hand("DELETE FROM usage_hour WHERE organization_id = $1 AND cost_nano = 3")
    assert job["id"]


async def test_usage_is_read_without_any_credit(installation: Installation, history: History) -> None:
    await history.song()
    await history.by_hand("UPDATE account SET owed_nano = 1 WHERE id = $1")
    assert (await history.customer.submit()).status_code == 402
    assert (await history.read("/v1/usage"))["totals"]["jobs"] == 1
    assert len((await history.read("/v1/account/usage"))["data"]) == 1
    await history.by_hand("UPDATE account SET owed_nano = 0 WHERE id = $1")
    poor = await installation.customer(usd="0")
    assert (await poor.submit()).status_code == 402
    for path in ("/v1/usage", "/v1/account/usage", "/v1/balance"):
        assert (await poor.get(path)).status_code == 200


async def test_a_key_that_may_not_read_reads_no_usage(customer: Customer) -> None:
    key = await customer.key(scopes=["generate"])
    for path in ("/v1/usage", "/v1/account/usage", "/v1/balance"):
        answer = await customer.get(path, key=key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_denied")


async def test_every_finished_job_is_an_event(history: History) -> None:
    customer = history.customer
    done = await history.song()
    failed, cancelled, free = [
        await customer.submitted(),
        await customer.submitted(),
        await customer.submitted(key=customer.test_key),
    ]
    await history.installation.finish(failed["id"], error=JobErrorCode.TIMEOUT)
    await customer.http.delete(cancelled["poll_url"], headers=customer.headers())
    await history.installation.finish(free["id"])
    await customer.submitted()
    page = await history.read("/v1/account/usage")
    assert page["balance"] == await history.read("/v1/balance")
    assert [event["id"] for event in page["data"]] == [job["id"] for job in (free, cancelled, failed, done)]
    event = page["data"][-1]
    assert event == {
        "object": "usage_event",
        "id": done["id"],
        "job_id": done["id"],
        "created_at": done["created_at"],
        "completed_at": (await customer.job(done["id"]))["completed_at"],
        "model": "sandbox",
        "status": "completed",
        "source": "api",
        "billable_units": 5.0,
        "billing_unit": "second",
        "cost_usd": SONG_USD,
        "test": False,
    }
    assert [(event["status"], event["cost_usd"], event["test"]) for event in page["data"][:3]] == [
        ("completed", "0.000000000", True),
        ("failed", "0.000000000", False),
        ("failed", "0.000000000", False),
    ]


async def test_events_can_be_filtered_and_come_in_pages(history: History) -> None:
    customer = history.customer
    jobs = [await history.song() for _ in range(3)]
    failed = await customer.submitted()
    await history.installation.finish(failed["id"], error=JobErrorCode.TIMEOUT)
    other = await history.song(model="ace-step-1.5-xl")

    async def listed(**params: Any) -> list[str]:
        return [event["id"] for event in (await history.read("/v1/account/usage", **params))["data"]]

    everything = [job["id"] for job in (other, failed, *jobs[::-1])]
    assert await listed() == everything
    assert await listed(status="failed") == [failed["id"]]
    assert await listed(status="completed") == [job["id"] for job in (other, *jobs[::-1])]
    assert await listed(model="ace-step-1-5-xl") == [other["id"]]
    assert await listed(source="api") == everything
    assert await listed(source="playground") == []
    assert await listed(**{"from": jobs[1]["created_at"]}) == everything[:-1]
    assert await listed(to=jobs[1]["created_at"]) == [jobs[0]["id"]]
    assert await listed(**{"from": jobs[1]["created_at"], "to": other["created_at"]}) == everything[1:-1]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await history.read("/v1/account/usage", limit=2, **cursor)
        seen += [event["id"] for event in page["data"]]
        if not page["has_more"]:
            break
        cursor = {"before": page["next_cursor"]}
    assert seen == everything
    for name, value in (("status", "queued"), ("before", "x"), ("from", "x"), ("to", "x"), ("limit", 0)):
        answer = await customer.get("/v1/account/usage", **{name: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


async def test_a_project_reads_its_own_events(history: History) -> None:
    key = await history.customer.key(project_id=await history.customer.project("p"))
    inside, _ = await history.song(key=key), await history.song()
    page = await history.read("/v1/account/usage", by=key)
    assert [event["id"] for event in page["data"]] == [inside["id"]]
