"""HTTP/2 where it is offered, for both adapters: one connection, the same certainty about each request."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from gateway.backends.base import BackendUnavailable, SubmitAmbiguous
from gateway.backends.remote.provider import Call, Provider, Waiting
from gateway.backends.runware import Runware
from gateway.backends.wavespeed import WaveSpeed
from gateway.routing import REMOTE
from tests.gateway.backends.http2_server import http2_server
from tests.gateway.backends.runware_account import SOON, a_call
from tests.gateway.backends.wavespeed_account import PRICES, call
from tests.gateway.outbound.certificates import certificates

REF = "3c45aa70-03e4-41dd-9239-21a7f0c8d971"
Both = tuple[ssl.SSLContext, ssl.SSLContext]


class Adapter(msgspec.Struct, kw_only=True):
    """One of ours, and what its vendor says of a task that is under way."""

    open: Callable[[str, ssl.SSLContext | None], Provider]
    waiting: bytes
    call: Callable[[], Call]
    tries: int
    """Requests until a submit is given up that is answered by none of them."""


def runware(url: str, tls: ssl.SSLContext | None) -> Provider:
    return Runware(api_key="a key", base_url=f"{url}/v1", timeouts=SOON, resend_seconds=0.0, tls=tls)


def wavespeed(url: str, tls: ssl.SSLContext | None) -> Provider:
    return WaveSpeed(api_key="a key", base_url=url, timeouts=SOON, price_nano_per_second=PRICES, tls=tls)


ADAPTERS = {
    "runware": Adapter(
        open=runware,
        waiting=f'{{"data":[{{"taskUUID":"{REF}","status":"processing"}}]}}'.encode(),
        call=a_call,
        tries=4,  # the same task again, then twice whether it is there
    ),
    "wavespeed": Adapter(
        open=wavespeed,
        waiting=f'{{"code":200,"data":{{"id":"{REF}","status":"processing"}}}}'.encode(),
        call=call,
        tries=1,
    ),
}


@pytest.fixture(params=REMOTE)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return ADAPTERS[request.param]


@pytest.fixture
def tls(tmp_path: Path) -> Both:
    return certificates(tmp_path, "127.0.0.1")


async def test_requests_share_one_connection(tls: Both, adapter: Adapter) -> None:
    async with http2_server(lambda _: adapter.waiting, tls[0]) as server:
        provider = adapter.open(server.url, tls[1])
        seen = await asyncio.gather(*(provider.look([REF]) for _ in range(20)))
        await provider.close()
    assert seen == [{REF: Waiting()}] * 20
    assert (server.connections, len(server.paths)) == (1, 20)


@pytest.mark.parametrize("how", ["reset", "goaway"])
async def test_a_stream_that_breaks_off_leaves_a_submit_ambiguous(
    tls: Both, adapter: Adapter, how: str
) -> None:
    async with http2_server(lambda _: how, tls[0]) as server:
        provider = adapter.open(server.url, tls[1])
        with pytest.raises(SubmitAmbiguous):
            await provider.send(adapter.call())
        assert len(server.paths) == adapter.tries
        with pytest.raises(BackendUnavailable):
            await provider.look([REF])
        await provider.close()


@pytest.mark.parametrize("authorities", ["others", "public"])
async def test_a_certificate_that_nobody_vouches_for_is_not_talked_to(
    tls: Both, adapter: Adapter, tmp_path: Path, authorities: str
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    trusting = certificates(others, "127.0.0.1")[1] if authorities == "others" else None
    async with http2_server(lambda _: adapter.waiting, tls[0]) as server:
        provider = adapter.open(server.url, trusting)
        with pytest.raises(BackendUnavailable):
            await provider.send(adapter.call())
        await provider.close()
    assert server.paths == []
