"""What providers post is a reason to look, if it is theirs; forged, old and broken ones reach nobody."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException

from gateway.dialects import provider_webhooks
from gateway.dialects.native import errors
from gateway.dialects.provider_webhooks import SECRET_SECONDS, ProviderHooks
from gateway.errors import GatewayError, Overloaded
from gateway.jobs import hints
from gateway.jobs.hints import (
    CHANNEL,
    Hint,
    listen_for_hints,
    runware_webhook_url,
    tell,
    wavespeed_webhook_url,
)
from tests.gateway.backends.wavespeed_account import Account, call
from tests.providers.stripe import served
from tests.providers.wavespeed import WaveSpeedStandIn, running
from tests.providers.wavespeed.hooks import signed_headers
from tests.remote_backends import TLS

SECRET_KEY = "the secret of an installation of the tests"
TASK = "50836053-a0ee-4cf5-b9d6-ae7c5d140ada"


class Gateway:
    """Our doors for providers, and a worker's ear behind them."""

    def __init__(self, url: str, vendor: WaveSpeedStandIn, hooks: ProviderHooks, pool: Any) -> None:
        self.url = url
        self.vendor = vendor
        self.hooks = hooks
        self.pool = pool
        self.http = httpx.AsyncClient(base_url=url, verify=TLS, trust_env=False)
        self._heard: list[tuple[str, str]] = []
        self._marks = 0
        self._marked = asyncio.Event()

    def hear(self, backend: str, ref: str) -> None:
        self._heard.append((backend, ref))
        if (backend, ref) == ("mark", str(self._marks)):
            self._marked.set()

    async def heard(self) -> list[tuple[str, str]]:
        """All hints so far: a mark of our own, told after them, has come, too."""
        self._marks += 1
        self._marked.clear()
        while not self._marked.is_set():  # until somebody listens
            await tell(self.pool, [Hint("mark", str(self._marks))])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._marked.wait(), 0.02)
        return [one for one in self._heard if one[0] != "mark"]

    async def post(self, body: bytes, **headers: str) -> httpx.Response:
        url = wavespeed_webhook_url(self.url)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(url, content=body, headers=named)

    async def post_signed(self, body: bytes, *, now: float | None = None, **others: str) -> httpx.Response:
        headers = signed_headers(
            body, self.vendor.webhook_secret, "msg_1", time.time() if now is None else now
        )
        return await self.post(
            body, **{name.replace("-", "_"): text for name, text in headers.items()} | others
        )

    async def post_runware(self, body: bytes, token: str | None = None) -> httpx.Response:
        url = runware_webhook_url(self.url, SECRET_KEY)
        return await self.http.post(url if token is None else url.rpartition("/")[0] + token, content=body)


@pytest.fixture
async def vendor() -> AsyncIterator[WaveSpeedStandIn]:
    async with running() as stand_in:
        yield stand_in


@contextlib.asynccontextmanager
async def open_gateway(database: str, vendor: WaveSpeedStandIn, **options: Any) -> AsyncIterator[Gateway]:
    provider = Account(vendor).provider

    async def connect() -> Any:
        return await asyncpg.connect(database)

    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        usual = {"fetch_wavespeed_secret": provider.webhook_secret, "runware": True}
        hooks = ProviderHooks(pool, secret_key=SECRET_KEY, **usual | options)
        async with served(application(hooks)) as url:
            gateway = Gateway(url, vendor, hooks, pool)
            listening = asyncio.create_task(listen_for_hints(connect, gateway.hear))
            assert await gateway.heard() == []
            yield gateway
            listening.cancel()
            await asyncio.wait([listening])
            await gateway.http.aclose()
    await provider.close()


def application(hooks: ProviderHooks) -> Litestar:
    return Litestar(
        [provider_webhooks.router],
        dependencies={"provider_hooks": Provide(lambda: hooks, sync_to_thread=False)},
        exception_handlers={
            GatewayError: errors.handle_gateway_error,
            HTTPException: errors.handle_http_exception,
            Exception: errors.handle_unexpected,
        },
        openapi_config=None,
        logging_config=None,
    )


@pytest.fixture
async def gateway(database: str, vendor: WaveSpeedStandIn) -> AsyncIterator[Gateway]:
    async with open_gateway(database, vendor) as opened:
        yield opened


def secret_questions(gateway: Gateway) -> int:
    return sum(one.kind == "secret" for one in gateway.vendor.requests)


