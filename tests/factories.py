"""What tests of money and jobs start from: customers with credit, keys, orders, lanes, endings."""

import asyncio
import contextlib
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

import billing
from gateway.auth.directory import KeyLimits, create_key, create_organization, create_project
from gateway.auth.keys import derive_pepper
from gateway.auth.principal import Principal
from gateway.catalog import Model, read_catalog
from gateway.config_watch import ConfigWatch
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.ids import new_id
from gateway.jobs.audit import verify_ledger
from gateway.jobs.job import JobResult, Track
from gateway.jobs.service import Jobs, Order
from gateway.jobs.walk import Submission
from gateway.settings import DEFAULT_CATALOG

Conn = billing.Connection
Pool = asyncpg.Pool

SECRET_KEY = "a secret of the tests, at least 32 characters"
PEPPER = derive_pepper(SECRET_KEY)
CATALOG = read_catalog(DEFAULT_CATALOG)
SANDBOX: Model = CATALOG.find("sandbox")
NANO_PER_SECOND = 250_000
"""The sandbox's first list price."""
USD = 1_000_000_000
PATIENCE_SECONDS = 20.0


async def open_shop(conn: Conn) -> None:
    """Put the catalog's prices in force."""
    async with conn.transaction():
        await billing.seed_prices(conn, CATALOG.seed_prices())


async def new_customer(
    conn: Conn, *, credit_nano: int = USD, test: bool = False, limits: KeyLimits | None = None
) -> Principal:
    """A new organization with credit, and its first key."""
    organization_id = await create_organization(conn, name="An organization")
    if credit_nano:
        await billing.grant(conn, account_id=organization_id, amount_nano=credit_nano, reason="to start with")
    return await new_key(conn, organization_id, test=test, limits=limits)


async def expire_now(conn: Conn, account_id: uuid.UUID) -> None:
    """As if the end of all credit that has one had come."""
    await conn.execute(
        """
        WITH lapsed AS (
            UPDATE credit_grant SET expires_at = now() WHERE account_id = $1 AND expires_at IS NOT NULL
        )
        UPDATE account SET next_expiry_at = now() WHERE id = $1
        """,
        account_id,
    )


async def new_project(conn: Conn, organization_id: uuid.UUID, name: str) -> uuid.UUID:
    return await create_project(conn, organization_id=organization_id, name=name)


async def new_key(
    conn: Conn,
    organization_id: uuid.UUID,
    *,
    test: bool = False,
    project_id: uuid.UUID | None = None,
    limits: KeyLimits | None = None,
) -> Principal:
    """Another key of an organization, as the directory would find it."""
    limits = limits or KeyLimits()
    key_id, _ = await create_key(
        conn,
        pepper=PEPPER,
        organization_id=organization_id,
        name="a key",
        test=test,
        project_id=project_id,
        limits=limits,
    )
    return Principal(
        key_id=key_id,
        organization_id=organization_id,
        project_id=project_id,
        test=test,
        scopes=None if limits.scopes is None else frozenset(limits.scopes),
        models=None if limits.models is None else frozenset(limits.models),
        requests_per_minute=limits.requests_per_minute,
        max_open_jobs=limits.max_open_jobs,
        has_budget=limits.budget_nano is not None,
    )


def new_order(
    *,
    seconds: float = 10,
    prompt: str = "a song",
    idempotency_key: str | None = None,
    is_retry: bool = False,
    body: bytes | None = None,
    **fields: Any,
) -> Order:
    """A checked request for the sandbox; `body` stands for route and body in its hash."""
    request = GenerationRequest(prompt=prompt, frames=round(seconds * SAMPLE_RATE), seed=1, **fields)
    return Order(
        model=SANDBOX,
        request=request,
        request_hash=(body or secrets.token_bytes(8)).ljust(32, b"."),
        idempotency_key=idempotency_key,
        is_retry=is_retry,
    )


def new_submission(principal: Principal, price: billing.Price, **changes: Any) -> Submission:
    """What the service makes of an order, for tests below it; `length_ms` also sets the hold."""
    length_ms = changes.pop("length_ms", 10_000)
    values: dict[str, Any] = {
        "job_id": new_id(),
        "organization_id": principal.organization_id,
        "project_id": principal.project_id,
        "key_id": principal.key_id,
        "test": principal.test,
        "model": price.model,
        "task": "text2music",
        "queue": "sandbox",
        "length_ms": length_ms,
        "request_json": msgspec.json.encode(
            GenerationRequest(prompt="a song", frames=length_ms * 48, seed=1)
        ).decode(),
        "metadata_json": None,
        "warnings_json": "[]",
        "request_hash": secrets.token_bytes(32),
        "idempotency_key": None,
        "price": price,
        "hold_nano": 0 if principal.test else price.cost_nano(length_ms),
        "created_at": datetime.now(UTC),
        "requests_per_minute": principal.requests_per_minute,
        "max_open_jobs": principal.max_open_jobs,
        "has_budget": principal.has_budget,
    }
    return Submission(**(values | changes))


def new_result(frames: int, *, tracks: int = 1) -> JobResult:
    """A delivery of so many frames together, the last track the longest; the files are nobody's concern."""
    lengths = [frames // tracks] * (tracks - 1)
    lengths.append(frames - sum(lengths))
    return JobResult(tracks=tuple(map(_new_track, lengths, range(tracks))), deterministic=True)


def _new_track(frames: int, index: int) -> Track:
    return Track(
        key=f"a/b/1-{index}.flac",
        master_key=f"a/b/1-{index}.flac",
        format="flac",
        content_type="audio/flac",
        frames=frames,
        master_sample_rate=SAMPLE_RATE,
        sample_rate=SAMPLE_RATE,
        channels=2,
        size_bytes=1,
        sha256="0" * 64,
        seed=1 + index,
        file_name="song.flac",
    )


@contextlib.asynccontextmanager
async def open_lane(dsn: str, *, size: int = 4) -> AsyncIterator[Jobs]:
    """The jobs of one gateway process: its own pool, watch and lane."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=size) as pool:
        watch = ConfigWatch(pool)
        await watch.refresh()
        jobs = Jobs(pool=pool, watch=watch)
        yield jobs
        await jobs.close()


@contextlib.asynccontextmanager
async def open_lanes(dsn: str, count: int) -> AsyncIterator[list[Jobs]]:
    """As many gateway processes, seen from the database."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_lane(dsn)) for _ in range(count)]


async def violations(dsn: str) -> list[billing.Violation]:
    """What `antiphon ledger verify` finds."""
    conn = await asyncpg.connect(dsn)
    try:
        found, _ = await verify_ledger(conn)
        return found
    finally:
        await conn.close()


async def until(
    fact: Callable[[], Awaitable[bool]], seconds: float = PATIENCE_SECONDS, *, what: str = "it"
) -> None:
    """Ask again and again until it is true."""
    deadline = time.monotonic() + seconds
    while not await fact():
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds:g} s"
        await asyncio.sleep(0.02)
