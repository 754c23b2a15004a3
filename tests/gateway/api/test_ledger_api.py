"""The ledger as its owner reads it: in pages, and as a statement of account that sums to the balance."""

import asyncio
import csv
import io
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import billing
from gateway.embedded import EmbeddedPostgres
from gateway.jobs import reports
from tests.databases import fresh_database
from tests.gateway.api.installation import Customer, Installation, running
from tests.gateway.api.money_history import History, nano, rows_of, total

FIELDS = {
    "id",
    "created_at",
    "kind",
    "amount_usd",
    "balance_after_usd",
    "job_id",
    "external_ref",
    "reason",
    "description",
}


async def lively(history: History) -> dict[str, Any]:
    """At least one line of each kind; returns what they are about."""
    song, noise = await history.song(), await history.song(seconds=8)
    await history.refund(noise)
    payment = await history.pay("20")
    await history.grant("0.5", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    await history.expire()
    dispute = await history.take_back(payment, "20")
    await history.give_again(dispute, "20")
    second = await history.pay("3")
    refund = await history.take_back(second, "3", kind="payment_refund")
    return {"song": song, "noise": noise, "payment": payment, "dispute": dispute, "refund": refund}


async def check_copy(history: History, *, opening: int, closing: int, **params: Any) -> list[dict[str, str]]:
    """A statement of account is right by itself; returns its lines without the two balances."""
    table = await history.table("/v1/ledger", **params)
    first, *lines, last = table
    assert (first["kind"], last["kind"]) == ("opening", "closing")
    assert (nano(first["amount_usd"]), nano(first["balance_usd"])) == (opening, opening)
    balance = opening
    for line in lines:
        balance += nano(line["amount_usd"])
        assert nano(line["balance_usd"]) == balance
    assert (last["amount_usd"], nano(last["balance_usd"])) == ("", closing)
    assert total(table) == closing
    return lines


async def test_lines_come_newest_first(history: History) -> None:
    things = await lively(history)
    page = await history.read("/v1/ledger")
    assert (page["object"], page["has_more"], page["next_cursor"]) == ("list", False, None)
    lines = page["data"]
    assert all(set(line) == FIELDS for line in lines)
    assert [line["kind"] for line in lines] == [
        "payment_refund",
        "top_up",
        "dispute_won",
        "dispute",
        "expiry",
        "grant",
        "top_up",
        "usage_refund",
        "settle",
        "settle",
        "grant",
    ]
    by_kind = {line["kind"]: line for line in lines}
    assert by_kind["settle"] | {"id": "", "created_at": ""} == {
        "id": "",
        "created_at": "",
        "kind": "settle",
        "amount_usd": "-0.001250000",
        "balance_after_usd": "4.998750000",
        "job_id": things["song"]["id"],
        "external_ref": None,
        "reason": None,
        "description": "5.000 s of sandbox",
    }
    assert by_kind["usage_refund"]["job_id"] == things["noise"]["id"]
    assert (by_kind["usage_refund"]["amount_usd"], by_kind["usage_refund"]["reason"]) == (
        "0.002000000",
        "it was noise",
    )
    assert by_kind["dispute"]["external_ref"] == things["dispute"]
    assert (by_kind["payment_refund"]["external_ref"], by_kind["payment_refund"]["amount_usd"]) == (
        things["refund"],
        "-3.000000000",
    )
    assert by_kind["grant"]["job_id"] is None
    assert lines[0]["balance_after_usd"] == (await history.read("/v1/balance"))["balance_usd"]
    assert [int(line["id"]) for line in lines] == sorted((int(line["id"]) for line in lines), reverse=True)
    for line in lines:
        assert datetime.fromisoformat(line["created_at"]).utcoffset() is not None
        assert line["description"]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 4, 10, 11, 12])
async def test_pages_follow_each_other_without_gaps(history: History, order: str, limit: int) -> None:
    await lively(history)
    whole = (await history.read("/v1/ledger", order="asc"))["data"]
    assert len(whole) == 11
    wanted = whole if order == "asc" else whole[::-1]
    assert await history.pages("/v1/ledger", order=order, limit=limit) == wanted


async def test_lines_that_are_written_between_two_pages_disturb_none(history: History) -> None:
    await lively(history)
    before = (await history.read("/v1/ledger"))["data"]
    page = await history.read("/v1/ledger", limit=3)
    seen = page["data"]
    while page["has_more"]:
        await history.song()
        page = await history.read("/v1/ledger", limit=3, cursor=page["next_cursor"])
        seen += page["data"]
    assert seen == before
    page = await history.read("/v1/ledger", limit=3, order="asc")
    seen = page["data"]
    for _ in range(3):
        await history.song()
        page = await history.read(
            "/v1/ledger", limit=100, order="asc", cursor=page["next_cursor"] or seen[-1]["id"]
        )
        seen += page["data"]
    assert seen == (await history.read("/v1/ledger", limit=100, order="asc"))["data"]