async def test_the_vendor_tells_of_the_end_of_what_asked_for_it(gateway: Gateway) -> None:
    gateway.vendor.processing_seconds = 0
    provider = Account(gateway.vendor).client(webhook_url=wavespeed_webhook_url(gateway.url))
    refs = [await provider.send(call(seed=seed)) for seed in (1, 2)]
    await provider.close()
    await gateway.vendor.hooks_settled()
    assert [hook.status for hook in gateway.vendor.hooks] == [200, 200]
    assert sorted(await gateway.heard()) == sorted(("wavespeed", ref) for ref in refs)
    assert secret_questions(gateway) == 1


async def test_forged_old_altered_and_unsigned_ones_reach_nobody(gateway: Gateway) -> None:
    gateway.vendor.processing_seconds = 0
    url = wavespeed_webhook_url(gateway.url)
    provider = Account(gateway.vendor).provider
    ref = await provider.send(call())
    await provider.close()
    for kind in ("forged", "old", "altered", "unsigned"):
        hook = await gateway.vendor.send_hook(ref, kind, url=url)  # type: ignore[arg-type]
        assert hook.status == 400, kind
    assert await gateway.heard() == []
    for _ in range(3):
        assert (await gateway.vendor.send_hook(ref, url=url)).status == 200
    assert await gateway.heard() == [("wavespeed", ref)] * 3


HEADERS = [
    {},
    {"webhook_signature": "v3,"},
    {"webhook_signature": "v1,AAAA"},
    {"webhook_signature": "v3," + "0" * 64, "webhook_timestamp": "1e9"},
    {"webhook_signature": "v3," + "0" * 64, "webhook_timestamp": "9" * 5000},
    {"webhook_signature": "v3," + "0" * 64, "webhook_id": ""},
    {"webhook_signature": " ".join(["v3,x"] * 1000)},
]


async def test_headers_that_nobody_signed_cost_us_no_question(gateway: Gateway) -> None:
    for headers in HEADERS:
        usual = {"webhook_id": "msg_1", "webhook_timestamp": str(int(time.time()))} if headers else {}
        answer = await gateway.post(b'{"id":"a"}', **usual | headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "webhook-signature"), headers
    assert secret_questions(gateway) == 0


async def test_one_of_several_signatures_is_enough_and_five_minutes_count_both_ways(
    gateway: Gateway,
) -> None:
    body = b'{"id":"abc"}'
    stamp = int(time.time())
    good = signed_headers(body, gateway.vendor.webhook_secret, "msg_1", stamp)["webhook-signature"]
    answer = await gateway.post_signed(body, now=stamp, webhook_signature=f"v3,{'0' * 64} {good}")
    assert answer.status_code == 200
    assert [
        (await gateway.post_signed(body, now=stamp + offset)).status_code for offset in (-302, -290, 290, 310)
    ] == [400, 200, 200, 400]


NONSENSE = [
    b"",
    b"[]",
    b"{",
    b'{"id":5}',
    b'{"id":null}',
    b"\xff\xfe",
    b'{"id":' + b"[" * 100_000,
    b'{"id":{}}',
]


async def test_signed_nonsense_is_refused_in_few_words(gateway: Gateway) -> None:
    for body in NONSENSE:
        answer = await gateway.post_signed(body)
        assert answer.status_code == 400, body[:20]
        assert len(answer.content) < 1000


async def test_ids_that_are_none_are_not_handed_on(gateway: Gateway) -> None:
    for ref in ("../x", "a b", "a" * 9000, "", "é", "a\\u0000"):
        assert (await gateway.post_signed(f'{{"id":"{ref}"}}'.encode())).status_code == 200
    assert await gateway.heard() == []


async def test_a_body_beyond_the_limit_is_refused(gateway: Gateway) -> None:
    assert (await gateway.post_signed(b" " * 262_145)).status_code == 413
    assert (await gateway.post_runware(b" " * 262_145)).status_code == 413


async def test_a_changed_secret_is_asked_for_again_but_not_for_every_forger(
    database: str, vendor: WaveSpeedStandIn
) -> None:
    moved = 0.0

    def clock() -> float:
        return time.time() + moved

    async with open_gateway(database, vendor, clock=clock) as gateway:
        assert (await gateway.post_signed(b'{"id":"a"}')).status_code == 200
        vendor.accounts[vendor.key].webhook_secret = "whsec_another_secret_of_the_vendor"
        for _ in range(3):
            assert (await gateway.post_signed(b'{"id":"b"}', now=clock())).status_code == 400
        assert secret_questions(gateway) == 1
        moved = 601.0
        assert (await gateway.post_signed(b'{"id":"c"}', now=clock())).status_code == 200
        assert secret_questions(gateway) == 2


