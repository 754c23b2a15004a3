"""HTTP/2 where it is offered: one connection for many requests, and the same certainty about each."""

import ssl
from pathlib import Path

import pytest

from gateway.backends.base import BackendUnavailable, SubmitAmbiguous
from gateway.backends.remote.provider import Waiting
from gateway.backends.wavespeed import WaveSpeed
from tests.gateway.backends.http2_server import http2_server
from tests.gateway.backends.wavespeed_account import PRICES, call
from tests.gateway.outbound.certificates import certificates

Both = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture
def tls(tmp_path: Path) -> Both:
    return certificates(tmp_path, "127.0.0.1")


def client(url: str, tls: ssl.SSLContext) -> WaveSpeed:
    return WaveSpeed(api_key="wsk", base_url=url, price_nano_per_second=PRICES, tls=tls)


def waiting(path: str) -> bytes:
    ref = path.split("/")[4]
    return f'{{"code":200,"data":{{"id":"{ref}","status":"processing"}}}}'.encode()


async def test_requests_share_one_connection(tls: Both) -> None:
    refs = [f"task{number}" for number in range(20)]
    async with http2_server(waiting, tls[0]) as server:
        provider = client(server.url, tls[1])
        assert await provider.look(refs) == dict.fromkeys(refs, Waiting())
        await provider.close()
    assert (server.connections, len(server.paths)) == (1, 20)


@pytest.mark.parametrize("how", ["reset", "goaway"])
async def test_a_stream_that_breaks_off_is_ambiguous_and_not_sent_again(tls: Both, how: str) -> None:
    async with http2_server(lambda _: how, tls[0]) as server:
        provider = client(server.url, tls[1])
        with pytest.raises(SubmitAmbiguous):
            await provider.send(call())
        assert len(server.paths) == 1
        with pytest.raises(BackendUnavailable):
            await provider.look(["a"])
        await provider.close()


async def test_a_certificate_that_nobody_vouches_for_is_not_talked_to(tls: Both, tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir()
    async with http2_server(waiting, tls[0]) as server:
        provider = client(server.url, certificates(others, "127.0.0.1")[1])
        with pytest.raises(BackendUnavailable):
            await provider.send(call())
        await provider.close()
    assert server.paths == []