async def test_lines_can_be_filtered(history: History) -> None:
    await lively(history)
    whole = (await history.read("/v1/ledger"))["data"]
    for kind in billing.ENTRY_KINDS:
        wanted = [line for line in whole if line["kind"] == kind]
        assert (await history.read("/v1/ledger", kind=kind))["data"] == wanted
        assert await history.pages("/v1/ledger", kind=kind, limit=1) == wanted
        oldest_first = await history.pages("/v1/ledger", kind=kind, limit=1, order="asc")
        assert oldest_first == wanted[::-1]
    assert {line["kind"] for line in whole} == set(billing.ENTRY_KINDS) - {
        "debt_payment",
        "payment_refund_failed",
    }


async def test_a_period_has_the_lines_of_its_time(history: History) -> None:
    await history.song()
    await history.passes(days=3)
    await history.song(seconds=6)
    await history.pay("7")
    await history.passes(days=3)
    await history.song(seconds=7)
    oldest, *_ = whole = (await history.read("/v1/ledger", order="asc"))["data"]
    times = [line["created_at"] for line in whole]
    now = datetime.now(UTC)
    for start in (None, now - timedelta(days=9), now - timedelta(days=5), now - timedelta(days=1), now):
        for end in (None, now - timedelta(days=5), now - timedelta(days=1), now + timedelta(days=1)):
            bounds = {name: moment.isoformat() for name, moment in (("start", start), ("end", end)) if moment}
            wanted = [
                line
                for line, time in zip(whole, map(datetime.fromisoformat, times), strict=True)
                if (start is None or time >= start) and (end is None or time < end)
            ]
            for limit in (1, 100):
                assert await history.pages("/v1/ledger", order="asc", limit=limit, **bounds) == wanted
                assert await history.pages("/v1/ledger", limit=limit, **bounds) == wanted[::-1]
            paid = [line for line in wanted if line["kind"] == "top_up"]
            assert (await history.read("/v1/ledger", kind="top_up", **bounds))["data"] == paid
    assert oldest["kind"] == "grant"


async def test_transactions_that_pass_each_other_belong_to_their_own_times(history: History) -> None:
    # The one that began first waits for the account, and is written last.
    await history.song()
    async with history.pool.acquire() as late, late.transaction():
        began = await late.fetchval("SELECT now()")
        await history.grant("0.25", reason="in between")
        between = await history.pool.fetchval(
            "SELECT max(created_at) FROM entry WHERE account_id = $1", history.account_id
        )
        await billing.grant(late, account_id=history.account_id, amount_nano=10**9, reason="began before")
    await history.song()
    assert began < between
    last_four = (await history.read("/v1/ledger", limit=4))["data"][::-1]
    assert [line["reason"] for line in last_four] == [None, "in between", "began before", None]
    before, after = await both_sides(history, between.isoformat())
    assert [line["reason"] for line in before][-2:] == ["", "began before"]
    assert [line["reason"] for line in after] == ["in between", ""]


