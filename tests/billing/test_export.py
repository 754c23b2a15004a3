"""An export is the whole ledger of one moment, exact to the nano, in pieces, and harmless to spreadsheets."""

import asyncio
import csv
import io
import json
import threading
import time
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

import billing
from billing.export import ExportedEntry, harmless
from gateway.embedded import EmbeddedPostgres
from tests.billing.breaches import Life, live
from tests.factories import USD, Conn
from tests.planting import plant

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1", " =1", "\uff1d1")


@pytest.fixture
async def life(conn: Conn) -> Life:
    return await live(conn)


async def as_json(conn: Conn, since: datetime | None = None) -> Any:
    out = io.BytesIO()
    await billing.write_json(conn, out.write, since=since)
    return json.loads(out.getvalue())


async def as_csv(conn: Conn, since: datetime | None = None) -> list[dict[str, str]]:
    out = io.BytesIO()
    await billing.write_csv(conn, out.write, since=since)
    text = out.getvalue().decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(text.splitlines()) == 1 + len(rows)
    return rows


def nano(usd: str) -> int:
    return billing.parse_usd(usd)


def check_sums(document: Any) -> None:
    """Zero over all, and for each account what its balance has changed by."""
    moved: dict[str, int] = defaultdict(int)
    for entry in document["entries"]:
        assert nano(entry["amount_usd"]) == entry["amount_nano"]
        assert nano(entry["balance_after_usd"]) == entry["balance_after_nano"]
        moved[entry["account_id"]] += entry["amount_nano"]
    assert sum(moved.values()) == 0
    for account in document["accounts"]:
        assert nano(account["balance_usd"]) == account["balance_nano"]
        assert nano(account["opening_usd"]) == account["opening_nano"]
        assert account["opening_nano"] + moved.pop(account["account_id"], 0) == account["balance_nano"]
    assert moved == {}
    assert document["totals"] == {
        "entries": len(document["entries"]),
        "amount_nano": 0,
        "amount_usd": "0.000000000",
    }


@pytest.mark.usefixtures("life")
async def test_the_amounts_sum_to_zero_and_those_of_an_account_to_its_balance(conn: Conn) -> None:
    document = await as_json(conn)
    check_sums(document)
    assert len(document["entries"]) == await billing.count_entries(conn) > 30
    assert {account["opening_nano"] for account in document["accounts"]} == {0}
    assert len(document["accounts"]) == await conn.fetchval("SELECT count(*) FROM account")
    assert [entry["id"] for entry in document["entries"]] == sorted(e["id"] for e in document["entries"])


async def test_an_entry_says_what_moved_why_and_by_which_object(conn: Conn, life: Life) -> None:
    document = await as_json(conn)
    (entry,) = [
        e for e in document["entries"] if e["kind"] == "payment_refund" and e["account_kind"] == "customer"
    ]
    row = await conn.fetchrow("SELECT id, created_at FROM transfer WHERE kind = 'payment_refund'")
    assert entry["transfer_id"] == row["id"].hex
    assert datetime.fromisoformat(entry["created_at"]) == row["created_at"]
    assert entry["account_id"] == life.customer.organization_id.hex
    assert (entry["amount_usd"], entry["external_ref"], entry["reason"]) == ("-2.000000000", "re_1", "pi_1")
    settled = {e["reference"] for e in document["entries"] if e["kind"] == "settle"}
    used = await conn.fetch("SELECT reference FROM usage_record")
    assert settled == {usage["reference"].hex for usage in used}


@pytest.mark.usefixtures("life")
async def test_the_table_has_the_same_entries(conn: Conn) -> None:
    document, rows = await as_json(conn), await as_csv(conn)
    assert list(rows[0]) == list(ExportedEntry.__struct_fields__)
    assert rows == [
        {name: "" if value is None else str(value) for name, value in entry.items()}
        for entry in document["entries"]
    ]


