"""The `openai` package as it is, over a bad network: what it sends again is done once."""

import asyncio
import json
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import httpx
import msgspec
import openai
import pytest

import billing
from gateway.auth.directory import KeyLimits, create_key, create_organization
from gateway.config_watch import bump_revision
from gateway.embedded import EmbeddedPostgres
from tests.clients.hostile_proxy import Fate, HostileProxy, hostile_proxy
from tests.crash.stack import Service, wait_until
from tests.databases import fresh_database
from tests.factories import PEPPER, SECRET_KEY, USD, open_shop

PATH = "/audio/generations"
BODY = {"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5}
ANOTHER = BODY | {"prompt": "a loud piano"}
FAULTS = [fate for fate in Fate if fate is not Fate.PASSES]


class Books(msgspec.Struct, frozen=True):
    """The database behind the gateway, asked from outside any event loop."""

    dsn: str

    def run(self, action: Callable[[Any], Awaitable[Any]]) -> Any:
        """In one transaction of a connection of its own."""

        async def connect_and_run() -> Any:
            conn = await asyncpg.connect(self.dsn)
            try:
                async with conn.transaction():
                    return await action(conn)
            finally:
                await conn.close()

        return asyncio.run(connect_and_run())

    def customer(self, *, usd: float = 1, **limits: Any) -> tuple[uuid.UUID, str]:
        """A new organization and its key."""

        async def make(conn: Any) -> tuple[uuid.UUID, str]:
            organization_id = await create_organization(conn, name="Customer")
            if usd:
                nano = int(usd * USD)
                await billing.grant(conn, account_id=organization_id, amount_nano=nano, reason="test")
            _, key = await create_key(
                conn,
                pepper=PEPPER,
                organization_id=organization_id,
                name="first",
                test=False,
                limits=KeyLimits(**limits),
            )
            return organization_id, key

        return self.run(make)

    def jobs(self, organization_id: uuid.UUID) -> list[str]:
        """Their ids."""

        async def read(conn: Any) -> list[str]:
            rows = await conn.fetch("SELECT id FROM job WHERE organization_id = $1", organization_id)
            return [row["id"].hex for row in rows]

        return self.run(read)


class User(msgspec.Struct, frozen=True):
    """Somebody with a key and OpenAI's client."""

    books: Books
    proxy: HostileProxy
    organization_id: uuid.UUID
    key: str

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.proxy.base_url, api_key=self.key, **options)

    def submit(self, *, headers: dict[str, str] | None = None, body: Any = BODY, **options: Any) -> Any:
        """As the users of this field do."""
        with self.client(**options) as client:
            return client.post(PATH, body=body, cast_to=object, options={"headers": headers or {}})

    def jobs(self) -> list[str]:
        return self.books.jobs(self.organization_id)

    @property
    def upstream_url(self) -> str:
        """Around the proxy, which serves one at a time."""
        return f"http://127.0.0.1:{self.proxy.upstream_port}/v1"