async def both_sides(history: History, moment: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The lines before and since a moment, each from balance to balance, together all that there are."""
    whole = await history.table("/v1/ledger")
    closing = nano(whole[-1]["balance_usd"])
    early = await history.table("/v1/ledger", end=moment)
    middle = nano(early[-1]["balance_usd"])
    before = await check_copy(history, opening=0, closing=middle, end=moment)
    after = await check_copy(history, opening=middle, closing=closing, start=moment)
    assert {line["entry"] for line in before} | {line["entry"] for line in after} == {
        line["entry"] for line in whole[1:-1]
    }
    assert len(before) + len(after) == len(whole) - 2
    return before, after


async def test_a_statement_of_account_sums_to_the_balance(history: History) -> None:
    things = await lively(history)
    balance = nano((await history.read("/v1/balance"))["balance_usd"])
    lines = await check_copy(history, opening=0, closing=balance)
    pages = (await history.read("/v1/ledger", order="asc"))["data"]
    assert [
        (line["entry"], line["created_at"], line["kind"], line["amount_usd"], line["balance_usd"])
        for line in lines
    ] == [
        (line["id"], line["created_at"], line["kind"], line["amount_usd"], line["balance_after_usd"])
        for line in pages
    ]
    assert lines[1]["job_id"] == things["song"]["id"]
    assert lines[1]["description"] == "5.000 s of sandbox"


async def test_an_empty_account_has_a_statement_too(installation: Installation) -> None:
    poor = await installation.customer(usd="0")
    first, last = rows_of(await poor.get("/v1/ledger", format="csv"))
    assert (first["kind"], first["balance_usd"]) == ("opening", "0.000000000")
    assert (last["kind"], last["balance_usd"]) == ("closing", "0.000000000")
    assert (await poor.get("/v1/ledger")).json()["data"] == []


async def test_the_lines_of_one_kind_stand_alone(history: History) -> None:
    await lively(history)
    table = await history.table("/v1/ledger", kind="top_up")
    assert [(line["kind"], line["amount_usd"]) for line in table] == [
        ("top_up", "20.000000000"),
        ("top_up", "3.000000000"),
    ]
    pages = (await history.read("/v1/ledger", kind="top_up", order="asc"))["data"]
    assert [line["balance_usd"] for line in table] == [line["balance_after_usd"] for line in pages]


async def test_a_long_statement_is_read_in_chunks_and_stays_as_it_was(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "CHUNK", 2)
    await lively(history)
    whole = await history.table("/v1/ledger")
    url, headers = "/v1/ledger?format=csv", history.customer.headers()
    async with history.customer.http.stream("GET", url, headers=headers) as answer:
        parts = answer.aiter_bytes()
        text = await anext(parts)
        await history.song()  # after the statement was begun: not in it, nor in its balance
        async for part in parts:
            text += part
    assert list(csv.DictReader(io.StringIO(text.decode(), newline=""))) == whole
    assert len(await history.table("/v1/ledger")) == len(whole) + 1


async def test_readers_who_hang_up_leave_nothing_behind(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "CHUNK", 1)
    await lively(history)
    http, headers = history.customer.http, history.customer.headers()
    for _ in range(2 * reports.READS_AT_ONCE):
        async with http.stream("GET", "/v1/ledger?format=csv", headers=headers) as answer:
            assert await anext(answer.aiter_bytes())
    assert len(await history.table("/v1/ledger")) == 13


async def test_lines_that_do_not_sum_to_the_balance_are_cut_off_before_it(history: History) -> None:
    await lively(history)
    change = "UPDATE entry SET amount_nano = amount_nano + 1 WHERE account_id = $1 AND kind IS NULL"
    await history.by_hand(change)
    with pytest.raises(httpx.RemoteProtocolError):
        await history.table("/v1/ledger")
    await history.by_hand(change.replace("+", "-"))
    assert await history.table("/v1/ledger")


@pytest.mark.parametrize(
    "reason",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\uff1d1", '=HYPERLINK("http://x","y")'],
)
async def test_no_text_becomes_a_formula(history: History, reason: str) -> None:
    await history.grant("1", reason=reason)
    table = await history.table("/v1/ledger")
    assert table[-2]["reason"] == "'" + reason
    assert (await history.read("/v1/ledger", limit=1))["data"][0]["reason"] == reason


@pytest.mark.parametrize("reason", ["a, b", 'a "b"', "a\nb", "a\r\nb; c", "plain", "1-2=3", "\N{SNOWMAN}"])
async def test_text_of_all_kinds_comes_back_from_the_table(history: History, reason: str) -> None:
    await history.grant("1", reason=reason)
    await history.song()
    table = await history.table("/v1/ledger")
    assert table[-3]["reason"] == reason
    assert table[-2]["amount_usd"] == "-0.001250000"


async def test_nobody_else_reads_the_ledger(history: History, installation: Installation) -> None:
    await history.song()
    customer = history.customer
    project_key = await customer.key(project_id=await customer.project("p"))
    blind_key = await customer.key(scopes=["generate"])
    for params in ({}, {"format": "csv"}, {"kind": "settle"}, {"cursor": "x"}):
        for key in (project_key, blind_key):
            answer = await customer.get("/v1/ledger", key=key, **params)
            if params != {"cursor": "x"}:
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope_denied")
    other = await installation.customer()
    (line,) = (await other.get("/v1/ledger")).json()["data"]
    assert line["kind"] == "grant"
    assert (await customer.get("/v1/balance", key=project_key)).status_code == 200


async def test_an_indebted_customer_reads_on(history: History) -> None:
    payment = await history.pay("1")
    await history.take_back(payment, "100")
    assert (await history.customer.submit()).status_code == 402
    lines = (await history.read("/v1/ledger"))["data"]
    assert (lines[0]["kind"], lines[0]["balance_after_usd"]) == ("dispute", "0.000000000")
    await check_copy(history, opening=0, closing=0)


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"cursor": "0"}, "cursor"),
        ({"cursor": "-1"}, "cursor"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "\u0663"}, "cursor"),
        ({"cursor": "1" * 19}, "cursor"),
        ({"order": "up"}, "order"),
        ({"kind": "provider_cost"}, "kind"),
        ({"kind": "x"}, "kind"),
        ({"start": "x"}, "start"),
        ({"end": "x"}, "end"),
        ({"limit": 0}, "limit"),
        ({"format": "pdf"}, "format"),
    ],
)
async def test_a_wrong_parameter_is_told(customer: Customer, params: dict[str, Any], param: str) -> None:
    answer = await customer.get("/v1/ledger", **params)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


amounts = st.sampled_from(["0.000000001", "0.000333333", "0.1", "1", "20.123456789"])
steps = st.one_of(
    st.tuples(st.just("song"), st.sampled_from([5, 5.001, 7.3])),
    st.tuples(st.just("grant"), amounts),
    st.tuples(st.just("lapse"), amounts),
    st.tuples(st.just("pay"), amounts),
    st.tuples(st.just("dispute"), amounts),
    st.tuples(st.just("refund"), st.none()),
    st.tuples(st.just("passes"), st.integers(1, 40 * 24)),
)


class Stage:
    """A gateway for whole histories, in an event loop of its own."""

    def __init__(self, postgres: EmbeddedPostgres, template: str, home: Path) -> None:
        self.runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._postgres = postgres
        self.installation = self.runner.run(self._open(template, home))

    async def _open(self, template: str, home: Path) -> Installation:
        dsn = await self._stack.enter_async_context(fresh_database(self._postgres, template))
        return await self._stack.enter_async_context(running(dsn, home))

    async def play(self, story: list[tuple[str, Any]]) -> History:
        """A new customer to whom all this happens."""
        customer = await self.installation.customer(usd="5")
        history = History(
            customer=customer, installation=self.installation, superuser_dsn=self._postgres.superuser_dsn
        )
        songs, payments = [], [await history.pay("10")]
        for step, value in story:
            match step:
                case "song" if not (await history.read("/v1/balance"))["available_usd"].startswith("0.00"):
                    songs.append(await history.song(seconds=value))
                case "grant":
                    await history.grant(value)
                case "lapse":
                    await history.grant(value, expires_at=datetime.now(UTC) - timedelta(seconds=1))
                    await history.expire()
                case "pay":
                    payments.append(await history.pay(value))
                case "dispute":
                    await history.take_back(payments[-1], value)
                case "refund" if songs:
                    await history.refund(songs.pop())
                case "passes":
                    await history.passes(hours=value)
        return history

    def close(self) -> None:
        self.runner.run(self._stack.aclose())
        self.runner.close()


@pytest.fixture(scope="module")
def stage(
    postgres: EmbeddedPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    opened = Stage(postgres, template_database, tmp_path_factory.mktemp("home"))
    yield opened
    opened.close()


@given(st.lists(steps, max_size=12), st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_happened_the_table_sums_to_the_balance(
    stage: Stage, story: list[tuple[str, Any]], data: st.DataObject
) -> None:
    history = stage.runner.run(stage.play(story))
    lines = stage.runner.run(sums_to_the_balance(history))
    moment = data.draw(st.sampled_from([line["created_at"] for line in lines] + ["2100-01-01T00:00:00Z"]))
    stage.runner.run(both_sides(history, moment))
    stage.runner.run(months_sum_too(history))


async def sums_to_the_balance(history: History) -> list[dict[str, str]]:
    balance = nano((await history.read("/v1/balance"))["balance_usd"])
    lines = await check_copy(history, opening=0, closing=balance)
    pages = await history.pages("/v1/ledger", order="asc", limit=5)
    assert [(line["entry"], line["amount_usd"]) for line in lines] == [
        (line["id"], line["amount_usd"]) for line in pages
    ]
    usage = await history.read("/v1/usage", start="1970-01-01")
    assert nano(usage["totals"]["cost_usd"]) == -total([line for line in lines if line["kind"] == "settle"])
    return lines


async def months_sum_too(history: History) -> None:
    months = await history.pages("/v1/statements", limit=3)
    balance = (await history.read("/v1/balance"))["balance_usd"]
    assert months[0]["closing_usd"] == balance
    assert months[-1]["opening_usd"] == "0.000000000"
    for later, earlier in pairwise(months):
        assert later["opening_usd"] == earlier["closing_usd"]
    for month in months:
        statement = await history.read(f"/v1/statements/{month['month']}")
        parts = total(statement["credits"]) + total(statement["deductions"])
        parts -= total(statement["usage"], "cost_usd")
        assert nano(statement["opening_usd"]) + parts == nano(statement["closing_usd"])