@pytest.mark.usefixtures("life")
async def test_what_is_older_is_the_opening_balance(
    conn: Conn, database: str, postgres: EmbeddedPostgres
) -> None:
    back = "UPDATE {} SET created_at = created_at - interval '1 day'"
    await plant(database, postgres.superuser_dsn, [back.format("entry"), back.format("transfer")])
    everything = await as_json(conn)
    customer = await conn.fetchval("SELECT account_id FROM budget LIMIT 1")
    await billing.grant(conn, account_id=customer, amount_nano=USD, reason="today")
    since = await conn.fetchval("SELECT now() - interval '1 hour'")
    document = await as_json(conn, since)
    check_sums(document)
    assert [entry["reason"] for entry in document["entries"]] == ["today", "today"]
    assert [row["reason"] for row in await as_csv(conn, since)] == ["today", "today"]
    openings = {account["account_id"]: account["opening_nano"] for account in document["accounts"]}
    assert openings == {account["account_id"]: account["balance_nano"] for account in everything["accounts"]}
    nothing = await as_json(conn, since + timedelta(days=1))
    check_sums(nothing)
    assert nothing["entries"] == []


async def test_an_export_is_written_in_pieces_of_one_moment(
    conn: Conn, life: Life, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.export.CHUNK", 3)
    pieces: list[bytes] = []

    async def give() -> None:
        other = await asyncpg.connect(database)
        async with other.transaction():
            await billing.grant(
                other, account_id=life.customer.organization_id, amount_nano=USD, reason="meanwhile"
            )
        await other.close()

    def write(data: bytes) -> None:
        """Somebody else goes on while we are read."""
        if len(pieces) == 1:  # the accounts
            thread = threading.Thread(target=lambda: asyncio.run(give()))
            thread.start()
            thread.join()
        pieces.append(data)

    await billing.write_json(conn, write)
    document = json.loads(b"".join(pieces))
    check_sums(document)
    assert "meanwhile" not in {entry["reason"] for entry in document["entries"]}
    assert len(pieces) > len(document["entries"]) // 3
    assert max(piece.count(b'"transfer_id"') for piece in pieces) == 3
    assert await conn.fetchval("SELECT true FROM transfer WHERE reason = 'meanwhile'")


@pytest.mark.usefixtures("life")
async def test_whoever_reads_it_may_be_slower_than_a_transaction_may_be(
    conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.export.CHUNK", 3)
    await conn.execute("SET idle_in_transaction_session_timeout = '250ms'")
    pieces: list[bytes] = []

    def write(data: bytes) -> None:
        time.sleep(0.3 if len(pieces) < 3 else 0)
        pieces.append(data)

    exported = await billing.write_csv(conn, write)
    assert exported.entries == b"".join(pieces).count(b"\n") - 1
    assert await conn.fetchval("SHOW idle_in_transaction_session_timeout") == "250ms"


async def test_texts_of_others_are_no_formulas_and_no_lines(conn: Conn, life: Life) -> None:
    for number, text in enumerate(FORMULAS):
        await billing.grant(
            conn,
            account_id=life.customer.organization_id,
            amount_nano=1,
            reason=text,
            external_ref=f"{text}{number}",
        )
    await billing.grant(conn, account_id=life.customer.organization_id, amount_nano=1, reason='two\nlines, "')
    rows = await as_csv(conn)
    for name in ("reason", "external_ref"):
        assert [row[name] for row in rows if row[name].lstrip("\t\r\n ")[:1] in set("=+-@\uff1d")] == []
        assert len([row for row in rows if row[name].startswith("'")]) == 2 * len(FORMULAS)
    assert rows[-1]["reason"] == 'two lines, "'
    document = await as_json(conn)
    assert document["entries"][-1]["reason"] == 'two\nlines, "'
    assert rows[0]["amount_nano"][0] == "-" or rows[1]["amount_nano"][0] == "-"  # numbers stay numbers


def test_a_harmless_text_stays_what_it_is() -> None:
    assert [harmless(text) for text in (None, "", "a gift", "pi_3Nx", "50 % - thanks")] == [
        None,
        "",
        "a gift",
        "pi_3Nx",
        "50 % - thanks",
    ]