async def test_without_the_secret_the_vendor_is_asked_to_come_again(
    database: str, vendor: WaveSpeedStandIn
) -> None:
    asked, secret = 0, None

    async def fetch() -> str | None:
        nonlocal asked
        asked += 1
        return secret

    moved = 0.0
    async with open_gateway(
        database, vendor, fetch_wavespeed_secret=fetch, clock=lambda: time.time() + moved
    ) as gateway:
        for _ in range(3):
            answer = await gateway.post_signed(b'{"id":"a"}')
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        assert asked == 1
        secret, moved = vendor.webhook_secret.removeprefix("whsec_"), 11.0
        assert (await gateway.post_signed(b'{"id":"a"}')).status_code == 200
        assert asked == 2


async def test_those_who_wait_for_a_secret_that_does_not_come_wait_once() -> None:
    asked, now = 0, time.time()

    async def fetch() -> str | None:
        nonlocal asked, now
        asked, now = asked + 1, now + SECRET_SECONDS + 1  # it hangs
        await asyncio.sleep(0)
        return None

    hooks = ProviderHooks(None, secret_key=SECRET_KEY, fetch_wavespeed_secret=fetch, clock=lambda: now)  # type: ignore[arg-type]
    forged = (hooks.is_signed(b"{}", "msg_1", str(int(now)), f"v3,{'0' * 64}") for _ in range(5))
    answers = await asyncio.gather(*forged, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Overloaded] * 5
    assert asked == 1


async def test_runware_is_believed_by_the_token_in_its_url(gateway: Gateway) -> None:
    other = str(uuid.uuid4())
    item = f'{{"taskType":"audioInference","taskUUID":"{TASK}","status":"success","cost":0.1}}'
    good = f'{{"data":[{item},{item}]}}'.encode()
    bad = f'{{"errors":[{{"code":"inferenceError","taskUUID":"{other}"}}]}}'.encode()
    assert [(await gateway.post_runware(body)).status_code for body in (good, bad)] == [200, 200]
    assert await gateway.heard() == [("runware", TASK), ("runware", other)]


async def test_without_the_token_there_is_nothing(gateway: Gateway) -> None:
    for token in ("", "/", "/x", "/" + "0" * 64, "/%FF%FE", "/é", "/" + "a" * 5000):
        answer = await gateway.post_runware(f'{{"data":[{{"taskUUID":"{TASK}"}}]}}'.encode(), token)
        assert answer.status_code == 404, token
    assert await gateway.heard() == []


async def test_nonsense_with_the_token_is_refused(gateway: Gateway) -> None:
    for body in (b"", b"null", b'{"data":{}}', b'{"data":[1]}', b"[" * 100_000):
        assert (await gateway.post_runware(body)).status_code == 400, body[:20]


async def test_one_body_gives_a_bounded_number_of_hints(gateway: Gateway) -> None:
    items = ",".join(f'{{"taskUUID":"{uuid.uuid4()}"}}' for _ in range(500))
    assert (await gateway.post_runware(f'{{"data":[{items}]}}'.encode())).status_code == 200
    assert len(await gateway.heard()) == 20


async def test_without_providers_there_are_no_doors(database: str, vendor: WaveSpeedStandIn) -> None:
    async with open_gateway(database, vendor, fetch_wavespeed_secret=None, runware=False) as gateway:
        assert (await gateway.post_signed(b'{"id":"a"}')).status_code == 404
        assert (await gateway.post_runware(b'{"data":[]}')).status_code == 404


async def test_a_listener_outlives_its_connection_and_what_is_not_for_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "RECONNECT_SECONDS", 0.01)
    for noise in ("", "{", "[]", '{"backend":1,"ref":2}', '{"backend":"x","ref":"../"}'):
        await gateway.pool.execute("SELECT pg_notify($1, $2)", CHANNEL, noise)
    await gateway.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await gateway.post_runware(b'{"data":[]}')
    assert await gateway.heard() == []
    assert (await gateway.post_runware(f'{{"data":[{{"taskUUID":"{TASK}"}}]}}'.encode())).status_code == 200
    assert await gateway.heard() == [("runware", TASK)]


def test_urls_differ_by_installation_and_tell_no_secret() -> None:
    url = runware_webhook_url("https://music.example", SECRET_KEY)
    assert url.startswith("https://music.example/webhooks/providers/runware/")
    assert url != runware_webhook_url("https://music.example", SECRET_KEY + "!")
    assert SECRET_KEY not in url
    assert (
        wavespeed_webhook_url("https://music.example") == "https://music.example/webhooks/providers/wavespeed"
    )
