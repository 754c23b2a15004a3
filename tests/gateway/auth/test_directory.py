"""Keys are issued once, found everywhere, and gone everywhere within a second of their revocation."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from gateway.auth.directory import KeyDirectory, KeyLimits, create_key, create_project, revoke_key
from gateway.auth.keys import generate_key
from gateway.config_watch import STALE_SECONDS, ConfigWatch, RevisionCache, bump_revision
from gateway.errors import InvalidApiKey, InvalidRequest, MissingApiKey, NotFound
from tests.factories import PEPPER, SECRET_KEY, Pool, new_customer, until

HERE = "127.0.0.1"


async def issue(
    pool: Pool,
    *,
    test: bool = False,
    limits: KeyLimits | None = None,
    organization_id: uuid.UUID | None = None,
    project_id: uuid.UUID | None = None,
) -> tuple[uuid.UUID, str]:
    async with pool.acquire() as conn:
        owner = organization_id or (await new_customer(conn, credit_nano=0)).organization_id
        return await create_key(
            conn,
            pepper=PEPPER,
            organization_id=owner,
            name="a key",
            test=test,
            project_id=project_id,
            limits=limits,
        )


@asynccontextmanager
async def open_directory(dsn: str) -> AsyncIterator[KeyDirectory]:
    """The directory of one gateway process, watching."""
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
        watch = ConfigWatch(pool)
        await watch.refresh()
        watching = asyncio.create_task(watch.run())
        yield KeyDirectory(pool=pool, watch=watch, secret_key=SECRET_KEY)
        watching.cancel()


@pytest.fixture
async def directory(database: str) -> AsyncIterator[KeyDirectory]:
    async with open_directory(database) as opened:
        yield opened


async def test_a_key_is_found_with_everything_it_may_do(pool: Pool, directory: KeyDirectory) -> None:
    expires_at = datetime.now(UTC) + timedelta(days=1)
    limits = KeyLimits(
        scopes=["read"],
        models=["sandbox"],
        cidrs=["127.0.0.0/8"],
        expires_at=expires_at,
        requests_per_minute=3,
        max_open_jobs=2,
        budget_nano=1,
    )
    async with pool.acquire() as conn:
        owner = (await new_customer(conn)).organization_id
        project_id = await create_project(conn, organization_id=owner, name="a project")
    key_id, key = await issue(pool, test=True, limits=limits, organization_id=owner, project_id=project_id)
    caller = await directory.authenticate(key, client_host=HERE)
    assert (caller.key_id, caller.organization_id, caller.project_id) == (key_id, owner, project_id)
    assert (caller.test, caller.has_budget, caller.expires_at) == (True, True, expires_at)
    assert (caller.scopes, caller.models) == (frozenset({"read"}), frozenset({"sandbox"}))
    assert (caller.cidrs, caller.requests_per_minute, caller.max_open_jobs) == (("127.0.0.0/8",), 3, 2)


async def test_a_key_is_stored_as_a_digest_alone(pool: Pool) -> None:
    _, key = await issue(pool)
    row = dict(await pool.fetchrow("SELECT * FROM api_key WHERE name = 'a key' ORDER BY id DESC LIMIT 1"))
    assert key.startswith(str(row["prefix"]))
    assert key not in str(row)
    assert key[len("aph_live_") + 4 :] not in str(row)


@pytest.mark.parametrize("key", [None, ""])
async def test_no_key_is_told_from_a_wrong_one(directory: KeyDirectory, key: str | None) -> None:
    with pytest.raises(MissingApiKey):
        await directory.authenticate(key, client_host=HERE)


async def test_a_key_that_does_not_exist_is_refused(directory: KeyDirectory) -> None:
    unknown = generate_key("live")
    for key in ("nonsense", "aph_live_x", unknown, unknown, generate_key("test")):
        with pytest.raises(InvalidApiKey):
            await directory.authenticate(key, client_host=HERE)


async def test_a_key_of_another_servers_secret_is_refused(pool: Pool, database: str) -> None:
    _, key = await issue(pool)
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as other:
        stranger = KeyDirectory(pool=other, watch=ConfigWatch(other), secret_key="another secret " * 3)
        with pytest.raises(InvalidApiKey):
            await stranger.authenticate(key, client_host=HERE)


async def test_an_expired_key_and_one_from_elsewhere_are_refused(pool: Pool, directory: KeyDirectory) -> None:
    _, expired = await issue(pool, limits=KeyLimits(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    _, bound = await issue(pool, limits=KeyLimits(cidrs=["10.0.0.0/8"]))
    for key in (expired, bound):
        with pytest.raises(InvalidApiKey):
            await directory.authenticate(key, client_host=HERE)
    assert await directory.authenticate(bound, client_host="::ffff:10.1.2.3")


async def test_a_revoked_key_is_refused_in_every_process_within_a_second(pool: Pool, database: str) -> None:
    key_id, key = await issue(pool)
    _, kept = await issue(pool)
    async with open_directory(database) as one, open_directory(database) as other:
        for directory in (one, other):
            assert await directory.authenticate(key, client_host=HERE)
        async with pool.acquire() as conn, conn.transaction():
            await revoke_key(conn, key_id)
        revoked = time.monotonic()

        async def is_refused_everywhere() -> bool:
            return await _refuses(one, key) and await _refuses(other, key)

        await until(is_refused_everywhere, 1, what="the revocation")
        assert time.monotonic() - revoked < 1
        assert await one.authenticate(kept, client_host=HERE)


async def _refuses(directory: KeyDirectory, key: str) -> bool:
    try:
        await directory.authenticate(key, client_host=HERE)
    except InvalidApiKey:
        return True
    return False


async def test_a_process_that_cannot_watch_believes_no_cache(pool: Pool, database: str) -> None:
    key_id, key = await issue(pool)
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as other:
        watch = ConfigWatch(other)
        directory = KeyDirectory(pool=other, watch=watch, secret_key=SECRET_KEY)
        await watch.refresh()
        assert await directory.authenticate(key, client_host=HERE)
        async with pool.acquire() as conn, conn.transaction():
            await revoke_key(conn, key_id)

        async def is_stale() -> bool:
            return not watch.is_fresh

        await until(is_stale, 2 * STALE_SECONDS, what="distrust")
        assert await _refuses(directory, key)


async def test_a_value_is_loaded_once_until_something_changes(pool: Pool) -> None:
    loads: list[str] = []

    async def load(key: str) -> int:
        loads.append(key)
        return len(loads)

    watch = ConfigWatch(pool)
    cache = RevisionCache(watch, load)
    await watch.refresh()
    assert [await cache.get("a") for _ in range(3)] == [1, 1, 1]
    async with pool.acquire() as conn:
        await bump_revision(conn)
    await watch.refresh()
    assert [await cache.get("a") for _ in range(3)] == [2, 2, 2]


async def test_a_change_during_a_load_is_not_missed(pool: Pool) -> None:
    watch = ConfigWatch(pool)

    async def load(_: str) -> int:
        before = watch.revision
        async with pool.acquire() as conn:
            await bump_revision(conn)
        await watch.refresh()
        return before

    cache = RevisionCache(watch, load)
    await watch.refresh()
    first = await cache.get("a")
    assert await cache.get("a") == first + 1


async def test_revoking_again_changes_nothing_and_what_never_was_is_not_found(pool: Pool) -> None:
    key_id, _ = await issue(pool)
    async with pool.acquire() as conn:
        await revoke_key(conn, key_id)
        before = await conn.fetchval("SELECT revoked_at FROM api_key WHERE id = $1", key_id)
        await revoke_key(conn, key_id)
        assert await conn.fetchval("SELECT revoked_at FROM api_key WHERE id = $1", key_id) == before
        with pytest.raises(NotFound):
            await revoke_key(conn, uuid.uuid4())


@pytest.mark.parametrize(
    "limits",
    [
        KeyLimits(scopes=["everything"]),
        KeyLimits(cidrs=["10.0.0.1/8"]),
        KeyLimits(cidrs=["home"]),
        KeyLimits(requests_per_minute=0),
        KeyLimits(max_open_jobs=-1),
        KeyLimits(budget_nano=-1),
        KeyLimits(budget_nano=1, budget_period="year"),
    ],
    ids=["scope", "host bits", "no network", "no requests", "less than no jobs", "debt", "period"],
)
async def test_limits_that_cannot_be_meant_are_refused(pool: Pool, limits: KeyLimits) -> None:
    with pytest.raises(InvalidRequest):
        await issue(pool, limits=limits)


async def test_a_key_needs_an_owner(pool: Pool) -> None:
    async with pool.acquire() as conn:
        one, other = [(await new_customer(conn)).organization_id for _ in range(2)]
        foreign = await create_project(conn, organization_id=other, name="a project")
    for organization_id, project_id in ((uuid.uuid4(), None), (one, foreign), (one, uuid.uuid4())):
        with pytest.raises(NotFound):
            await issue(pool, organization_id=organization_id, project_id=project_id)
