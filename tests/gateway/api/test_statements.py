"""Statements by the month: as data, and as a page to print that anybody with its link can open."""

import base64
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from html import unescape
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.jobs import reports
from gateway.jobs.reports import Month, month_of
from gateway.signed_urls import UrlSigner
from tests.gateway.api.installation import SECRET, Customer, Installation
from tests.gateway.api.money_history import History, nano, this_month, total

HOSTILE = '<script>alert("x")</script> & Söhne \N{RIGHT-TO-LEFT OVERRIDE}'


def month(back: int = 0) -> str:
    return str(month_of(datetime.now(UTC)).moved(-back))


async def now(history: History) -> datetime:
    """By the database's clock."""
    moment = await history.pool.fetchval("SELECT clock_timestamp()")
    assert isinstance(moment, datetime)
    return moment


async def to_the_month(history: History, back: int, *, since: datetime | None = None) -> None:
    """All that has happened, or all since then, happened in the middle of the month so many months ago."""
    present = await now(history)
    middle = month_of(present).moved(-back).start + timedelta(days=14)
    bounds = {} if since is None else {"since": since}
    await history.passes(**bounds, seconds=(present - middle).total_seconds())


async def three_months(history: History) -> dict[str, Any]:
    """Two months ago money came and some went, a month ago there were songs, now one more."""
    payment = await history.pay("10")
    await history.grant("2", reason=HOSTILE, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await history.expire()
    dispute = await history.take_back(payment, "4")
    await to_the_month(history, 2)
    began = await now(history)
    for seconds, model in ((5, None), (6, None), (5.001, "other")):
        await history.song(seconds=seconds, model=model)
    await history.refund(await history.song(seconds=9))
    await to_the_month(history, 1, since=began)
    await history.song(seconds=7)
    return {"payment": payment, "dispute": dispute}


async def test_each_month_follows_from_the_one_before(history: History) -> None:
    await three_months(history)
    page = await history.read("/v1/statements")
    assert (page["object"], page["has_more"], page["next_cursor"]) == ("list", False, None)
    months = page["data"]
    assert [row["month"] for row in months] == [month(), month(1), month(2)]
    assert [row["final"] for row in months] == [False, True, True]
    assert months[0]["closing_usd"] == (await history.read("/v1/balance"))["balance_usd"]
    assert months[-1]["opening_usd"] == "0.000000000"
    for later, earlier in pairwise(months):
        assert later["opening_usd"] == earlier["closing_usd"]
    for row in months:
        assert nano(row["closing_usd"]) == nano(row["opening_usd"]) + nano(row["added_usd"]) - nano(
            row["charged_usd"]
        ) - nano(row["removed_usd"])


async def test_a_statement_says_what_came_and_what_went(history: History) -> None:
    things = await three_months(history)
    *_, sums = (await history.read("/v1/statements"))["data"]
    statement = await history.read(f"/v1/statements/{month(2)}")
    assert statement["object"] == "statement"
    assert {name: statement[name] for name in sums} == sums
    assert (statement["organization"], statement["organization_id"]) == (
        "Customer",
        history.account_id.hex,
    )
    assert statement["start"] == f"{month(2)}-01T00:00:00.000Z"
    assert statement["end"] == f"{month(1)}-01T00:00:00.000Z"
    assert [(line["kind"], line["amount_usd"], line["entries"]) for line in statement["credits"]] == [
        ("grant", "5.000000000", 1),
        ("top_up", "10.000000000", 1),
        ("grant", "2.000000000", 1),
    ]
    assert statement["credits"][1]["external_ref"] == things["payment"]
    assert statement["credits"][2]["reason"] == HOSTILE
    assert [(line["kind"], line["amount_usd"]) for line in statement["deductions"]] == [
        ("expiry", "-2.000000000"),
        ("dispute", "-4.000000000"),
    ]
    assert statement["deductions"][1]["external_ref"] == things["dispute"]
    assert statement["usage"] == []
    assert (statement["closing_usd"], statement["total_usd"]) == ("11.000000000", "0.00")


async def test_usage_is_told_by_model_and_sums_to_what_was_charged(history: History) -> None:
    await three_months(history)
    statement = await history.read(f"/v1/statements/{month(1)}")
    assert statement["usage"] == [
        {"model": "other", "jobs": 1, "billed_seconds": 5.001, "cost_usd": "0.001250250"},
        {"model": "sandbox", "jobs": 3, "billed_seconds": 20.0, "cost_usd": "0.005000000"},
    ]
    assert (statement["charged_usd"], statement["total_usd"]) == ("0.006250250", "0.01")
    assert [(line["kind"], line["amount_usd"], line["reason"]) for line in statement["credits"]] == [
        ("usage_refund", "0.002250000", "it was noise")
    ]
    assert nano(statement["opening_usd"]) + total(statement["credits"]) - total(
        statement["usage"], "cost_usd"
    ) == nano(statement["closing_usd"])


async def test_the_present_month_goes_as_far_as_it_has_come(history: History) -> None:
    before = await history.read(f"/v1/statements/{this_month()}")
    assert (before["final"], before["charged_usd"]) == (False, "0.000000000")
    await history.song()
    after = await history.read(f"/v1/statements/{this_month()}")
    assert (after["charged_usd"], after["closing_usd"]) == ("0.001250000", "4.998750000")


async def test_months_begin_with_the_first_line_and_end_with_today(
    history: History, installation: Installation
) -> None:
    await to_the_month(history, 14)
    months = await history.pages("/v1/statements", limit=4)
    assert [row["month"] for row in months] == [month(back) for back in range(15)]
    assert [row["closing_usd"] for row in months] == ["5.000000000"] * 15
    assert months == (await history.read("/v1/statements", limit=100))["data"]
    first_page = await history.read("/v1/statements")
    assert (len(first_page["data"]), first_page["has_more"]) == (12, True)
    for cursor, count in ((month(14), 0), ("1970-01", 0), ("9999-12", 12), (month(13), 1)):
        page = await history.read("/v1/statements", cursor=cursor)
        assert len(page["data"]) == count
    for outside in (month(15), month(-1), "1970-01", "9999-12"):
        answer = await history.get(f"/v1/statements/{outside}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    poor = await installation.customer(usd="0")
    assert (await poor.get("/v1/statements")).json()["data"] == []
    assert (await poor.get(f"/v1/statements/{month()}")).status_code == 404


@pytest.mark.parametrize(
    "name",
    ["2026-13", "2026-00", "2026-1", "26-01", "2026-01-01", "x", "0000-01", "\u0662\u0660\u0662\u0666-01"],
)
async def test_what_is_no_month_is_not_found(customer: Customer, name: str) -> None:
    assert (await customer.get(f"/v1/statements/{name}")).status_code == 404
    answer = await customer.get("/v1/statements", cursor=name)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor")


async def test_many_lines_become_one_for_each_kind(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_LINES", 3)
    for reason in "abc":
        await history.grant("1", reason=reason)
    await history.pay("1")
    statement = await history.read(f"/v1/statements/{this_month()}")
    assert statement["credits"] == [
        {
            "created_at": None,
            "kind": kind,
            "description": words,
            "external_ref": None,
            "reason": None,
            "entries": count,
            "amount_usd": amount,
        }
        for kind, words, count, amount in (
            ("grant", "credit that was given", 4, "8.000000000"),
            ("top_up", "payment", 1, "1.000000000"),
        )
    ]
    page = (await history.installation.http.get(statement["url"])).text
    assert "Credit that was given, 4 times" in page


async def test_a_charge_that_passes_midnight_belongs_to_the_month_in_which_it_began(history: History) -> None:
    # Ids in one order, times in the other, on both sides of the end of a month.
    for _ in range(4):
        await history.song()
    end = month_of(datetime.now(UTC)).start
    await history.passes(seconds=(datetime.now(UTC) - end).total_seconds())
    entries = await history.pool.fetch(
        "SELECT id, transfer_id FROM entry WHERE account_id = $1 AND kind IS NULL ORDER BY id",
        history.account_id,
    )
    for entry, seconds in zip(entries, (-1, 0.5, -0.5, 1), strict=True):
        at = end + timedelta(seconds=seconds)
        for table, column in (("entry", "transfer_id"), ("usage_record", "reference")):
            await history.by_hand(
                f"UPDATE {table} SET created_at = '{at}' WHERE account_id = $1"  # noqa: S608
                f" AND {column} = '{entry['transfer_id']}'"
            )
    await history.passes(seconds=0)
    before = await history.read(f"/v1/statements/{month(1)}")
    after = await history.read(f"/v1/statements/{month()}")
    for statement in (before, after):
        assert [line["jobs"] for line in statement["usage"]] == [2]
        assert statement["charged_usd"] == "0.002500000"
    assert before["closing_usd"] == after["opening_usd"] == "4.997500000"
    lines = (await history.table("/v1/ledger", end=end.isoformat()))[1:-1]
    assert [line["entry"] for line in lines if line["kind"] == "settle"] == [
        str(entries[0]["id"]),
        str(entries[2]["id"]),
    ]


async def test_a_statement_that_does_not_add_up_is_not_sent(history: History) -> None:
    await history.song()
    change = "UPDATE usage_hour SET cost_nano = cost_nano + 1 WHERE organization_id = $1"
    await history.by_hand(change)
    answer = await history.get(f"/v1/statements/{this_month()}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    await history.by_hand(change.replace("+", "-"))
    assert await history.read(f"/v1/statements/{this_month()}")


async def test_the_page_needs_its_link_and_nothing_else(history: History) -> None:
    await history.song()
    statement = await history.read(f"/v1/statements/{this_month()}")
    http = history.installation.http
    answer = await http.get(statement["url"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(sha256(style.encode()).digest()).decode() in policy
    url = urlsplit(statement["url"])
    other_month = url.path.replace(this_month(), "2020-01")
    other_account = url.path.replace(history.account_id.hex, "0" * 32)
    for path, query in (
        (url.path, ""),
        (url.path, url.query + "0"),
        (url.path, url.query + "&x=1"),
        (url.path, url.query.replace("expires=1", "expires=2")),
        (other_month, url.query),
        (other_account, url.query),
    ):
        refused = await http.get(f"{path}?{query}", headers=history.customer.headers())
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "link_refused"), path


async def test_a_link_lives_for_a_day(history: History) -> None:
    url = urlsplit((await history.read(f"/v1/statements/{this_month()}"))["url"])
    left = (
        int(dict(part.split("=") for part in url.query.split("&"))["expires"]) - datetime.now(UTC).timestamp()
    )
    assert 86_400 - 60 < left <= 86_400
    past = UrlSigner(SECRET).sign(url.path, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    answer = await history.installation.http.get(f"{url.path}?{past}")
    assert (answer.status_code, answer.json()["error"]["message"]) == (403, "this link has expired")


async def test_the_page_says_the_same_and_executes_nothing(history: History) -> None:
    await history.pool.execute("UPDATE organization SET name = $2 WHERE id = $1", history.account_id, HOSTILE)
    await three_months(history)
    for name in (month(), month(1), month(2)):
        statement = await history.read(f"/v1/statements/{name}")
        page = (await history.installation.http.get(statement["url"])).text
        assert "<script" not in page.lower()
        assert not re.search(r"(src|href|@import|url\()", page.partition("</style>")[2])
        text = unescape(re.sub(r"<[^>]*>", " ", page.partition("<body>")[2]))
        assert statement["organization"] in text
        for amount in ("opening_usd", "added_usd", "charged_usd", "removed_usd", "closing_usd", "total_usd"):
            assert statement[amount] in text
        for line in statement["credits"] + statement["deductions"]:
            assert line["amount_usd"] in text
            assert (line["external_ref"] or "") in text
            assert (line["reason"] or "") in text
        for line in statement["usage"]:
            assert f"{line['model']}" in text
            assert f"{line['billed_seconds']:.3f}" in text


async def test_nobody_else_reads_statements(history: History, installation: Installation) -> None:
    customer = history.customer
    project_key = await customer.key(project_id=await customer.project("p"))
    for key in (project_key, await customer.key(scopes=["generate"])):
        for path in ("/v1/statements", f"/v1/statements/{this_month()}"):
            answer = await customer.get(path, key=key)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_denied")
    await history.song()
    other = await installation.customer(usd="1")
    statement = (await other.get(f"/v1/statements/{this_month()}")).json()
    assert (statement["usage"], statement["closing_usd"]) == ([], "1.000000000")


async def test_the_balance_tells_where_it_comes_from(history: History) -> None:
    soon, later = (datetime.now(UTC) + timedelta(days=days) for days in (1, 30))
    await history.grant("0.25", expires_at=later)
    await history.grant("0.5", expires_at=soon)
    await history.pay("3")
    await history.refund(await history.song(seconds=8))
    balance = await history.read("/v1/balance")
    assert [(grant["kind"], grant["remaining_usd"]) for grant in balance["grants"]] == [
        ("promotional", "0.498000000"),
        ("promotional", "0.250000000"),
        ("promotional", "5.000000000"),
        ("refund", "0.002000000"),
        ("paid", "3.000000000"),
    ]
    assert [grant["expires_at"] and grant["expires_at"][:19] for grant in balance["grants"]] == [
        f"{soon:%Y-%m-%dT%H:%M:%S}",
        f"{later:%Y-%m-%dT%H:%M:%S}",
        None,
        None,
        None,
    ]
    assert total(balance["grants"], "remaining_usd") == nano(balance["balance_usd"])
    assert (balance["owed_usd"], balance["level"]) == ("0.000000000", "fine")
    assert (balance["low_usd"], balance["critical_usd"]) == ("1.000000000", "0.100000000")


async def test_the_balance_tells_how_low_it_is_and_what_is_owed(
    installation: Installation, history: History
) -> None:
    low = await installation.customer(usd="0.999999999")
    critical = await installation.customer(usd="0.05")
    assert (await low.get("/v1/balance")).json()["level"] == "low"
    assert (await critical.get("/v1/balance")).json()["level"] == "critical"
    payment = await history.pay("1")
    job = await history.customer.submitted()
    await history.take_back(payment, "10")
    balance = await history.read("/v1/balance")
    assert (balance["balance_usd"], balance["held_usd"]) == ("0.001250000", "0.001250000")
    assert (balance["available_usd"], balance["owed_usd"]) == ("0.000000000", "4.001250000")
    assert job["cost"]["held_usd"] == balance["held_usd"]


def test_months_are_counted_over_years() -> None:
    assert Month(2026, 1).moved(-1) == Month(2025, 12)
    assert Month(2026, 12).moved(1) == Month(2027, 1)
    assert Month(2026, 5).moved(-29) == Month(2023, 12)
    assert str(Month(2026, 5)) == "2026-05"
    assert month_of(datetime.fromisoformat("2026-06-01T00:30:00+02:00")) == Month(2026, 5)
