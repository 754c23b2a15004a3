"""A customer's money over months: what happens through the product, and time that passes by hand."""

import csv
import io
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import msgspec

import billing
from gateway.ids import parse_id
from tests.gateway.api.installation import Customer, Installation

NANO = 10**9
_MOVED = (
    """
    UPDATE entry SET created_at = created_at - $2::interval
     WHERE account_id = $1 AND created_at >= $3 AND created_at < $4
    """,
    """
    UPDATE usage_record SET created_at = created_at - $2::interval
     WHERE account_id = $1 AND created_at >= $3 AND created_at < $4
    """,
)
_EVER = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))
_COUNTED_AGAIN = (
    "DELETE FROM usage_hour WHERE organization_id = $1",
    """
    INSERT INTO usage_hour
           (organization_id, hour, key_id, project_id, model, backend, jobs, billed_ms, cost_nano)
    SELECT j.organization_id, date_trunc('hour', u.created_at, 'UTC'), j.key_id, j.project_id, j.model,
           j.backend, count(*), sum(u.billed_ms), sum(u.cost_nano)
      FROM usage_record u JOIN job j ON j.id = u.reference WHERE u.account_id = $1
     GROUP BY 1, 2, 3, 4, 5, 6
    """,
)


class History(msgspec.Struct, kw_only=True):
    """One customer, and a way around the triggers that keep the past as it is."""

    customer: Customer
    installation: Installation
    superuser_dsn: str

    async def song(
        self, *, seconds: float = 5, key: str | None = None, model: str | None = None
    ) -> dict[str, Any]:
        """A job that was charged; by another model's name, if that is given."""
        job = await self.customer.submitted(key=key, audio_duration=seconds)
        if model is not None:
            await self.pool.execute("UPDATE job SET model = $2 WHERE id = $1", parse_id(job["id"]), model)
        await self.installation.finish(job["id"])
        return job

    async def grant(self, usd: str, *, reason: str = "a gift", expires_at: datetime | None = None) -> None:
        async with self.pool.acquire() as conn, conn.transaction():
            await billing.grant(
                conn,
                account_id=self.account_id,
                amount_nano=billing.parse_usd(usd),
                reason=reason,
                expires_at=expires_at,
            )

    async def pay(self, usd: str) -> str:
        """A payment that has arrived; returns its name."""
        name = f"pi_{uuid.uuid4().hex}"
        async with self.pool.acquire() as conn, conn.transaction():
            await billing.top_up(
                conn, account_id=self.account_id, amount_nano=billing.parse_usd(usd), external_ref=name
            )
        return name

    async def take_back(self, payment: str, usd: str, *, kind: str = "dispute") -> str:
        name = f"dp_{uuid.uuid4().hex}"
        async with self.pool.acquire() as conn, conn.transaction():
            await billing.take_back(
                conn,
                account_id=self.account_id,
                kind=kind,
                external_ref=name,
                amount_nano=billing.parse_usd(usd),
                top_up_ref=payment,
            )
        return name

    async def give_again(self, name: str, usd: str) -> None:
        async with self.pool.acquire() as conn, conn.transaction():
            await billing.give_again(
                conn,
                account_id=self.account_id,
                kind="dispute_won",
                external_ref=name,
                amount_nano=billing.parse_usd(usd),
            )

    async def refund(self, job: dict[str, Any], *, reason: str = "it was noise") -> None:
        async with self.pool.acquire() as conn, conn.transaction():
            await billing.refund_usage(conn, reference=uuid.UUID(job["id"]), reason=reason)

    async def expire(self) -> None:
        async with self.pool.acquire() as conn, conn.transaction():
            await billing.expire_due(conn)

    async def passes(self, *, since: datetime = _EVER[0], before: datetime = _EVER[1], **time: float) -> None:
        """All that has happened, or what happened between two moments, is so much longer ago."""
        await self.by_hand(*_MOVED, arguments=(timedelta(**time), since, before))
        await self.by_hand(*_COUNTED_AGAIN)

    async def gather_days(self) -> None:
        """What was charged on a day was charged in its first hour: the tests' own hour may end any moment."""
        await self.by_hand(
            "UPDATE usage_record SET created_at = date_trunc('day', created_at, 'UTC') WHERE account_id = $1",
            *_COUNTED_AGAIN,
        )

    async def by_hand(self, *statements: str, arguments: tuple[Any, ...] = ()) -> None:
        """As the superuser, with triggers asleep; $1 is the account, then come the arguments."""
        conn = await asyncpg.connect(self.superuser_dsn, database=self.installation.dsn.rpartition("/")[2])
        try:
            await conn.execute("SET session_replication_role = replica")
            for statement in statements:
                await conn.execute(statement, self.account_id, *arguments)
        finally:
            await conn.close()

    async def get(self, path: str, *, by: str | None = None, **params: Any) -> httpx.Response:
        """GET by that key, else by the live one."""
        return await self.customer.http.get(path, params=params or None, headers=self.customer.headers(by))

    async def read(self, path: str, *, by: str | None = None, **params: Any) -> Any:
        """An answer's JSON."""
        answer = await self.get(path, by=by, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def table(self, path: str, *, by: str | None = None, **params: Any) -> list[dict[str, str]]:
        """An answer's CSV, by the names of its columns."""
        return rows_of(await self.get(path, by=by, format="csv", **params))

    async def pages(self, path: str, **params: Any) -> list[dict[str, Any]]:
        """What all pages of a list have, one after the other."""
        found: list[dict[str, Any]] = []
        page = await self.read(path, **params)
        while True:
            found += page["data"]
            if not page["has_more"]:
                assert page["next_cursor"] is None
                return found
            assert len(page["data"]) == params["limit"]
            page = await self.read(path, **params | {"cursor": page["next_cursor"]})

    @property
    def account_id(self) -> uuid.UUID:
        return self.customer.organization_id

    @property
    def pool(self) -> asyncpg.Pool:
        return self.installation.live.pool


def rows_of(answer: httpx.Response) -> list[dict[str, str]]:
    """The lines of a CSV."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def nano(usd: str) -> int:
    """An amount as it was written."""
    return billing.parse_usd(usd)


def total(lines: list[dict[str, Any]], field: str = "amount_usd") -> int:
    """Of amounts in a column; empty cells are none."""
    return sum(nano(line[field]) for line in lines if line[field])


def this_month() -> str:
    return f"{datetime.now(UTC):%Y-%m}"