@pytest.fixture(scope="module")
def books(postgres: EmbeddedPostgres, template_database: str) -> Iterator[Books]:
    database = fresh_database(postgres, template_database)
    with asyncio.Runner() as runner:
        books = Books(runner.run(database.__aenter__()))

        async def open_for_business(conn: Any) -> None:
            await open_shop(conn)
            await bump_revision(conn)

        books.run(open_for_business)
        yield books
        runner.run(database.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def proxy(books: Books, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileProxy]:
    """In front of a gateway process that it may restart."""
    folder = tmp_path_factory.mktemp("gateway")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environ = {
        "ANTIPHON_HOME": str(folder),
        "ANTIPHON_DATABASE_URL": books.dsn,
        "ANTIPHON_SECRET_KEY": SECRET_KEY,
        "ANTIPHON_BIND": f"127.0.0.1:{port}",
    }
    serve = Service(("serve",), environ=environ, folder=folder)

    def restart() -> None:
        serve.kill()
        serve.start()
        wait_until(lambda: is_alive(port))

    with hostile_proxy(port, restart=restart) as proxy:
        # In the proxy's thread, as later ones: a process ends with the thread that has started it.
        proxy.begin(Fate.REFUSED)
        with pytest.raises(httpx.HTTPError):
            httpx.get(proxy.base_url, timeout=60, trust_env=False)
        try:
            yield proxy
        finally:
            serve.stop()


def is_alive(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@pytest.fixture
def user(books: Books, proxy: HostileProxy) -> User:
    proxy.begin()
    return User(books, proxy, *books.customer())


def header_of(request: bytes, name: bytes) -> bytes | None:
    """As it was sent."""
    for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        found, _, value = line.partition(b": ")
        if found.lower() == name:
            return value
    return None


def test_its_users_make_and_read_a_job(user: User) -> None:
    with user.client() as client:
        job: Any = client.post(PATH, body=BODY, cast_to=object)
        assert (job["status"], job["id"], [job["id"]]) == ("queued", job["job_id"], user.jobs())
        assert client.get(f"/jobs/{job['id']}", cast_to=object)["id"] == job["id"]  # type: ignore[index]
        models = client.models.list().data
        assert "sandbox" in [model.id for model in models]
        assert client.models.retrieve("ace-step-1.5-xl").owned_by == "antiphon"
        cancelled: Any = client.post(f"/jobs/{job['id']}/cancel", cast_to=object)
        assert cancelled["error"]["code"] == "job_cancelled"


async def test_so_does_the_asynchronous_one(books: Books, proxy: HostileProxy) -> None:
    proxy.begin(Fate.UNANSWERED)
    organization_id, key = await asyncio.to_thread(books.customer)
    async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key=key) as client:
        job: Any = await client.post(PATH, body=BODY, cast_to=object)
    assert await asyncio.to_thread(books.jobs, organization_id) == [job["id"]]


@pytest.mark.parametrize("fate", FAULTS, ids=lambda fate: fate.name.lower())
def test_whatever_happens_on_the_way_there_is_one_job(user: User, fate: Fate) -> None:
    user.proxy.begin(fate)
    # Late is what comes after this; everything else has time.
    job = user.submit(timeout=2 if fate is Fate.LATE else 60)
    assert user.jobs() == [job["id"]]
    counts = [header_of(request, b"x-stainless-retry-count") for request in user.proxy.requests]
    assert counts == [b"0", b"1"]
    assert header_of(user.proxy.requests[1], b"idempotency-key") is None


@pytest.mark.parametrize(
    "fates",
    [
        (Fate.UNANSWERED, Fate.UNANSWERED),
        (Fate.LOST, Fate.HALF_ANSWERED),
        (Fate.RESTARTED, Fate.LOST),
        (Fate.REFUSED, Fate.RESTARTED),
    ],
    ids=lambda fates: " ".join(fate.name.lower() for fate in fates),
)
def test_nor_do_two_misfortunes_make_two_jobs(user: User, fates: tuple[Fate, ...]) -> None:
    user.proxy.begin(*fates)
    job = user.submit(timeout=60)
    assert user.jobs() == [job["id"]]
    assert len(user.proxy.requests) == 3


def test_who_gets_no_answer_at_all_has_one_job_and_finds_it(user: User) -> None:
    user.proxy.begin(*[Fate.UNANSWERED] * 3)
    with pytest.raises(openai.APIConnectionError):
        user.submit()
    (job_id,) = user.jobs()
    with user.client() as client:
        page: Any = client.get("/jobs", cast_to=object)
    assert [job["id"] for job in page["data"]] == [job_id]


def test_the_same_wish_twice_is_two_jobs(user: User) -> None:
    first, second = user.submit(), user.submit()
    assert sorted(user.jobs()) == sorted([first["id"], second["id"]])
    assert first["id"] != second["id"]


def test_a_key_of_idempotency_holds_over_clients(user: User) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    user.proxy.begin(Fate.LOST, Fate.UNANSWERED)
    first = user.submit(headers=headers)
    assert user.submit(headers=headers)["id"] == first["id"]
    assert user.jobs() == [first["id"]]
    with pytest.raises(openai.UnprocessableEntityError) as refusal:
        user.submit(headers=headers, body=BODY | {"audio_duration": 6})
    assert refusal.value.code == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("body", "kind", "status", "code", "param"),
    [
        ({"bpm": 20}, openai.BadRequestError, 400, "invalid_request", "bpm"),
        ({"promt": "x"}, openai.BadRequestError, 400, "unknown_parameter", "promt"),
        ({"model": "none"}, openai.NotFoundError, 404, "model_not_found", "model"),
        ({"audio_duration": 600}, openai.APIStatusError, 402, "insufficient_credits", None),
        ({"user": "x" * 1_100_000}, openai.APIStatusError, 413, "payload_too_large", None),
        (
            {"model": "ace-step-1.5-xl", "audio_duration": 30},
            openai.InternalServerError,
            503,
            "model_unavailable",
            "model",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_is_told_once_in_full(
    books: Books,
    proxy: HostileProxy,
    body: dict[str, Any],
    kind: type[openai.APIStatusError],
    status: int,
    code: str,
    param: str | None,
) -> None:
    proxy.begin()
    user = User(books, proxy, *books.customer(usd=0.1))
    with pytest.raises(kind) as refusal:
        user.submit(body=BODY | body)
    error = refusal.value
    assert (error.status_code, error.code, error.param) == (status, code, param)
    assert isinstance(error.body, dict)
    assert error.body["charged"] is False
    assert error.request_id == error.body["request_id"]
    assert error.message
    assert len(proxy.requests) == 1
    assert user.jobs() == []


def test_keys_and_scopes_have_their_errors(books: Books, proxy: HostileProxy) -> None:
    proxy.begin()
    organization_id, reader = books.customer(scopes=["read"])
    for key, kind, code in (
        ("nonsense", openai.AuthenticationError, "invalid_api_key"),
        (reader, openai.PermissionDeniedError, "scope_denied"),
    ):
        with pytest.raises(kind) as refusal:
            User(books, proxy, organization_id, key).submit()
        assert refusal.value.code == code
    assert len(proxy.requests) == 2


def test_what_is_not_there_has_its_error(user: User) -> None:
    with user.client() as client, pytest.raises(openai.NotFoundError) as refusal:
        client.get("/jobs/" + "0" * 32, cast_to=object)
    assert refusal.value.code == "job_not_found"
    assert len(user.proxy.requests) == 1


def test_a_limit_is_waited_for(books: Books, proxy: HostileProxy) -> None:
    user = User(books, proxy, *books.customer(max_open_jobs=1))
    first = user.submit()["id"]

    def make_room(status: int) -> None:
        if status == 429:
            with openai.OpenAI(base_url=user.upstream_url, api_key=user.key) as client:
                client.delete(f"/jobs/{first}", cast_to=object)

    proxy.begin()
    proxy.after_answer = make_room
    second = user.submit(body=ANOTHER)["id"]
    assert proxy.statuses == [429, 202]
    assert sorted(user.jobs()) == sorted([first, second])


def test_a_limit_that_stays_is_told(books: Books, proxy: HostileProxy) -> None:
    user = User(books, proxy, *books.customer(max_open_jobs=1))
    user.submit()
    proxy.begin()
    with pytest.raises(openai.RateLimitError) as refusal:
        user.submit(body=ANOTHER, max_retries=1)
    assert refusal.value.code == "concurrency_limit_exceeded"
    assert int(refusal.value.response.headers["retry-after"]) >= 1
    assert len(proxy.requests) == 2
    assert json.loads(proxy.requests[0].partition(b"\r\n\r\n")[2]) == ANOTHER
